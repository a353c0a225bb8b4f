"""What audits of edits share: where an edit acts, how large it is there, random directions as large, AUROC."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ..edits import SiteEdit, add
from ..edits.base import Edit, Provenance, SiteEditBase
from ..errors import BadInput
from ..model import Model
from ..parts.bench import maybe_edited, rewrites_prompt
from ..parts.directions import random_direction
from ..stats import token_mask
from .protocol import SteeringMethod

# All tokens of prompt and reply but special ones and those of the template, as the audits' random directions act.
POSITIONS = "content"


@dataclass(frozen=True)
class AuditMethod(SteeringMethod):
    """Base of audits: `audit(model, edit, ...)` gives a report on an edit. Audits enter no comparison."""

    role: ClassVar[str] = "audit"

    @classmethod
    def variants(cls) -> tuple[SteeringMethod, ...]:
        return ()


@dataclass(frozen=True)
class Reach:
    """Where an edit acts on the stream and how much: the mean change of a token there over the mean norm of a token.

    `norm`: mean norm of the stream at `site` over the prompts' tokens, sinks left out; `median`: the median.
    """

    site: str
    share: float
    norm: float
    median: float


def reach_of(model: Model, edit: Edit, prompts: Sequence[Any], site: str = "") -> Reach:
    """The size of an edit at a site of the stream, by default the last block that it writes to (the middle one).

    Raises `BadInput` for an edit that changes nothing there, or one that changes the tokens: that is no vector.
    """
    if rewrites_prompt(edit) and edit.kind != "adapter":
        raise BadInput(f"a {edit.kind} edit has no size in the stream: audit edits of activations or weights")
    site = site or stream_site(model, edit)
    batch = model.encode(list(prompts))
    plain = model.read(batch, site)
    mask = token_mask(plain)
    with maybe_edited(model, edit):
        changed = model.read(batch, site)[site]
    norms = plain[site][mask].float().norm(dim=-1)
    size = float((changed - plain[site])[mask].float().norm(dim=-1).mean())
    if not size > 0:
        raise BadInput(f"the edit changes nothing at {site} on these prompts: check its positions and strength")
    return Reach(site, size / float(norms.mean()), float(norms.mean()), float(norms.median()))


def stream_site(model: Model, edit: Edit) -> str:
    """The output of the last block that the edit writes in; the middle block's for changes of weights."""
    layers = [model.layers // 2]
    if isinstance(edit, SiteEditBase):
        found = {int(one.address.split(".")[1]) for leaf in edit.leaves() for one in model.match(leaf.site)
                 if one.address.startswith("layers.")}  # fmt: skip
        layers = sorted(found) or layers
    return f"layers.{layers[-1]}.out"


def mean_norm(model: Model, prompts: Sequence[Any], site: str) -> float:
    """Mean norm of the stream over the tokens of prompts, special and sink tokens left out."""
    acts = model.read(list(prompts), site)
    return float(acts[site][token_mask(acts)].float().norm(dim=-1).mean())


def drawn(model: Model, seed: int) -> Tensor:
    """A unit vector of the stream's width, drawn evenly from the sphere. Raises `BadInput` for a model without one."""
    if model.width is None:
        raise BadInput(f"{model.name} has no stream: an audit needs a language model with a layout")
    return random_direction(model.width, seed)


def along(site: str, direction: Tensor, length: float, positions: str = POSITIONS) -> SiteEdit:
    """`direction` at that length, added at `positions`."""
    return add(site, direction * (length / float(direction.norm())), positions)


def auroc(reference: np.ndarray | Tensor, suspect: np.ndarray | Tensor) -> float:
    """Probability that a suspect's value is larger than a reference's; ties count half.

    >>> auroc(np.array([1.0, 2.0]), np.array([2.0, 3.0]))
    0.875
    """
    low, high = (torch.as_tensor(part).double() for part in (reference, suspect))
    above = (high[:, None] > low).double() + 0.5 * (high[:, None] == low).double()
    return float(above.mean())


def rebound(edit: Edit) -> Edit:
    """The edit without the model it belongs to, to be tried on a variant of that model (an organism)."""
    bound: Any = edit
    return bound.with_provenance(Provenance()) if hasattr(edit, "with_provenance") else edit
