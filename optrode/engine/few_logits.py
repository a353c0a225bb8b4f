"""Logits only where they are wanted: they are the largest tensor by far."""

from __future__ import annotations

from torch import Tensor

from ..batches import Batch
from ..host import Host
from .axes import axes_of
from .editing.actions import Tap
from .hooks import active_sessions
from .reading.request import Request
from .transformers_names import keep_columns_argument


def _logits_are_edited() -> bool:
    """An edit has to know which columns it sees, so it gets them all."""
    actions = (action for session in active_sessions() for found in session.edits.values() for action in found)
    return any(action.site.address == "logits" for action in actions)


def logit_columns(host: Host, batch: Batch, request: Request) -> Tensor | None:
    """The columns whose logits are needed; None for all. Logits are the largest tensor by far."""
    if request.positions is None or not any(site.address == "logits" for site in request.sites):
        return None
    if not keep_columns_argument(host.head_accepts) or _logits_are_edited():
        return None
    used = request.positions.in_prompt(batch).any(0)
    return used.nonzero().flatten() if bool(used.any()) else None


def restore_logits(taps: list[Tap], batch: Batch, columns: Tensor, request: Request) -> None:
    """Pick the selected rows out of logits that were computed for some columns only, and reduce them."""
    assert request.positions is not None
    for tap in taps:
        if not tap.late or tap.value is None:
            continue
        mask = request.positions.in_prompt(batch)[:, columns.to(batch.ids.device)].to(tap.value.device)
        value = tap.value
        if request.reduction is not None and request.reduction.over_tokens:
            value = request.reduction(value, mask, axes_of(tap.site, 3))
        else:
            tap.picked = mask
            value = value[mask]
            if request.reduction is not None:
                value = request.reduction(value, None, ())
        tap.keep(value)
