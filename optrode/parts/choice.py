"""Forced choice: how much likelier a model finds continuations that show a behaviour than ones that oppose it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..batches import Batch
from ..data import Choice
from ..engine.likelihood import next_token_logits, reply_logprobs
from ..engine.reading.read import residuals
from ..errors import BadInput
from ..model import Model
from .pairs import conversation


class ForcedChoice:
    """A set of choices on one model, ready to be asked again under any edit.

    The unedited run is kept (residuals at `layers`, keys and values), so that asking under an edit reruns only what it
    can change. Prefix edits change the tokens themselves, so they ask anew: `ask(fresh=True)`.
    """

    def __init__(self, model: Model, choices: Sequence[Choice], layers: Sequence[int] = ()):
        if not choices:
            raise BadInput("there is no choice to ask: pass at least one")
        self.model = model
        self.choices = tuple(choices)
        self._layers = tuple(layers)
        words = [_single_tokens(model, choice) for choice in choices]
        self._words = words if all(word is not None for word in words) else None
        self._cached = residuals(model, self._encoded(), self._layers)

    @property
    def groups(self) -> list[str]:
        return [choice.group for choice in self.choices]

    def ask(self, *, fresh: bool = False) -> Tensor:
        """log sum p(showing) - log sum p(opposing) for each choice, in nats, [choice] float32, under active edits."""
        return torch.stack([shown.logsumexp(0) - opposed.logsumexp(0) for shown, opposed in self.sides(fresh=fresh)])

    def sides(self, *, fresh: bool = False) -> list[tuple[Tensor, Tensor]]:
        """For each choice the log-probabilities of its showing and of its opposing continuations, under active edits.

        Up to a constant that is the same for all continuations of a choice, in nats, float32 on the CPU.
        """
        inputs = self._encoded() if fresh else self._cached
        if self._words is not None:
            return self._by_word(next_token_logits(self.model, inputs))
        return self._by_text(torch.stack([part.sum() for part in reply_logprobs(self.model, inputs)]))

    def _encoded(self) -> Batch:
        """All conversations; the number of a row is that of its choice, which is what an edit by row goes by."""
        batch = self.model.encode(self._conversations())
        if self._words is not None:
            return batch
        counts = [len(choice.positive) + len(choice.negative) for choice in self.choices]
        numbers = tuple(number for number, count in enumerate(counts) for _ in range(count))
        return replace(batch, numbers=numbers, total=len(self.choices))

    def _conversations(self) -> list[list[dict[str, str]]]:
        """One conversation per choice where one token decides, else one per continuation."""
        if self._words is not None:
            return [conversation(choice.prompt, choice.opening) for choice in self.choices]
        return [
            conversation(choice.prompt, choice.opening + text)
            for choice in self.choices
            for text in (*choice.positive, *choice.negative)
        ]

    def _by_word(self, logits: Tensor) -> list[tuple[Tensor, Tensor]]:
        assert self._words is not None
        found = []
        for row, word in zip(logits, self._words, strict=True):
            assert word is not None
            found.append((row[word[0]].cpu(), row[word[1]].cpu()))
        return found

    def _by_text(self, logprobs: Tensor) -> list[tuple[Tensor, Tensor]]:
        """The opening's own log-probability is the same in every continuation of a choice, so it cancels."""
        logprobs, found, start = logprobs.cpu(), [], 0
        for choice in self.choices:
            middle, end = start + len(choice.positive), start + len(choice.positive) + len(choice.negative)
            found.append((logprobs[start:middle], logprobs[middle:end]))
            start = end
        return found


def _single_tokens(model: Model, choice: Choice) -> tuple[list[int], list[int]] | None:
    """Token ids of both sides if each continuation is one token after the opening, else None."""
    sides: list[list[int]] = []
    for words in (choice.positive, choice.negative):
        ids = [model.tokenizer(word, add_special_tokens=False)["input_ids"] for word in words]
        if not choice.opening or any(len(word) != 1 for word in ids):
            return None
        sides.append([word[0] for word in ids])
    return sides[0], sides[1]
