"""Massive activations and the norms of the stream, by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from optrode.activations import Activations
from optrode.stats import find_massive, largest_and_median, massive_by_layer, stream_norms


def test_a_value_is_massive_above_100_and_from_1000_medians_on():
    h = torch.ones(1, 4, 5)
    mask = torch.ones(1, 4, dtype=torch.bool)
    h[0, 1, 2], h[0, 2, 3], h[0, 3, 4] = 1000.0, -999.9, -5000.0
    assert find_massive(h, mask) == [(0, 3, 4, -5000.0, 1.0), (0, 1, 2, 1000.0, 1.0)]
    # With a median of 0.05 the absolute bound decides, and 100 itself is not above it.
    h = torch.full((1, 4, 5), 0.05)
    h[0, 0, 0], h[0, 1, 1] = 100.0, 100.1
    assert [place[:3] for place in find_massive(h, mask)] == [(0, 1, 1)]


def test_padding_is_neither_massive_nor_counted():
    h = torch.ones(1, 6, 2)
    h[0, :4] = 1e6
    h[0, 5, 1] = 2000.0
    mask = torch.tensor([[False] * 4 + [True] * 2])
    assert find_massive(h, mask) == [(0, 5, 1, 2000.0, 1.0)]


def test_a_limit_keeps_the_largest_and_bounds_can_be_set():
    h = torch.ones(1, 4, 3)
    h[0, :, 0] = torch.tensor([2000.0, -4000.0, 3000.0, 1.0])
    mask = torch.ones(1, 4, dtype=torch.bool)
    assert [value for *_, value, _ in find_massive(h, mask, limit=2)] == [-4000.0, 3000.0]
    assert len(find_massive(h, mask, relative=3500.0)) == 1 and len(find_massive(h, mask, absolute=2500.0)) == 2


def test_largest_and_median_of_each_example_by_itself():
    generator = torch.Generator().manual_seed(0)
    h = torch.randn(3, 7, 4, generator=generator)
    mask = torch.rand(3, 7, generator=generator) < 0.7
    top, median = largest_and_median(h, mask, count=2)
    for row in range(3):
        magnitudes = sorted(abs(float(value)) for column in range(7) if mask[row, column] for value in h[row, column])
        assert top[row].tolist() == pytest.approx(magnitudes[:-3:-1])
        assert float(median[row]) == pytest.approx(magnitudes[(len(magnitudes) - 1) // 2])


def test_by_layer_names_token_and_place_in_the_row_and_each_channel_once(llama):
    acts = llama.read(["The cat", "Where does the Eiffel Tower stand?"], "layers.{0,1}.out")
    planted = {site: torch.ones_like(value) for site, value in acts.items()}
    pads = int((~acts.batch.mask[0]).sum())
    planted["layers.1.out"][0, pads + 2, 5] = 3000.0
    planted["layers.1.out"][1, 3, 5] = 2500.0
    planted["layers.1.out"][1, 4, 6] = -2000.0
    planted["layers.1.out"][1, 4, 7] = 1500.0
    made = Activations(planted, acts.axes, acts.batch, None, llama.tokenizer)
    found = massive_by_layer(made, per_layer=2)
    assert [(one.layer, one.example, one.position, one.channel, one.value) for one in found] == [
        (1, 0, 2, 5, 3000.0),
        (1, 1, 4, 6, -2000.0),
    ]
    assert found[0].token == llama.tokenizer.decode([int(acts.batch.ids[0, pads + 2])]) and found[0].median == 1.0


def test_only_block_outputs_are_looked_at(llama):
    acts = llama.read(["The cat"], ["layers.0.attn.out", "layers.0.in"])
    huge = {site: torch.ones_like(value) for site, value in acts.items()}
    for value in huge.values():
        value[0, 0, 0] = 1e6
    assert massive_by_layer(Activations(huge, acts.axes, acts.batch, None, llama.tokenizer)) == []


def test_norms_are_those_of_the_rows_in_the_mask():
    generator = torch.Generator().manual_seed(1)
    h = torch.randn(2, 9, 4, generator=generator)
    mask = torch.rand(2, 9, generator=generator) < 0.6
    norms = np.array([np.linalg.norm(row) for row in h[mask].numpy()])
    found = stream_norms(h, mask)
    assert found["median"] == pytest.approx(float(np.sort(norms)[(len(norms) - 1) // 2]), rel=1e-5)
    assert found["p95"] == pytest.approx(float(np.quantile(norms, 0.95)), rel=1e-5)
    assert found["max"] == pytest.approx(float(norms.max()), rel=1e-5)


def test_smollm2_has_a_massive_first_token(smollm2):
    acts = smollm2.read(["The capital of France is Paris."], "layers.{1,15}.out", template="raw")
    found = massive_by_layer(acts)
    assert found and {(one.layer, one.position) for one in found} == {(15, 0)}
    assert max(abs(one.value) for one in found) > 5000
