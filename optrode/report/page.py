"""One HTML page from one result: what the template shows, and the charts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from optrode.report import charts, theme
from optrode.report.foreign import harmless
from optrode.report.html import render_page
from optrode.report.result import (
    budget,
    checked,
    interval,
    mapping,
    name_of,
    number,
    over_budget,
    records,
    spread,
    within_random,
)
from optrode.report.text import NOT_MEASURED, bounds, decimal, duration, measured, plain

CHARTS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "ranking": charts.ranking,
    "effect_against_perplexity": charts.effect_against_perplexity,
    "effect_against_kl": charts.effect_against_kl,
    "search": charts.search,
    "probe_accuracy": charts.probe_accuracy,
    "norms": charts.norms,
}
KINDS = {"control": "control", "baseline": "baseline", "unsteered": "reference"}


def render(result: dict[str, Any]) -> str:
    """The whole page as text. Raises `BadInput` when `result` is no comparison result or is not plain data."""
    checked(result)
    return render_page("report.html.j2", view(result), {name: draw(result) for name, draw in CHARTS.items()}, result)


def view(result: dict[str, Any]) -> dict[str, Any]:
    """Everything the template shows, as plain strings; the template escapes them."""
    protocol, data, model = (mapping(result, key) for key in ("protocol", "data", "model"))
    limit = budget(result)
    return {
        "title": harmless(result.get("title")) or "Steering comparison",
        "family": harmless(result.get("family")) or "steering",
        "headline": harmless(result.get("headline")) or "No verdict was recorded.",
        "warnings": [harmless(item) for item in result.get("warnings") or [] if item],
        "quick": protocol.get("quick") is True,
        "facts": _facts(model, data, protocol, mapping(result, "record"), limit),
        "rows": _rows(result, limit),
        "effects": _effects(result),
        "budget": plain(limit) if limit is not None else None,
        "strength_unit": harmless(protocol.get("strength_unit")) or None,
        "random": _random(result),
        "completions": _completions(result),
        "massive": _massive(result),
        "massive_left": max(0, len(records(result, "massive")) - MASSIVE_SHOWN),
        "record": _record(result),
        "not_measured": NOT_MEASURED,
    }


def _facts(
    model: dict[str, Any], data: dict[str, Any], protocol: dict[str, Any], record: dict[str, Any], limit: float | None
) -> list[dict[str, str]]:
    sizes = mapping(data, "sizes")
    judge = mapping(protocol, "judge")
    shape = [
        f"{plain(model[key])} {word}"
        for key, word in (("layers", "layers"), ("width", "wide"))
        if model.get(key) is not None
    ]
    split = [f"{plain(sizes[key])} to {key}" for key in ("fit", "tune", "test") if sizes.get(key) is not None]
    accuracy = number(judge.get("accuracy"))
    agreement = f"{accuracy:.0%} accurate" if accuracy is not None else "accuracy not measured"
    texts = f" on {plain(judge['texts'])} texts" if judge.get("texts") is not None else ""
    dtype = [harmless(model["dtype"])] if model.get("dtype") else []
    ceiling = f"perplexity ratio up to {plain(limit)}" if limit is not None else "none"
    facts = [
        ("Model", model.get("name"), ", ".join([*shape, *dtype])),
        ("Data", data.get("name"), ", ".join(split) or data.get("description")),
        ("Judge", judge.get("name"), agreement + texts if judge else ""),
        ("Budget", ceiling, "for settings on the tuning split" if limit is not None else ""),
        ("Time", duration(record.get("seconds")), record.get("started")),
    ]
    return [
        {"term": term, "value": harmless(value) or NOT_MEASURED, "detail": harmless(detail)}
        for term, value, detail in facts
    ]


def _rows(result: dict[str, Any], limit: float | None) -> list[dict[str, Any]]:
    palette, random = theme.colours(result), spread(result)
    rows, rank = [], 0
    for row in records(result, "rows"):
        kind = row.get("kind")
        rank += kind != "unsteered"
        tags = [KINDS[kind]] if kind in KINDS else []
        tags += ["over budget"] if over_budget(row, limit) else []
        tags += ["within random spread"] if within_random(row, random) else []
        rows.append(
            {
                "rank": str(rank) if kind != "unsteered" else "",
                "method": name_of(row),
                "kind": kind if kind in KINDS else "method",
                "colour": palette[name_of(row)],
                "tags": tags,
                "edit_file": harmless(row.get("edit_file")) or None,
                "layer": plain(row.get("layer")),
                "strength": plain(row.get("strength")),
                "measures": [_cell(row.get(key), places) for key, places in MEASURES],
                "seconds": [_time(row.get("seconds_fit")), _time(row.get("seconds_tune"))],
                "speed": _time(row.get("tokens_per_second")),
            }
        )
    return rows


MEASURES = (("shift", 2), ("log_odds", 2), ("perplexity_ratio", 2), ("kl_neutral", 3))


# Side effects: key of a row, name and unit of a column, decimal places.
EFFECTS = (
    ("completion_perplexity_ratio", "Replies' perplexity", "ratio", 2),
    ("distinct_1", "Distinct-1", "share of words", 2),
    ("distinct_2", "Distinct-2", "share of pairs", 2),
    ("repetition", "Repetition", "share of words", 2),
    ("declines", "Declined", "share of requests", 2),
    ("capability", "Capability", "share right", 2),
    ("off_target", "Off-target", "nats", 2),
)


def _effects(result: dict[str, Any]) -> dict[str, Any] | None:
    """The table of side effects, with the columns that some row has a value for; None where there are none."""
    rows = [row for row in records(result, "rows") if any(interval(row.get(key)).measured for key, *_ in EFFECTS)]
    shown = [column for column in EFFECTS if any(interval(row.get(column[0])).measured for row in rows)]
    if not shown:
        return None
    palette = theme.colours(result)
    return {
        "columns": [{"name": name, "unit": unit} for _, name, unit, _ in shown],
        "rows": [
            {
                "method": name_of(row),
                "kind": row.get("kind") if row.get("kind") in KINDS else "method",
                "colour": palette[name_of(row)],
                "cells": [_cell(row.get(key), places) for key, _, _, places in shown],
                "moved": _moved(row),
            }
            for row in rows
        ],
        "moved": any(_moved(row) for row in rows),
    }


def _moved(row: dict[str, Any]) -> str:
    """The other behaviours, each with the shift that the edit gave it."""
    found = mapping(row, "off_target_by")
    return ", ".join(f"{harmless(name)} {_minus(decimal(value))}" for name, value in found.items())


def _cell(value: Any, places: int) -> dict[str, str | bool]:
    parts = interval(value)
    return {
        "value": _minus(decimal(parts.value, places)),
        "bounds": _minus(bounds(parts, places)),
        "measured": parts.measured,
    }


def _time(value: Any) -> str:
    return decimal(value, 1) if number(value) is not None else "–"


def _minus(text: str) -> str:
    return text.replace("-", "\N{MINUS SIGN}")


def _random(result: dict[str, Any]) -> dict[str, str] | None:
    random = spread(result)
    if number(random.get("p05")) is None or number(random.get("p95")) is None:
        return None
    return {
        "count": plain(random.get("count")),
        "span": _minus(f"{decimal(random.get('p05'))} to {decimal(random.get('p95'))}"),
        "best": _minus(decimal(random.get("best"))),
    }


def _completions(result: dict[str, Any]) -> list[dict[str, Any]]:
    palette = theme.colours(result)
    return [
        {
            "method": name_of(row),
            "colour": palette[name_of(row)],
            "setting": _setting(row),
            "shift": _minus(measured(row.get("shift"))),
            "pairs": [
                {key: harmless(pair.get(key)) or NOT_MEASURED for key in ("prompt", "unsteered", "steered")}
                for pair in records(row, "completions")
            ],
        }
        for row in records(result, "rows")
        if row.get("kind") != "unsteered" and records(row, "completions")
    ]


def _setting(row: dict[str, Any]) -> str:
    parts = [f"{key} {plain(row[key])}" for key in ("layer", "strength") if row.get(key) is not None]
    return ", ".join(parts)


MASSIVE_SHOWN = 10


def _massive(result: dict[str, Any]) -> list[dict[str, str]]:
    largest = sorted(records(result, "massive"), key=lambda item: -abs(number(item.get("value")) or 0.0))
    return [
        {
            **{key: plain(item.get(key)) for key in ("layer", "channel", "position")},
            "token": harmless(item.get("token")),
            "value": _minus(decimal(item.get("value"))),
            "median": _minus(decimal(item.get("median"))),
        }
        for item in largest[:MASSIVE_SHOWN]
    ]


def _record(result: dict[str, Any]) -> list[dict[str, str]]:
    """Nested settings as dotted names, in the order in which they were recorded."""
    groups = {key: mapping(result, key) for key in ("model", "data", "protocol", "record")}
    return [{"name": name, "value": value} for name, value in _flat(groups)]


def _flat(tree: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    lines: list[tuple[str, str]] = []
    for key, value in tree.items():
        name = f"{prefix}{harmless(key)}"
        if isinstance(value, dict):
            lines += _flat(value, name + ".")
        elif isinstance(value, (list, tuple)):
            lines.append((name, ", ".join(_flat_value(item) for item in value)))
        else:
            lines.append((name, _flat_value(value)))
    return lines


def _flat_value(value: Any) -> str:
    return NOT_MEASURED if value is None else harmless(value)
