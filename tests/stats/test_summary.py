"""Statistics summed up: the definitions on numbers that were planted, awkward sites, and plain values only."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import Tensor

import optrode as op
from optrode.activations import Activations
from optrode.stats.findings import outlier_channels, outlier_units, sink_tokens, usual_size
from optrode.stats.summary import WITH_RATIOS, kind_of, spans, summary

COLLECT = ("mean", "variance", "norms", "extremes", "signs", "magnitudes")


def measured(values: dict[str, Tensor], collect: Any = COLLECT) -> op.Statistics:
    """Statistics of rows that came from nowhere, [row, unit] by site."""
    axes = dict.fromkeys(values, ("example", "feature"))
    return op.stats(Activations(values, axes, None, None, None), collect=collect)


@pytest.fixture
def planted() -> dict[str, Tensor]:
    """Three layers of ordinary rows; an outlier channel in two of them, a massive value, a sink, a silent unit."""
    generator = torch.Generator().manual_seed(0)
    values = {f"layers.{layer}.out": torch.randn(200, 16, generator=generator) for layer in range(3)}
    for layer in (0, 1):
        values[f"layers.{layer}.out"][:, 3] *= 30
    values["layers.1.out"][7, 5] = -8000.0
    values["layers.2.out"][:, 9] = 0.0
    return values


def test_what_was_planted_is_summed_up(planted: dict[str, Tensor]) -> None:
    found = summary(measured(planted))
    assert [line["layer"] for line in found["sites"]] == [0, 1, 2] and found["rows"] == 200
    (massive,) = found["massive"]
    assert (massive["value"], massive["unit"], massive["layers"], massive["document"]) == (-8000.0, "5", "1", 7)
    (sink,) = found["sinks"]
    assert (sink["layers"], sink["document"]) == ("1", 7) and sink["norm"] == pytest.approx(8000, rel=1e-3)
    outliers = {item["unit"]: item for item in found["outliers"]}
    assert set(outliers) == {"3", "5"} and outliers["3"]["layers"] == "0–1" and outliers["5"]["layers"] == "1"
    true = planted["layers.0.out"].double().square().mean(0).sqrt()
    assert outliers["3"]["ratios"][0]["ratio"] == pytest.approx(float(true[3] / true.median()), rel=1e-6)
    assert [ratio["layer"] for ratio in outliers["3"]["ratios"]] == [0, 1, 2]
    assert [line["silent_units"] for line in found["sites"]] == [0, 0, 1]
    assert found["headline"] == (
        "Massive activations in 1 channel: the largest is -8,000, in channel 5 of layer 1 at document 7. "
        "Up to 1 of 200 rows are sinks in layer 1. 2 outlier channels. 1 unit never left zero."
    )


def test_it_is_plain_data(planted: dict[str, Tensor]) -> None:
    found = summary(measured(planted))
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_ordinary_numbers_have_nothing_that_stands_out(planted: dict[str, Tensor]) -> None:
    generator = torch.Generator().manual_seed(1)
    values = {"layers.0.out": torch.randn(100, 8, generator=generator)}
    said = summary(measured(values))["headline"]
    assert said == "Nothing stands out: no massive activation, no sink, no outlier channel, no silent unit."
    # Of what was not looked for nothing is said.
    assert summary(measured(values, ("norms",)))["headline"] == "Nothing stands out: no sink."
    assert summary(measured(planted, ("mean",)))["massive"] == []
    assert "Nothing was collected" in summary(measured(values, "count"))["headline"]


def test_rows_that_are_no_numbers_are_told(planted: dict[str, Tensor]) -> None:
    planted["layers.0.out"][:3, 0] = float("nan")
    found = summary(measured(planted))
    assert found["skipped"] == 3 and found["headline"].endswith("3 rows with NaN or infinity left out.")


def test_of_no_row() -> None:
    found = summary(measured({"layers.0.out": torch.empty(0, 4)}))
    assert found["headline"] == "No row was counted." and found["sites"][0]["rows"] == 0
    json.dumps(found, allow_nan=False)


def test_where_most_units_are_silent_the_others_are_no_outliers() -> None:
    """As after a ReLU: the median over all units would be zero, and every other unit infinitely larger."""
    generator = torch.Generator().manual_seed(2)
    values = torch.zeros(100, 20)
    values[:, :6] = torch.rand(100, 6, generator=generator)
    values[:, 0] *= 50
    site = measured({"layers.0.mlp.hidden": values})
    assert outlier_units(site["layers.0.mlp.hidden"]) == [0]
    (found,) = outlier_channels(site)
    assert 20 < found["ratio"] < 100
    told = summary(site)
    assert told["sites"][0]["silent_units"] == 14 and [item["unit"] for item in told["outliers"]] == ["0"]
    assert torch.isnan(torch.tensor(usual_size(torch.zeros(3))))


def test_where_most_rows_are_zero_none_is_a_sink() -> None:
    values = torch.zeros(50, 4)
    values[3] = 9.0
    found = measured({"layers.0.out": values})
    assert int(found["layers.0.out"]["sinks"]) == 0 and sink_tokens(found) == []
    assert summary(found)["sinks"] == []


def test_sites_of_all_zeros_are_silent_and_nothing_else() -> None:
    found = summary(measured({"layers.0.out": torch.zeros(10, 4), "layers.1.out": torch.ones(10, 4)}))
    assert found["outliers"] == found["massive"] == [] and found["sites"][0]["silent_units"] == 4
    json.dumps(found, allow_nan=False)


def test_sites_of_one_kind_may_differ_in_size() -> None:
    generator = torch.Generator().manual_seed(3)
    small, large = torch.randn(60, 4, generator=generator), torch.randn(60, 30, generator=generator)
    large[:, 25] *= 40
    found = summary(measured({"layers.0.out": small, "layers.1.out": large}))
    (item,) = found["outliers"]
    assert (item["unit"], item["layers"], [ratio["layer"] for ratio in item["ratios"]]) == ("25", "1", [1])


def test_only_the_largest_outliers_have_their_course_over_all_layers() -> None:
    values = {f"layers.{layer}.mlp.hidden": torch.ones(5, 400) for layer in range(2)}
    values["layers.1.mlp.hidden"][:, :100] = torch.arange(200.0, 100.0, -1.0)
    found = summary(measured(values))["outliers"]
    assert [item["unit"] for item in found] == [str(unit) for unit in range(100)]
    assert [len(item["ratios"]) for item in found] == [2] * WITH_RATIOS + [0] * (100 - WITH_RATIOS)
    assert found[99]["largest"]["value"] == 101.0 and found[99]["layers"] == "1"


def test_heads_are_named_by_head_and_feature() -> None:
    generator = torch.Generator().manual_seed(4)
    values = torch.randn(80, 3, 5, generator=generator)
    values[:, 2, 1] *= 30
    acts = Activations({"layers.0.attn.heads": values}, {"layers.0.attn.heads": ("example", "head", "feature")}, None)
    (item,) = summary(op.stats(acts, collect=COLLECT))["outliers"]
    assert item["unit"] == "2, 1"


def test_addresses_and_spans() -> None:
    assert kind_of("vision.layers.3.mlp.out") == "vision.layers.*.mlp.out" and kind_of("embed") == "embed"
    assert kind_of("layers.3.out") == "layers.*.out"
    assert spans([]) == "" and spans([5]) == "5" and spans([9, 2, 3, 3, 4]) == "2–4, 9"


def test_smollm2s_own(smollm2: op.Model) -> None:
    found = summary(op.stats(smollm2, list(op.data.neutral_texts(4)), "layers.{5,15,20}.out", collect=COLLECT))
    first = found["massive"][0]
    assert (first["unit"], first["layers"], first["position"]) == ("507", "15, 20", 0)
    assert first["text"].strip() and "channel 507 of layer" in found["headline"]
    assert {item["layers"] for item in found["sinks"]} == {"15, 20"}
    assert found["outliers"][0]["unit"] == "507"
