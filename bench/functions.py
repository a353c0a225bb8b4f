"""Activation functions, forward and backward on 2^22 elements: the most used ones, the whole list, and ways to compute.

The processor's memory is kept by the process (`mallopt`): otherwise page faults of fresh memory drown the arithmetic.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import optrode as op
from optrode.functions.kernels import fused

from .alternate import Result, Row, Target, alternate, at_least, at_most

ELEMENTS, PASSES, SPEED = 1 << 22, 8, 0.8
MOST_USED = (
    "ReLU", "LReLU", "PReLU", "ReLU6", "ELU", "SELU", "CELU", "GELU", "GELU-tanh", "GELU-sigmoid", "SiLU", "Mish",
    "softplus", "LogSigmoid", "sigmoid", "hard sigmoid", "hard swish", "tanh", "HardTanh", "tanhshrink", "softsign",
    "Softshrink", "Hardshrink", "Squared ReLU", "StarReLU", "TeLU", "SIREN sine", "Snake", "Gaussian (INR)",
    "SquarePlus",
)  # fmt: skip
# Transcendental calls beyond the first, forward and backward together: what `bound` adds for each.
CALLS = ("exp", "expm1", "ln", "log1p", "sin", "cos", "tanh", "sech", "sigmoid", "softplus", "erf", "Phi", "phi", "elu")


def measure() -> Result:
    return _most_used(torch.float32)


def measure_bfloat16() -> Result:
    return _most_used(torch.bfloat16)


def _most_used(dtype: torch.dtype) -> Result:
    x, grad = _inputs(dtype)
    variants: dict[str, Callable[[], None]] = {"torch GELU": _passes(F.gelu, x, grad)}
    variants["bytes alone"] = lambda: _bytes(x, grad)
    variants["bytes and an exp each way"] = _passes(torch.exp, x, grad)
    for name in MOST_USED:
        function = op.functions.get(name)
        _check(name, function, x)
        variants[f"optrode {name}"] = _passes(function, x, grad)
    with _kept_memory():
        rows = alternate(variants, "torch GELU", rounds=5, warm=2, say=_quiet)
    result = Result(f"Forward and backward in {str(dtype)[6:]}", "torch GELU", rows, [], [], f"s, {PASSES} passes")
    ratios = {row.name.removeprefix("optrode "): row.ratio for row in rows}
    slow = [name for name in MOST_USED if ratios[name] > _limit(name, ratios)]
    fast = len(MOST_USED) - len(slow)
    result.targets.append(at_least(f"functions at {SPEED} of GELU's speed or of the bound", len(MOST_USED), fast))
    result.notes.append(
        "The bound of a function: its bytes, and for each transcendental call what an exp adds to them in the same run."
    )
    if slow:
        result.notes.append(f"Slower than that: {', '.join(slow)}.")
    return result


def _limit(name: str, ratios: dict[str, float]) -> float:
    """The largest ratio to GELU that counts as fast."""
    from optrode.functions.expression import Call, nodes

    operation = op.functions.get(name).operation
    both = [*nodes(operation.forward.expression), *nodes(operation.by(0).forward.expression)]
    calls = len([node for node in both if isinstance(node, Call) and node.operation in CALLS])
    bare = ratios["bytes alone"]
    # The reference has one exp, whose backward pass multiplies by the result.
    one = max(0.0, ratios["bytes and an exp each way"] - bare)
    return max(1.0, bare + calls * one) / SPEED


def measure_list() -> Result:
    """Every elementwise row against eager PyTorch and, where it is installed, torch_activation."""
    x, grad = _inputs(torch.float32)
    peers = _peers()
    ours, theirs, slow = {}, {}, []
    with _kept_memory():
        for name in op.functions.names(elementwise=True):
            function = op.functions.get(name)
            _give_back()
            eager = _once(_eager(function), x, grad)
            fast = _once(function, x, grad)
            ours[name] = fast / eager
            if name in peers:
                theirs[name] = fast / _once(peers[name], x, grad)
            if fast > eager:
                slow.append(name)
    rows = [Row("eager PyTorch", 1, 1, 1, 1, len(ours)), _spread("optrode against eager PyTorch", ours)]
    rows += [_spread("optrode against torch_activation", theirs)] if theirs else []
    notes = [f"Of {len(ours)} functions; the range is that of the middle 90 %."]
    notes += [_quantiles("eager PyTorch", ours)] + ([_quantiles("torch_activation", theirs)] if theirs else [])
    notes += [f"Slower than eager: {', '.join(slow)}."] if slow else ["None is slower than eager."]
    notes += [] if theirs else ["torch_activation was not installed."]
    targets: list[Target] = [at_most("median against eager PyTorch", 1.0, rows[1].ratio)]
    return Result("Whole list, time as a share", "the other's time for the same function", rows, targets, notes, "")


def _spread(name: str, ratios: dict[str, float]) -> Row:
    low, middle, high = (_quantile(ratios, share) for share in (0.05, 0.5, 0.95))
    return Row(name, middle, middle, low, high, len(ratios))


def _quantiles(of: str, ratios: dict[str, float]) -> str:
    shares = (0.05, 0.25, 0.5, 0.75, 0.95)
    speeds = ", ".join(f"{share:.0%}: {1 / _quantile(ratios, 1 - share):.1f}" for share in shares)
    return f"Times as fast as {of}, by quantiles of {len(ratios)} functions: {speeds}."


def _quantile(ratios: dict[str, float], share: float) -> float:
    return round(float(torch.tensor(list(ratios.values())).quantile(share)), 4)


def measure_ways() -> Result:
    """Ways to compute three functions: eager, eager by pieces of the cache, compiled by torch, compiled here."""
    if shutil.which("g++") is None and shutil.which("clang++") is None:
        raise SystemExit("torch.compile needs a C++ compiler on the CPU: install g++")
    # Its pool of processes is for large graphs.
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
    x, grad = _inputs(torch.float32)
    variants: dict[str, Callable[[], None]] = {}
    for name in ("SiLU", "GELU", "Mish"):
        function = op.functions.get(name)
        eager = _eager(function)
        compiled = torch.compile(eager, fullgraph=True)
        variants[f"{name}, eager"] = _passes(eager, x, grad)
        variants[f"{name}, eager by pieces of 2^15"] = lambda function=function: _by_pieces(function, x, grad)
        variants[f"{name}, torch.compile"] = _passes(compiled, x, grad)
        variants[f"optrode {name}"] = _passes(function, x, grad)
    with _kept_memory():
        rows = alternate(variants, "SiLU, eager", rounds=5, warm=2, say=_quiet)
    notes = ["torch.compile needs a C++ compiler and seconds for a function; optrode needs llvmlite and some 20 ms."]
    return Result("Ways to compute a function", "SiLU, eager", rows, [], notes, f"s, {PASSES} passes")


# What is timed --------------------------------------------------------------------------------------------------------


def _inputs(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(ELEMENTS, generator=generator).to(dtype)
    return x, torch.randn(ELEMENTS, generator=generator).to(dtype)


def _pass(function: Callable[[Tensor], Tensor], x: Tensor, grad: Tensor) -> None:
    own = x.detach().requires_grad_()
    result = function(own)
    if result.requires_grad:
        result.backward(grad)


def _passes(function: Callable[[Tensor], Tensor], x: Tensor, grad: Tensor) -> Callable[[], None]:
    def run() -> None:
        for _ in range(PASSES):
            _pass(function, x, grad)

    return run


def _bytes(x: Tensor, grad: Tensor) -> None:
    """What has to be read and written at least: one tensor each forward, two and one backward."""
    for _ in range(PASSES):
        x.clone()
        torch.mul(grad, x)


def _once(function: Callable[[Tensor], Tensor], x: Tensor, grad: Tensor) -> float:
    """The lesser of two passes in seconds, after one that compiles and warms."""
    _pass(function, x, grad)
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        _pass(function, x, grad)
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def _eager(function: Any) -> Callable[[Tensor], Tensor]:
    """The formula as operations of torch, differentiated by autograd."""
    program, parameters = function.operation.forward, function.parameters.values()
    values = [torch.tensor(one.default, dtype=torch.float32) for one in parameters]
    return lambda x: program(x, values)


def _by_pieces(function: Any, x: Tensor, grad: Tensor, size: int = 1 << 15) -> None:
    program, slope = function.operation.forward, function.operation.by(0).forward
    for _ in range(PASSES):
        result, back = torch.empty_like(x), torch.empty_like(x)
        for start in range(0, ELEMENTS, size):
            piece = slice(start, start + size)
            result[piece] = program(x[piece], [])
        for start in range(0, ELEMENTS, size):
            piece = slice(start, start + size)
            torch.mul(grad[piece], slope(x[piece], []), out=back[piece])


def _check(name: str, function: Any, x: Tensor) -> None:
    """Nothing is timed that is not computed in one pass, or is not the function."""
    some = x[: fused.LARGE]
    values = [torch.tensor(one.default) for one in function.parameters.values()]
    if not fused.fits(function.operation, some, values):
        raise SystemExit(f"{name} is not computed in one pass: is llvmlite installed?")
    apart = (function(some).double() - function.operation.plain(some, values).double()).abs().max()
    if not float(apart) < (1e-5 if x.dtype == torch.float32 else 0.1):
        raise SystemExit(f"{name} differs from eager by {float(apart):.1e}: nothing was timed")


def _peers() -> dict[str, Callable[[Tensor], Tensor]]:
    """Functions of torch_activation that are equal to a row as they come."""
    root = Path(__file__).parents[1]
    with contextlib.suppress(ImportError):
        importlib.import_module("plotly")
    if "plotly" not in sys.modules:
        # It imports plotly for its drawings.
        sys.path.append(str(root / "tools" / "oracles" / "shims" / "plotly"))
    try:
        package = importlib.import_module("torch_activation")
    except ImportError:
        return {}
    sys.path.append(str(root))
    lines = importlib.import_module("tools.oracles.torch_activation").lines()
    found = {}
    for line in lines:
        module, _, name = line.name.rpartition(".")
        if not line.verdict:
            kind = getattr(importlib.import_module(f"{package.__name__}.{module}"), name)
            with contextlib.suppress(TypeError):
                found[line.row] = kind().eval()
    return found


@contextlib.contextmanager
def _kept_memory() -> Iterator[None]:
    """The C library of Linux keeps freed memory instead of giving it back and having it mapped anew."""
    with contextlib.suppress(OSError, AttributeError, TypeError):
        keep = ctypes.CDLL(None).mallopt
        keep(-1, 1 << 30)
        keep(-3, 1 << 30)
    yield


def _give_back() -> None:
    """Free memory between pieces in use goes back to the system: compiled code would fragment it without end."""
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def _quiet(line: str) -> None:
    print(line.split(":")[0], flush=True)
