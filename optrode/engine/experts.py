"""Inside a mixture of experts: routers that choose again, and the hidden layer and output of every chosen expert.

Fused experts are one module that never shows what a single expert computes. A read lets the host run its own function,
whose result is used bit for bit, and computes the single experts beside it; an edit replaces the result of those tokens
alone that it changed. Values are kept for the pairs of a token and an expert it chose, [token, rank, feature], so that
experts that were not chosen cost nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..activations import numbers
from ..errors import NotSupported
from ..layouts import Port
from .hooks import INSTALL, Side, active_sessions
from .recompute import carry
from .transformers_names import (
    expert_hidden,
    expert_out,
    experts_config,
    has_fused_experts,
    own_experts,
    put_back_config,
)

if TYPE_CHECKING:
    from .editing.receipt import Receipt
    from .editing.session import Session

HIDDEN, OUT = 0, 1


def of_experts(port: Port) -> bool:
    """Whether an activation belongs to tokens and the experts they chose, or could choose."""
    return "rank" in port.axes or "expert" in port.axes


# Installing -----------------------------------------------------------------------------------------------------------


def _put_on(module: nn.Module) -> None:
    if not has_fused_experts(module):
        raise NotSupported(
            f"{type(module).__name__} does not show its experts' weights (a kernel or a quantiser holds them), so "
            "single experts cannot be read or edited: use mlp.router, mlp.weights and mlp.out"
        )
    # A config of its own, by which this one module asks us.
    module.__dict__["config"] = experts_config(module, run_experts)


def _take_off(module: nn.Module) -> None:
    put_back_config(module)


INSTALL["experts"] = Side(_put_on, _take_off)


# Running --------------------------------------------------------------------------------------------------------------


def run_experts(module: nn.Module, hidden_states: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
    """What the module's forward calls while it is hooked: [token, width] -> [token, width].

    `chosen` and `weights` are [token, rank]. Contexts without a session at this module get the host's own function.
    """
    own, point = own_experts(module), (module, "experts")
    sessions = [session for session in active_sessions() if point in session.taps or point in session.edits]
    result = own(module, hidden_states, chosen, weights)
    if not sessions:
        return result
    carry(sessions)
    for session in sessions:
        session.count_experts(point, chosen, module.num_experts)  # type: ignore[arg-type]
    plain = _by_pair(module, chosen, lambda expert, row, _: expert_hidden(module, expert, hidden_states[row]))
    hidden = _passed(sessions, module, HIDDEN, plain, chosen)
    edits = any(point in session.edits for session in sessions)
    graph = torch.is_grad_enabled() and any(tap.keep_graph for s in sessions for tap in s.taps.get(point, ()))
    if not (edits or graph or any(tap.site.port.item == OUT for s in sessions for tap in s.taps.get(point, ()))):
        return result
    each = _by_pair(module, chosen, lambda expert, row, rank: expert_out(module, expert, hidden[row, rank]))
    new = _passed(sessions, module, OUT, each, chosen)
    if not edits and not graph:
        return result
    total = (new * weights[..., None]).sum(1).to(result.dtype)
    if graph:
        # The host's numbers, with gradients that go through what was read.
        result = result.detach() + (total - total.detach())
    changed = (hidden != plain).flatten(1).any(-1) | (new != each).flatten(1).any(-1)
    return torch.where(changed[:, None], total, result)


def _by_pair(module: nn.Module, chosen: Tensor, compute: Callable[[int, Tensor, Tensor], Tensor]) -> Tensor:
    """`compute(expert, rows, ranks)` for every expert that was chosen, put together as [token, rank, feature]."""
    parts, places = [], []
    for expert in chosen.unique().tolist():
        if expert < module.num_experts:  # type: ignore[operator]
            row, rank = (chosen == expert).nonzero(as_tuple=True)
            parts.append(compute(expert, row, rank))
            places.append(row * chosen.shape[1] + rank)
    values = torch.cat(parts)
    # Pairs of experts that live on another machine stay zero.
    found = values.new_zeros(chosen.numel(), values.shape[-1]).index_copy(0, torch.cat(places), values)
    return found.unflatten(0, chosen.shape)


def _passed(sessions: Sequence[Session], module: nn.Module, item: int, value: Tensor, chosen: Tensor) -> Tensor:
    """The value after all sessions have edited it; all of them have then seen it."""
    for session in sessions:
        value = session.edit_experts(module, item, value, chosen)
    for session in sessions:
        session.see_experts(module, item, value)
    return value


# Routers --------------------------------------------------------------------------------------------------------------


class _FirstProduct(TorchFunctionMode):
    """Gives `value` as the result of the first linear product that is asked for."""

    def __init__(self, value: Tensor):
        super().__init__()
        self.value: Tensor | None = value

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.linear and self.value is not None:
            value, self.value = self.value, None
            return value
        return func(*args, **(kwargs or {}))


def rerun(module: nn.Module, args: tuple, product: Tensor) -> Any:
    """The module's own forward with another first product: its own arithmetic chooses again."""
    with _FirstProduct(product) as mode:
        output = module.forward(*args)
    if mode.value is not None:
        name = type(module).__name__
        raise NotSupported(f"{name} makes its scores without a linear product, so they cannot be edited")
    return output


# Experts without tokens -----------------------------------------------------------------------------------------------


def routed_to(receipt: Receipt, address: str) -> str:
    """The experts that did get tokens at the layer of a site, in words."""
    counts = receipt.tokens_by_expert.get(layer_of(address))
    busy = counts.nonzero().flatten().tolist() if counts is not None else []
    return f"{numbers(busy)} got tokens" if busy else "no expert got a token"


def layer_of(address: str) -> str:
    """`layers.3.mlp` of `layers.3.mlp.experts.out`; a tower's prefix stays."""
    parts = address.split(".")
    return ".".join(parts[: parts.index("layers") + 3])
