from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any

import pytest
from fake import fake_result
from hostile import emptied, everywhere

from optrode.report import charts, theme
from optrode.report.page import CHARTS


def rendered(chart: Any) -> str:
    import vl_convert

    spec = chart.to_dict()
    if "facet" not in spec:
        spec["width"] = 500
    return vl_convert.vegalite_to_svg(spec, vl_version="6.4")


def values_of(chart: Any) -> list[dict[str, Any]]:
    """All data of a chart, wherever Altair put them."""
    found: list[dict[str, Any]] = []

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            if isinstance(node.get("values"), list):
                found.extend(item for item in node["values"] if isinstance(item, dict))
            for item in node.values():
                walk(item)
        elif isinstance(node, list):
            for item in node:
                walk(item)

    walk(chart.to_dict())
    return found


@pytest.mark.parametrize("draw", CHARTS.values(), ids=CHARTS)
def test_chart_draws_and_leaves_the_result_alone(draw: Callable[[dict[str, Any]], Any]) -> None:
    result, before = fake_result(), fake_result()
    svg = rendered(draw(result))
    assert len(re.findall("<path", svg)) > 20 and "NaN" not in svg
    assert result == before


@pytest.mark.parametrize("draw", CHARTS.values(), ids=CHARTS)
def test_nothing_to_draw_gives_none(draw: Callable[[dict[str, Any]], Any]) -> None:
    assert draw({}) is None
    assert draw(emptied(fake_result())) is None


@pytest.mark.parametrize("draw", CHARTS.values(), ids=CHARTS)
def test_foreign_text_is_data_and_not_markup(draw: Callable[[dict[str, Any]], Any]) -> None:
    svg = rendered(draw(everywhere(fake_result())))
    assert "<script" not in svg and "<img" not in svg


def test_search_marks_what_is_over_budget_and_what_was_chosen() -> None:
    cells = values_of(charts.search(fake_result()))
    cells = [cell for cell in cells if "over" in cell]
    limit = fake_result()["protocol"]["budget"]["perplexity_ratio"]
    expected = sum(cell["perplexity_ratio"] > limit for cell in fake_result()["search"])
    assert 0 < expected < len(cells) and sum(cell["over"] for cell in cells) == expected
    assert sum(cell["chosen"] for cell in cells) == 6
    assert rendered(charts.search(fake_result())).count("×") == expected


def test_random_directions_are_a_band_and_a_strip() -> None:
    result = fake_result()
    spread = next(row["spread"] for row in result["rows"] if "spread" in row)
    values = values_of(charts.ranking(result))
    assert {"low": spread["p05"], "high": spread["p95"]} in values
    assert sorted(value["value"] for value in values if "value" in value) == spread["values"]


def test_zero_cost_has_no_place_on_a_log_axis() -> None:
    costs = [value["cost"] for value in values_of(charts.effect_against_kl(fake_result())) if "cost" in value]
    assert costs and min(costs) > 0


def test_dose_falls_back_to_the_judged_shift() -> None:
    result = copy.deepcopy(fake_result())
    for step in result["dose"]:
        step["log_odds"] = None
    assert "judged behaviour shift" in rendered(charts.effect_against_kl(result))


def test_a_method_has_one_colour_and_neighbours_differ() -> None:
    chosen = theme.colours(fake_result())
    methods = [chosen[row["method"]] for row in fake_result()["rows"] if row["kind"] == "method"]
    assert len(set(methods)) == len(methods)
    assert chosen["random direction (20)"] == chosen["unsteered"] == theme.NEUTRAL
    for chart in (charts.ranking(fake_result()), charts.effect_against_kl(fake_result())):
        scales = [
            layer["encoding"]["color"]["scale"]
            for layer in chart.to_dict()["layer"]
            if "scale" in layer.get("encoding", {}).get("color", {})
        ]
        assert scales
        for scale in scales:
            assert dict(zip(scale["domain"], scale["range"], strict=True)).items() <= chosen.items()


def luminance(colour: str) -> float:
    parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("colour", [*theme.METHOD_COLOURS, *theme.BASELINE_COLOURS, theme.NEUTRAL])
def test_colours_are_legible_on_both_grounds(colour: str) -> None:
    white, dark = 1.05 / (luminance(colour) + 0.05), (luminance(colour) + 0.05) / (luminance("#14171c") + 0.05)
    assert white > 2.8 and dark > 2.8
