"""One bench for every edit that is meant to change behaviour: effect, fluency and damage against the same base.

Effect: forced-choice log-odds, and freely written completions read by the judge. Fluency: perplexity of completions
under the unedited model. Damage: perplexity and KL divergence on neutral passages that the assistant is made to say.
All figures are paired with the unedited model, item by item.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..data import Choice, Question
from ..edits.base import Edit
from ..engine.likelihood import kl_divergence, reply_logits
from ..engine.reading.read import residuals
from ..errors import BadInput
from ..model import Model
from .pairs import conversation

NEUTRAL_REQUEST = "Please write a short factual note."


@contextmanager
def maybe_edited(model: Model, edit: Edit | None) -> Iterator[None]:
    """`model.edited(edit)`, or nothing for None."""
    if edit is None:
        yield
        return
    with model.edited(edit):
        yield


def rewrites_prompt(edit: Edit | None) -> bool:
    """Whether an edit changes the tokens, so that nothing of an unedited run can be used again."""
    return edit is not None and edit.kind != "site"


class Neutral:
    """Neutral passages as the assistant's reply: how much an edit changes text that it has no business with."""

    def __init__(self, model: Model, passages: Sequence[str], layers: Sequence[int] = ()):
        if not passages:
            raise BadInput("damage needs at least one neutral passage")
        self.model = model
        self._talks = [conversation(NEUTRAL_REQUEST, passage) for passage in passages]
        self._cached = residuals(model, model.encode(self._talks), layers)
        logits, self._examples, self._targets = reply_logits(model, self._cached)
        self._base = torch.log_softmax(logits.float(), -1)
        self.base_nll = self._nll(self._base)

    def measure(self, edit: Edit | None) -> tuple[np.ndarray, np.ndarray]:
        """Mean negative log-probability per passage, and KL from the unedited model per passage, nats per token."""
        with maybe_edited(self.model, edit):
            inputs = self.model.encode(self._talks) if rewrites_prompt(edit) else self._cached
            logits, _, _ = reply_logits(self.model, inputs)
        logprobs = torch.log_softmax(logits.float(), -1)
        return self._nll(logprobs), self._by_passage(kl_divergence(self._base, logprobs))

    def perplexity_ratio(self, edit: Edit) -> float:
        """Perplexity of the passages under the edit, relative to the unedited model."""
        nll, _ = self.measure(edit)
        return float(np.exp((nll - self.base_nll).mean()))

    def _nll(self, logprobs: Tensor) -> np.ndarray:
        return self._by_passage(-logprobs.gather(-1, self._targets.to(logprobs.device)[:, None])[:, 0])

    def _by_passage(self, values: Tensor) -> np.ndarray:
        examples = self._examples.to(values.device)
        return np.array([float(values[examples == row].mean()) for row in range(len(self._talks))])


@dataclass(frozen=True)
class Written:
    """Freely written continuations of the choices' openings: whole replies, and their token numbers and seconds."""

    prompts: tuple[str, ...]
    replies: tuple[str, ...]
    openings: tuple[str, ...]
    tokens: int
    seconds: float


def write_replies(model: Model, choices: Sequence[Choice | Question], edit: Edit | None, *, new_tokens: int) -> Written:
    """Let the model finish a reply that begins with each choice's or question's opening, greedily."""
    import time

    talks = [conversation(c.prompt, c.opening) if c.opening else c.prompt for c in choices]
    started = time.perf_counter()
    with maybe_edited(model, edit):
        done = model.completions(talks, max_new_tokens=new_tokens)
    seconds = time.perf_counter() - started
    replies = tuple((c.opening + completion.text).strip() for c, completion in zip(choices, done, strict=True))
    count = sum(len(completion.ids) for completion in done)
    return Written(tuple(c.prompt for c in choices), replies, tuple(c.opening for c in choices), count, seconds)


def fluency(model: Model, written: Written) -> np.ndarray:
    """Mean negative log-probability per token of each reply under the unedited model, nats."""
    from ..engine.likelihood import reply_logprobs

    talks = [conversation(prompt, reply or ".") for prompt, reply in zip(written.prompts, written.replies, strict=True)]
    return np.array([-float(part.mean()) for part in reply_logprobs(model, model.encode(talks))])


def distinct_bigrams(replies: Sequence[str]) -> float:
    """Share of word pairs within replies that are not repetitions: 1 for text that never repeats itself."""
    shares = []
    for reply in replies:
        words = reply.split()
        pairs = list(itertools.pairwise(words))
        if pairs:
            shares.append(len(set(pairs)) / len(pairs))
    return float(np.mean(shares)) if shares else 0.0
