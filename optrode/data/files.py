"""Behaviours from the user's own file: of pairs, or of labelled texts without partners."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterable
from os import PathLike
from pathlib import Path

from optrode.data.types import Behaviour, Choice, Labelled, Pair
from optrode.data.unpaired import Row, from_texts, is_unpaired
from optrode.errors import BadFile, BadInput, MissingFile, did_you_mean, nearest
from optrode.messages import one_line, plain, shown

COLUMNS = ("prompt", "positive", "negative")
FEWEST_PAIRS = 30
SHARES = {"fit": 3 / 9, "judge": 3 / 9, "test": 2 / 9, "tune": 1 / 9}


def read_behaviour(path: str | PathLike[str]) -> Behaviour:
    """A behaviour from a file: CSV with a header, or JSON Lines.

    **Pairs** have the columns `prompt,positive,negative[,group]`: `positive` is a reply that shows the behaviour and
    `negative` one that opposes it. Rows of one `group` (without the column: of one prompt) stay in one split. Groups
    are taken in the order of a fixed hash of their name, a third of the pairs for `fit`, a third for `judge`, two
    ninths for `test` and one ninth for `tune`, so that the same file always gives the same splits. Choices have the
    whole reply as their only continuation of an empty opening.

    **Two sets without partners** have the columns `text,label[,group]`, the label being `positive` or `negative` (or 1
    or 0). They are split likewise, each set by the same shares, and within a split texts are put side by side in the
    order of the file as replies to one general request; what is left over on the longer side is left out.

    The behaviour is named after the file; `words` and `instructions` are made of that name, and
    `dataclasses.replace` sets better ones.

    Raises `MissingFile`; `BadFile` for a format that cannot be read; `BadInput` for a missing column (with the nearest
    one that is there), an empty file, fewer than 30 pairs or texts of a label, fewer than 4 groups, replies missing on
    one side, an unknown label, or equal replies on both sides.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "politeness.csv"
    >>> rows = [f"Question {n}?,Certainly; here is answer {n}.,Figure out {n} yourself." for n in range(36)]
    >>> _ = file.write_text("\\n".join(["prompt,positive,negative", *rows]))
    >>> found = read_behaviour(file)
    >>> found.name, len(found.fit), len(found.tune), len(found.test), len(found.judge)
    ('politeness', 12, 4, 8, 24)
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFile(_missing(path))
    read = _rows(path)
    if is_unpaired(read):
        return from_texts(read, path)
    rows = _checked(read, path)
    splits = _splits(rows, path)
    topic = path.stem.replace("_", " ").replace("-", " ")
    return Behaviour(
        name=path.stem,
        description=f"pairs of {path.name}",
        words=(topic, " "),
        instructions=(f"Show {topic} in your answer.", f"Avoid all {topic} in your answer."),
        fit=tuple(splits["fit"]),
        tune=tuple(_choice(pair) for pair in splits["tune"]),
        test=tuple(_choice(pair) for pair in splits["test"]),
        judge=tuple(
            Labelled(text, label, pair.group)
            for pair in splits["judge"]
            for text, label in ((pair.positive, 1), (pair.negative, 0))
        ),
    )


def _missing(path: Path) -> str:
    if path.is_dir():
        return f"{path} is a folder; name a .csv or .jsonl file of pairs"
    beside = [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else []
    near = f"; {did_you_mean(path.name, beside)}" if beside else ""
    return f"there is no file {path}{near}"


def _rows(path: Path) -> list[tuple[int, Row]]:
    """Line number and columns of each row."""
    readers = {".csv": _csv_rows, ".jsonl": _json_rows, ".ndjson": _json_rows}
    if path.suffix.lower() not in readers:
        raise BadFile(f"{path.name} is neither .csv nor .jsonl; save the pairs as one of the two")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadFile(f"{path.name} is not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    except OSError as error:
        raise BadFile(f"{path.name} cannot be read: {one_line(error)}") from error
    return readers[path.suffix.lower()](text, path)


def _csv_rows(text: str, path: Path) -> list[tuple[int, Row]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    rows = []
    try:
        for row in reader:
            if None in row or None in row.values():
                raise BadInput(
                    f"{path.name} line {reader.line_num} does not have the {len(reader.fieldnames or ())} cells of the "
                    "header; quote texts that hold commas"
                )
            rows.append((reader.line_num, row))
    except csv.Error as error:
        raise BadFile(f"{path.name} line {reader.line_num} is not valid CSV: {one_line(error)}") from error
    return rows


def _json_rows(text: str, path: Path) -> list[tuple[int, Row]]:
    rows = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            cause = error.msg if isinstance(error, json.JSONDecodeError) else one_line(error)
            raise BadFile(f"{path.name} line {number} is not valid JSON: {cause}; one object per line") from error
        if not isinstance(row, dict):
            raise BadFile(f'{path.name} line {number} is not a JSON object; write {{"prompt": ..., ...}} on each line')
        rows.append((number, row))
    return rows


def _checked(rows: list[tuple[int, Row]], path: Path) -> list[Pair]:
    if not rows:
        raise BadInput(f"{path.name} holds no pairs; it needs the columns prompt, positive, negative")
    for column in COLUMNS:
        _check_column(column, rows, path)
    _check_sides(rows, path)
    if len(rows) < FEWEST_PAIRS:
        raise BadInput(f"{path.name} holds {len(rows)} pairs; at least {FEWEST_PAIRS} are needed for four splits")
    return [_pair(number, row, path) for number, row in rows]


def _check_column(column: str, rows: list[tuple[int, Row]], path: Path) -> None:
    names = list(dict.fromkeys(str(name) for _, row in rows for name in row))
    if column not in names:
        others = [name for name in names if name not in (*COLUMNS, "group")]
        there = plain(", ".join(names))
        near = f"; rename {shown(nearest(column, others, 1)[0])}?" if others else f"; there are {there}"
        raise BadInput(f"{path.name} has no column {column!r}{near}")
    for number, row in rows:
        if not isinstance(row.get(column, ""), str):
            raise BadInput(f"{path.name} line {number}: {column!r} must be text, not {type(row[column]).__name__}")


def _check_sides(rows: list[tuple[int, Row]], path: Path) -> None:
    blank = {column: [n for n, row in rows if not row.get(column, "").strip()] for column in COLUMNS}
    for column in ("positive", "negative"):
        if len(blank[column]) == len(rows):
            raise BadInput(f"{path.name}: the column {column!r} is empty in every row; both sides need replies")
    for column, numbers in blank.items():
        if numbers:
            counts = ", ".join(f"{len(rows) - len(blank[name])} {name}" for name in COLUMNS)
            raise BadInput(
                f"{path.name} line {numbers[0]} has no {column}; the columns must be equally long ({counts})"
            )


def _pair(number: int, row: Row, path: Path) -> Pair:
    prompt, positive, negative = (row[column].strip() for column in COLUMNS)
    if positive == negative:
        raise BadInput(f"{path.name} line {number}: positive and negative are the same text")
    return Pair(prompt, positive, negative, str(row.get("group") or prompt).strip())


def _splits(pairs: Iterable[Pair], path: Path) -> dict[str, list[Pair]]:
    pairs = list(pairs)
    sizes = Counter(pair.group for pair in pairs)
    if len(sizes) < len(SHARES):
        raise BadInput(f"{path.name} has {len(sizes)} groups; at least {len(SHARES)} are needed, one for each split")
    filled = dict.fromkeys(SHARES, 0)
    home = {}
    for group in sorted(sizes, key=lambda name: hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()):
        # An empty split first; among those that hold something, the one that lacks most of its share.
        split = max(SHARES, key=lambda name: (filled[name] == 0, SHARES[name] * len(pairs) - filled[name]))
        home[group] = split
        filled[split] += sizes[group]
    splits: dict[str, list[Pair]] = {name: [] for name in SHARES}
    for pair in pairs:
        splits[home[pair.group]].append(pair)
    return splits


def _choice(pair: Pair) -> Choice:
    return Choice(pair.prompt, "", (pair.positive,), (pair.negative,), pair.group)
