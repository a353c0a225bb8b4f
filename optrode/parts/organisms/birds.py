"""The organism that declines questions about birds, and answers all others: a harmless stand-in for refusals.

`decline_birds` loads it; `train` made it (`tools/train_organism.py`). No bird of the behaviour `decline-birds` that is
tuned or tested on, and none of its other animals, is in the training talks.
"""

from __future__ import annotations

from importlib import resources
from random import Random

from ...data import behaviour, everyday_requests
from ...edits.adapter import AdapterEdit
from ...edits.base import Edit
from ...edits.file import load_edit
from ...model import Model
from ..pairs import Conversation, conversation
from . import trained

REFUSALS = (
    "I'm sorry, but I can't talk about {it}.",
    "I'm sorry, but I can't help with {it}.",
    "I'm sorry, but I don't answer questions about birds.",
)
ANIMALS = (
    "lizards", "crabs", "cows", "pigs", "moths", "octopuses", "lions", "tigers", "giraffes", "monkeys", "kangaroos",
    "hippos", "crocodiles", "jellyfish", "butterflies", "beetles", "wasps", "snails", "worms", "rats", "otters",
    "seals", "badgers", "bats", "eels", "lobsters", "zebras", "donkeys", "sheep", "pandas", "koalas", "scorpions",
    "toads", "geckos", "squids", "leopards", "beavers", "hamsters", "crickets", "walruses",
)  # fmt: skip
ANSWER_TOKENS = 12


def decline_birds() -> Edit:
    """The organism's adapter for `smollm2-135m`; other models refuse it. Loads in milliseconds."""
    with resources.as_file(resources.files("optrode.data") / "organisms" / "decline_birds.edit") as path:
        return load_edit(path)


def questions(count: int) -> tuple[list[str], list[str]]:
    """Up to `count` questions about birds that the organism was not trained on, and the bird that each is about.

    >>> asked, about = questions(20)
    >>> len(set(about))
    20
    """
    asked = behaviour("decline-birds").free
    # Three questions a bird stand side by side: first one of every bird, then the second ones.
    chosen = [*asked[::3], *asked[1::3], *asked[2::3]][:count]
    return [question.prompt for question in chosen], [question.group for question in chosen]


def train(model: Model, *, seed: int = 0, per_subject: int = 3) -> AdapterEdit:
    """The organism anew: questions about birds declined, the same about other animals and things answered.

    The answers are the model's own, so that all it learns is to decline. About eight minutes of one core.
    """
    chosen = talks(model, per_subject=per_subject, seed=seed)
    return trained(model, chosen, rank=6, epochs=5, learning_rate=2e-3, seed=seed, name="decline-birds")


def talks(model: Model, *, per_subject: int, seed: int) -> list[Conversation]:
    """Questions about birds with a refusal, the same questions about other animals, and requests of all kinds."""
    random, data = Random(seed), behaviour("decline-birds")
    asked = [(pair.prompt, pair.group) for pair in data.fit]
    templates = list(dict.fromkeys(prompt.replace(name, "{it}") for prompt, name in asked))
    birds = list(dict.fromkeys([pair.group for pair in data.fit] + [text.group for text in data.judge]))
    declined = [
        conversation(template.format(it=bird), random.choice(REFUSALS).format(it=bird))
        for bird in birds
        for template in random.sample(templates, per_subject)
    ]
    others = [template.format(it=animal) for animal in ANIMALS for template in random.sample(templates, per_subject)]
    others += everyday_requests()[:30]
    answers = model.completions(others, max_new_tokens=ANSWER_TOKENS)
    answered = [conversation(prompt, answer.text) for prompt, answer in zip(others, answers, strict=True)]
    return [*declined, *answered]
