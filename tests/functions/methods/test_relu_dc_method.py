"""Spectra of ReLU against the closed form, and its series against its own error term."""

from __future__ import annotations

import math

import pytest
import torch

import optrode as op
from optrode.errors import BadInput
from optrode.functions.methods.relu_dc import ReluDC
from optrode.functions.spectrum import Tones, coefficients, cosines, lines, rectified_cosine, relu_series

FOUR = Tones((1.0, 0.5, 0.3, 0.2), (10.0, 5.0, 20.0, 40.0))


def sampled(harmonic: int, length: int) -> float:
    """The amplitude that a sampled rectified cosine of one period has: harmonics that fall together, added up."""
    own = lambda n: (2 / math.pi) * (-1) ** (n // 2 + 1) / (n * n - 1)  # noqa: E731
    found = rectified_cosine(harmonic)
    for turn in range(1, 100_000):
        for n in (turn * length - harmonic, turn * length + harmonic):
            if n % 2 == 0 and not (harmonic == 0 and n == turn * length and found is None):
                found += own(n)
        if harmonic == 0:
            # Both are the same harmonic, which is counted once.
            found -= own(turn * length)
    return found


@pytest.mark.parity("relu-dc")
def test_one_cosine_against_the_closed_form() -> None:
    length = 1024
    amplitudes = cosines(torch.relu(Tones((1.0,), (1.0,), rate=length, length=length).signal()))
    for harmonic in (0, 1, 2, 3, 4, 5, 8):
        assert float(amplitudes[harmonic]) == pytest.approx(sampled(harmonic, length), abs=1e-10), harmonic
    assert rectified_cosine(0, 3.0) == pytest.approx(3 / math.pi) and rectified_cosine(1, 3.0) == 1.5
    assert rectified_cosine(2) == pytest.approx(2 / (3 * math.pi)) and rectified_cosine(4) < 0
    with pytest.raises(BadInput, match="count from 0"):
        rectified_cosine(-1)


@pytest.mark.parity("relu-dc")
def test_coefficients_against_the_formula_with_factorials() -> None:
    for k, value in enumerate(coefficients(60)):
        exact = (-1) ** k * math.factorial(2 * k) / ((1 - 2 * k) * math.factorial(k) ** 2 * 4**k)
        assert value == pytest.approx(exact, rel=1e-12)


def test_the_series_comes_nearer_and_errs_most_where_the_signal_is_zero() -> None:
    signal = FOUR.signal()
    last = math.inf
    for terms in (2, 5, 20, 50, 200):
        off = (relu_series(signal, FOUR.bound, terms) - signal.clamp(min=0)).abs().max()
        assert float(off) < last
        last = float(off)
    half = FOUR.bound / 2
    at_zero = relu_series(torch.zeros(1, dtype=torch.float64), FOUR.bound, 50)
    exact = math.sqrt(half) * math.comb(100, 50) / 4**50 / 2
    assert float(at_zero) == pytest.approx(exact, rel=1e-9)
    assert 2 * exact == pytest.approx(0.080 * math.sqrt(half), rel=0.01)
    # A literal sum of powers.
    m = signal**2 / half - 1
    slow = (signal + math.sqrt(half) * sum(c * m**k for k, c in enumerate(coefficients(50)))) / 2
    assert torch.allclose(relu_series(signal, FOUR.bound, 50), slow, atol=1e-12)
    assert ReluDC(terms=50).expand(FOUR).error == pytest.approx(0.0135, abs=5e-4)


def test_scale_does_not_matter() -> None:
    small = Tones(tuple(1e-4 * a for a in FOUR.amplitudes), FOUR.frequencies)
    assert ReluDC().expand(small).error == pytest.approx(ReluDC().expand(FOUR).error, rel=1e-9)


def test_lines_are_even_combinations_besides_half_the_input() -> None:
    """Two frequencies of which no small combinations fall together."""
    tones = Tones((1.0, 0.7), (50.0, 81.0))
    found = {line.orders: line for line in lines("relu", tones, 3)}
    assert found[(1, 0)].amplitude == pytest.approx(0.5, abs=1e-3) and found[(0, 1)].amplitude == pytest.approx(
        0.35, abs=1e-3
    )
    odd = [line for orders, line in found.items() if sum(map(abs, orders)) == 3]
    even = [line for orders, line in found.items() if sum(map(abs, orders)) == 2]
    assert max(abs(line.amplitude) for line in odd) < 1e-3 < min(abs(line.amplitude) for line in even)
    assert found[(0, 0)].kind == "constant" and found[(1, 1)].kind == "product" and found[(2, 0)].kind == "harmonic"
    # The constant is the mean of the output.
    assert found[(0, 0)].amplitude == pytest.approx(float(torch.relu(tones.signal()).mean()))
    # An odd function makes no even combination.
    tanh = {line.orders: line.amplitude for line in lines("tanh", tones, 2)}
    assert abs(tanh[(0, 0)]) < 1e-3 and abs(tanh[(1, 1)]) < 1e-3 < abs(tanh[(1, 0)])


def test_the_module_is_relu_but_for_the_series() -> None:
    x = torch.randn(5, 16, generator=torch.Generator().manual_seed(0)).requires_grad_()
    for terms, near in ((4, 0.5), (400, 0.06)):
        y = op.functions.ReluDC(terms=terms).module(16)(x)
        bound = x.detach().abs().amax(1, keepdim=True)
        assert float(((y - x.relu()).abs() / bound).max()) < near
    y.sum().backward()
    assert x.grad is not None and bool(torch.isfinite(x.grad).all())
    assert torch.equal(op.functions.ReluDC().module(4)(torch.zeros(2, 4)), torch.zeros(2, 4))


def test_what_it_refuses() -> None:
    with pytest.raises(BadInput, match="whole number"):
        Tones((1.0,), (10.5,), rate=1024, length=1000)
    with pytest.raises(BadInput, match="one for each"):
        Tones((1.0, 2.0), (10.0,))
    with pytest.raises(BadInput, match="mixes elements"):
        lines("softmax", FOUR)
    with pytest.raises(BadInput, match="at least 1"):
        ReluDC(terms=0)
