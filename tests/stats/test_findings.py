"""Outlier channels, sinks, massive activations and silent units, planted and in SmolLM2."""

from __future__ import annotations

import pytest
import torch

import optrode as op
from optrode.activations import Activations
from optrode.stats import find_massive
from optrode.stats.findings import (
    largest_of,
    layer_of,
    massive_activations,
    outlier_channels,
    outlier_units,
    silent_units,
    sink_tokens,
)

COLLECT = ("variance", "extremes", "norms", "signs", "magnitudes")


@pytest.fixture(scope="module")
def planted(llama: op.Model) -> Activations:
    acts = llama.read(
        ["The cat sat on the mat.", "Paris is the capital of France."], "layers.{0,1}.out", template="raw"
    )
    generator = torch.Generator().manual_seed(0)
    values = {site: torch.randn(value.shape, generator=generator) for site, value in acts.items()}
    first = acts.batch.mask.int().argmax(1)
    h = values["layers.1.out"]
    h[..., 3] *= 20
    h[..., 4] = 0.0
    h[0, int(first[0]), 7] = -6000.0
    return Activations(values, acts.axes, acts.batch, None, llama.tokenizer)


def test_what_was_planted_is_found(planted: Activations, llama: op.Model) -> None:
    found = op.stats(planted, collect=COLLECT)
    assert {item["site"] for item in outlier_channels(found)} == {"layers.1.out"}
    assert outlier_units(found["layers.1.out"]) == [7, 3]
    assert silent_units(found["layers.1.out"]) == [4] and silent_units(found["layers.0.out"]) == []
    (sink,) = sink_tokens(found)
    token = llama.tokenizer.decode([int(planted.batch.ids[0][planted.batch.mask[0]][0])])
    assert (sink["layer"], sink["document"], sink["position"], sink["text"]) == (1, 0, 0, token)
    (massive,) = massive_activations(found)
    assert (massive["value"], massive["unit"], massive["position"]) == (-6000.0, "7", 0)
    assert largest_of(found, "layers.1.out")["value"] == -6000.0
    # The definition on whole arrays says the same; its median is exact.
    ((example, _, channel, value, median),) = find_massive(planted["layers.1.out"], planted.batch.mask)
    assert (example, channel, value) == (0, 7, -6000.0)
    assert massive["median"] == pytest.approx(median, rel=2.0**-8)


def test_without_what_they_need_they_find_nothing(planted: Activations) -> None:
    found = op.stats(planted, collect="mean")
    assert sink_tokens(found) == massive_activations(found) == []
    counted = op.stats(planted, collect="count")
    assert outlier_channels(counted) == []
    assert list(counted.to_pandas().columns) == ["rows", "skipped"]


def test_layers_of_addresses() -> None:
    assert [layer_of(text) for text in ("layers.12.out", "vision.layers.3.mlp.out", "embed", "module:a.layers.2")] == [
        12, 3, None, None,
    ]  # fmt: skip


def test_smollm2_has_its_sinks_and_its_massive_channel(smollm2: op.Model) -> None:
    found = op.stats(smollm2, op.data.neutral_texts(4), "layers.{5,15,20}.out", collect=COLLECT)
    assert {(item["layer"], item["position"]) for item in sink_tokens(found)} == {(15, 0), (20, 0)}
    massive = massive_activations(found)
    assert {(item["layer"], item["unit"]) for item in massive} >= {(15, "507"), (20, "507")}
    assert all(item["position"] == 0 for item in massive)
