"""Theory of wide random networks against closed forms, torch's gains, and real networks of that shape."""

from __future__ import annotations

import math

import pytest
import torch

import optrode as op
from optrode.errors import BadInput, NotFinite


def test_gains_with_a_closed_form() -> None:
    assert op.functions.gain("relu") == pytest.approx(math.sqrt(2), abs=1e-9)
    slope = 0.1
    leaky = op.functions.from_formula("x>=0: x; a*x", parameters={"a": slope})
    assert op.functions.gain(leaky) == pytest.approx(torch.nn.init.calculate_gain("leaky_relu", slope), abs=1e-9)
    assert op.functions.gain("identity") == pytest.approx(1)
    # E[sin^2] = (1 - e^-2)/2, E[(z^2)^2] = 3, E[erf(z)^2] = (2/pi) asin(2/3).
    assert op.functions.gain("sine") == pytest.approx(1 / math.sqrt((1 - math.exp(-2)) / 2), abs=1e-9)
    assert op.functions.gain("square") == pytest.approx(1 / math.sqrt(3), abs=1e-9)
    assert op.functions.gain("erf") == pytest.approx(1 / math.sqrt(2 / math.pi * math.asin(2 / 3)), abs=1e-9)


def test_correlation_map_of_relu_is_the_arc_cosine_kernel() -> None:
    signal = op.functions.maps("relu", 3, weight_variance=2.0, correlation=0.3)
    c = 0.3
    for found, slope, size in zip(signal.correlation[1:], signal.slope[1:], signal.variance[1:], strict=True):
        c = (math.sqrt(1 - c * c) + c * (math.pi - math.acos(c))) / math.pi
        assert found == pytest.approx(c, abs=2e-4)
        assert slope == pytest.approx(1) and size == pytest.approx(1)


def test_a_gain_over_depth_keeps_the_gradient() -> None:
    for name in ("tanh", "gelu", "golu", "selu"):
        factor = op.functions.gain(name, depth=10)
        slopes = op.functions.maps(name, 10, weight_variance=factor**2).slope[:10]
        assert math.prod(slopes) == pytest.approx(1, abs=1e-6), name
    assert op.functions.gain("relu", depth=10) == pytest.approx(math.sqrt(2), abs=1e-6)
    assert op.functions.gain("identity", depth=10) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("name", ["tanh", "gelu", "mish", "golu", "selu"])
def test_a_real_wide_network_does_what_the_maps_say(name: str) -> None:
    """Three draws of 1024 neurons, three layers deep: deviations grow with depth where the variance map is unstable."""
    width, depth, factor = 1024, 3, op.functions.gain(name)
    signal = op.functions.maps(name, depth, weight_variance=factor**2, bias_variance=0.05, correlation=0.6)
    function, found = op.functions.get(name), []
    for seed in range(3):
        draw = torch.Generator().manual_seed(seed)
        u, v = (math.sqrt(width) * torch.linalg.qr(torch.randn(width, 2, generator=draw)).Q).mT
        h = torch.stack([u, 0.6 * u + 0.8 * v])
        for _ in range(depth):
            weight = torch.randn(width, width, generator=draw) * factor / math.sqrt(width)
            h = function(h) @ weight.mT + math.sqrt(0.05) * torch.randn(width, generator=draw)
        size = h.square().mean(1)
        found.append((float(size.mean()), float((h[0] * h[1]).mean() / size.prod().sqrt())))
    variance, correlation = torch.tensor(found).mean(0).tolist()
    assert variance == pytest.approx(signal.variance[-1], rel=0.12)
    assert correlation == pytest.approx(signal.correlation[-1], abs=0.03)


def test_what_has_no_gain() -> None:
    with pytest.raises(BadInput, match="mixes elements"):
        op.functions.gain("softmax")
    with pytest.raises(NotFinite, match="no gain"):
        op.functions.gain(op.functions.from_formula("0*x"))
    with pytest.raises(BadInput, match="at least one layer"):
        op.functions.gain("relu", depth=0)
