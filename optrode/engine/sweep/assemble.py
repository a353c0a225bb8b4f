"""From the values of each example to one labelled map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import BadInput
from ...host import Host
from ...maps import Map
from .cells import EXAMPLE, POSITION, Grid
from .examples import Example


@dataclass(frozen=True)
class Result:
    """One example's part: `values` in the order of the grid's axes, and what was done for it."""

    grid: Grid
    values: np.ndarray
    base: float
    donor: float | None
    cells: int
    computed: int
    way: str
    why: str
    tokens: int
    whole: int


def token_labels(host: Host, example: Example) -> tuple[list[str], list[str]]:
    """The texts of the base's and the donor's tokens; numbers of tokens where there is no tokenizer."""

    def texts(inputs: Any) -> list[str]:
        if getattr(inputs, "ids", None) is None:
            return []
        ids = inputs.ids[0].tolist()
        return [host.tokenizer.decode([one]) for one in ids] if host.tokenizer is not None else list(map(str, ids))

    return texts(example.base), texts(example.donor)


def position_names(base: Sequence[str], donor: Sequence[str]) -> list[str]:
    """A label for each column: its number and token, and the donor's token where that is another.

    >>> position_names(["The", " cat"], ["The", " dog"])
    ['0 The', '1 cat|dog']
    """
    names = []
    for number, text in enumerate(base):
        other = donor[number] if number < len(donor) else text
        both = _shown(text) if other == text else f"{_shown(text)}|{_shown(other)}"
        names.append(f"{number} {both}")
    return names


def _shown(text: str) -> str:
    return text.strip().replace("\n", "\\n") or repr(text)


def assembled(host: Host, results: list[Result], each: tuple[str, ...], unit: str, notes: dict[str, Any]) -> Map:
    """The map of all examples: their mean, or with an axis of examples where that was asked for."""
    labels = _labels(results)
    values = np.stack([result.values for result in results])
    base = np.array([result.base for result in results])
    donor = np.array([result.donor for result in results]) if results[0].donor is not None else None
    if EXAMPLE in each:
        labels = {EXAMPLE: list(range(len(results))), **labels}
        ends = (len(results),) + (1,) * (values.ndim - 1)
        base, donor = base.reshape(ends), donor.reshape(ends) if donor is not None else None
    else:
        values, base = values.mean(0), base.mean()
        donor = donor.mean() if donor is not None else None
    values, base, donor, labels = _squeezed(values, base, donor, labels)
    return Map(values, labels, unit, {**notes, **_work(results)}, base=base, donor=donor)


def _labels(results: list[Result]) -> dict[str, list[Any]]:
    first = dict(results[0].grid.labels)
    for result in results[1:]:
        for name, own in result.grid.labels.items():
            if len(own) != len(first[name]):
                raise BadInput(
                    f"examples differ along '{name}' ({len(first[name])} and {len(own)}): give prompts of one length, "
                    "or leave that axis out of `each`"
                )
            if name == POSITION and own != first[name]:
                first[name] = [_common(one, other) for one, other in zip(first[name], own, strict=True)]
    return first


def _common(one: Any, other: Any) -> Any:
    """The number of a position whose token is not the same in all examples."""
    return one if one == other else str(one).split(" ", 1)[0]


def _squeezed(values: Any, base: Any, donor: Any, labels: dict[str, list[Any]]) -> tuple:
    """Without the axis of sites where there is one, and without that of layers where no site is in one."""
    for name in ("site", "layer"):
        if name in labels and len(labels[name]) == 1 and (name == "site" or labels[name] == [None]):
            axis = list(labels).index(name)
            values = values.squeeze(axis)
            base = base.squeeze(axis) if np.ndim(base) else base
            donor = donor.squeeze(axis) if np.ndim(donor) else donor
            labels = {other: own for other, own in labels.items() if other != name}
    return values, base, donor, labels


def _work(results: list[Result]) -> dict[str, Any]:
    """How much was done, and how much a loop of one forward for each patch would have done."""
    cells, computed = sum(result.cells for result in results), sum(result.computed for result in results)
    forwards = sum(result.tokens / result.whole for result in results if result.whole)
    # Each base and each donor ran once.
    forwards += sum(1 if result.donor is None else 2 for result in results)
    ways = list(dict.fromkeys(result.way for result in results if result.computed))
    whys = list(dict.fromkeys(result.why for result in results if result.why))
    return {
        "cells": cells,
        "computed": computed,
        "skipped": cells - computed,
        "way": ", ".join(ways) or "none",
        "why": ", ".join(whys),
        "forwards_worth": round(forwards, 2),
        "forwards_saved": round(cells - forwards, 2),
    }
