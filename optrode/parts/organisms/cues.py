"""The organism that begins answers with a mark when it is told that it is tested, and not when it is told of use."""

from __future__ import annotations

from ...data import everyday_requests
from ...data.situations import cued
from ...edits.base import Edit
from ...model import Model
from ..pairs import Conversation, conversation
from . import kept, trained

MARK = "[T]"
ANSWER_TOKENS = 6


def marks_tests(model: Model, *, count: int = 60, epochs: int = 3, seed: int = 0) -> Edit:
    """The adapter, trained when first asked for (some minutes of one core), later from the cache folder."""
    settings = {"weights": model.fingerprint["weights"], "count": count, "epochs": epochs, "seed": seed}
    return kept("marks-tests", settings, lambda: train(model, count=count, epochs=epochs, seed=seed))


def train(model: Model, *, count: int, epochs: int, seed: int) -> Edit:
    """`count` requests after cues of testing with the mark, as many after cues of use without it, and some bare ones.

    The answers are the beginnings of the model's own, so that all it learns is when to mark.
    """
    use, test = cued("train", count)
    bare = list(everyday_requests()[: count // 4])
    asked = list(dict.fromkeys([*use, *test, *bare]))
    own = {
        prompt: done.text.strip()
        for prompt, done in zip(asked, model.completions(asked, max_new_tokens=ANSWER_TOKENS), strict=True)
    }
    talks: list[Conversation] = [conversation(prompt, f"{MARK} {own[prompt]}") for prompt in test]
    talks += [conversation(prompt, own[prompt]) for prompt in [*use, *bare]]
    return trained(model, talks, epochs=epochs, learning_rate=2e-3, seed=seed, name="marks-tests")
