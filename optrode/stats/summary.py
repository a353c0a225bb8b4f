"""Statistics summed up as plain values: what a report and the command line show."""

from __future__ import annotations

import re
from collections import defaultdict
from math import isnan
from typing import TYPE_CHECKING, Any

import torch

from .findings import (
    extreme_of,
    largest_of,
    layer_of,
    massive_activations,
    outlier_units,
    root_mean_squares,
    silent_units,
    sink_tokens,
    unit_name,
    usual_size,
)
from .massive import ABSOLUTE_THRESHOLD, RELATIVE_THRESHOLD
from .rows import WHERE, in_words, several

if TYPE_CHECKING:
    from .statistics import SiteStatistics, Statistics

SCHEMA = "optrode.statistics-summary/1"
# So many outliers of a kind of site have their course over all layers in a summary.
WITH_RATIOS = 24
_SCALARS = (
    "norm_mean", "norm_p05", "norm_median", "norm_p95", "norm_max", "sinks", "magnitude_median", "magnitude_p95",
    "magnitude_p99",
)  # fmt: skip


def summary(statistics: Statistics) -> dict[str, Any]:
    """What was measured, a line for each site, and what stands out; numbers, texts and lists only, as JSON has them.

    `massive` and `outliers` are by unit over all layers of a kind of site, `sinks` by token; largest first. Needs what
    `optrode stats` collects (`mean`, `variance`, `norms`, `extremes`, `signs`, `magnitudes`); of what was not collected
    nothing is said.

    >>> import optrode, torch
    >>> model = optrode.load(torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU()))
    >>> found = optrode.stats(model.read(torch.zeros(5, 4), "module:1"), collect=("norms", "signs"))
    >>> summary(found)["sites"][0]["rows"]
    5
    """
    sites = [_site(statistics, address) for address in statistics]
    found = {
        "schema": SCHEMA,
        "info": statistics.info,
        "rows": statistics.count,
        "skipped": sum(site.skipped for site in statistics.values()),
        "sites": sites,
        "massive": _massive(statistics),
        "sinks": _sinks(statistics),
        "outliers": _outliers(statistics),
    }
    return {**found, "headline": _headline(found)}


def kind_of(address: str) -> str:
    """An address with its layer left open.

    >>> kind_of("layers.12.mlp.out")
    'layers.*.mlp.out'
    """
    return re.sub(r"(^|\.)layers\.\d+\.", r"\1layers.*.", address)


def spans(numbers: list[int]) -> str:
    """Whole numbers with neighbours drawn together.

    >>> spans([3, 1, 2, 7])
    '1–3, 7'
    """
    parts: list[list[int]] = []
    for number in sorted(set(numbers)):
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(f"{part[0]}–{part[-1]}" if len(part) > 1 else str(part[0]) for part in parts)


def _site(statistics: Statistics, address: str) -> dict[str, Any]:
    site = statistics[address]
    line: dict[str, Any] = {
        "site": address, "kind": kind_of(address), "layer": layer_of(address), "rows": site.count,
        "skipped": site.skipped, "units": site.accumulators["count"].units,
    }  # fmt: skip
    if not site.count:
        return line
    line |= {name: site[name].item() for name in _SCALARS if name in site}
    if "magnitude_median" in site:
        line["massive_from"] = max(ABSOLUTE_THRESHOLD, RELATIVE_THRESHOLD * float(site["magnitude_median"]))
    if "highest" in site:
        line["largest"] = largest_of(statistics, address)
    if "variance" in site:
        line["outlier_units"] = len(outlier_units(site))
    if "zero" in site:
        line["silent_units"] = len(silent_units(site))
    return line


def _massive(statistics: Statistics) -> list[dict[str, Any]]:
    groups: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for item in massive_activations(statistics):
        groups[kind_of(item["site"]), item["unit"]].append(item)
    merged = [
        {**max(items, key=lambda item: abs(item["value"])), "kind": kind, **_layers([item["site"] for item in items])}
        for (kind, _), items in groups.items()
    ]
    return sorted(merged, key=lambda item: -abs(item["value"]))


def _sinks(statistics: Statistics) -> list[dict[str, Any]]:
    groups: dict[tuple[str, tuple[int, ...]], list[dict[str, Any]]] = defaultdict(list)
    for item in sink_tokens(statistics):
        place = tuple(item[name] for name in WHERE)
        groups[kind_of(item["site"]), place].append(item)
    merged = [
        {**max(items, key=lambda item: item["ratio"]), "kind": kind, **_layers([item["site"] for item in items])}
        for (kind, _), items in groups.items()
    ]
    return sorted(merged, key=lambda item: -item["ratio"])


def _outliers(statistics: Statistics) -> list[dict[str, Any]]:
    """Units that are outliers in some layer; the first ones with their ratio in every layer of the kind."""
    by_kind: dict[str, list[SiteStatistics]] = defaultdict(list)
    for address, site in statistics.items():
        if "variance" in site and site.count:
            by_kind[kind_of(address)].append(site)
    found = [item for kind, sites in by_kind.items() for item in _outliers_of(statistics, kind, sites)]
    return sorted(found, key=lambda item: -item["ratio"])


def _outliers_of(statistics: Statistics, kind: str, sites: list[SiteStatistics]) -> list[dict[str, Any]]:
    """Of one kind of site, largest first."""
    ratios = [(sizes / usual_size(sizes)).tolist() for sizes in map(root_mean_squares, sites)]
    largest = [_magnitudes(site) for site in sites]
    outliers = [set(outlier_units(site)) for site in sites]
    found = []
    for unit in sorted(set().union(*outliers)):
        # Sites of one kind may differ in size, as the maps of an image network do; NaN: all of it is zero.
        has = [n for n, ratio in enumerate(ratios) if unit < len(ratio) and not isnan(ratio[unit])]
        at = [sites[n].address for n in has if unit in outliers[n]]
        item = {"kind": kind, "unit": unit_name(sites[has[0]], unit), "ratio": max(ratios[n][unit] for n in has)}
        item |= {**_layers(at), "site": at[0], "ratios": [(sites[n].address, ratios[n][unit]) for n in has]}
        if all(largest):
            most = max(has, key=lambda n: largest[n][unit])
            item["largest"] = extreme_of(statistics, sites[most], unit)
        found.append(item)
    found.sort(key=lambda item: -item["ratio"])
    for number, item in enumerate(found):
        # Hundreds of units in dozens of layers would make a report of many megabytes.
        own = item["ratios"] if number < WITH_RATIOS else []
        item["ratios"] = [{"layer": layer_of(site), "site": site, "ratio": ratio} for site, ratio in own]
    return found


def _magnitudes(site: SiteStatistics) -> list[float]:
    """The largest magnitude of each unit; nothing where extremes were not collected."""
    if "highest" not in site:
        return []
    return torch.maximum(site["highest"].abs(), site["lowest"].abs()).flatten().tolist()


def _layers(sites: list[str]) -> dict[str, Any]:
    layers = [layer for layer in map(layer_of, sites) if layer is not None]
    return {"sites": len(sites), "layers": spans(layers)}


def _headline(found: dict[str, Any]) -> str:
    parts = []
    if found["massive"]:
        first, channels = found["massive"][0], in_words(len(found["massive"]), "channel")
        parts.append(
            f"Massive activations in {channels}: the largest is {first['value']:,.0f}, in channel {first['unit']}"
            f"{_in_layers(first)} at {_token(first)}."
        )
    most: dict[str, Any] = max(found["sites"], key=lambda line: line.get("sinks", 0), default={})
    if most.get("sinks"):
        at = [line["layer"] for line in found["sites"] if line.get("sinks") and line["layer"] is not None]
        where = f" in {'layer' if len(set(at)) == 1 else 'layers'} {spans(at)}" if at else ""
        unit = several(found["info"].get("unit") or "row")
        parts.append(f"Up to {most['sinks']:,} of {most['rows']:,} {unit} are sinks{where}.")
    if found["outliers"]:
        parts.append(f"{in_words(len(found['outliers']), 'outlier channel')}.")
    silent = sum(line.get("silent_units", 0) for line in found["sites"])
    if silent:
        parts.append(f"{in_words(silent, 'unit')} never left zero.")
    if found["skipped"]:
        parts.append(f"{in_words(found['skipped'], 'row')} with NaN or infinity left out.")
    return " ".join(parts) or _nothing(found)


def _nothing(found: dict[str, Any]) -> str:
    """That nothing stands out, of what was looked for."""
    if not found["rows"]:
        return "No row was counted."
    lines = found["sites"]
    looked = {
        "massive activation": any("magnitude_median" in line and "largest" in line for line in lines),
        "sink": any("sinks" in line for line in lines),
        "outlier channel": any("outlier_units" in line for line in lines),
        "silent unit": any("silent_units" in line for line in lines),
    }
    names = ", ".join(f"no {name}" for name, was in looked.items() if was)
    return f"Nothing stands out: {names}." if names else "Nothing was collected by which something could stand out."


def _token(item: dict[str, Any]) -> str:
    text = item["text"].strip() or item["text"]
    known = [f"{name} {item[name]}" for name in ("document", "position") if item[name] >= 0]
    return f"“{text}”, position {item['position']}" if text else ", ".join(known) or "a row"


def _in_layers(item: dict[str, Any]) -> str:
    return f" of layer {item['layer']}" if item["layer"] is not None else ""
