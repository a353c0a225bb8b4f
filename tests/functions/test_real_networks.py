"""Maps by layer beside real random networks, and their picture."""

from __future__ import annotations

import math

import pytest
import torch

import optrode as op
from optrode.errors import BadInput
from optrode.functions.maps_chart import rows

EDGE = {"weight_variance": 1.3041**2, "bias_variance": 0.04, "correlation": 0.6}


def test_networks_agree_with_the_theory() -> None:
    seen = op.functions.measured("tanh", 10, width=600, networks=12, **EDGE)
    assert seen.within(5) and seen.theory == op.functions.maps("tanh", 10, **EDGE)
    assert all(0 < error < 0.05 for error in seen.error.correlation[1:])
    slopes = zip(seen.mean.slope, seen.theory.slope, seen.error.slope, strict=True)
    assert all(abs(got - said) < 5 * error for got, said, error in slopes)


def test_another_theory_is_told_apart() -> None:
    """The check can fail: weights a tenth larger are not those of the theory."""
    seen = op.functions.measured("tanh", 10, width=600, networks=12, **EDGE)
    other = op.functions.maps("tanh", 10, **{**EDGE, "weight_variance": 1.1 * EDGE["weight_variance"]})
    assert not type(seen)(seen.mean, seen.error, other, seen.width, seen.networks).within(5)


def test_one_linear_layer_by_hand() -> None:
    """Of h -> W h, the variance is that of a chi-squared number; the mean over many networks is 1."""
    seen = op.functions.measured("identity", 1, width=100, networks=200)
    assert seen.mean.variance[0] == pytest.approx(1, abs=1e-5) and seen.mean.correlation[0] == pytest.approx(0.5)
    assert seen.mean.variance[1] == pytest.approx(1, abs=4 * seen.error.variance[1])
    # The deviation of one network is sqrt(2 / width).
    assert seen.error.variance[1] == pytest.approx(math.sqrt(2 / 100 / 200), rel=0.2)
    assert seen.mean.slope[0] == pytest.approx(1, abs=4 * seen.error.slope[0])


def test_the_same_seed_gives_the_same_and_global_numbers_stay() -> None:
    torch.manual_seed(5)
    wanted = torch.rand(1)
    torch.manual_seed(5)
    first = op.functions.measured("relu", 2, width=20, networks=2, seed=1)
    assert torch.equal(torch.rand(1), wanted)
    assert first == op.functions.measured("relu", 2, width=20, networks=2, seed=1)
    assert first != op.functions.measured("relu", 2, width=20, networks=2, seed=2)


def test_the_picture_has_lines_and_dots() -> None:
    seen = op.functions.measured("square", 4, width=50, networks=2, weight_variance=2.0)
    drawn = seen.plot().to_dict()
    panels = drawn["hconcat"]
    assert [panel["title"]["text"] for panel in panels] == ["variance", "correlation", "slope"]
    assert [layer["mark"]["type"] for layer in panels[0]["layer"]] == ["line", "rule", "circle"]
    assert "2 networks of 50" in panels[0]["title"]["subtitle"]
    first = rows("variance", seen.theory, seen)
    assert len(first) == 5 and first[2]["low"] < first[2]["network"] < first[2]["high"]
    alone = op.functions.maps("relu", 3).plot().to_dict()
    assert alone["hconcat"][0]["mark"]["type"] == "line" and "theory" in alone["hconcat"][0]["title"]["subtitle"]


def test_what_it_refuses() -> None:
    with pytest.raises(BadInput, match="at least 1, 2 and 2"):
        op.functions.measured("relu", 3, networks=1)
    with pytest.raises(BadInput, match="mixes elements"):
        op.functions.measured("softmax", 3)
