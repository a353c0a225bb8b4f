"""Adapter edits in a context: what changed weights would add to a module's output, added to its output.

The weights are shared by all threads, so they stay as they are. A module that multiplies with a matrix W gives
W x + scale * D x with D the change, which is what W + scale * D gives; a change of low rank costs two thin products.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...edits.adapter import AdapterEdit, BiasDelta, Delta, FullDelta, LowRankDelta, linear_modules, linear_sizes
from ...errors import NotSupported, UnknownSite, WrongShape, did_you_mean
from ...host import Host
from ..recompute import full_precision, refuse_lost_gradients
from ..twin import refuse_compiled
from .identity import check_model
from .module_session import ModuleSession, Words, module_edit
from .receipt import Receipt, SiteReceipt


@dataclass
class WeightReceipt(SiteReceipt):
    """Counts of one module whose weights are changed; sizes of changes are those of its output."""

    _measure: Callable[[], float] | None = field(default=None, repr=False)

    @property
    def weight_change(self) -> float:
        """Size of the change of the weight relative to the weight (Frobenius norms), as both are when it is asked."""
        return self._measure() if self._measure is not None else 0.0

    @property
    def said(self) -> str:
        return f", weight changed by {self.weight_change:.1%}"


class AdapterSession(ModuleSession):
    """The changes of some modules' weights, while they are the context's."""

    words = Words("the adapter made NaN or infinity at {}: lower its strength", "the adapter", "modules of the adapter")

    def __init__(self, host: Host, edit: AdapterEdit):
        super().__init__(host)
        self._deltas: dict[nn.Module, list[Delta]] = {}
        # Deltas on the device and in the precision that they were needed in last.
        self._moved: dict[int, tuple[torch.device, torch.dtype, Delta]] = {}
        paths: dict[str, list[Delta]] = {}
        for delta in edit.deltas:
            path = resolve(host, delta.module)
            _check_shape(host, path, delta)
            if delta.scale:
                paths.setdefault(path, []).append(delta)
        for path, deltas in paths.items():
            module = host.submodule(path)
            self._enter(module, WeightReceipt(f"module:{path}", _measure=partial(_relative_size, module, deltas)))
            self._deltas[module] = deltas

    def add_weights(self, module: nn.Module, args: tuple, output: Any) -> Any:
        receipt = self._receipts.get(module)
        if receipt is None:
            return output
        if not args or not isinstance(args[0], Tensor) or not isinstance(output, Tensor):
            raise NotSupported(f"{receipt.address} is not called with one tensor, so its weights cannot be changed")
        precision = torch.promote_types(output.dtype, torch.float32)
        with full_precision(output):
            new = output.to(precision)
            for delta in self._deltas[module]:
                if delta.trained:
                    refuse_lost_gradients(receipt.address)
                new = new + delta.scale * product(module, self._on(delta, output.device, precision), args[0])
        new = new.to(output.dtype)
        self._record(receipt, output, new)
        return new

    def _on(self, delta: Delta, device: torch.device, dtype: torch.dtype) -> Delta:
        if delta.trained:
            return _moved(delta, device, dtype)
        known = self._moved.get(id(delta))
        if known is None or known[:2] != (device, dtype):
            known = self._moved[id(delta)] = (device, dtype, _moved(delta, device, dtype))
        return known[2]


@contextmanager
def adapter_edit(host: Host, edit: AdapterEdit) -> Iterator[Receipt]:
    """The block of `model.edited(adapter)`."""
    refuse_compiled(host)
    check_model(host, [edit.provenance])
    with module_edit(AdapterSession(host, edit)) as receipt:
        yield receipt


# Modules -------------------------------------------------------------------------------------------------------------


def resolve(host: Host, name: str) -> str:
    """The path of the module that an adapter means: as it stands, by its site, or without or with the head."""
    path = name.removeprefix("module:")
    if path in host.table:
        port = host.table[path].port
        if port.side != "out" or port.part:
            raise NotSupported(f"{path} is not the whole output of one module: name the module's path")
        path = host.table[path].module
    inner, outer = path.partition(".")[2], f"{host.base_path}.{path}"
    for candidate in (path, outer, inner):
        try:
            module = host.submodule(candidate) if candidate else None
        except (KeyError, AttributeError):
            continue
        if module is not None:
            return candidate
    raise UnknownSite(f"{host.name} has no module '{path}': {did_you_mean(path, linear_modules(host.module))}")


def _sizes(module: nn.Module) -> tuple[int, int] | None:
    if isinstance(module, nn.Embedding):
        return module.num_embeddings, module.embedding_dim
    return linear_sizes(module)


def _check_shape(host: Host, path: str, delta: Delta) -> None:
    module = host.submodule(path)
    sizes = _sizes(module)
    if sizes is None:
        raise NotSupported(
            f"{path} is a {type(module).__name__}, which does not multiply with one matrix: adapters change linear "
            "layers and embeddings"
        )
    inputs, outputs = sizes
    got: tuple[int, ...]
    wanted: tuple[int, ...]
    if isinstance(delta, LowRankDelta):
        got, wanted = (delta.up.shape[0], delta.down.shape[1]), (outputs, inputs)
    elif isinstance(delta, FullDelta):
        got, wanted = tuple(delta.weight.shape), (outputs, inputs)
    else:
        got, wanted = tuple(delta.tensors()["bias"].shape), (outputs,)
    if got != wanted:
        raise WrongShape(f"the {delta.form} change for {path} is {list(got)}, but the module's is {list(wanted)}")


def product(module: nn.Module, delta: Delta, given: Tensor) -> Tensor:
    """What a change of the weight or the bias adds to the output, before its scale."""
    if isinstance(delta, BiasDelta):
        return delta.bias
    if isinstance(module, nn.Embedding):
        # Some embeddings multiply what they look up.
        factor = getattr(module, "embed_scale", 1.0)
        if isinstance(delta, LowRankDelta):
            return factor * (F.embedding(given, delta.down.mT) @ delta.up.mT)
        assert isinstance(delta, FullDelta)
        return factor * F.embedding(given, delta.weight.mT)
    x = given.to(next(iter(delta.tensors().values())).dtype)
    if isinstance(delta, LowRankDelta):
        return (x @ delta.down.mT) @ delta.up.mT
    assert isinstance(delta, FullDelta)
    return x @ delta.weight.mT


def _moved(delta: Delta, device: torch.device, dtype: torch.dtype) -> Delta:
    own = delta.tensors()
    moved: dict[str, Any] = {name: value.to(device, dtype) for name, value in own.items()}
    return delta if all(value is own[name] for name, value in moved.items()) else replace(delta, **moved)


def _relative_size(module: nn.Module, deltas: list[Delta]) -> float:
    """Frobenius norm of the whole change of a module's weight and bias, over that of the weight.

    NaN where the weight is kept in numbers that only its own kernel understands.
    """
    with torch.no_grad():
        total = float(sum(_inner(first, second) for first in deltas for second in deltas))
        weight: Any = module.weight
        if type(weight) not in (Tensor, nn.Parameter) and hasattr(weight, "dequantize"):
            weight = weight.dequantize()
        if not weight.is_floating_point():
            return float("nan")
        return max(total, 0.0) ** 0.5 / max(float(torch.linalg.vector_norm(weight.float())), 1e-30)


def _inner(first: Delta, second: Delta) -> float:
    """Inner product of two changes; of low rank ones without multiplying their factors out."""
    scale = first.scale * second.scale
    if isinstance(first, BiasDelta) or isinstance(second, BiasDelta):
        if isinstance(first, BiasDelta) and isinstance(second, BiasDelta):
            return scale * float(first.bias.double() @ second.bias.double())
        return 0.0
    if isinstance(first, LowRankDelta) and isinstance(second, LowRankDelta):
        up, down = first.up.double().mT @ second.up.double(), first.down.double() @ second.down.double().mT
        return scale * float((up * down).sum())
    return scale * float((_dense(first) * _dense(second)).sum())


def _dense(delta: Delta) -> Tensor:
    if isinstance(delta, LowRankDelta):
        return delta.up.double() @ delta.down.double()
    assert isinstance(delta, FullDelta)
    return delta.weight.double()
