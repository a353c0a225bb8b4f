"""The list of published functions, one row each, read from `functions.tsv`; nothing heavy is imported for it."""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from importlib import resources

from ..errors import UnknownName, did_you_mean

CONFIDENCES = ("high", "medium", "low")


@dataclass(frozen=True)
class Parameter:
    """One parameter of a function: its default, whether papers train it, and whether the default is our choice."""

    name: str
    default: float
    trainable: bool = False
    ours: bool = False


@dataclass(frozen=True)
class Row:
    """One published function as the list has it.

    `formula` is an expression, or starts with `[vec]` or `[text]` where the function needs more than one element or a
    procedure. `remarks` is the column of parameters as it stands: defaults, ranges, jumps, where a source is unclear.
    """

    name: str
    aliases: tuple[str, ...]
    kind: str
    formula: str
    remarks: str
    source: str
    confidence: str

    @property
    def elementwise(self) -> bool:
        """Whether the formula is one expression of x and parameters."""
        return not self.formula.startswith("[")

    @property
    def jumps(self) -> bool:
        """Whether the list says that the function is discontinuous."""
        return "jump" in self.remarks

    @property
    def parameters(self) -> dict[str, Parameter]:
        """Those of an elementwise row, in the order of the list; of the others see the built function."""
        return read_parameters(self.remarks)


_VALUE = re.compile(
    r"^(?P<name>\w+)=(?P<value>-?(?:inf|\d[\d.]*(?:e-?\d+)?))(?P<ours>\*)?(?:\s+(?P<trained>F/T|T/F|T|F)\b)?"
)
_BERNOULLI = re.compile(r"^(?P<name>\w+) random Bernoulli")


def read_parameters(text: str) -> dict[str, Parameter]:
    """`a=0.25 T, b=1* F (b > 0)` -> parameters by name. Of a random one, the value is that of evaluation."""
    found = {}
    for part in _split(text):
        value = _VALUE.match(part)
        if value:
            name = value["name"]
            found[name] = Parameter(name, float(value["value"]), "T" in (value["trained"] or ""), bool(value["ours"]))
        elif _BERNOULLI.match(part):
            name = part.split()[0]
            found[name] = Parameter(name, 0.0)
    return found


def _split(text: str) -> list[str]:
    """At commas and semicolons outside of brackets."""
    parts, depth = [""], 0
    for sign in text:
        depth += (sign in "([") - (sign in ")]")
        if sign in ",;" and depth == 0:
            parts.append("")
        else:
            parts[-1] += sign
    return [part.strip() for part in parts if part.strip()]


@cache
def rows() -> dict[str, Row]:
    """Every row by its name, in the order of the list."""
    text = (resources.files(__package__) / "functions.tsv").read_text(encoding="utf-8")
    found = {}
    for row in csv.DictReader(text.splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE):
        aliases = tuple(alias.strip() for alias in row["aliases"].split(";") if alias.strip())
        formula = forms().get(row["name"], {}).get("corrected", (row["formula"],))[0]
        found[row["name"]] = Row(
            row["name"], aliases, row["kind"], formula, row["parameters"], row["source"], row["confidence"]
        )
    return found


@cache
def forms() -> dict[str, dict[str, tuple[str, str]]]:
    """Row -> use (`corrected`, `stable`, `surrogate`, `precision`) -> (formula, why), from `forms.tsv`.

    A corrected formula replaces one that the list has wrong. A stable form gives the same numbers where the list's own
    formula does not overflow, and the true ones where it does. A surrogate is what the backward pass of a function
    takes for its derivative.
    """
    text = (resources.files(__package__) / "forms.tsv").read_text(encoding="utf-8")
    found: dict[str, dict[str, tuple[str, str]]] = defaultdict(dict)
    for row in csv.DictReader(text.splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE):
        found[row["name"]][row["use"]] = (row["formula"], row["why"])
    return dict(found)


def find(name: str) -> Row:
    """A row by name or alias; case, spaces and signs need not match. Raises `UnknownName` with the nearest names."""
    for level in _levels():
        names = level[1].get(level[0](name))
        if names and len(names) == 1:
            return rows()[next(iter(names))]
        if names:
            raise UnknownName(f"'{name}' means several functions: say {' or '.join(sorted(names))}")
    raise UnknownName(f"there is no function '{name}': {did_you_mean(name.lower(), _spellings())}")


def _bare(name: str) -> str:
    return re.sub(r"[^a-z0-9+]", "", name.lower())


@cache
def _levels():  # type: ignore[no-untyped-def]
    """Ways to compare names, the strictest first; a name of its own counts before an alias of another row."""
    found = []
    for key in (str, str.lower, _bare):
        for of in (lambda row: (row.name,), lambda row: row.aliases):
            level: dict[str, set[str]] = defaultdict(set)
            for row in rows().values():
                for spelling in of(row):
                    level[key(spelling)].add(row.name)
            found.append((key, dict(level)))
    return found


@cache
def _spellings() -> list[str]:
    return [spelling.lower() for row in rows().values() for spelling in (row.name, *row.aliases)]
