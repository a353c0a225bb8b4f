"""Reading a comparison result safely: every field may be absent, null or not finite."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any, NamedTuple

from optrode.errors import BadInput
from optrode.report.foreign import harmless

SCHEMA = "optrode.comparison/1"


class Interval(NamedTuple):
    """A measured value with its interval; each of the three is None when it was not measured."""

    value: float | None = None
    low: float | None = None
    high: float | None = None

    @property
    def measured(self) -> bool:
        return self.value is not None

    @property
    def bounded(self) -> bool:
        return self.low is not None and self.high is not None


def checked(result: Any) -> dict[str, Any]:
    """`result` itself, once it is known to be a comparison result. Raises `BadInput` otherwise."""
    if not isinstance(result, dict):
        raise BadInput(f"a report needs the dictionary of a comparison, not {type(result).__name__}")
    if result.get("schema") != SCHEMA:
        raise BadInput(f"a report needs a result of schema {SCHEMA!r}, not {result.get('schema')!r}")
    return result


def number(value: Any) -> float | None:
    """`value` as a float, None when it is no number or NaN; infinity stays (a model that broke has no perplexity)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    value = float(value)
    return None if math.isnan(value) else value


def finite(value: Any) -> float | None:
    """`value` as a finite float, else None: what a chart can place."""
    value = number(value)
    return value if value is not None and math.isfinite(value) else None


def interval(value: Any) -> Interval:
    """The interval in a field of the form {value, low, high}, or a bare number without bounds.

    >>> interval({"value": 1, "low": None, "high": 2.5})
    Interval(value=1.0, low=None, high=2.5)
    """
    if isinstance(value, dict):
        return Interval(*(number(value.get(key)) for key in ("value", "low", "high")))
    return Interval(number(value))


def finite_interval(value: Any) -> Interval:
    """`interval` with whatever a chart cannot place left out."""
    return Interval(*(finite(part) for part in interval(value)))


def mapping(parent: dict[str, Any], key: str) -> dict[str, Any]:
    """The dictionary under `key`, empty when there is none."""
    value = parent.get(key)
    return value if isinstance(value, dict) else {}


def records(parent: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """The list of dictionaries under `key`, empty when there is none."""
    value = parent.get(key)
    return [item for item in value if isinstance(item, dict)] if isinstance(value, (list, tuple)) else []


def name_of(row: dict[str, Any]) -> str:
    """The method's name as it is shown and as it links rows, search and dose curves."""
    return harmless(row.get("method") or row.get("id") or "unnamed")


def names(*groups: Iterable[dict[str, Any]]) -> list[str]:
    """Distinct method names over several lists of records, in order of appearance."""
    return list(dict.fromkeys(name_of(row) for group in groups for row in group))


def budget(result: dict[str, Any]) -> float | None:
    """The perplexity ratio above which a setting costs too much."""
    return finite(mapping(mapping(result, "protocol"), "budget").get("perplexity_ratio"))


def over_budget(row: dict[str, Any], limit: float | None) -> bool:
    """Whether a row or search cell costs more than the budget allows; what was not measured is not over it."""
    if isinstance(row.get("within_budget"), bool):
        return not row["within_budget"]
    ratio = interval(row.get("perplexity_ratio")).value
    return ratio is not None and limit is not None and ratio > limit


def spread(result: dict[str, Any]) -> dict[str, Any]:
    """The spread of the random directions' shift, empty when no control row has one."""
    return next((row["spread"] for row in records(result, "rows") if isinstance(row.get("spread"), dict)), {})


def within_random(row: dict[str, Any], random: dict[str, Any]) -> bool:
    """Whether a method's shift is no larger than what 1 in 20 random directions reaches."""
    value, bound = interval(row.get("shift")).value, number(random.get("p95"))
    return row.get("kind") == "method" and value is not None and bound is not None and value <= bound


def as_json(value: Any, *, indent: int | None = None) -> str:
    """Strict JSON in ASCII; NaN and infinity become null. Raises `BadInput` for what JSON cannot hold."""
    try:
        return json.dumps(_without_nonfinite(value), allow_nan=False, indent=indent)
    except (TypeError, ValueError, RecursionError) as error:
        raise BadInput(f"the result cannot be written as JSON ({error}); give plain numbers, texts and lists") from None


def _without_nonfinite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _without_nonfinite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nonfinite(item) for item in value]
    return value
