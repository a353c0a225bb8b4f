"""Behaviours from two sets of texts that have no partners: the columns `text` and `label`.

Nothing says which positive text answers which negative one, so that a pair of them differs in more than the behaviour.
Estimators that average over a side lose nothing by that; those that look at differences within pairs do.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from optrode.data.types import Behaviour, Choice, Labelled, Pair
from optrode.errors import BadInput, did_you_mean
from optrode.messages import shown

Row = dict[str, Any]
REQUEST = "Please write a short text."
FEWEST_TEXTS = 30
SHARES = {"fit": 3 / 9, "judge": 3 / 9, "test": 2 / 9, "tune": 1 / 9}
LABELS = {"positive": 1, "1": 1, "true": 1, "yes": 1, "negative": 0, "0": 0, "false": 0, "no": 0}


def is_unpaired(rows: Sequence[tuple[int, Row]]) -> bool:
    """Whether a file has the columns of labelled texts and not those of pairs."""
    names = {str(name) for _, row in rows for name in row}
    return {"text", "label"} <= names and not {"positive", "negative"} & names


def from_texts(rows: Sequence[tuple[int, Row]], path: Path) -> Behaviour:
    """The behaviour of labelled rows, each with its line number. Raises `BadInput`; see `files.read_behaviour`."""
    texts = [_text(number, row, path) for number, row in rows]
    counts = Counter(text.label for text in texts)
    for label, name in ((1, "positive"), (0, "negative")):
        if counts[label] < FEWEST_TEXTS:
            raise BadInput(
                f"{path.name} holds {counts[label]} {name} texts; at least {FEWEST_TEXTS} of either label are needed"
            )
    splits = _splits(texts, path)
    topic = path.stem.replace("_", " ").replace("-", " ")
    return Behaviour(
        name=path.stem,
        description=f"{counts[1]} positive and {counts[0]} negative texts of {path.name}, without partners",
        words=(topic, " "),
        instructions=(f"Show {topic} in your answer.", f"Avoid all {topic} in your answer."),
        fit=tuple(_pairs(splits["fit"])),
        tune=tuple(_choice(pair) for pair in _pairs(splits["tune"])),
        test=tuple(_choice(pair) for pair in _pairs(splits["test"])),
        judge=tuple(splits["judge"]),
    )


def _text(number: int, row: Row, path: Path) -> Labelled:
    text, label = row.get("text"), str(row.get("label", "")).strip().lower()
    if not isinstance(text, str) or not text.strip():
        raise BadInput(f"{path.name} line {number} has no text; every row needs a text and a label")
    if label not in LABELS:
        raise BadInput(f"{path.name} line {number}: label {shown(label)} is not known; {did_you_mean(label, LABELS)}")
    return Labelled(text.strip(), LABELS[label], str(row.get("group") or text).strip())


def _splits(texts: Sequence[Labelled], path: Path) -> dict[str, list[Labelled]]:
    """Whole groups by a fixed order of their names, each to where its labels are most wanted."""
    sizes: dict[str, Counter[int]] = {}
    for text in texts:
        sizes.setdefault(text.group, Counter())[text.label] += 1
    total = Counter(text.label for text in texts)
    filled: dict[str, Counter[int]] = {name: Counter() for name in SHARES}
    home: dict[str, str] = {}
    for group in sorted(sizes, key=lambda name: hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()):
        own = sizes[group]
        home[group] = max(SHARES, key=lambda name: _wanted(own, filled[name], SHARES[name], total))
        filled[home[group]] += own
    lacking = [name for name, have in filled.items() if min(have[0], have[1]) == 0]
    if lacking:
        raise BadInput(
            f"{path.name} has too few groups: nothing of one label is left for {lacking[0]}; at least {len(SHARES)} "
            "groups of either label are needed"
        )
    splits: dict[str, list[Labelled]] = {name: [] for name in SHARES}
    for text in texts:
        splits[home[text.group]].append(text)
    return splits


def _wanted(own: Counter[int], have: Counter[int], share: float, total: Counter[int]) -> tuple[int, float]:
    """How badly a split wants a group: labels that it lacks altogether first, then the larger gap to its share."""
    missing = sum(have[label] == 0 for label in own)
    return missing, sum(share * total[label] - have[label] for label in own)


def _pairs(texts: Sequence[Labelled]) -> list[Pair]:
    """Texts side by side in the order of the file; the group of a pair is that of its positive text."""
    shown = [text for text in texts if text.label == 1]
    opposed = [text for text in texts if text.label == 0]
    return [Pair(REQUEST, one.text, other.text, one.group) for one, other in zip(shown, opposed, strict=False)]


def _choice(pair: Pair) -> Choice:
    return Choice(pair.prompt, "", (pair.positive,), (pair.negative,), pair.group)
