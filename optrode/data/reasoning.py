"""Small tasks with right answers, built by code: deduction, induction over names, and sums in words.

Every item is a `Choice` whose showing side is the right answer and whose opposing side are wrong answers of the same
kind; groups never span splits, so that an item's names or numbers are new in each.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from optrode.data.types import Choice, Pair
from optrode.errors import BadInput, UnknownName, did_you_mean

ANIMALS = (
    ("wolf", "wolves"), ("cat", "cats"), ("mouse", "mice"), ("sheep", "sheep"), ("fox", "foxes"), ("goat", "goats"),
    ("lion", "lions"), ("frog", "frogs"), ("bear", "bears"), ("snake", "snakes"), ("horse", "horses"),
    ("duck", "ducks"),
)  # fmt: skip
PEOPLE = (
    "Mary", "John", "Anna", "Peter", "Laura", "James", "Emily", "David", "Sarah", "Paul", "Jane", "Mark", "Alice",
    "Tom", "Helen", "Simon", "Julia", "Robert", "Lucy", "George", "Ruth", "Henry", "Kate", "Daniel",
)  # fmt: skip
THINGS = ("a book", "a key", "a cup", "a letter", "a ball", "a ring", "a drink", "a map")
PLACES = ("the shop", "the park", "the school", "the station", "the garden", "the office")
NUMBERS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
)  # fmt: skip
WRONG = 3


def tasks() -> list[str]:
    """The names of the tasks, sorted.

    >>> tasks()
    ['deduction', 'induction', 'sums']
    """
    return sorted(_TASKS)


# So many draws without a new question mean that there are hardly any left.
_PATIENCE = 500


def reasoning(task: str, count: int, seed: int = 0) -> tuple[Choice, ...]:
    """`count` items of a task, no item twice; the same for the same seed. Raises `UnknownName`, `BadInput`.

    >>> item = reasoning("sums", 1)[0]
    >>> len(item.positive), len(item.negative)
    (1, 3)
    """
    if task not in _TASKS:
        raise UnknownName(f"there is no task {task!r}; {did_you_mean(task, tasks())}")
    random = Random(f"{task}{seed}")
    found: dict[tuple[str, str], Choice] = {}
    missed = 0
    while len(found) < count:
        item = _TASKS[task](random)
        before = len(found)
        found.setdefault((item.prompt, item.opening), item)
        missed = 0 if len(found) > before else missed + 1
        if missed == _PATIENCE:
            raise BadInput(f"the task '{task}' has about {len(found)} questions, not {count}: ask for fewer")
    return tuple(found.values())


def solved(items: tuple[Choice, ...], seed: int = 0) -> tuple[Pair, ...]:
    """Items as pairs: the question with its right answer, and with one of the wrong ones."""
    random = Random(seed)
    return tuple(
        Pair(item.prompt, item.opening + item.positive[0], item.opening + random.choice(item.negative), item.group)
        for item in items
    )


def noise(length: int, random: Random) -> str:
    """A string of random letters, digits and signs: what the first paper of reasoning vectors opposes answers to."""
    return "".join(random.choice("abcdefghijklmnopqrstuvwxyz0123456789 .,;:!?") for _ in range(length)).strip() or "x"


def _deduction(random: Random) -> Choice:
    """Whom a member of a kind fears, from two rules about kinds; two more kinds that nobody spoke of are on offer."""
    kinds = random.sample(ANIMALS, 2)
    feared = random.sample([plural for _, plural in ANIMALS if plural not in {kind[1] for kind in kinds}], 4)
    rules = " ".join(
        f"{plural.capitalize()} are afraid of {other}." for (_, plural), other in zip(kinds, feared, strict=False)
    )
    who, which = random.choice(PEOPLE), random.randrange(2)
    prompt = f"{rules} {who} is a {kinds[which][0]}. What is {who} afraid of?"
    wrong = [f" {other}" for place, other in enumerate(feared) if place != which]
    return Choice(prompt, f"{who} is afraid of", (f" {feared[which]}",), tuple(wrong), who)


def _induction(random: Random) -> Choice:
    """Who gets the thing: of two people named, the one that does not give it."""
    giver, taker, other, another = random.sample(PEOPLE, 4)
    thing, place = random.choice(THINGS), random.choice(PLACES)
    first, second = random.sample([giver, taker], 2)
    prompt = f"Write a sentence about {place} and {thing}."
    opening = f"When {first} and {second} went to {place}, {giver} gave {thing} to"
    return Choice(prompt, opening, (f" {taker}",), (f" {giver}", f" {other}", f" {another}"), giver)


def _sums(random: Random) -> Choice:
    """A sum or difference of two numbers in words."""
    high, low = sorted(random.sample(range(1, 19), 2), reverse=True)
    plus = high + low <= 20 and random.random() < 0.5
    a, b = random.sample([high, low], 2) if plus else (high, low)
    result = a + b if plus else a - b
    near = [n for n in range(max(0, result - 3), min(20, result + 3) + 1) if n != result]
    wrong = tuple(f" {NUMBERS[n]}" for n in random.sample(near, WRONG))
    asked = f"{NUMBERS[a]} {'plus' if plus else 'minus'} {NUMBERS[b]}"
    return Choice(f"What is {asked}?", f"{asked.capitalize()} is", (f" {NUMBERS[result]}",), wrong, asked)


_TASKS: dict[str, Callable[[Random], Choice]] = {"deduction": _deduction, "induction": _induction, "sums": _sums}
