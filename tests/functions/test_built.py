"""Built functions against literal twins in plain Python, and what every one of them must do."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import fmean, pvariance
from types import SimpleNamespace
from typing import Any

import mpmath
import pytest
import torch
from torch import Tensor

import optrode as op
from optrode.functions.built import built_functions

BUILT = built_functions()
COMPLEX = ("CReLU complex", "modReLU", "zReLU", "complex cardioid")
WIDTH = 8
Row = list[float]


def s(u: float) -> float:
    return 1 / (1 + math.exp(-u))


def cdf(u: float) -> float:
    return (1 + math.erf(u / math.sqrt(2))) / 2


def relu(u: float) -> float:
    return max(u, 0.0)


def elu(u: float) -> float:
    return u if u > 0 else math.exp(u) - 1


def softmax(x: Row) -> Row:
    whole = sum(math.exp(u) for u in x)
    return [math.exp(u) / whole for u in x]


def gate(g: Callable[[float, float, Any], float]) -> Callable[[Row, Any], Row]:
    return lambda x, p: [g(z, w, p) for z, w in zip(x[: len(x) // 2], x[len(x) // 2 :], strict=True)]


def each(g: Callable[[float, Any], float]) -> Callable[[Row, Any], Row]:
    return lambda x, p: [g(u, p) for u in x]


def poly(c: Row, u: float) -> float:
    return sum(one * u**j for j, one in enumerate(c))


def powers(b: Row, u: float, size: Callable[[float], float] = float) -> float:
    return sum(size(one * u ** (k + 1)) for k, one in enumerate(b))


def fraction(a: float, n: int) -> float:
    return float((-1) ** n * mpmath.gamma(a + 1) / (mpmath.gamma(n + 1) * mpmath.gamma(1 - n + a)))


def line(table: Row, start: float, step: float, u: float) -> float:
    j = min(max(math.floor((u - start) / step), 0), len(table) - 2)
    return table[j] * (start + step * (j + 1) - u) / step + table[j + 1] * (u - start - step * j) / step


def simplex(x: Row, power: float, scale: float) -> Row:
    """The threshold by a search in plain numbers."""
    low, high = min(x) * scale - 1, max(x) * scale
    for _ in range(200):
        t = (low + high) / 2
        if sum(relu(scale * u - t) ** power for u in x) > 1:
            low = t
        else:
            high = t
    return [relu(scale * u - low) ** power for u in x]


def winners(x: Row, k: int) -> Row:
    border = sorted(x)[-k]
    return [u if u >= border else 0.0 for u in x]


def pairwise(g: Callable[[float, float, Any], tuple[float, float]]) -> Callable[[Row, Any], Row]:
    return lambda x, p: [v for j in range(0, len(x), 2) for v in g(x[j], x[j + 1], p)]


def reflected(z: float, w: float, p: Any) -> tuple[float, float]:
    v = (math.sin(p.t / 2), -math.cos(p.t / 2))
    inner = v[0] * z + v[1] * w
    return (z, w) if inner > 0 else (z - 2 * inner * v[0], w - 2 * inner * v[1])


def logistic_runs(x: Row, p: Any) -> list[Row]:
    found = []
    for u in x:
        c, run = s(u), []
        for _ in x:
            c = p.r * c * (1 - c)
            run.append(c)
        found.append(run)
    return found


def over_rms(x: Row, power: int) -> Row:
    raised = [u**power for u in x]
    return [u / math.sqrt(fmean(v * v for v in raised) + 1e-6) for u in raised]


def scaled_length(x: Row, g: Callable[[float], float]) -> Row:
    length = math.sqrt(sum(u * u for u in x))
    return [g(length) * u / length for u in x]


def bump(u: float, a: float, tau: float) -> float:
    return (1 + math.cos(math.pi * (u - a) / tau)) / (2 * tau) if abs(u - a) <= tau else 0.0


POOL = (math.tanh, elu, relu, lambda u: u * s(u), lambda u: u)
CHEB = (lambda u: 1.0, lambda u: u, lambda u: 2 * u**2 - 1, lambda u: 4 * u**3 - 3 * u,
        lambda u: 8 * u**4 - 8 * u**2 + 1, lambda u: 16 * u**5 - 20 * u**3 + 5 * u)  # fmt: skip
LEGENDRE = (lambda u: 1.0, lambda u: u, lambda u: (3 * u**2 - 1) / 2, lambda u: (5 * u**3 - 3 * u) / 2)
HERMITE = (lambda u: 1.0, lambda u: u, lambda u: u**2 - 1, lambda u: u**3 - 3 * u, lambda u: u**4 - 6 * u**2 + 3,
           lambda u: u**5 - 10 * u**3 + 15 * u)  # fmt: skip

# Each as the list words it; x are the features of one example, p the parameters as numbers and lists.
TWINS: dict[str, Callable[[Row, Any], Any]] = {
    "WiG": lambda x, p: [u * s(sum(w * v for w, v in zip(p.W[j], x, strict=True)) + p.b[j]) for j, u in enumerate(x)],
    "GLU": gate(lambda z, w, p: z * s(w)),
    "GTU": gate(lambda z, w, p: math.tanh(z) * s(w)),
    "ReGLU": gate(lambda z, w, p: z * relu(w)),
    "GEGLU": gate(lambda z, w, p: z * w * cdf(w)),
    "SwiGLU": gate(lambda z, w, p: z * w * s(p.a * w)),
    "Bilinear GLU": gate(lambda z, w, p: z * w),
    "SimpleGate": gate(lambda z, w, p: z * w),
    "dReLU-GLU": gate(lambda z, w, p: relu(z) * relu(w)),
    "ReLU2-GLU": gate(lambda z, w, p: z * relu(w) ** 2),
    "tanh GLU": gate(lambda z, w, p: z * math.tanh(w)),
    "xSwiGLU": gate(lambda z, w, p: z * w * (s(w) * (1 + 2 * p.a) - p.a)),
    "xGEGLU": gate(lambda z, w, p: z * w * (cdf(w) * (1 + 2 * p.a) - p.a)),
    "xATGLU": gate(lambda z, w, p: z * w * ((math.atan(w) / math.pi + 0.5) * (1 + 2 * p.a) - p.a)),
    "StarNet gate": gate(lambda z, w, p: min(relu(z), 6) * w),
    "clamped SwiGLU": gate(lambda z, w, p: (max(-7, min(7, z)) + 1) * min(w, 7) * s(1.702 * min(w, 7))),
    "TM2": gate(lambda r, c, p: r + r * c),
    "TM3": gate(lambda r, c, p: r * (1 + math.tanh(r * c))),
    "TM4": gate(lambda r, c, p: r * 2 ** (r * c)),
    "Cooperation": gate(lambda r, c, p: min(relu(r**2 + 2 * r + c * (1 + abs(r))), 6)),
    "DualReLU": gate(lambda z, w, p: relu(z) - relu(w)),
    "DualELU": gate(lambda z, w, p: elu(z) - elu(w)),
    "softmax": lambda x, p: softmax(x),
    "log-softmax": lambda x, p: [math.log(u) for u in softmax(x)],
    "softmin": lambda x, p: softmax([-u for u in x]),
    "temperature softmax": lambda x, p: softmax([u / p.T for u in x]),
    "beta-softmax": lambda x, p: softmax([p.b * u for u in x]),
    "Gumbel-softmax": lambda x, p: softmax([u / p.T for u in x]),
    "softmax1": lambda x, p: [math.exp(u) / (1 + sum(math.exp(v) for v in x)) for u in x],
    "SoLU": lambda x, p: [u * v for u, v in zip(x, softmax(x), strict=True)],
    "SQMAX": lambda x, p: [(u + p.c) ** 2 / sum((v + p.c) ** 2 for v in x) for u in x],
    "sparsemax": lambda x, p: simplex(x, 1, 1),
    "alpha-entmax": lambda x, p: simplex(x, 1 / (p.a - 1), p.a - 1),
    "log-sum-exp pooling": lambda x, p: [math.log(fmean(math.exp(p.r * u) for u in x)) / p.r],
    "generalised mean pooling": lambda x, p: [fmean(max(u, p.eps) ** p.p for u in x) ** (1 / p.p)],
    "causal-exp": lambda x, p: [math.exp((u - fmean(x)) / math.sqrt(pvariance(x) + p.eps)) for u in x],
    "squared-ReLU attention weight": lambda x, p: [relu(u) ** 2 / len(x) for u in x],
    "k-WTA": lambda x, p: winners(x, 2),
    "TopK": lambda x, p: [relu(u) for u in winners(x, 3)],
    "ASH threshold": lambda x, p: [u if u > _quantile(x, 1 - p.k) else 0.0 for u in x],
    "ProLU": each(lambda u, p: u if u + p.b > 0 and u > 0 else 0.0),
    "CReLU": lambda x, p: [relu(u) for u in x] + [relu(-u) for u in x],
    "NCReLU": lambda x, p: [relu(u) for u in x] + [-relu(-u) for u in x],
    "BAF": lambda x, p: [relu(u) if j % 2 == 0 else -relu(-u) for j, u in enumerate(x)],
    "OPLU": pairwise(lambda z, w, p: (max(z, w), min(z, w))),
    "GroupSort": pairwise(lambda z, w, p: (min(z, w), max(z, w))),
    "MaxMin (halves)": lambda x, p: [f(z, w) for f in (max, min) for z, w in zip(x[:4], x[4:], strict=True)],
    "Paired ReLU": lambda x, p: [relu(p.a * u - p.b) for u in x] + [relu(p.c * u - p.d) for u in x],
    "MBA": lambda x, p: [relu(u + b) for b in p.b for u in x],
    "maxout": each(lambda u, p: max(w * u + b for w, b in zip(p.w, p.b, strict=True))),
    "Householder activation": pairwise(reflected),
    "All-ReLU": each(lambda u, p: u if u > 0 else -p.a * u),
    "TAAF": each(lambda u, p: p.a * math.tanh(p.b * u + p.c) + p.d),
    "trainable amplitude": each(lambda u, p: p.a * math.tanh(u) + p.b),
    "LAAF": each(lambda u, p: math.tanh(p.n * p.a * u)),
    "DPAF": each(lambda u, p: (p.a if u >= 0 else 1) * math.tanh(u) + p.m),
    "FPAF": each(lambda u, p: (p.a if u >= 0 else p.b) * math.tanh(u)),
    "L-ReLU": each(lambda u, p: max(p.p * u, 0) if u > 0 else min(p.n * u, 0)),
    "MSAF": each(lambda u, p: p.a + sum(s(u - b) for b in p.b)),
    "PReLU-PELU gate": each(lambda u, p: s(p.a * u) * (u if u >= 0 else p.slope * u) + (1 - s(p.a * u)) * (
        p.scale / p.width * u if u >= 0 else p.scale * (math.exp(u / p.width) - 1))),
    "soft exponential": each(lambda u, p: (math.exp(p.a * u) - 1) / p.a + p.a),
    "ABReLU": lambda x, p: [relu(u - fmean(x)) for u in x],
    "PolyNorm": lambda x, p: [
        p.a[0] * u + p.a[1] * v + p.a[2] * w + p.b
        for u, v, w in zip(over_rms(x, 1), over_rms(x, 2), over_rms(x, 3), strict=True)
    ],
    "ApproxMinMaxNorm square": each(lambda u, p: (2 * u - 1) ** 2),
    "Dice": each(lambda u, p: s(u / math.sqrt(1 + 1e-8)) * u + (1 - s(u / math.sqrt(1 + 1e-8))) * p.a * u),
    "VeLU": each(lambda u, p: p.l * u * s(p.al * (math.atan(p.b1 * u) + math.asin(min(max(p.b2 * u, -1), 1)))) * (
        1 + p.g * math.tanh(p.m))),
    "HCAF": logistic_runs,
    "CCAF": lambda x, p: [p.a * math.sin(math.pi * p.b * math.sin(math.pi * u)) for u in [x[0], *x[:-1]]],
    "chaotic injection ReLU": each(lambda u, p: relu(u + 0.3)),
    "APLU": each(lambda u, p: relu(u) + sum(a * relu(-u + b) for a, b in zip(p.a, p.b, strict=True))),
    "SPLASH": each(lambda u, p: sum(
        a * relu(u - b) + c * relu(-u - b) for a, c, b in zip(p.ap, p.am, p.b, strict=True))),
    "MeLU": each(lambda u, p: (u if u >= 0 else p.slope * u) + sum(
        a * max(c - abs(u - b), 0) for a, b, c in zip(p.a, p.b, p.c, strict=True))),
    "GaLU": each(lambda u, p: (u if u >= 0 else p.slope * u) + sum(
        a * (max(c - abs(u - b), 0) + min(abs(u - b - 2 * c) - c, 0)) for a, b, c in zip(p.a, p.b, p.c, strict=True))),
    "linear spline AF": each(lambda u, p: sum(a * relu(b * u + c) for a, b, c in zip(p.a, p.b, p.c, strict=True))),
    "deep spline": each(lambda u, p: p.b0 + p.b1 * u + sum(a * relu(u - t) for a, t in zip(p.a, p.t, strict=True))),
    "MTLU": each(lambda u, p: p.a[sum(u >= c for c in p.c)] * u + p.b[sum(u >= c for c in p.c)]),
    "TMAF-ReLU": each(lambda u, p: p.t[sum(u > c for c in p.s)] * u),
    "LuTU": each(lambda u, p: line(p.b, p.start, p.step, u)),
    "LuTU-cos": each(lambda u, p: sum(
        b * p.step * bump(u, p.start + p.step * j, p.t * p.step) for j, b in enumerate(p.b))),
    "PWLU": each(lambda u, p: line(p.values, p.l, (p.r - p.l) / 16, min(max(u, p.l), p.r))
        + p.first * min(u - p.l, 0) + p.last * relu(u - p.r)),
    "ABU": each(lambda u, p: sum(a * g(u) for a, g in zip(p.a, POOL, strict=True))),
    "biased ABU": each(lambda u, p: sum(a * g(u) + b for a, b, g in zip(p.a, p.b, POOL, strict=True))),
    "GABU": each(lambda u, p: sum(s(a) * g(u) for a, g in zip(p.a, POOL, strict=True))),
    "APAF": each(lambda u, p: (p.a[0] * relu(u) + p.a[1] * s(u) + p.a[2] * math.tanh(u) + p.a[3] * u) / sum(p.a)),
    "TCA": each(lambda u, p: sum(g(math.exp(a) * u + b) for a, b, g in zip(p.a, p.b, POOL, strict=True)) / 5),
    "TCAv2": each(lambda u, p: sum(
        math.exp(a) * g(math.exp(b) * u + c) for a, b, c, g in zip(p.a, p.b, p.c, POOL, strict=True)
    ) / sum(math.exp(a) for a in p.a)),
    "DKNN": each(lambda u, p: sum(a * g(b * u) for a, b, g in zip(p.a, p.b, POOL, strict=True))),
    "VAF": each(lambda u, p: p.a0 + sum(a * math.tanh(b * u + c) for a, b, c in zip(p.a, p.b, p.c, strict=True))),
    "SLAF": each(lambda u, p: poly(p.a, u)),
    "ChPAF": each(lambda u, p: sum(a * c(u) for a, c in zip(p.a, CHEB, strict=False))),
    "LPAF": each(lambda u, p: sum(a * c(u) for a, c in zip(p.a, LEGENDRE, strict=True))),
    "HPAF": each(lambda u, p: sum(a * c(u) for a, c in zip(p.a, HERMITE, strict=True))),
    "Rowdy": each(lambda u, p: math.tanh(u) + sum(a * p.c * math.sin((j + 1) * p.c * u) for j, a in enumerate(p.a))),
    "FSA": each(lambda u, p: p.a + sum(
        b * math.cos((j + 1) * p.d * u) + c * math.sin((j + 1) * p.d * u)
        for j, (b, c) in enumerate(zip(p.b, p.c, strict=True)))),
    "MoGU": each(lambda u, p: sum(
        a / math.sqrt(2 * math.pi * v**2) * math.exp(-((u - m) ** 2) / (2 * v**2))
        for a, v, m in zip(p.a, p.s, p.m, strict=True))),
    "KAF": each(lambda u, p: sum(a * math.exp(-p.g * (u - d) ** 2) for a, d in zip(p.a, p.d, strict=True))),
    "2D-KAF": lambda x, p: [
        sum(p.a[7 * i + j] * math.exp(-p.g * ((z - d) ** 2 + (w - e) ** 2))
            for i, d in enumerate(p.d) for j, e in enumerate(p.d))
        for z, w in zip(x[0::2], x[1::2], strict=True)
    ],
    "PAU": each(lambda u, p: poly(p.a, u) / (1 + powers(p.b, u))),
    "safe PAU": each(lambda u, p: poly(p.a, u) / (1 + abs(powers(p.b, u)))),
    "RPAU": each(lambda u, p: poly(p.a, u) / (1 + abs(powers(p.b, u)))),
    "PAU version A": each(lambda u, p: poly(p.a, u) / (1 + powers(p.b, u, abs))),
    "rational NN unit": each(lambda u, p: poly(p.p, u) / poly(p.q, u)),
    "ERA-rational": each(lambda u, p: poly(p.a, u) / (
        p.eps + ((u - p.c[0]) ** 2 + p.d[0] ** 2) * ((u - p.c[1]) ** 2 + p.d[1] ** 2))),
    "OPAU": each(lambda u, p: sum(a * c(u) for a, c in zip(p.a, CHEB, strict=True)) / (
        1 + sum(b * c(u) for b, c in zip(p.b, CHEB[1:5], strict=True)))),
    "safe OPAU": each(lambda u, p: sum(a * c(u) for a, c in zip(p.a, CHEB, strict=True)) / (
        1 + sum(abs(b) * abs(c(u)) for b, c in zip(p.b, CHEB[1:5], strict=True)))),
    "FracSoftplus": each(lambda u, p: p.h**-p.a * sum(
        fraction(p.a, n) * math.log(1 + math.exp(u - n * p.h)) for n in range(6))),
    "FracTanh": each(lambda u, p: p.h**-p.a * sum(fraction(p.a, n) * math.tanh(u - n * p.h) for n in range(6))),
    "FAAF": each(lambda u, p: p.h**-p.a * sum(fraction(p.a, n) * math.tanh(u - n * p.h) for n in range(6))),
    "FALU": each(lambda u, p: u * s(p.b * u) + p.a * s(p.b * u) * (1 - u * s(p.b * u))),
    "exp-erfi unit": each(lambda u, p: float(mpmath.exp(mpmath.findroot(
        lambda z: mpmath.erfi(z) - p.a * u - p.b, (p.a * u + p.b) / 2) ** 2))),
    "Mittag-Leffler sigmoid": each(lambda u, p: float(
        1 / (1 + mpmath.nsum(lambda k: (-mpmath.mpf(u)) ** k / mpmath.gamma(p.alpha * k + p.beta), [0, mpmath.inf])))),
    "norm nonlinearity": lambda x, p: scaled_length(x, lambda n: relu(n + p.b)),
    "squash": lambda x, p: scaled_length(x, lambda n: n**2 / (1 + n**2)),
    "ProbAct": each(lambda u, p: relu(u)),
    "noisy input AF (NANI)": each(lambda u, p: max(-1, min(1, u))),
    "noisy AF (NAN)": each(lambda u, p: _noisy(u, p)),
    "hard concrete gate": each(lambda u, p: min(1, max(0, s(u) * (p.r - p.l) + p.l))),
    "CReLU complex": each(lambda z, p: complex(relu(z.real), relu(z.imag))),
    "modReLU": each(lambda z, p: relu(abs(z) + p.b) * z / abs(z)),
    "zReLU": each(lambda z, p: z if 0 <= math.atan2(z.imag, z.real) <= math.pi / 2 else 0),
    "complex cardioid": each(lambda z, p: z * (1 + math.cos(math.atan2(z.imag, z.real))) / 2),
    "NIN": lambda x, p: [relu(v) for v in _layer(p.W2, p.b2, [relu(u) for u in _layer(p.W1, p.b1, x)])],
}  # fmt: skip


def _layer(weight: list[Row], bias: Row, x: Row) -> Row:
    return [sum(w * u for w, u in zip(row, x, strict=True)) + b for row, b in zip(weight, bias, strict=True)]


def _quantile(x: Row, share: float) -> float:
    ordered, place = sorted(x), share * (len(x) - 1)
    low = math.floor(place)
    return ordered[low] + (place - low) * (ordered[min(low + 1, len(x) - 1)] - ordered[low])


def _noisy(u: float, p: Any) -> float:
    hard = max(-1.0, min(1.0, u))
    spread = p.c * (s(p.p * (hard - u)) - 0.5) ** 2
    direction = -math.copysign(1, u) * math.copysign(1, 1 - p.al)
    return p.al * hard + (1 - p.al) * u - direction * spread * math.sqrt(2 / math.pi)


# Settings, borders and knots keep their defaults; the rest is moved, so that no parameter hides behind a 0 or 1.
KEPT = {"TopK": {"k": 3.0}, "k-WTA": {"k": 0.25}, "soft exponential": {"a": 0.4}, "FAAF": {"a": 0.3}}


def inputs(name: str, rows: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(len(name))
    if name in COMPLEX:
        return torch.randn(rows, WIDTH, generator=generator, dtype=torch.complex128)
    shape = (rows, WIDTH, 4, 3) if BUILT[name].keeps_axes else (rows, WIDTH)
    return 1.5 * torch.randn(*shape, generator=generator, dtype=torch.float64)


def moved(name: str) -> dict[str, Tensor]:
    function, generator = BUILT[name], torch.Generator().manual_seed(7)
    values = {}
    for key, value in function.initial(WIDTH).items():
        noise = 0.2 * torch.rand(value.shape, generator=generator, dtype=torch.float64)
        values[key] = value + noise if function.trained(key) else value
    return values | {key: torch.tensor(one, dtype=torch.float64) for key, one in KEPT.get(name, {}).items()}


@pytest.mark.parity("survey-400")
@pytest.mark.parametrize("name", TWINS)
def test_twin(name: str) -> None:
    x, values = inputs(name), moved(name)
    got = BUILT[name](x, **values)
    plain = SimpleNamespace(**{key: value.tolist() for key, value in values.items()})
    true = torch.tensor([TWINS[name](row, plain) for row in x.tolist()], dtype=got.dtype)
    assert got.shape == true.shape
    assert torch.allclose(got, true, rtol=1e-9, atol=1e-9), (got - true).abs().max()


def test_nearly_all_have_a_twin() -> None:
    """The rest needs a batch, an image or a spline, and has tests of its own below."""
    assert set(BUILT) - set(TWINS) == {
        "BatchTopK", "AOAF", "DReLU", "activation ensemble", "affine combination (Manessi)", "N-PWLU", "SAF", "PPAF",
        "SAAF", "B-spline basis", "FAB", "NPF", "KAF plus RSigELU", "SCAA", "FunReLU", "MetaACON-C", "DY-ReLU", "MIN",
        "hyperactivation",
    }  # fmt: skip


@pytest.mark.parametrize("name", BUILT)
def test_gradients_reach_every_parameter_and_are_those_of_finite_differences(name: str) -> None:
    function = BUILT[name]
    if name in ("ProLU",) or name in COMPLEX:
        pytest.skip("a surrogate by design, or complex")
    x = inputs(name, rows=2)
    keys = [key for key in function.initial(WIDTH) if function.trained(key)]
    values = [moved(name)[key].requires_grad_() for key in keys]
    fixed = {key: one for key, one in moved(name).items() if key not in keys}

    def run(x: Tensor, *values: Tensor) -> Tensor:
        return function(x, **dict(zip(keys, values, strict=True)), **fixed)

    assert torch.autograd.gradcheck(run, (x.requires_grad_(), *values), eps=1e-7, atol=1e-4, fast_mode=True)


@pytest.mark.parametrize("name", BUILT)
def test_module_and_call_agree_and_half_precision_stays_half(name: str) -> None:
    function = BUILT[name]
    axis = 1 if function.keeps_axes else -1
    module = function.module(WIDTH, axis=axis).double().eval()
    x = inputs(name)
    assert torch.allclose(module(x), function(x), atol=1e-6)
    again = function.module(WIDTH, axis=axis).double().eval()
    again.load_state_dict(module.state_dict())
    assert torch.equal(again(x), module(x))
    if name not in COMPLEX:
        assert function.module(WIDTH, axis=axis).eval()(x.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize(
    "name", [name for name in op.functions.names(confidence="high") if op.functions.get(name).random]
)
def test_random_functions_replay(name: str) -> None:
    module = op.functions.get(name).module(WIDTH, seed=3).train()
    x = torch.randn(64, WIDTH, generator=torch.Generator().manual_seed(0))
    first, second = module(x), module(x)
    assert not torch.equal(first, second)
    assert torch.equal(module.replay()(x), first)
    module.eval()
    assert torch.equal(module(x), module(x))
    assert torch.allclose(module(x), op.functions.get(name)(x), atol=1e-6)


# Those without a twin ------------------------------------------------------------------------------------------------


def test_batch_top_k_keeps_so_many_of_the_batch_and_learns_a_threshold() -> None:
    module = op.functions.get("BatchTopK").module(parameters={"k": 2.0}).train()
    x = torch.randn(16, 8, generator=torch.Generator().manual_seed(0))
    for _ in range(50):
        y = module(x)
    assert int((y != 0).sum()) == 2 * 16
    assert torch.equal(y[y != 0].sort().values, x.flatten().sort().values[-32:])
    border = float(x.flatten().sort().values[-32])
    module.eval()
    assert float(module.running_threshold) == pytest.approx(border)
    assert int((module(x) != 0).sum()) in (31, 32)


def test_batch_statistics_are_those_of_the_batch_in_training_and_running_ones_after() -> None:
    x = 3 + 2 * torch.randn(400, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    dice = op.functions.get("Dice").module(4).double().train()
    share = torch.sigmoid((x - x.mean(0)) / torch.sqrt(x.var(0, correction=0) + 1e-8))
    assert torch.allclose(dice(x), share * x)
    for _ in range(200):
        dice(x)
    assert torch.allclose(dice.running_mean, x.mean(0)) and torch.allclose(
        dice.running_variance, x.var(0, correction=0)
    )
    assert torch.allclose(dice.eval()(x), share * x)
    assert torch.allclose(op.functions.get("DReLU")(x), torch.maximum(x, (x.min() + x.max()) / 2))
    mean = x.mean(0)
    assert torch.allclose(op.functions.get("AOAF")(x), torch.relu(x - 0.17 * mean) + 0.17 * mean)


def test_splines_start_as_what_they_were_made_of() -> None:
    x = torch.linspace(-2.5, 2.5, 101, dtype=torch.float64)
    get = op.functions.get
    assert torch.allclose(get("SAF")(x), torch.tanh(x), atol=2e-3)
    assert torch.allclose(get("N-PWLU")(x), get("PWLU")(x))
    assert torch.allclose(get("SAAF")(x), torch.relu(x))
    assert torch.allclose(get("B-spline basis")(x), torch.nn.functional.silu(x))
    assert torch.allclose(get("KAF")(x), torch.tanh(x), atol=2e-2)
    assert torch.allclose(get("maxout")(x), torch.relu(x))
    steps = get("PPAF")(x)
    assert bool((steps.diff() >= 0).all()) and 0 < float(steps.min()) < float(steps.max()) < 1
    assert torch.allclose(get("NPF")(x), torch.sin(math.pi * x / 3))
    assert torch.allclose(get("affine combination (Manessi)")(x), (x + torch.relu(x) + torch.tanh(x)) / 3)
    ones = get("B-spline basis")(x.clamp(-0.99, 0.99), c=torch.ones(8), wb=0.0)
    assert torch.allclose(ones, torch.ones_like(ones)), "B-splines sum to 1"


def test_functions_over_images_see_channels_on_axis_1() -> None:
    x = torch.randn(2, 6, 5, 4, generator=torch.Generator().manual_seed(0))
    for name in ("SCAA", "FunReLU", "MetaACON-C", "DY-ReLU"):
        assert op.functions.get(name).module(6, axis=1).eval()(x).shape == x.shape
    kernel = torch.zeros(6, 1, 3, 3)
    assert torch.equal(op.functions.get("SCAA")(x, kernel=kernel), torch.relu(x))
    with pytest.raises(op.errors.WrongShape, match="images"):
        op.functions.get("SCAA")(x[0, 0])


def test_odd_widths_are_refused_in_words() -> None:
    with pytest.raises(op.errors.WrongShape, match="even number"):
        op.functions.get("GLU")(torch.randn(3, 5))
    with pytest.raises(op.errors.NotSupported, match="confidence low"):
        op.functions.get("WHE")
