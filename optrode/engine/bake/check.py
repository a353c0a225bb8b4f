"""One trial forward of a baked network beside the live edit: a difference is found before anybody relies on it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...edits.base import SiteEditBase
from ...errors import NotFinite, NotSupported, OptrodeError, WrongShape
from ...host import Host
from ..editing.edited import bind
from ..hooks import hooks_alone
from ..mapping.trial import in_eval_mode, one_thread, trial_inputs
from ..run import Inputs, run
from ..views import first_tensor

# Repeated, a trial has room for positions such as the first five.
_REPEATS = 4


def inputs_of(host: Host) -> Inputs | None:
    """Two rows of sixteen tokens, or an image; None where none can be made up."""
    inputs = trial_inputs(host)
    if isinstance(inputs, dict) and "input_ids" in inputs:
        return {**inputs, "input_ids": torch.cat([inputs["input_ids"]] * _REPEATS, -1)}
    return inputs


def answer(host: Host, network: nn.Module, inputs: Inputs) -> Tensor:
    """What `network`, the host's own or a twin, answers without an edit of the context."""
    with hooks_alone(), in_eval_mode(network), one_thread(), torch.no_grad():
        return first_tensor(run(_with(host, network), inputs, head=True), type(network).__name__)


def _with(host: Host, network: nn.Module) -> Host:
    import copy

    other = copy.copy(host)
    other.module = network
    return other


def compared(host: Host, edit: SiteEditBase, network: nn.Module, inputs: Inputs | None) -> str:
    """A line that says how far the baked network is from the live edit on one trial forward.

    Raises `NotSupported` where they differ by more than rounding, `NotFinite` where the edit makes NaN or infinity.
    """
    if inputs is None:
        return "not compared with the live edit: no input could be made up"
    try:
        session = bind(host, edit)
        with hooks_alone(), in_eval_mode(host.module), one_thread(), torch.no_grad(), session.active():
            live = first_tensor(run(host, inputs, head=True), type(host.module).__name__).double()
    except WrongShape as problem:
        # A trial has another number of tokens than the user's inputs.
        if any("key" in host.table[site].port.axes for site in session.receipt.sites if site in host.table):
            return f"not compared with the live edit: {problem}"
        raise
    except (OptrodeError, RuntimeError, TypeError, ValueError) as problem:
        return f"not compared with the live edit: a trial forward failed ({str(problem).splitlines()[0]})"
    baked = answer(host, network, inputs).double()
    if not bool(torch.isfinite(live).all()):
        raise NotFinite("the edit makes NaN or infinity: lower its strength, or check the vector it adds")
    error = float((baked - live).abs().max() / live.abs().max().clamp(min=1e-30))
    if not error <= tolerance(host.dtype):
        raise NotSupported(
            f"the baked network differs from the live edit by {error:.1%} of the largest value, so this edit cannot be "
            f"baked into {host.name}: use the live edit (model.edited)"
        )
    return f"differs from the live edit by {error:.1e} of the largest value on a trial forward ({host.dtype})"


def tolerance(dtype: torch.dtype) -> float:
    """The largest difference that rounding in another order can make, in a network of some depth."""
    return {torch.float64: 1e-9, torch.float32: 1e-3}.get(dtype, 0.1)
