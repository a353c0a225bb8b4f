"""From templates and subjects to the splits of a behaviour; every draw is seeded, so that a build repeats itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import repeat
from random import Random

from optrode.data.texts import Section, dealt, fill, select, subject_slots
from optrode.data.types import Choice, Labelled, Pair, Question

Parts = tuple[Section, ...]


def fit_pairs(parts: Parts, per_subject: int, seed: int = 1) -> tuple[Pair, ...]:
    """`per_subject` pairs for each `subject | fit`, no template and no prompt twice on one subject.

    Both replies of a pair come from twin templates and, where a template asks for a `{word}`, from twin words.
    """
    random = Random(seed)
    prompts = dealt(_one(parts, "prompts", "fit").lines, per_subject, random)
    replies = dealt(_one(parts, "replies", "fit").twins(), per_subject, random)
    words = _words(parts, "fit", per_subject, random)
    pairs = []
    for subject in select(parts, "subject", "fit"):
        _, name, place, pronoun = subject.fields
        rows = zip(next(prompts), next(replies), next(words), strict=True)
        for number, (prompt, twin, word) in enumerate(rows):
            shown, opposed = _both(subject, twin, word, number)
            pairs.append(Pair(fill(prompt, subject_slots(place, pronoun)), shown, opposed, name))
    return tuple(pairs)


def choices(parts: Parts, split: str, sorts: Mapping[str, int], words: int = 8, seed: int = 2) -> tuple[Choice, ...]:
    """For each subject of the split and each sort of opening, as many choices as `sorts` says.

    A choice takes `words` continuations a side (all, where the sort has fewer). Whole columns of the vocabulary are
    drawn, so that what stands side by side in the file stays balanced in every choice.
    """
    random = Random(seed)
    prompts = dealt(_one(parts, "prompts", split).lines, sum(sorts.values()), random)
    openings = {sort: dealt(_one(parts, "openings", split, sort).lines, count, random) for sort, count in sorts.items()}
    found = []
    for subject in select(parts, "subject", split):
        _, name, place, pronoun = subject.fields
        asked = iter(next(prompts))
        for sort, hands in openings.items():
            for opening in next(hands):
                shown, opposed = continuations(parts, split, sort, words, random)
                prompt = fill(next(asked), subject_slots(place, pronoun))
                found.append(Choice(prompt, fill(opening, subject_slots(name, pronoun)), shown, opposed, name))
    return tuple(found)


def continuations(
    parts: Parts, split: str, sort: str, words: int, random: Random
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """At most `words` words of either side, drawn as whole columns of a vocabulary, each behind its space."""
    vocabulary = _one(parts, "words", split, sort).columns()
    drawn = random.sample(vocabulary, min(words, len(vocabulary)))
    shown, opposed = zip(*((f" {good}", f" {bad}") for good, bad in drawn), strict=True)
    return shown, opposed


def judged(parts: Parts, per_subject: int, seed: int = 3) -> tuple[Labelled, ...]:
    """`per_subject` texts of either label for each `subject | judge`, by the `replies` that are not for fit."""
    random = Random(seed)
    sources = [part for part in select(parts, "replies") if part.fields != ("fit",)]
    twins = [twin for part in sources for twin in zip(part.marked("+"), part.marked("-"), strict=True)]
    replies = dealt(twins, per_subject, random)
    words = _words(parts, "judge", per_subject, random)
    texts = []
    for subject in select(parts, "subject", "judge"):
        name = subject.fields[1]
        for number, (twin, word) in enumerate(zip(next(replies), next(words), strict=True)):
            shown, opposed = _both(subject, twin, word, number)
            texts += [Labelled(shown, 1, name), Labelled(opposed, 0, name)]
    return tuple(texts)


def questions(parts: Parts, subjects: str, prompts: str, per_subject: int, seed: int = 4) -> tuple[Question, ...]:
    """`per_subject` questions to be answered freely for each subject of a split, by the prompts of that or another."""
    hands = dealt(_one(parts, "prompts", prompts).lines, per_subject, Random(seed))
    found = []
    for subject in select(parts, "subject", subjects):
        _, name, place, pronoun = subject.fields
        found += [Question(fill(prompt, subject_slots(place, pronoun)), name) for prompt in next(hands)]
    return tuple(found)


def _one(parts: Parts, kind: str, *fields: str) -> Section:
    return select(parts, kind, *fields)[0]


def _words(parts: Parts, split: str, count: int, random: Random) -> Iterator[list[tuple[str, str]]]:
    """Hands of twin words; empty ones for a behaviour whose templates ask for none."""
    found = select(parts, "words", split)
    return dealt(found[0].columns(), count, random) if found else repeat([("", "")] * count)


def _both(subject: Section, twin: tuple[str, str], word: tuple[str, str], number: int) -> tuple[str, str]:
    """The showing and the opposing reply on a subject; the reasons turn with `number`."""
    _, name, _, pronoun = subject.fields
    filled = []
    for template, mark, said in zip(twin, "+-", word, strict=True):
        reasons = subject.marked(mark)
        why, also = reasons[number % len(reasons)], reasons[(number + 1) % len(reasons)]
        filled.append(fill(template, subject_slots(name, pronoun) | {"why": why, "also": also, "word": said}))
    return filled[0], filled[1]
