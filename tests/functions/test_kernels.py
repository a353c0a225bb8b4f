"""Functions in one pass: against 60 digits, against the operations of torch, and where they step back."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from mpmath import mp, mpf
from torch import Tensor

import optrode as op
from optrode.functions.elementwise import Elementwise, elementwise
from optrode.functions.expression import Expression, call, name, number
from optrode.functions.kernels import fused, machine, threads

pytestmark = pytest.mark.skipif(not machine.available(), reason="needs llvmlite and a processor with fused arithmetic")

NAMES = op.functions.names(elementwise=True)
DIGITS = {torch.float32: 24, torch.bfloat16: 8, torch.float64: 53}
X = name("x")
# Each compiles 900 loops.
ALL = [torch.float32, *(pytest.param(dtype, marks=pytest.mark.slow) for dtype in (torch.bfloat16, torch.float64))]


@pytest.fixture
def everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small tensors take the same way as large ones."""
    monkeypatch.setattr(fused, "LARGE", 1)


# Each operation, in units of the last place ---------------------------------------------------------------------------

OPERATIONS: dict[str, tuple[Expression, Callable[[Any], Any], float]] = {
    "exp": (call("exp", X), mp.exp, 2),
    "expm1": (call("expm1", X), mp.expm1, 3),
    "ln": (call("ln", call("abs", X)), lambda u: mp.log(abs(u)), 2),
    "log1p": (call("log1p", call("abs", X)), lambda u: mp.log1p(abs(u)), 3),
    "sin": (call("sin", X), mp.sin, 2),
    "cos": (call("cos", X), mp.cos, 2),
    "arctan": (call("arctan", X), mp.atan, 3),
    "asinh": (call("asinh", X), mp.asinh, 3),
    "sinh": (call("sinh", X), mp.sinh, 4),
    "cosh": (call("cosh", X), mp.cosh, 4),
    "sech": (call("sech", X), mp.sech, 3),
    "tanh": (call("tanh", X), mp.tanh, 2),
    "sigmoid": (call("sigmoid", X), lambda u: 1 / (1 + mp.exp(-u)), 3),
    "softplus": (call("softplus", X), lambda u: mp.log1p(mp.exp(u)), 3),
    "lncosh": (call("lncosh", X), lambda u: mp.log1p(2 * mp.sinh(u / 2) ** 2), 6),
    "elu": (call("elu", X), lambda u: u if u > 0 else mp.expm1(u), 3),
    "erf": (call("erf", X), mp.erf, 4),
    "Phi": (call("Phi", X), mp.ncdf, 6),
    "phi": (call("phi", X), mp.npdf, 4),
    "hazard": (call("hazard", X), lambda u: mp.npdf(u) / mp.ncdf(-u), 8),
    "sinc": (call("sinc", X), mp.sinc, 3),
    "hypot": (call("hypot", X, number(1.25)), lambda u: mp.sqrt(u * u + mpf(1.25) ** 2), 2),
    "square": (call("pow", X, number(2.0)), lambda u: u * u, 1),
    "power": (call("pow", call("abs", X), number(2.75)), lambda u: abs(u) ** mpf(2.75), 4),
    "root": (call("pow", call("abs", X), number(0.3125)), lambda u: abs(u) ** mpf(0.3125), 2),
    "sech squared": (call("pow", call("sech", X), number(2.0)), lambda u: mp.sech(u) ** 2, 4),
    "tanh of softplus": (call("tanh", call("softplus", X)), lambda u: mp.tanh(mp.log1p(mp.exp(u))), 4),
    "sech of softplus": (call("sech", call("softplus", X)), lambda u: mp.sech(mp.log1p(mp.exp(u))), 4),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_operations_keep_their_units_of_the_last_place(everywhere: None, operation: str, dtype: torch.dtype) -> None:
    expression, twin, bound = OPERATIONS[operation]
    sizes = torch.logspace(-9, 2, 81, dtype=torch.float64)
    x = torch.cat([torch.linspace(-11.3, 11.7, 161, dtype=torch.float64), sizes, -sizes]).to(dtype)
    if operation in ("sin", "cos", "sinc"):
        # Near a zero of it there is no relative accuracy.
        x = x[(torch.sin(2 * x).abs() > 0.05) & (x.abs() < 12)]
    got = _fast(elementwise(expression, ()), x, [])
    least, compared = mpf(2) ** (-120 if dtype == torch.float32 else -1000), 0
    with mp.workdps(60):
        for point, one in zip(x.tolist(), got.tolist(), strict=True):
            true = twin(mpf(point))
            if not least < abs(true) < 1e38:
                continue
            unit = mpf(2) ** (int(mp.floor(mp.log(abs(true), 2))) + 1 - DIGITS[dtype])
            assert abs(mpf(one) - true) <= bound * unit, (point, one, float(true))
            compared += 1
    assert compared > 100


def test_infinities_and_what_is_no_number(everywhere: None) -> None:
    inf, nan = float("inf"), float("nan")
    expected = {
        "exp": (inf, 0, nan), "expm1": (inf, -1, nan), "tanh": (1, -1, nan), "sigmoid": (1, 0, nan),
        "softplus": (inf, 0, nan), "arctan": (torch.pi / 2, -torch.pi / 2, nan), "erf": (1, -1, nan),
        "Phi": (1, 0, nan), "phi": (0, 0, nan), "sinh": (inf, -inf, nan), "cosh": (inf, inf, nan),
        "sech": (0, 0, nan), "ln": (inf, nan, nan), "log1p": (inf, nan, nan), "relu": (inf, 0, nan),
        "asinh": (inf, -inf, nan),
    }  # fmt: skip
    for dtype in (torch.float32, torch.float64):
        x = torch.tensor([inf, -inf, nan], dtype=dtype)
        for operation, values in expected.items():
            got = _fast(elementwise(call(operation, X), ()), x, [])
            torch.testing.assert_close(got, torch.tensor(values, dtype=dtype), equal_nan=True, msg=operation)


def _fast(function: Elementwise, x: Tensor, values: list[Tensor]) -> Tensor:
    assert fused.fits(function, x, values)
    return fused.fused(function, x, values)


# Each row of the list -------------------------------------------------------------------------------------------------


def _grid(dtype: torch.dtype) -> Tensor:
    near = torch.linspace(-20, 20, 1501, dtype=torch.float64)
    far = torch.linspace(-100, 100, 501, dtype=torch.float64)
    sizes = torch.logspace(-30, 30, 301, dtype=torch.float64)
    kinks = torch.tensor([-6.0, -3, -2, -1, -0.5, 0, 0.5, 1, 2, 3, 6], dtype=torch.float64)
    return torch.cat([near, far, sizes, -sizes, kinks]).to(dtype).unique()


def _around(error: Tensor, points: int = 25) -> Tensor:
    """The largest value within some points to both sides."""
    return F.max_pool1d(error[None, None], 2 * points + 1, 1, points)[0, 0]


@pytest.mark.parametrize("dtype", ALL)
def test_every_row_is_as_good_as_with_the_operations_of_torch(everywhere: None, dtype: torch.dtype) -> None:
    """Values and slopes. Where both lose digits, by formulas that cancel, no more may be lost than twice what torch
    loses nearby; two units beside 1 and beside x are granted to all. Below 2^-120 an exponential may be 0."""
    wrong, left = [], set()
    x = _grid(dtype)
    limits = torch.finfo(dtype)
    for row in NAMES:
        function = op.functions.get(row)
        values = [torch.tensor(one.default, dtype=torch.float64) for one in function.parameters.values()]
        for what in (function.operation, function.operation.by(0)):
            if not fused.fits(what, x, values):
                left.add(row)
                continue
            got, plain = fused.fused(what, x, values).double(), what.plain(x, _like(x, values)).double()
            true = plain if dtype == torch.float64 else what.plain(x.double(), values)
            unit = 2.0 ** (true.frexp().exponent.double() - DIGITS[dtype])
            lost = torch.nan_to_num((plain - true).abs(), 0, 0, 0)
            # The derivative of a quotient cancels in float64 too, which has no better to compare with.
            share = 60 * limits.eps * (1 + true.abs()) if dtype == torch.float64 else 2.0**-22
            room = 4 * unit + 2 * _around(lost) + share * (1 + x.double().abs()) + 2.0**-118 * (1 + x.double() ** 2)
            good = (got - true).abs() <= room
            # Beyond the range of the dtype both may be infinite or undefined, in whatever way.
            good |= (true.abs() > limits.max / 4) & ~(got.abs() < limits.max / 8)
            good |= ~plain.isfinite() & (got.isnan() == plain.isnan()) & (got.isnan() | (got == plain))
            if not good.all():
                place = int((~good).nonzero()[0])
                wrong.append((row, float(x[place]), float(got[place]), float(plain[place]), float(true[place])))
    assert not wrong
    # A gamma function of a parameter, and the one function that float32 is too short for.
    assert left == {"FracReLU", "FracLReLU", "FracPReLU", "TruG"}


def _like(x: Tensor, values: list[Tensor]) -> list[Tensor]:
    wide = torch.promote_types(x.dtype, torch.float32)
    return [value.to(wide) for value in values]


# Gradients ------------------------------------------------------------------------------------------------------------


def _both(function: op.functions.Function, x: Tensor, values: list[Tensor], grad: Tensor) -> list[list[Tensor]]:
    """Result and gradients in one pass and by torch."""
    found = []
    for large in (1, 1 << 60):
        fused.LARGE, before = large, fused.LARGE
        try:
            own = [x.detach().requires_grad_(), *(value.detach().requires_grad_() for value in values)]
            result = function.operation(own[0], own[1:])
            found.append([result.detach(), *torch.autograd.grad(result, own, grad)])
        finally:
            fused.LARGE = before
    return found


@pytest.mark.parametrize("count", [1, 31, 32, 33, 1000, 4097])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_gradients_of_input_and_parameters_at_any_length(count: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(count)
    x = (3 * torch.randn(count, generator=generator)).to(dtype)
    grad = torch.randn(count, generator=generator).to(dtype)
    for row in ("APTx", "ACON-C", "ELU", "PReLU"):
        function = op.functions.get(row)
        wide = torch.promote_types(dtype, torch.float32)
        values = [torch.tensor(one.default * 1.25 + 0.1, dtype=wide) for one in function.parameters.values()]
        one, other = _both(function, x, values, grad)
        for ours, plain in zip(one, other, strict=True):
            assert (ours.dtype, ours.shape) == (plain.dtype, plain.shape)
            tolerance = {torch.float64: 1e-12, torch.float32: 1e-4, torch.bfloat16: 1e-2}[ours.dtype]
            torch.testing.assert_close(ours, plain, rtol=tolerance, atol=tolerance)


@pytest.mark.filterwarnings("error")
def test_a_module_trains_its_parameters() -> None:
    module = op.functions.get("swish").module()
    x = torch.linspace(-4, 4, fused.LARGE)
    assert [name for name, _ in module.named_parameters()] == ["a"]
    module(x).sum().backward()
    sigmoid = torch.sigmoid(x.double())
    assert module.a.grad.item() == pytest.approx((x.double() ** 2 * sigmoid * (1 - sigmoid)).sum().item(), rel=1e-5)


def test_layouts_of_memory(everywhere: None) -> None:
    silu = op.functions.get("SiLU")
    image = torch.randn(2, 8, 5, 7).to(memory_format=torch.channels_last).requires_grad_()
    result = silu(image)
    assert result.stride() == image.stride()
    # A gradient that lies otherwise, and one that is a single number spread out.
    for grad in (torch.randn(2, 8, 5, 7), torch.ones(()).expand(2, 8, 5, 7)):
        (got,) = torch.autograd.grad(silu(image), image, grad)
        (twin,) = torch.autograd.grad(F.silu(image), image, grad)
        torch.testing.assert_close(got, twin)
    strided = torch.randn(64, 6)[:, ::2]
    assert not fused.fits(silu.operation, strided, [])
    torch.testing.assert_close(silu(strided), F.silu(strided))


def test_second_derivatives_and_transforms_are_those_of_torch(everywhere: None) -> None:
    mish = op.functions.get("mish")
    x = torch.linspace(-3, 3, 50, dtype=torch.float64, requires_grad=True)
    (first,) = torch.autograd.grad(mish(x).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    (twin,) = torch.autograd.grad(F.mish(x).sum(), x, create_graph=True)
    (twin,) = torch.autograd.grad(twin.sum(), x)
    torch.testing.assert_close(second, twin)
    slope = torch.func.vmap(torch.func.grad(mish))(x.detach())
    torch.testing.assert_close(slope, first.detach())
    jacobian = torch.func.jacrev(mish)(x.detach())
    torch.testing.assert_close(jacobian.diagonal(), first.detach())


def test_the_backward_pass_keeps_the_input_alone(everywhere: None) -> None:
    x = torch.randn(4096, dtype=torch.bfloat16, requires_grad=True)
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        op.functions.get("mish")(x)
    assert [tensor.data_ptr() for tensor in kept] == [x.data_ptr()]


def test_arguments_too_large_for_a_sine_are_left_to_torch(everywhere: None) -> None:
    x = torch.tensor([1.0, 1e6, -3e12, 0.5]).repeat(16).requires_grad_()
    sine = op.functions.from_formula("sin(x)*x")
    assert torch.equal(sine(x), sine.operation.plain(x.detach(), []))
    (grad,) = torch.autograd.grad(sine(x).sum(), x)
    torch.testing.assert_close(grad, torch.sin(x) + x * torch.cos(x))


# Where it is taken ----------------------------------------------------------------------------------------------------


def test_large_plain_tensors_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    large, silu = fused.LARGE, op.functions.get("SiLU").operation
    assert fused.fits(silu, torch.zeros(large), [])
    assert not fused.fits(silu, torch.zeros(large - 1), [])
    assert not fused.fits(silu, torch.zeros(large, dtype=torch.float16), [])
    assert not fused.fits(silu, torch.zeros(large, device="meta"), [])
    prelu = op.functions.get("PReLU").operation
    assert fused.fits(prelu, torch.zeros(large), [torch.tensor([0.25])])
    assert not fused.fits(prelu, torch.zeros(large // 8, 8), [torch.full((8,), 0.25)])
    assert not fused.fits(prelu, torch.zeros(large), [torch.full((1, 1), 0.25)])
    assert not fused.fits(op.functions.get("TruG").operation, torch.zeros(large), [torch.ones(())] * 3)
    monkeypatch.setattr(fused, "available", lambda: False)
    assert not fused.fits(silu, torch.zeros(large), [])
    x = torch.linspace(-9, 9, large)
    assert torch.equal(op.functions.get("SiLU")(x), silu.plain(x, []))


def test_nothing_is_compiled_before_it_is_needed() -> None:
    code = (
        "import sys, torch, optrode as op; op.functions.get('mish')(torch.zeros(100)); print('llvmlite' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_threads_share_the_work(everywhere: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "LEAST", 64)
    x, before = torch.randn(1000), torch.get_num_threads()
    mish = op.functions.get("mish")
    try:
        torch.set_num_threads(1)
        alone = mish(x)
        torch.set_num_threads(5)
        parts = threads.pieces(992, 32)
        assert len(parts) == 5 and parts[0][0] == 0 and parts[-1][1] == 992
        assert all(one[1] == other[0] and one[1] % 32 == 0 for one, other in pairwise(parts))
        assert torch.equal(mish(x), alone)
    finally:
        torch.set_num_threads(before)


@pytest.mark.slow
def test_the_coefficients_are_those_that_the_tool_writes(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    from tools import polynomials

    kept = polynomials.TARGET.read_text()
    monkeypatch.setattr(polynomials, "TARGET", tmp_path / "coefficients.py")
    polynomials.main()
    assert (tmp_path / "coefficients.py").read_text() == kept
