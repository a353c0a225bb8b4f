"""Profiles against closed forms by hand."""

from __future__ import annotations

import math

import pytest

import optrode as op
from optrode.errors import BadInput


def density(x: float) -> float:
    return math.exp(-x * x / 2) / math.sqrt(2 * math.pi)


@pytest.mark.parity("gelu-analysis")
def test_gelu_is_what_its_derivatives_say():
    found = op.functions.ActivationProfile().fit("gelu")
    top = 0.5 * math.erfc(-1) + math.sqrt(2) * density(math.sqrt(2))
    assert [one.value for one in found.slope] == pytest.approx([1 - top, top], abs=1e-9)
    assert [one.at for one in found.slope] == pytest.approx([-math.sqrt(2), math.sqrt(2)], abs=1e-6)
    assert found.lipschitz == pytest.approx(1.128904, abs=1e-6)
    assert found.curvature[1].value == pytest.approx(2 * density(0), abs=1e-9)
    assert found.curvature[0].value == pytest.approx(-2 * density(2), abs=1e-9)
    assert abs(found.curvature[0].at) == pytest.approx(2, abs=1e-6)
    assert found.smoothness == pytest.approx(0.797885, abs=1e-6)
    assert found.inflections == pytest.approx((-math.sqrt(2), math.sqrt(2)), abs=1e-8)
    assert (found.lowest.value, found.lowest.at) == pytest.approx((-0.169971, -0.751792), abs=1e-6)
    assert found.roots == (0,) and found.kinks == ()
    assert (found.slope_left, found.slope_right, found.excess_right) == pytest.approx((0, 1, 0), abs=1e-12)


@pytest.mark.parity("gelu-analysis")
def test_moments_of_gelu_and_relu():
    found = op.functions.ActivationProfile().fit("gelu")
    assert found.mean == pytest.approx(1 / (2 * math.sqrt(math.pi)), abs=1e-10)
    assert found.square == pytest.approx(0.425221, abs=1e-6) and found.slope_square == pytest.approx(0.455851, abs=1e-6)
    relu = op.functions.ActivationProfile(deviation=3.0).fit("relu")
    assert relu.mean == pytest.approx(3 / math.sqrt(2 * math.pi)) and relu.square == pytest.approx(4.5)
    assert relu.slope_square == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("name", "lowest", "at", "lipschitz"),
    [("silu", -0.278465, -1.278465, 1.099839), ("mish", -0.308843, -1.192431, 1.088498), ("tanh", -1.0, -10.0, 1.0)],
)
def test_other_functions(name: str, lowest: float, at: float, lipschitz: float):
    found = op.functions.profile(name)
    assert found.lowest.value == pytest.approx(lowest, abs=1e-6) and found.lowest.at == pytest.approx(at, abs=1e-4)
    assert found.lipschitz == pytest.approx(lipschitz, abs=1e-6)


def test_kinks_and_jumps_are_told():
    relu = op.functions.profile("relu")
    assert relu.kinks == (0,) and relu.smoothness == math.inf and relu.lipschitz == 1 and relu.roots == ()
    step = op.functions.profile("binary step")
    assert step.lipschitz == math.inf
    elu = op.functions.profile("elu", (-3.0, 2.0))
    assert (
        elu.interval == (-3.0, 2.0) and elu.highest.value == 2 and elu.lowest.value == pytest.approx(math.exp(-3) - 1)
    )
    with pytest.raises(BadInput, match="mixes elements"):
        op.functions.profile("softmax")
