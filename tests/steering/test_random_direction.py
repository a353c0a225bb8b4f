"""Random directions: unit length, told apart by their seed alone, as long as asked in units of the stream."""

from __future__ import annotations

import pytest
import torch

from optrode.data import Pair
from optrode.steering.random_direction import RandomDirection

SITE = "layers.1.out"


def vector(model, pairs, seed: int) -> torch.Tensor:
    return RandomDirection(site=SITE, seed=seed).fit(model, pairs).operator.vector


def test_the_vector_is_the_seeds_own_unit_vector(model, pairs):
    for seed in range(3):
        drawn = torch.randn(32, generator=torch.Generator().manual_seed(seed))
        torch.testing.assert_close(vector(model, pairs, seed), drawn / drawn.norm())


def test_the_data_has_no_say_in_it(llama, pairs):
    others = [Pair("What?", "Sure", "No", "x"), Pair("Who?", "cat", "dog", "y")]
    assert torch.equal(vector(llama, pairs, 5), vector(llama, others, 5))
    assert not torch.equal(vector(llama, pairs, 5), vector(llama, pairs, 6))


def test_directions_of_many_seeds_are_spread_evenly(llama, pairs):
    method = RandomDirection()
    rows = torch.stack([RandomDirection(seed=seed).direction(torch.ones(1, 32), None) for seed in range(2000)])
    assert method.role == "control"
    torch.testing.assert_close(rows.norm(dim=-1), torch.ones(2000))
    assert float(rows.mean(0).norm()) < 0.05
    second = rows.T @ rows / len(rows)
    assert float((second - torch.eye(32) / 32).abs().max()) < 0.006


def test_in_units_of_the_stream_it_is_as_long_as_the_stream(llama, small):
    for layer, edit in RandomDirection(seed=1).fit_layers(llama, small, [0, 2]).items():
        norm = edit.provenance.stream_norm[f"layers.{layer}.out"]
        assert float(edit.operator.vector.norm()) == pytest.approx(norm, rel=1e-5) and edit.unit == "stream"
