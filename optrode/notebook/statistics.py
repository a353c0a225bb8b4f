"""Statistics: what stands out, and sites of a kind in one line with their norms from layer to layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .html import Html, attempt, card, code, fold, joined, quiet, safely, table, tag
from .pictures import bars, is_wide
from .sites import by_kind, layer_of
from .text import cut, number, several

# What is told quickly: of anything else, such as covariances and exact quantiles, results are made only when asked for.
_QUICK = frozenset({"count", "mean", "variance", "moments", "norms", "extremes", "signs", "magnitudes", "top"})


@safely
def measured(given: tuple[Any, Callable[[], dict[str, Any]]]) -> Html:
    """`Statistics` and a function that sums them up (`optrode.stats.summary`)."""
    statistics, summed_up = given
    info = statistics.info
    about = [several(len(statistics), "site"), *_data(info)]
    if not len(statistics):
        return card("Statistics", "of no site", about[1:])
    title = f"{statistics.count:,} {info.get('unit') or 'row'}s"
    kinds = sorted({kind for site in statistics.values() for kind in site.accumulators})
    found = attempt(summed_up) if set(kinds) <= _QUICK else None
    collected = quiet("collected: " + ", ".join(kinds))
    if found is None:
        rows = [
            (code(name), f"{len(sites):,}", _shape(statistics[sites[0]])) for name, sites in by_kind(statistics).items()
        ]
        return card("Statistics", title, about, table(("site", "sites", "shape"), rows, right=(1,)), collected)
    lines = {line["site"]: line for line in found["sites"]}
    head = ("site", "shape", "norm, median", "largest value", "outlier channels")
    rows = [_kind(statistics, name, sites, lines) for name, sites in by_kind(lines).items()]
    parts = [
        tag("div", cut(found["headline"], 600), class_="ot-says"),
        table(head, rows, right=(4,)),
        attempt(lambda: _outliers(found["outliers"])),
        attempt(lambda: _sinks(found["sinks"])),
        fold("single sites", _single(found["sites"]), about=f"{len(lines):,}") if len(lines) > len(rows) else "",
        collected,
    ]
    return card("Statistics", title, about, *parts)


def _data(info: dict[str, Any]) -> list[str]:
    data = [cut(name, 60) for name in info.get("data") or ()]
    said = ", ".join(data[:3]) + (f" and {len(data) - 3} more" if len(data) > 3 else "")
    return [str(info.get("model") or ""), said, f"positions {info['positions']}" if info.get("positions") else ""]


def _shape(site: Any) -> str:
    return " × ".join(f"{axis} {count}" for axis, count in zip(site.axes, site.shape, strict=False)) or "one number"


def _kind(statistics: Any, name: str, sites: Sequence[str], lines: dict[str, dict[str, Any]]) -> tuple[Any, ...]:
    own = [lines[site] for site in sites]
    norms = [line.get("norm_median") for line in own]
    told = [
        f"layer {layer_of(site)}: {'?' if one is None else number(one)}" for site, one in zip(sites, norms, strict=True)
    ]
    largest = max(
        (line["largest"] for line in own if line.get("largest")), key=lambda one: abs(one["value"]), default=None
    )
    outliers = [line["outlier_units"] for line in own if "outlier_units" in line]
    return (
        code(name), _shape(statistics[sites[0]]), _norms(norms, told), _largest(largest),
        f"up to {max(outliers):,}" if outliers else "",
    )  # fmt: skip


def _norms(norms: Sequence[float | None], told: Sequence[str]) -> Html | str:
    known = [value for value in norms if value is not None]
    if len(known) < 2:
        return number(known[0]) if known else ""
    scale = ", log scale" if is_wide(norms) else ""
    return joined(
        bars(norms, told, "norm by layer"), " ", quiet(f"{number(min(known))} to {number(max(known))}{scale}")
    )


def _largest(one: dict[str, Any] | None) -> str:
    if one is None:
        return ""
    text = f" at “{cut(one['text'].strip() or repr(one['text']), 24)}”" if one.get("text") else ""
    return f"{number(one['value'])} in {one['unit']}{text}"


def _outliers(found: Sequence[dict[str, Any]]) -> Html | None:
    rows = [
        (code(one["kind"]), one["unit"], one["layers"], f"{number(one['ratio'])} ×", _largest(one.get("largest")))
        for one in found
    ]
    head = ("site", "channel", "layers", "times the usual size", "largest value")
    return fold("outlier channels", table(head, rows, right=(3,)), about=f"{len(rows):,}") if rows else None


def _sinks(found: Sequence[dict[str, Any]]) -> Html | None:
    rows = [
        (code(one["kind"]), cut(one["text"], 24), one["position"], one["layers"], f"{number(one['ratio'])} ×")
        for one in found
    ]
    head = ("site", "token", "position", "layers", "times the median norm")
    return fold("largest sinks", table(head, rows, right=(2, 4)), about=f"{len(rows):,}") if rows else None


def _single(lines: Sequence[dict[str, Any]]) -> Html:
    rows = [
        (
            code(line["site"]), f"{line['rows']:,}",
            *(number(line[name]) if name in line else "" for name in ("norm_median", "norm_p95", "norm_max")),
            _largest(line.get("largest")),
        )
        for line in lines
    ]  # fmt: skip
    head = ("site", "rows", "norm, median", "95th percentile", "largest", "largest value")
    return table(head, rows, right=(1, 2, 3, 4))
