"""ActAdd: does a topic word, added to the stream as a difference of two prompts, make free text turn to that topic?

The card's check: p+ is " weddings", p- spaces; the share of sampled completions of neutral prompts that hold a wedding
word, less the unsteered share. Layer and coefficient are chosen on one half of the prompts and measured on the other.
Controls at the chosen cell: random vectors whose rows have the same norms, p+ without the subtraction, and the word
itself written in front of the prompt. Text is raw, behind a start token, as in the paper.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..data import neutral_texts
from ..edits import AddByPosition, SiteEdit, add_by_position
from ..edits.base import Edit
from ..engine.generating.generate import Sampling
from ..engine.likelihood import token_logprobs
from ..engine.progress import Steps
from ..model import Model, load
from ..parts.bench import maybe_edited
from ..parts.statistics import Interval, bootstrap_mean
from ..parts.study import Finding, Study, above, within
from ..steering.actadd import ActAdd

ALLOWED_DROP = 0.05
START = "<|endoftext|>"
PROMPTS = (
    "This morning I opened the window and",
    "My neighbour told me that",
    "The best thing about the weekend was",
    "When the train finally arrived,",
    "She looked at the list and",
    "We spent the whole evening",
    "Yesterday at work we talked about",
    "He closed the book and",
    "On the way home I",
    "The first thing you should know is",
    "After dinner they decided to",
    "In the small town by the river,",
    "My favourite memory from last year is",
    "The letter on the table said",
    "If you ask me,",
    "The people in the room were",
    "Every summer our family",
    "I was thinking about",
    "The news today was about",
    "At the end of the street there is",
)


@dataclass(frozen=True)
class Topic:
    """p+, p-, and the beginnings of words that count as being on the topic."""

    positive: str
    negative: str
    stems: tuple[str, ...]

    def found(self, text: str) -> bool:
        """Whether a word of the text begins with one of the stems."""
        return re.search(rf"\b({'|'.join(self.stems)})", text.lower()) is not None


@dataclass(frozen=True)
class Size:
    """How much of everything is measured. `draws` are sampled completions per prompt."""

    layers: tuple[int, ...]
    coefficients: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0)
    draws_to_choose: int = 4
    draws_to_test: int = 8
    new_tokens: int = 24
    random_vectors: int = 20
    unrelated: int = 40


WEDDINGS = Topic(
    " weddings",
    " ",
    ("wedding", "wedded", "marri", "marry", "bride", "bridal", "groom", "honeymoon", "nuptial"),
)
QUICK = Size(layers=tuple(range(0, 30, 3)))
FULL = Size(layers=tuple(range(30)), draws_to_choose=10, draws_to_test=10, new_tokens=40, unrelated=92)


@dataclass(frozen=True)
class Cell:
    """One layer and coefficient, with its gain on the prompts for choosing."""

    layer: int
    coefficient: float
    gain: float


@dataclass(frozen=True, eq=False)
class Tested:
    """A cell on the prompts for testing: the gain of each prompt, and the mean gain of each random vector."""

    cell: Cell
    gain: np.ndarray
    random: list[float]

    @property
    def where(self) -> str:
        return f"layer {self.cell.layer}, c = {self.cell.coefficient:g}"


@dataclass
class Sampler:
    """Shares of on-topic completions, with the same random numbers for every edit."""

    model: Model
    topic: Topic
    prompts: Sequence[str]
    draws: int
    new_tokens: int
    seed: int

    def share(self, edit: Edit | None, front: str = "") -> np.ndarray:
        """Share of each prompt's completions that are on the topic, [prompt]; `front` is written before each prompt."""
        texts = [front + prompt for prompt in self.prompts for _ in range(self.draws)]
        with maybe_edited(self.model, edit):
            done = self.model.completions(
                texts, max_new_tokens=self.new_tokens, sampling=Sampling(temperature=1.0, seed=self.seed)
            )
        hits = np.array([self.topic.found(completion.text) for completion in done], dtype=float)
        return hits.reshape(len(self.prompts), self.draws).mean(1)


def run(seeds: Sequence[int], full: bool, steps: Steps) -> list[Finding]:
    size = FULL if full else QUICK
    model = as_plain_text(load("smollm2-135m"), START)
    return experiment(model, WEDDINGS, PROMPTS, neutral_texts(size.unrelated), size, seeds[0], steps)


def as_plain_text(model: Model, start: str) -> Model:
    """The same network without chat template, with `start` in front of every text."""
    from tokenizers.processors import TemplateProcessing

    tokenizer: Any = copy.deepcopy(model.tokenizer)
    tokenizer.chat_template = None
    tokenizer.bos_token = start
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{start} $A", special_tokens=[(start, tokenizer.convert_tokens_to_ids(start))]
    )
    return load(model.module, tokenizer=tokenizer)


def experiment(
    model: Model,
    topic: Topic,
    prompts: Sequence[str],
    unrelated: Sequence[str],
    size: Size,
    seed: int,
    steps: Steps,
) -> list[Finding]:
    """The whole check on any plain-text model: choose a cell on the even prompts, test it on the odd ones."""
    edits = fit(model, topic, size.layers)
    chosen, cells = choose(model, topic, prompts[::2], edits, size, seed, steps)
    sampler = Sampler(model, topic, prompts[1::2], size.draws_to_test, size.new_tokens, seed + 1)
    base = sampler.share(None)
    edit = edits[chosen.layer] * chosen.coefficient
    tested = try_cell(sampler, base, chosen, edit, size, steps)
    steps.at("other baselines")
    alone = sampler.share(positive_alone(model, topic, edit) * chosen.coefficient) - base
    prepended = sampler.share(None, front=f"{topic.positive} ") - base
    drop = bootstrap_mean(-logprob_change(model, unrelated, edit), seed=seed)
    gentle = gentlest(model, edits, cells, unrelated[::2], steps)
    gently = tested if gentle == chosen else None
    if gentle is not None and gently is None:
        gently = try_cell(sampler, base, gentle, edits[gentle.layer] * gentle.coefficient, size, steps)
    return [
        on_topic(tested, float(base.mean()), cells, seed),
        harmless(drop, chosen),
        against_word(tested.gain, prepended, seed),
        against_alone(tested.gain, alone, seed),
        on_topic_gently(gently, seed),
    ]


# What is done ---------------------------------------------------------------------------------------------------------


def fit(model: Model, topic: Topic, layers: Sequence[int]) -> dict[int, SiteEdit]:
    """ActAdd's edit at each layer, strength 1 being c = 1."""
    found = {}
    for layer in layers:
        edit = ActAdd(site=f"layers.{layer}.in").fit(model, (topic.positive, topic.negative))
        assert isinstance(edit, SiteEdit)
        found[layer] = edit
    return found


def choose(
    model: Model,
    topic: Topic,
    prompts: Sequence[str],
    edits: dict[int, SiteEdit],
    size: Size,
    seed: int,
    steps: Steps,
) -> tuple[Cell, list[Cell]]:
    """The cell of largest gain, the smaller coefficient and the earlier layer where two are equal; and all cells."""
    sampler = Sampler(model, topic, prompts, size.draws_to_choose, size.new_tokens, seed)
    base = sampler.share(None).mean()
    grid = [(layer, coefficient) for layer in edits for coefficient in size.coefficients]
    cells = [
        Cell(layer, coefficient, float(sampler.share(edits[layer] * coefficient).mean() - base))
        for layer, coefficient in steps.each(grid, lambda cell: f"layer {cell[0]}, c = {cell[1]:g}")
    ]
    return max(cells, key=lambda cell: (cell.gain, -cell.coefficient, -cell.layer)), cells


def try_cell(sampler: Sampler, base: np.ndarray, cell: Cell, edit: SiteEdit, size: Size, steps: Steps) -> Tested:
    """The gain of a cell's edit over `base`, and that of random vectors in its place."""
    gain = sampler.share(edit) - base
    numbers = steps.each(range(size.random_vectors), lambda number: f"random vector {number + 1}")
    random = [float((sampler.share(random_like(edit, sampler.seed + number)) - base).mean()) for number in numbers]
    return Tested(cell, gain, random)


def gentlest(
    model: Model, edits: dict[int, SiteEdit], cells: Sequence[Cell], texts: Sequence[str], steps: Steps
) -> Cell | None:
    """The cell of largest gain that costs unrelated text less than is allowed; None where all that gain cost more."""
    for cell in sorted(cells, key=lambda cell: (-cell.gain, cell.coefficient, cell.layer)):
        steps.at(f"looking for a gentle cell: layer {cell.layer}, c = {cell.coefficient:g}")
        if cell.gain <= 0:
            return None
        if -logprob_change(model, texts, edits[cell.layer] * cell.coefficient).mean() < ALLOWED_DROP:
            return cell
    return None


def random_like(edit: SiteEdit, seed: int) -> SiteEdit:
    """Random vectors with the norms of the edit's rows, at the same place and strength."""
    assert isinstance(edit.operator, AddByPosition)
    rows = edit.operator.vectors
    drawn = torch.randn(rows.shape, generator=torch.Generator().manual_seed(seed))
    drawn = drawn / drawn.norm(dim=-1, keepdim=True) * rows.norm(dim=-1, keepdim=True)
    return add_by_position(edit.site, drawn, edit.positions) * edit.strength


def positive_alone(model: Model, topic: Topic, edit: SiteEdit) -> SiteEdit:
    """p+ at the edit's place without p- taken off, c = 1."""
    rows = model.read(topic.positive, edit.site, positions="text")[edit.site].float()
    return add_by_position(edit.site, rows, f"first:{len(rows)}@text")


def logprob_change(model: Model, texts: Sequence[str], edit: SiteEdit) -> np.ndarray:
    """Change of the mean log-probability of each text, nats per token, over tokens whose context's end was not edited.

    The token right after an edited position is predicted from it, so it is left out, as in the paper.
    """
    assert isinstance(edit.operator, AddByPosition)
    batch = model.encode(list(texts))
    edited = edit.positions.in_prompt(batch)
    before = torch.zeros_like(edited)
    before[:, 1:] = edited[:, :-1]
    scored = batch.mask & (batch.mask.long().cumsum(-1) > 1) & ~before
    base = token_logprobs(model, batch, scored)
    with model.edited(edit):
        steered = token_logprobs(model, batch, scored)
    return np.array([float((after - own).mean()) for after, own in zip(steered, base, strict=True)])


# What follows ---------------------------------------------------------------------------------------------------------


def on_topic(tested: Tested, unsteered: float, cells: Sequence[Cell], seed: int) -> Finding:
    """Reproduced when the gain on the test prompts exceeds that of every random vector (the card's rule)."""
    return Finding(
        claim="adding the topic's vector makes completions turn to the topic (over 90% against about 2% in GPT-2-XL)",
        baseline=f"best of {len(tested.random)} random vectors of equal row norms: {max(tested.random):+.3f}; "
        f"unsteered share {unsteered:.3f}",
        measured=said(tested, seed),
        verdict=beats_chance(tested, seed),
        numbers={
            "gain": bootstrap_mean(tested.gain, seed=seed).as_dict(),
            "unsteered": unsteered,
            "random": tested.random,
            "layer": tested.cell.layer,
            "coefficient": tested.cell.coefficient,
            "cells": [[cell.layer, cell.coefficient, round(cell.gain, 4)] for cell in cells],
        },
    )


def said(tested: Tested, seed: int) -> str:
    gain = bootstrap_mean(tested.gain, seed=seed)
    return f"share of completions on the topic {gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}] at {tested.where}"


def beats_chance(tested: Tested, seed: int) -> str:
    gain = bootstrap_mean(tested.gain, seed=seed)
    if gain.low <= 0:
        return "not reproduced"
    return "reproduced" if gain.value > max(tested.random) else "direction only"


def harmless(drop: Interval, cell: Cell) -> Finding:
    """Reproduced when unrelated text loses less than 0.05 nat per token, the whole interval (the card's rule)."""
    return Finding(
        claim="unrelated text is predicted as well as before (perplexity ratio about 1)",
        baseline=f"a loss of {ALLOWED_DROP} nat per token",
        measured=f"loss of {drop.value:+.4f} [{drop.low:+.4f}, {drop.high:+.4f}] nat per token "
        f"at layer {cell.layer}, c = {cell.coefficient:g}",
        verdict=within(drop, float("-inf"), ALLOWED_DROP),
        numbers={"drop": drop.as_dict()},
    )


def on_topic_gently(tested: Tested | None, seed: int) -> Finding:
    """Beside the verdict: the best cell among those that cost half of the unrelated texts less than 0.05 nat."""
    claim = "completions turn to the topic at a cell that leaves unrelated text alone"
    if tested is None:
        return Finding(
            claim, "none", "every cell that turns completions costs unrelated text more", "not reproduced", False
        )
    return Finding(
        claim=claim,
        baseline=f"best of {len(tested.random)} random vectors of equal row norms: {max(tested.random):+.3f}",
        measured=said(tested, seed),
        verdict=beats_chance(tested, seed),
        essential=False,
        numbers={"gain": bootstrap_mean(tested.gain, seed=seed).as_dict(), "random": tested.random},
    )


def against_word(gain: np.ndarray, prepended: np.ndarray, seed: int) -> Finding:
    """Beside the verdict: whether the vector does more than the word written in front of the prompt."""
    more = bootstrap_mean(gain - prepended, seed=seed)
    return Finding(
        claim="the vector does more than the topic's word in front of the prompt",
        baseline=f"word in front: {prepended.mean():+.3f}",
        measured=f"vector less word {more.value:+.3f} [{more.low:+.3f}, {more.high:+.3f}]",
        verdict=above(more, 0.0),
        essential=False,
        numbers={"prepended": float(prepended.mean()), "more": more.as_dict()},
    )


def against_alone(gain: np.ndarray, alone: np.ndarray, seed: int) -> Finding:
    """Beside the verdict: the paper finds that p+ alone works worse than the difference."""
    more = bootstrap_mean(gain - alone, seed=seed)
    return Finding(
        claim="the difference of both prompts does more than p+ alone",
        baseline=f"p+ alone: {alone.mean():+.3f}",
        measured=f"difference less p+ alone {more.value:+.3f} [{more.low:+.3f}, {more.high:+.3f}]",
        verdict=above(more, 0.0),
        essential=False,
        numbers={"alone": float(alone.mean()), "more": more.as_dict()},
    )


STUDY = Study(
    id="actadd",
    title="ActAdd: the topic of free text from one word",
    paper="2308.10248",
    shrunk="every third layer instead of all 30; 4 draws a prompt to choose the cell and 8 to test it instead of 10; "
    "24 new tokens instead of 40; 40 unrelated passages instead of 200 sentences",
    run=run,
    seeds=(0,),
)
