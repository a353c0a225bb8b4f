"""A comparison in a notebook: the verdict, and the ranked methods with their intervals drawn."""

from __future__ import annotations

from typing import Any

from optrode.notebook.html import Html, attempt, card, code, fold, joined, notes, quiet, safely, table, tag, warning
from optrode.notebook.pictures import interval as drawn
from optrode.notebook.text import cut
from optrode.report.result import (
    Interval,
    budget,
    checked,
    finite_interval,
    mapping,
    name_of,
    number,
    over_budget,
    records,
    spread,
    within_random,
)
from optrode.report.text import bounds, decimal, duration, plain

_PROMPTS = 3


@safely
def comparison(result: dict[str, Any]) -> Html:
    """A result of schema `optrode.comparison/1`, each field of which may be absent."""
    rows = records(checked(result), "rows")
    headline = cut(result.get("headline") or "No verdict was recorded.", 600)
    seconds = mapping(result, "record").get("seconds")
    about = [f"took {duration(seconds)}" if number(seconds) is not None else ""]
    parts = [tag("div", headline, class_="ot-says"), attempt(lambda: _ranked(result, rows)) if rows else ""]
    parts += [attempt(lambda: _written(rows)), notes(filter(None, result.get("warnings") or []))]
    return card("Comparison", cut(result.get("title") or "steering", 160), about, *parts)


def _ranked(result: dict[str, Any], rows: list[dict[str, Any]]) -> Html:
    shifts = [finite_interval(row.get("shift")) for row in rows]
    ends = [end for shift in shifts for end in shift if end is not None]
    span = (min([0.0, *ends]), max([0.0, *ends]))
    limit, random = budget(result), spread(result)
    lines = []
    for row, shift in zip(rows, shifts, strict=True):
        told = f"{decimal(shift.value)} {bounds(shift)}".strip()
        picture = _picture(shift, span, told)
        cost = decimal(finite_interval(row.get("perplexity_ratio")).value)
        inside = within_random(row, random)
        name = joined(tag("b", name_of(row)) if row.get("kind") == "method" else name_of(row),
                      quiet(" no better than random") if inside else "")  # fmt: skip
        lines.append((
            name, plain(row.get("layer")), plain(row.get("strength")), joined(picture, f" {told}"),
            decimal(finite_interval(row.get("log_odds")).value),
            warning(f"{cost}, over budget") if over_budget(row, limit) else cost,
            decimal(finite_interval(row.get("kl_neutral")).value, 3),
        ))  # fmt: skip
    head = ("method", "layer", "strength", "shift", "log-odds", "perplexity", "KL")
    return table(head, lines, right=(1, 2, 4, 5, 6))


def _picture(shift: Interval, span: tuple[float, float], told: str) -> Html | str:
    if shift.value is None or shift.low is None or shift.high is None:
        return ""
    return drawn(shift.value, shift.low, shift.high, span, told)


def _written(rows: list[dict[str, Any]]) -> Html | None:
    """What the best row makes the model say, beside what it says by itself."""
    best = next((row for row in rows if row.get("kind") == "method" and records(row, "completions")), None)
    if best is None:
        return None
    lines = [
        (cut(one.get("prompt") or "", 160), cut(one.get("unsteered") or "", 300), cut(one.get("steered") or "", 300))
        for one in records(best, "completions")[:_PROMPTS]
    ]
    return fold(
        "completions", table(("prompt", "unsteered", "steered"), lines), about=joined("of ", code(name_of(best)))
    )
