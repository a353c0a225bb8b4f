"""Questions with candidate answers, asked at the first token of the answer under an edit that is turned up and down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..data import Choice
from ..edits.base import Edit
from ..engine.likelihood import next_token_logits
from ..engine.reading.read import residuals
from ..errors import BadInput
from ..model import Model
from .bench import maybe_edited, rewrites_prompt
from .pairs import conversation

SMOOTHING = 1e-8


@dataclass(frozen=True)
class Dialled:
    """What a vector did at one alpha, [question] each: right by arg-max over the candidates, log-odds of the right one
    against the best wrong one (nats), KL from alpha = 0 (nats), entropy (bits), and the probability mass of the right
    and of all wrong candidates' first tokens."""

    alpha: float
    right: np.ndarray
    margin: np.ndarray
    kl: np.ndarray
    entropy: np.ndarray
    mass: np.ndarray
    wrong_mass: np.ndarray


class Dial:
    """Questions with candidate answers, asked at the first answer token under any edit.

    `layers`: blocks at which the unedited run is kept. Raises `BadInput` where two candidates of a question begin with
    the same token: they could not be told apart.
    """

    def __init__(self, model: Model, questions: Sequence[Choice], layers: Sequence[int] = ()):
        if not questions:
            raise BadInput("there is no question to ask: pass at least one")
        self._model = model
        self._first = [first_tokens(model, question) for question in questions]
        self._talks = [conversation(question.prompt, question.opening) for question in questions]
        self._cached = residuals(model, model.encode(self._talks), layers)
        self._base = self._probabilities(None)

    def at(self, edit: Edit | None, alpha: float = 1.0) -> Dialled:
        """The questions under `edit * alpha`; None asks the unedited model."""
        p = self._base if edit is None or alpha == 0 else self._probabilities(edit * alpha)
        chosen = [p[row, ids].numpy() for row, ids in enumerate(self._first)]
        kl = (self._base * ((self._base + SMOOTHING).log() - (p + SMOOTHING).log())).sum(-1)
        entropy = -(p * (p + SMOOTHING).log2()).sum(-1)
        logs = [np.log(values + 1e-30) for values in chosen]
        return Dialled(
            alpha,
            np.array([float(values.argmax() == 0) for values in chosen]),
            np.array([values[0] - values[1:].max() for values in logs]),
            kl.numpy(),
            entropy.numpy(),
            np.array([values[0] for values in chosen]),
            np.array([values[1:].sum() for values in chosen]),
        )

    def _probabilities(self, edit: Edit | None) -> Tensor:
        with maybe_edited(self._model, edit):
            inputs = self._model.encode(self._talks) if rewrites_prompt(edit) else self._cached
            return torch.softmax(next_token_logits(self._model, inputs).double(), -1).cpu()


def first_tokens(model: Model, question: Choice) -> list[int]:
    """The first token of each candidate, the right one first. Raises `BadInput` where two are the same."""
    texts = (*question.positive[:1], *question.negative)
    ids = [int(model.tokenizer(text, add_special_tokens=False)["input_ids"][0]) for text in texts]
    if len(set(ids)) < len(ids):
        raise BadInput(f"two candidates of {question.prompt!r} begin with the same token: choose others")
    return ids
