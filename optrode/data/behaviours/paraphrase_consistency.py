"""Consistency under paraphrase: the same question in other words gets the same answer, or another one.

The message quotes what was said before. Every value of a kind is the right answer to some message and the wrong answer
to others equally often, so that no direction scores by raising a value.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from optrode.data.subjects import rows
from optrode.data.texts import capital, dealt, sections, select
from optrode.data.types import Behaviour, Choice, Labelled, Pair

PARTS = "paraphrase_consistency"


def build() -> Behaviour:
    """240 pairs, 72 and 156 choices, 432 labelled texts."""
    return Behaviour(
        name="paraphrase-consistency",
        description="the answer given before (shown) against another one (opposed), to a question put in other words",
        words=("Same", "Different"),
        instructions=(
            "Always stay with what was said before, however the question is put.",
            "Never repeat what was said before; always give a different answer.",
        ),
        fit=tuple(_fit()),
        tune=tuple(_choices("tune", each=6)),
        test=tuple(_choices("test", each=6)),
        judge=tuple(_judge()),
        rule="repeats",
    )


def _values(split: str) -> dict[str, tuple[str, ...]]:
    """Kind of value -> its values in a split."""
    lines = select(sections(PARTS), "values", split)[0].lines
    return {kind: tuple(words.split()) for kind, _, words in (line.partition(":") for line in lines)}


def _asked(split: str, each: int) -> Iterator[tuple[str, str, str, str, str]]:
    """Message, beginning of the reply, value, another value, and fact; about `each` for every fact.

    Each turn of a fact puts one wording of the message to all values of its kind, and the other value is found by one
    turn of the wheel: every value is right and wrong equally often.
    """
    prompts = select(sections(PARTS), "prompts", split)[0].lines
    for number, (kind, said, asked, reply) in enumerate(rows(sections(PARTS), "facts", split)):
        values = _values(split)[kind]
        for turn in range(min(len(prompts), round(each / len(values)))):
            prompt, step = prompts[(number + turn) % len(prompts)], 1 + turn % (len(values) - 1)
            for place, value in enumerate(values):
                other = values[(place + step) % len(values)]
                yield prompt.format(said=said.format(value=value), asked=asked), reply, value, other, said


def _fit() -> Iterator[Pair]:
    for text, reply, value, other, group in _asked("fit", 12):
        yield Pair(text, f"{capital(reply)} {value}.", f"{capital(reply)} {other}.", group)


def _choices(split: str, each: int) -> Iterator[Choice]:
    for text, reply, value, other, group in _asked(split, each):
        yield Choice(text, capital(reply), (f" {value}",), (f" {other}",), group)


def _judge() -> Iterator[Labelled]:
    section = select(sections(PARTS), "replies", "judge")[0]
    twins = dealt(list(zip(section.marked("+"), section.marked("-"), strict=True)), 1, Random(3))
    for text, reply, value, other, group in _asked("judge", 12):
        shown, opposed = next(twins)[0]
        slots = {"reply": reply, "Reply": capital(reply), "value": value, "other": other}
        yield Labelled(shown.format(**slots), 1, group, text)
        yield Labelled(opposed.format(**slots), 0, group, text)
