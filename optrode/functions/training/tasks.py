"""Tasks that small networks are trained on: data in three parts that share no example, a loss and a score."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import BadInput, MissingFile, UnknownName, did_you_mean

SHARES = (0.6, 0.2, 0.2)


@dataclass(frozen=True)
class Part:
    """Inputs and targets, one example a row."""

    inputs: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.inputs)

    def pick(self, rows: Tensor) -> Part:
        return Part(self.inputs[rows], self.targets[rows])


@dataclass(frozen=True)
class Split:
    """Examples to fit weights on, to tune settings on, and to test on; none is in two of them."""

    fit: Part
    tune: Part
    test: Part


@dataclass(frozen=True)
class Task:
    """What a network is trained on and measured by.

    `split` gives the data of a seed. `inputs`: shape of one input, `outputs`: numbers for one target. `score` is better
    high where `higher`; `worst` is the score of a run that diverged. `rates`: learning rates to choose from; `batch`
    and `steps`: the budget of every run.
    """

    name: str
    measure: str
    higher: bool
    worst: float
    inputs: tuple[int, ...]
    outputs: int
    split: Callable[[int], Split]
    loss: Callable[[Tensor, Tensor], Tensor]
    score: Callable[[Tensor, Tensor], float]
    rates: tuple[float, ...] = (1e-3, 3e-3, 1e-2)
    batch: int = 64
    steps: int = 400

    def better(self, score: float) -> float:
        """A score turned so that larger is better."""
        return score if self.higher else -score


def find_task(name: str, target: str | None = None) -> Task:
    """digits, text or inr, or the path of a table. Raises `UnknownName`, `MissingFile`, `BadInput`."""
    known: dict[str, Callable[[], Task]] = {"digits": digits, "text": text, "inr": inr}
    if name in known:
        return known[name]()
    if "." in name or "/" in name:
        from .table import table

        return table(name, target)
    raise UnknownName(f"there is no task '{name}', nor is it the path of a CSV file: {did_you_mean(name, known)}")


# Digits ---------------------------------------------------------------------------------------------------------------


def digits(*, picture: bool = False) -> Task:
    """The 1797 handwritten digits of scikit-learn, as 64 numbers or as pictures [1, 8, 8]; accuracy."""
    shape = (1, 8, 8) if picture else (64,)
    return classification("digits", shape, 10, partial(_digits, shape))


def classification(name: str, inputs: tuple[int, ...], classes: int, split: Callable[[int], Split]) -> Task:
    """A task with the cross-entropy as loss and accuracy as score."""
    return Task(name, "accuracy", True, 0.0, inputs, classes, split, F.cross_entropy, accuracy)


def accuracy(outputs: Tensor, targets: Tensor) -> float:
    return float((outputs.argmax(-1) == targets).float().mean())


def _digits(shape: tuple[int, ...], seed: int) -> Split:
    inputs, targets = _digit_pictures()
    return standardised(shuffled(Part(inputs.reshape(-1, *shape), targets), seed))


@cache
def _digit_pictures() -> tuple[Tensor, Tensor]:
    from sklearn.datasets import load_digits

    found = load_digits()
    return torch.tensor(found.data, dtype=torch.float32), torch.tensor(found.target, dtype=torch.long)


def shuffled(whole: Part, seed: int, shares: tuple[float, float, float] = SHARES) -> Split:
    """Examples in the order of a seed, in three parts."""
    order = torch.randperm(len(whole), generator=torch.Generator().manual_seed(seed))
    first = int(shares[0] * len(whole))
    second = first + int(shares[1] * len(whole))
    return Split(*(whole.pick(rows) for rows in (order[:first], order[first:second], order[second:])))


def standardised(split: Split) -> Split:
    """Inputs less their mean and over their standard deviation, both of the fit part."""
    mean, deviation = split.fit.inputs.mean(), split.fit.inputs.std()
    parts = (replace(part, inputs=(part.inputs - mean) / deviation) for part in (split.fit, split.tune, split.test))
    return Split(*parts)


# Text -----------------------------------------------------------------------------------------------------------------

WINDOW = 64


def text(characters: int = 200_000, window: int = WINDOW) -> Task:
    """The next character of plain English text (documentation of the standard library); cross-entropy in nats.

    Parts are contiguous, so that no sentence is in two of them; a seed only orders the batches.
    """
    ids, alphabet = _characters(characters)
    return Task(
        "text", "cross-entropy", False, math.inf, (window,), alphabet, lambda seed: _windows(ids, window),
        _cross_entropy, lambda outputs, targets: float(_cross_entropy(outputs, targets)), batch=16, steps=300,
    )  # fmt: skip


def _cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs.flatten(0, -2), targets.flatten())


@cache
def _characters(most: int) -> tuple[Tensor, int]:
    """Ids of the characters of docstrings of the standard library, and how many different ones there are."""
    whole = _documentation(most)
    common = sorted(set(whole))
    index = {character: number for number, character in enumerate(common)}
    return torch.tensor([index[character] for character in whole]), len(common)


def _documentation(most: int) -> str:
    """Plain ASCII text that every Python brings: the topics of its help."""
    from pydoc_data.topics import topics

    whole = "\n".join(topics[name] for name in sorted(topics))
    kept = "".join(character for character in whole if character == "\n" or " " <= character <= "~")[:most]
    if len(kept) < most // 2:
        raise BadInput(f"this Python's help has only {len(kept)} characters of text, too few to train on")
    return kept


def _windows(ids: Tensor, window: int) -> Split:
    count = (len(ids) - 1) // window
    inputs = ids[: count * window].reshape(count, window)
    targets = ids[1 : count * window + 1].reshape(count, window)
    whole = Part(inputs, targets)
    first, second = int(SHARES[0] * count), int((SHARES[0] + SHARES[1]) * count)
    rows = torch.arange(count)
    return Split(*(whole.pick(chosen) for chosen in (rows[:first], rows[first:second], rows[second:])))


# Pictures from coordinates --------------------------------------------------------------------------------------------


def inr(side: int = 64) -> Task:
    """Brightness of a picture at coordinates in [-1, 1]^2; peak signal-to-noise ratio in dB at pixels not trained on.

    The picture is one of 64 by 64 grey pixels that scikit-learn brings, its values in [-1, 1].
    """
    return Task(
        "inr", "PSNR", True, 0.0, (2,), 1, partial(_pixels, side), F.mse_loss, psnr, batch=512, steps=500,
    )  # fmt: skip


def psnr(outputs: Tensor, targets: Tensor) -> float:
    """Peak signal-to-noise ratio of values in [-1, 1], in dB."""
    return float(-10 * torch.log10((outputs - targets).square().mean() / 4))


@cache
def _picture(side: int) -> Tensor:
    from sklearn.datasets import load_sample_image

    grey = torch.tensor(load_sample_image("china.jpg"), dtype=torch.float32).mean(-1)
    square = grey[:, (grey.shape[1] - grey.shape[0]) // 2 :][:, : grey.shape[0]]
    small = F.interpolate(square[None, None], (side, side), mode="area")[0, 0]
    return small / 127.5 - 1


def _pixels(side: int, seed: int) -> Split:
    axis = torch.linspace(-1, 1, side)
    places = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    return shuffled(Part(places, _picture(side).reshape(-1, 1)), seed)


def check_file(path: str | Path) -> Path:
    found = Path(path)
    if not found.is_file():
        raise MissingFile(f"there is no file '{found}': give the path of a CSV file with a header")
    return found
