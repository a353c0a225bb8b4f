"""Facts with one right value each: capitals, countries of cities, symbols and numbers of elements.

Built by `tools/statements.py` from GeoNames (www.geonames.org, CC BY 4.0) and the package periodictable.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources


@dataclass(frozen=True)
class Fact:
    """`relation` of `subject` is `value`: capital, country, symbol or number."""

    relation: str
    subject: str
    value: str

    @property
    def group(self) -> str:
        """The country or element that the fact is about, so that all facts on one stay together."""
        return self.value if self.relation == "country" else self.subject


@cache
def facts() -> tuple[Fact, ...]:
    """All facts in the order of the file: by relation, the most populous or lightest first.

    >>> facts()[0]
    Fact(relation='capital', subject='China', value='Beijing')
    """
    text = (resources.files("optrode.data") / "text" / "facts.tsv").read_text(encoding="utf-8")
    return tuple(Fact(*line.split("\t")) for line in text.splitlines()[1:])
