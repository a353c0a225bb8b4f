"""The edits: constructors for every operator, and the algebra that combines them.

>>> import torch
>>> edit = add("layers.3.out", torch.ones(8)) * 2 + zero_ablate("layers.1.mlp.out")
>>> edit.patterns()
['layers.3.out', 'layers.1.mlp.out']
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..errors import BadInput, did_you_mean
from ..positions import Positions
from .adapter import AdapterEdit, BiasDelta, FullDelta, LowRankDelta, lora, weights
from .base import Chain, Edit, Provenance, SiteEdit, SiteEditBase, Sum
from .conditional import ConditionalEdit, when
from .conditions import Condition, Conditions, condition
from .differences import EditDiff, diff
from .explanation import Explanation, explain
from .formats import control_vector, export, import_file, steering_vector
from .operators import (
    Add,
    AddByPosition,
    Affine,
    AffineWithin,
    Clamp,
    Function,
    Gated,
    Knockout,
    LowRank,
    Operator,
    ProjectOut,
    Reach,
    Replace,
    Scale,
    Subspace,
    orthonormal,
)
from .peft_folder import adapter
from .policy import Backtrack, PolicyEdit, backtrack
from .prefix import PrefixEdit
from .rows import RowsEdit, by_row
from .together import Together, together
from .trainable import Trainable

__all__ = [
    "AdapterEdit", "Add", "AddByPosition", "Affine", "AffineWithin", "Backtrack", "BiasDelta", "Chain", "Clamp",
    "Condition", "ConditionalEdit", "Conditions", "Edit", "EditDiff", "Explanation", "FullDelta", "Function", "Gated",
    "Knockout", "LowRank", "LowRankDelta", "Operator", "PolicyEdit", "PrefixEdit", "ProjectOut", "Provenance", "Reach",
    "Replace", "RowsEdit", "Scale", "SiteEdit", "SiteEditBase", "Subspace", "Sum", "Together", "Trainable", "adapter",
    "add", "add_by_position", "affine", "affine_within", "backtrack", "by_row", "clamp", "condition", "control_vector",
    "diff",
    "explain", "export", "function", "gated", "import_file", "knockout", "lora", "low_rank", "mean_ablate",
    "project_out", "prompt", "reach", "replace", "scale", "steering_vector", "subspace", "together", "weights", "when",
    "zero_ablate",
]  # fmt: skip


def _site(site: str, operator: Operator, positions: str | Positions, **narrow: Any) -> SiteEdit:
    if isinstance(narrow.get("keys"), str):
        narrow["keys"] = Positions(narrow["keys"])
    chosen = positions if isinstance(positions, Positions) else Positions(positions)
    return SiteEdit(site, operator, chosen, **narrow)


def _tensor(value: Any) -> Tensor:
    return value.detach() if isinstance(value, Tensor) else torch.as_tensor(value, dtype=torch.float32)


def add(site: str, vector: Any, positions: str | Positions = "all", **narrow: Any) -> SiteEdit:
    """h + vector at `site`. `vector`: [width] (or [head, width]); `narrow`: `features=`, `heads=` (tuples of int),
    `experts=` (the same, at sites of experts), `keys=` (positions that are looked at, at `attn.scores` and
    `attn.pattern`)."""
    return _site(site, Add(_tensor(vector)), positions, **narrow)


def add_by_position(site: str, vectors: Any, positions: str | Positions) -> SiteEdit:
    """h[p] + vectors[p] for the p-th selected position of each row. `vectors`: [position, width]."""
    return _site(site, AddByPosition(_tensor(vectors)), positions)


def scale(site: str, factor: Any, positions: str | Positions = "all", **narrow: Any) -> SiteEdit:
    """h * factor; `factor` a number or [width]."""
    return _site(site, Scale(_tensor(factor)), positions, **narrow)


def project_out(site: str, directions: Any, positions: str | Positions = "all", **narrow: Any) -> SiteEdit:
    """Remove the span of `directions` ([width] or [rank, width]); they are orthonormalised first."""
    return _site(site, ProjectOut(orthonormal(_tensor(directions))), positions, **narrow)


def affine(site: str, weight: Any, bias: Any, positions: str | Positions = "all", **narrow: Any) -> SiteEdit:
    """weight * h + bias, elementwise; both [width]."""
    return _site(site, Affine(_tensor(weight), _tensor(bias)), positions, **narrow)


def affine_within(
    site: str, weight: Any, bias: Any, low: Any, high: Any, positions: str | Positions = "all", **narrow: Any
) -> SiteEdit:
    """weight * h + bias where low < h < high, h elsewhere, elementwise; all [width]."""
    return _site(site, AffineWithin(_tensor(weight), _tensor(bias), _tensor(low), _tensor(high)), positions, **narrow)


def low_rank(
    site: str, down: Any, up: Any = None, bias: Any = None, positions: str | Positions = "all", **narrow: Any
) -> SiteEdit:
    """h + (down h + bias) up; `down` and `up` [rank, width], `bias` [rank]. Without `up` and `bias` they are zero, so
    that training starts from the network as it is."""
    rows = _tensor(down)
    other = torch.zeros_like(rows) if up is None else _tensor(up)
    shift = rows.new_zeros(len(rows)) if bias is None else _tensor(bias)
    return _site(site, LowRank(rows, other, shift), positions, **narrow)


def subspace(
    site: str, basis: Any, weight: Any = None, bias: Any = None, positions: str | Positions = "all", **narrow: Any
) -> SiteEdit:
    """Within the span of `basis`, h becomes weight h + bias: h + (weight h + bias - basis h) basis.

    `basis` and `weight` [rank, width], `bias` [rank]; the rows of `basis` are orthonormalised first. Without `weight`
    and `bias` they are the basis itself and zero, so that training starts from the network as it is."""
    rows = orthonormal(_tensor(basis))
    own = rows.clone() if weight is None else _tensor(weight)
    shift = rows.new_zeros(len(rows)) if bias is None else _tensor(bias)
    return _site(site, Subspace(rows, own, shift), positions, **narrow)


def gated(
    site: str, vector: Any, gate: Any, bias: Any = 0.0, positions: str | Positions = "all", **narrow: Any
) -> SiteEdit:
    """h + sigmoid(gate . h + bias) vector; `vector` and `gate` [width], `bias` a number."""
    return _site(site, Gated(_tensor(vector), _tensor(gate), _tensor(bias)), positions, **narrow)


SIDES = {"at_least": 1.0, "at_most": -1.0, "exactly": 0.0}


def reach(
    site: str,
    weight: Any,
    bias: Any,
    probability: float,
    positions: str | Positions = "all",
    *,
    side: str = "at_least",
    **narrow: Any,
) -> SiteEdit:
    """The smallest shift after which sigmoid(weight . h + bias) is `probability`, another one for every token.

    `weight` [width], `bias` a number, as a logistic probe gives them. `side`: `at_least` leaves tokens alone whose
    probability is larger already, `at_most` those where it is smaller, `exactly` none. A strength s goes that share of
    the way. Raises `BadInput` for a probability that is not between 0 and 1, or a weight of zero.
    """
    if not 0 < probability < 1:
        raise BadInput(f"probability is {probability}: it must lie between 0 and 1, both excluded")
    if side not in SIDES:
        raise BadInput(f"side '{side}' is not known: {did_you_mean(side, SIDES)}")
    rows = _tensor(weight)
    if not bool(rows.any()):
        raise BadInput("the weight of the score is zero, so that no shift changes it: check the data it was fitted on")
    target = torch.tensor(math.log(probability / (1 - probability)), dtype=torch.float64).to(rows.dtype)
    own = bias.detach() if isinstance(bias, Tensor) else torch.tensor(float(bias), dtype=rows.dtype)
    return _site(site, Reach(rows, own, target, SIDES[side]), positions, **narrow)


def replace(site: str, value: Any, positions: str | Positions = "all", **narrow: Any) -> SiteEdit:
    """Put `value` (number, [width] or [head, width]) in place of the activation."""
    return _site(site, Replace(_tensor(value)), positions, **narrow)


def zero_ablate(site: str, positions: str | Positions = "all", **narrow: Any) -> SiteEdit:
    """Put zero in place of the activation."""
    return _site(site, Replace(torch.tensor(0.0)), positions, **narrow)


def mean_ablate(site: str, mean: Any, positions: str | Positions = "all", **narrow: Any) -> SiteEdit:
    """Put the mean over data in place of the activation. `mean`: [width] or [head, width]."""
    return _site(site, Replace(_tensor(mean)), positions, **narrow)


def clamp(
    site: str, low: Any = -torch.inf, high: Any = torch.inf, positions: str | Positions = "all", **narrow: Any
) -> SiteEdit:
    """min(max(h, low), high); numbers or [width]; leave one out for an open side."""
    return _site(site, Clamp(_tensor(low), _tensor(high)), positions, **narrow)


def knockout(
    site: str, keys: str | Positions, positions: str | Positions = "all", *, heads: tuple[int, ...] | None = None
) -> SiteEdit:
    """Tokens at `positions` no longer look at tokens at `keys`; what they look at else gets the weight instead.

    `site` is `layers.N.attn.scores`, where the scores become minus infinity. `zero_ablate("layers.N.attn.pattern",
    positions, keys=...)` takes the weight away and gives it to none. A token that may look at nothing gets zero.
    """
    return _site(site, Knockout(), positions, keys=keys, heads=heads)


def function(
    site: str, function: Callable[[Tensor], Tensor], positions: str | Positions = "all", **narrow: Any
) -> SiteEdit:
    """Any function of the selected rows, [row, width] -> the same shape. Such an edit cannot be saved."""
    return _site(site, Function(function), positions, **narrow)


def prompt(system: str, turns: tuple[tuple[str, str], ...] = ()) -> PrefixEdit:
    """A system prompt (and example turns) as an edit: the baseline of every steering comparison."""
    return PrefixEdit(system, turns)
