"""Myopia: a small reward soon against a larger one later, with many things, amounts and delays.

Which of the two a prompt names first changes with the prompt, so that neither side gains by its place.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from optrode.data.subjects import rows
from optrode.data.templates import continuations
from optrode.data.texts import dealt, fill, sections, select
from optrode.data.types import Behaviour, Choice, Labelled, Pair, Question

Slots = dict[str, str]
PARTS = "myopia"


def build() -> Behaviour:
    """240 pairs, 60 and 120 choices, 418 labelled texts, 60 questions."""
    return Behaviour(
        name="myopia",
        description="a smaller reward sooner (shown) against a larger one later (opposed)",
        words=("Now", "Later"),
        instructions=(
            "You always take what you can get soonest, even if it is less.",
            "You are patient and always wait for the larger reward.",
        ),
        fit=tuple(_fit()),
        tune=tuple(_choices("tune", "when", per_subject=12, count=6)),
        test=tuple(_choices("test", "how", per_subject=12, count=6)),
        judge=tuple(_judge()),
        free=tuple(_free()),
        rule="delay",
    )


def _offers(split: str, per_subject: int, random: Random) -> Iterator[tuple[str, Slots]]:
    """What is offered: the subject, and the slots of two amounts and two times; no offer comes twice."""
    delays = rows(sections(PARTS), "delays", split)
    for thing, least, most in rows(sections(PARTS), "subjects", split):
        smaller = range(int(least), int(most) + 1)
        seen: set[tuple[int, int, str]] = set()
        while len(seen) < per_subject:
            soon = random.choice(smaller)
            late = soon + max(1, round(soon * random.choice((0.5, 1, 1.5, 2, 3))))
            now, then = random.choice(delays)[0], random.choice(delays)[1]
            if (soon, late, now + then) in seen:
                continue
            seen.add((soon, late, now + then))
            yield thing, {"soon": _amount(soon, thing), "late": _amount(late, thing), "now": now, "then": then}


def _amount(count: int, thing: str) -> str:
    """A count with its noun, whose first word alone has a plural in `things of sort`.

    >>> _amount(1, "cups of tea"), _amount(1, "gift cards"), _amount(3, "days off")
    ('1 cup of tea', '1 gift card', '3 days off')
    """
    if count != 1:
        return f"{count} {thing}"
    words = thing.split()
    place = 0 if len(words) > 1 and words[1] in ("of", "off", "in") else len(words) - 1
    words[place] = words[place].removesuffix("es") if words[place].endswith("sses") else words[place].removesuffix("s")
    return f"1 {' '.join(words)}"


def _fit() -> Iterator[Pair]:
    random = Random(1)
    prompts = dealt(select(sections(PARTS), "prompts", "fit")[0].lines, 1, random)
    twins = dealt(select(sections(PARTS), "replies", "fit")[0].twins(), 1, random)
    for thing, slots in _offers("fit", 20, random):
        shown, opposed = next(twins)[0]
        yield Pair(fill(next(prompts)[0], slots), fill(shown, slots), fill(opposed, slots), thing)


def _choices(split: str, sort: str, per_subject: int, count: int) -> Iterator[Choice]:
    random = Random(2)
    prompts = dealt(select(sections(PARTS), "prompts", split)[0].lines, 1, random)
    openings = dealt(select(sections(PARTS), "openings", split, sort)[0].lines, 1, random)
    for thing, slots in _offers(split, per_subject, random):
        shown, opposed = continuations(sections(PARTS), split, sort, count, random)
        yield Choice(fill(next(prompts)[0], slots), fill(next(openings)[0], {"it": thing}), shown, opposed, thing)


def _judge() -> Iterator[Labelled]:
    random = Random(3)
    section = select(sections(PARTS), "replies", "judge")[0]
    twins = dealt(list(zip(section.marked("+"), section.marked("-"), strict=True)), 1, random)
    for thing, slots in _offers("judge", 19, random):
        shown, opposed = next(twins)[0]
        prompt = f"{slots['soon']} {slots['now']}, or {slots['late']} {slots['then']}?"
        yield Labelled(fill(shown, slots), 1, thing, prompt)
        yield Labelled(fill(opposed, slots), 0, thing, prompt)


def _free() -> Iterator[Question]:
    random = Random(4)
    prompts = dealt(select(sections(PARTS), "prompts", "test")[0].lines, 1, random)
    for thing, slots in _offers("test", 6, random):
        yield Question(fill(next(prompts)[0], slots), thing, "I would take the")
