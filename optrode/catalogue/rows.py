"""The rows of the catalogue: what each published system is for, and how far optrode has it."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

from ..errors import UnknownName, did_you_mean

STATUSES = ("works", "partial", "planned")
INDEX = "_index.json"


@dataclass(frozen=True)
class System:
    """One published system. `status` follows from what there is, it is never written down.

    `works`: it has a method, a parity test and a study that ran; `partial`: some of them; `planned`: none.
    `verdict` is that of its study, empty where none ran; `entry_points` are names in optrode, such as
    `optrode.steering.CAA`.
    """

    id: str
    family: str
    title: str
    job: str
    paper: str
    status: str
    entry_points: tuple[str, ...] = ()
    verdict: str = ""
    missing: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """What a search looks through."""
        return f"{self.id.replace('-', ' ')}. {self.title}. {self.job}"


@dataclass(frozen=True)
class Catalogue:
    """Systems in an order: that of the table or, after a search, the best first with its `scores`."""

    systems: tuple[System, ...]
    scores: tuple[float, ...] = field(default=(), repr=False)

    def __iter__(self) -> Any:
        return iter(self.systems)

    def __len__(self) -> int:
        return len(self.systems)

    def __getitem__(self, id: str) -> System:
        """A system by its id. Raises `UnknownName` with the nearest ids."""
        for system in self.systems:
            if system.id == id:
                return system
        raise UnknownName(f"there is no system '{id}': {did_you_mean(id, [system.id for system in self.systems])}")

    @property
    def counts(self) -> dict[str, int]:
        found = Counter(system.status for system in self.systems)
        return {status: found[status] for status in STATUSES}

    def where(self, *, family: str | None = None, status: str | None = None) -> Catalogue:
        """The systems of one family or status. Raises `UnknownName` with the nearest names."""
        _known("family", family, sorted({system.family for system in all_systems()}))
        _known("status", status, STATUSES)
        kept = [
            number
            for number, system in enumerate(self.systems)
            if family in (None, system.family) and status in (None, system.status)
        ]
        scores = tuple(self.scores[number] for number in kept) if self.scores else ()
        return Catalogue(tuple(self.systems[number] for number in kept), scores)

    def to_pandas(self) -> Any:
        """One row per system."""
        import pandas as pd

        columns = ("id", "family", "title", "status", "verdict", "paper", "job")
        return pd.DataFrame([{name: getattr(system, name) for name in columns} for system in self.systems])

    def __repr__(self) -> str:
        counts = ", ".join(f"{count} {status}" for status, count in self.counts.items())
        lines = [f"{len(self)} systems: {counts}"]
        lines += [f"  {system.id:<26} {system.status:<8} {system.title}" for system in self.systems[:10]]
        return "\n".join([*lines, *([f"  and {len(self) - 10} more"] if len(self) > 10 else [])])


def _known(what: str, name: str | None, names: Any) -> None:
    if name is not None and name not in names:
        raise UnknownName(f"there is no {what} '{name}': {did_you_mean(name, names)}")


@cache
def all_systems() -> tuple[System, ...]:
    """Every row of the built index, in its order. Costs milliseconds and imports no method."""
    text = (resources.files(__package__) / INDEX).read_text(encoding="utf-8")
    return tuple(_system(row) for row in json.loads(text)["systems"])


def _system(row: dict[str, Any]) -> System:
    return System(
        row["id"], row["family"], row["title"], row["job"], row["paper"], row["status"],
        tuple(row["entry_points"]), row["study"]["verdict"] if row["study"] else "", tuple(row["missing"]),
    )  # fmt: skip
