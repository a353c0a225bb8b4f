"""Numbers as a reader should see them, in HTML and in a terminal alike."""

from __future__ import annotations

import math
from typing import Any

from optrode.report.foreign import harmless
from optrode.report.result import Interval, interval, number

NOT_MEASURED = "not measured"


def decimal(value: Any, places: int = 2) -> str:
    """A number with `places` decimals, fewer as it grows, so that no digit is there without meaning.

    >>> decimal(1.234), decimal(0.0004, 3), decimal(43.21), decimal(21371.0), decimal(None)
    ('1.23', '<0.001', '43.2', '21,371', 'not measured')
    """
    value = number(value)
    if value is None:
        return NOT_MEASURED
    if math.isinf(value):
        return "infinite" if value > 0 else "-infinite"
    size = abs(value)
    if places > 2 and 0 < size < 0.5 * 10**-places:
        return f"{'<' if value > 0 else '>-'}{10**-places:.{places}f}"
    places = min(places, 0 if size >= 99.95 else 1 if size >= 9.995 else places)
    shown = f"{value:,.{places}f}"
    return shown.removeprefix("-") if not shown.strip("-0.,") else shown


def plain(value: Any) -> str:
    """A setting (layer, strength) with as many digits as it needs; an en dash where a method has none.

    >>> plain(12), plain(0.25), plain(None)
    ('12', '0.25', '–')
    """
    if isinstance(value, (list, tuple)):
        return ", ".join(plain(item) for item in value) or "–"
    shown = number(value)
    return f"{shown:.4g}" if shown is not None else "–" if value is None else harmless(value)


def bounds(value: Interval, places: int = 2) -> str:
    """The bracketed part of an interval, empty without both bounds."""
    return f"[{decimal(value.low, places)}, {decimal(value.high, places)}]" if value.bounded else ""


def measured(value: Any, places: int = 2) -> str:
    """A value with its interval.

    >>> measured({"value": 1.2, "low": 0.9, "high": 1.51})
    '1.20 [0.90, 1.51]'
    """
    parts = interval(value)
    return f"{decimal(parts.value, places)} {bounds(parts, places)}".strip() if parts.measured else NOT_MEASURED


def duration(seconds: Any) -> str:
    """Seconds as a person says them.

    >>> duration(3.14), duration(240), duration(7260)
    ('3.1 s', '4 min', '2 h 1 min')
    """
    value = number(seconds)
    if value is None or math.isinf(value):
        return NOT_MEASURED
    if value < 99.95:
        return f"{value:.2f} s" if value < 1 else f"{value:.1f} s" if value < 9.95 else f"{value:.0f} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"
