"""`get`, `names`: every function that the list and this package have."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from ..errors import NotSupported
from .table import find, rows

if TYPE_CHECKING:
    from .protocol import Function


def get(name: str) -> Function:
    """A function by its name or one of its aliases; case, spaces and signs need not match.

    Raises `UnknownName` with the nearest names, `NotSupported` for the few rows of low confidence whose formula nobody
    has established.

    >>> get("golu")
    ExpExpish: x*exp(-exp(-x))
    >>> get("gelu_new").name
    'GELU-tanh'
    """
    return _get(find(name).name)


@cache
def _get(name: str) -> Function:
    row = rows()[name]
    if row.elementwise:
        from .of_formula import from_row

        return from_row(row)
    from .built import built_functions

    found = built_functions()
    if name not in found:
        raise NotSupported(
            f"{name} has no formula that is sure enough to build (confidence {row.confidence}): {row.formula}"
        )
    return found[name]


def names(*, elementwise: bool | None = None, confidence: str | None = None) -> list[str]:
    """Names of rows in the order of the list, all or some.

    >>> len(names()), len(names(elementwise=True))
    (599, 442)
    """
    return [
        row.name
        for row in rows().values()
        if elementwise in (None, row.elementwise) and confidence in (None, row.confidence)
    ]
