"""What a function does to the spectrum of a signal: a constant term, harmonics, sums and differences of frequencies.

Source: arXiv 2407.16556. ReLU is (y + |y|)/2, so all that it adds comes out of |y| = sqrt(y^2), whose series in y^2 has
even combinations of the frequencies alone.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import BadInput
from .protocol import Function
from .zoo import get


@dataclass(frozen=True)
class Tones:
    """A sum of cosines: amplitudes, frequencies in Hz, samples a second, number of samples.

    Raises `BadInput` for frequencies that do not fit the samples a whole number of times, whose lines would leak into
    each other, or that lie above half the rate.

    >>> Tones((1.0,), (5.0,), rate=64, length=64).signal().shape
    torch.Size([64])
    """

    amplitudes: tuple[float, ...]
    frequencies: tuple[float, ...]
    rate: float = 1024.0
    length: int = 1024

    def __post_init__(self) -> None:
        if not self.amplitudes or len(self.amplitudes) != len(self.frequencies):
            raise BadInput(
                f"{len(self.amplitudes)} amplitudes for {len(self.frequencies)} frequencies: give one for each"
            )
        for frequency in self.frequencies:
            periods = frequency * self.length / self.rate
            if abs(periods - round(periods)) > 1e-9 or not 0 < frequency < self.rate / 2:
                raise BadInput(
                    f"{frequency:g} Hz has {periods:g} periods in {self.length} samples at {self.rate:g} a second: "
                    f"take a whole number of them, and less than {self.rate / 2:g} Hz"
                )

    def signal(self) -> Tensor:
        """The samples, [length] float64."""
        time = torch.arange(self.length, dtype=torch.float64) / self.rate
        pairs = zip(self.amplitudes, self.frequencies, strict=True)
        return torch.stack([a * torch.cos(2 * math.pi * f * time) for a, f in pairs]).sum(0)

    @property
    def bound(self) -> float:
        """A number that the square of no sample exceeds."""
        return sum(abs(a) for a in self.amplitudes) ** 2


@dataclass(frozen=True)
class Line:
    """One frequency of an output. `kind` is constant, input, harmonic or product; `orders` says how often each input
    frequency goes in, such as (1, -1) for their difference. `amplitude` is that of a cosine, below 0 where it is upside
    down."""

    frequency: float
    amplitude: float
    kind: str
    orders: tuple[int, ...]


def lines(function: str | Function, tones: Tones, order: int = 4) -> list[Line]:
    """The lines of a function's output: all combinations of the input frequencies up to `order` frequencies in all.

    Each frequency is listed once, with its simplest combination, the largest amplitude first. Raises `BadInput` for
    functions that mix elements.
    """
    if order < 1:
        raise BadInput(f"the order is {order}: count at least 1")
    amplitudes = cosines(apply(function, tones.signal()))
    found: dict[int, Line] = {}
    every = itertools.product(range(-order, order + 1), repeat=len(tones.frequencies))
    for orders in sorted(every, key=lambda one: (sum(map(abs, one)), [-n for n in one])):
        frequency = sum(n * f for n, f in zip(orders, tones.frequencies, strict=True))
        place = round(frequency * tones.length / tones.rate)
        if sum(map(abs, orders)) <= order and 0 <= place <= tones.length // 2 and place not in found:
            found[place] = Line(frequency, float(amplitudes[place]), _kind(orders), orders)
    return sorted(found.values(), key=lambda line: -abs(line.amplitude))


def _kind(orders: Sequence[int]) -> str:
    used = [n for n in orders if n]
    if not used:
        return "constant"
    if len(used) > 1:
        return "product"
    return "input" if used == [1] else "harmonic"


def apply(function: str | Function, signal: Tensor) -> Tensor:
    """A function of the zoo on a signal. Raises `BadInput` for functions that mix elements."""
    found = get(function) if isinstance(function, str) else function
    if not found.elementwise:
        raise BadInput(f"{found.name} mixes elements, so it has no lines of its own: {found.formula}")
    return found(signal)


def cosines(signal: Tensor) -> Tensor:
    """Amplitudes of the cosines that a signal is the sum of, by frequency from 0 to half the rate, [..., bin]."""
    length = signal.shape[-1]
    found = torch.fft.rfft(signal).real * (2 / length)
    found[..., 0] /= 2
    if length % 2 == 0:
        found[..., -1] /= 2
    return found


def rectified_cosine(harmonic: int, amplitude: float = 1.0) -> float:
    """The amplitude of a harmonic of ReLU of one cosine, in closed form: a/pi for the constant, a/2 for the first.

    >>> round(rectified_cosine(0), 4), rectified_cosine(1), rectified_cosine(3)
    (0.3183, 0.5, 0.0)
    """
    if harmonic < 0:
        raise BadInput(f"the harmonic is {harmonic}: count from 0")
    if harmonic < 2:
        return amplitude / (2 if harmonic else math.pi)
    half = harmonic // 2
    return 0.0 if harmonic % 2 else amplitude * 2 / math.pi * (-1) ** (half + 1) / (4 * half * half - 1)


def relu_series(signal: Tensor, bound: float | Tensor, terms: int = 50) -> Tensor:
    """ReLU by the first `terms` powers of m = signal^2/A - 1 after the constant, A = bound/2, where signal^2 <= bound.

    (y + sqrt(A) sum_k c_k m^k)/2, with c_k those of sqrt(1 + m). Where the signal is 0 it is wrong by
    sqrt(A)/2 C(2N, N)/4^N, its largest error, which falls like 1/sqrt(N).
    """
    if terms < 0:
        raise BadInput(f"the series has {terms} terms: take 0 or more")
    half = torch.as_tensor(bound, dtype=signal.dtype, device=signal.device) / 2
    safe = torch.where(half > 0, half, torch.ones_like(half))
    m = signal * signal / safe - 1
    found = torch.full_like(signal, coefficients(terms)[-1])
    for value in reversed(coefficients(terms)[:-1]):
        found = found * m + value
    return (signal + torch.where(half > 0, safe.sqrt() * found, torch.zeros_like(found))) / 2


def coefficients(terms: int) -> list[float]:
    """Those of sqrt(1 + m) by powers of m: 1, 1/2, -1/8, 1/16, ...

    >>> coefficients(3)
    [1.0, 0.5, -0.125, 0.0625]
    """
    found = [1.0]
    for k in range(terms):
        found.append(found[-1] * (0.5 - k) / (k + 1))
    return found
