"""Adapter edits: changes to weights, which act while the edit is active and leave the weights alone.

>>> import torch
>>> change = weights({"model.layers.0.mlp.down_proj": (torch.ones(8, 2), torch.ones(2, 16))})
>>> change.modules
['model.layers.0.mlp.down_proj']
>>> (change * 0.5 + change).deltas[0].scale
0.5
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from fnmatch import fnmatchcase
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from ..errors import BadInput, NotFinite, NotSupported, UnknownSite, WrongModel, WrongShape, did_you_mean
from .base import Edit, Provenance, scaled


@dataclass(frozen=True, eq=False)
class Delta:
    """What is added to the weight or bias of one module, times `scale`. `module` is its path in the network."""

    module: str
    scale: float = field(default=1.0, kw_only=True)
    form: ClassVar[str] = ""
    ranks: ClassVar[dict[str, int]] = {}

    def __post_init__(self) -> None:
        for name, value in self.tensors().items():
            if value.dim() != self.ranks[name] or not value.is_floating_point():
                raise WrongShape(
                    f"the {name} for {self.module} has shape {tuple(value.shape)} and dtype {value.dtype}: it needs "
                    f"{self.ranks[name]} axes of floating point numbers"
                )
            if not bool(torch.isfinite(value.detach()).all()):
                raise NotFinite(f"the {name} for {self.module} holds NaN or infinity")

    def tensors(self) -> dict[str, Tensor]:
        """The tensors by field name."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}

    @property
    def trained(self) -> bool:
        return any(value.requires_grad for value in self.tensors().values())


@dataclass(frozen=True, eq=False)
class LowRankDelta(Delta):
    """scale * up @ down on a weight; `down` is [rank, inputs], `up` [outputs, rank]. LoRA (arXiv 2106.09685)."""

    down: Tensor
    up: Tensor
    form: ClassVar[str] = "low_rank"
    ranks: ClassVar[dict[str, int]] = {"down": 2, "up": 2}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.up.shape[1] != self.down.shape[0]:
            raise WrongShape(
                f"the factors for {self.module} do not fit: up {tuple(self.up.shape)} times down "
                f"{tuple(self.down.shape)}, which should be [outputs, rank] and [rank, inputs]"
            )


@dataclass(frozen=True, eq=False)
class FullDelta(Delta):
    """scale * weight on a weight, [outputs, inputs]."""

    weight: Tensor
    form: ClassVar[str] = "full"
    ranks: ClassVar[dict[str, int]] = {"weight": 2}


@dataclass(frozen=True, eq=False)
class BiasDelta(Delta):
    """scale * bias on a bias, [outputs]; modules without a bias count as having one of zero."""

    bias: Tensor
    form: ClassVar[str] = "bias"
    ranks: ClassVar[dict[str, int]] = {"bias": 1}


FORMS: dict[str, type[Delta]] = {kind.form: kind for kind in (LowRankDelta, FullDelta, BiasDelta)}


@dataclass(frozen=True, eq=False)
class AdapterEdit(Edit):
    """Changes to the weights of some modules, as if they were added to them: `w * s` scales them, `a + b` adds them.

    Modules get what the changed weights would give; the weights themselves are never touched, so that other threads
    and contexts go on with the network as it is. Computed in float32 or wider and rounded once to the output's dtype.
    """

    kind: ClassVar[str] = "adapter"
    deltas: tuple[Delta, ...]
    provenance: Provenance = field(default_factory=Provenance)

    def __post_init__(self) -> None:
        if not self.deltas:
            raise BadInput("an adapter edit needs at least one module whose weights it changes")

    @property
    def modules(self) -> list[str]:
        """Paths of the modules that are changed, in order."""
        return list(dict.fromkeys(delta.module for delta in self.deltas))

    def with_provenance(self, provenance: Provenance) -> AdapterEdit:
        return replace(self, provenance=provenance)

    def __mul__(self, strength: float) -> AdapterEdit:
        return replace(self, deltas=tuple(replace(one, scale=scaled(one.scale, strength)) for one in self.deltas))

    def __add__(self, other: Edit) -> AdapterEdit:
        if not isinstance(other, AdapterEdit):
            raise NotSupported(f"an adapter and a {other.kind} edit cannot be added: enter both with model.edited")
        return AdapterEdit((*self.deltas, *other.deltas), _merged(self.provenance, other.provenance))

    def _named(self) -> list[tuple[str, int, str]]:
        """Name, number of the delta and field of every tensor; a module that comes twice is told apart by number."""
        found, seen = [], set()
        for number, delta in enumerate(self.deltas):
            for item in delta.tensors():
                name = f"{delta.module}.{item}"
                found.append((f"{number}.{name}" if name in seen else name, number, item))
                seen.add(name)
        return found

    def tensors(self) -> dict[str, Tensor]:
        return {name: self.deltas[number].tensors()[item] for name, number, item in self._named()}

    def with_tensors(self, tensors: dict[str, Tensor]) -> AdapterEdit:
        own: dict[int, dict[str, Any]] = {number: {} for number in range(len(self.deltas))}
        for name, number, item in self._named():
            own[number][item] = tensors[name]
        return replace(self, deltas=tuple(replace(delta, **own[number]) for number, delta in enumerate(self.deltas)))


def _merged(first: Provenance, second: Provenance) -> Provenance:
    """The provenance of a sum. Raises `WrongModel` for adapters of two models."""
    known = [one.fingerprint for one in (first, second) if one.fingerprint]
    if len({one.get("config") for one in known}) > 1:
        raise WrongModel("the two adapters belong to models of different architecture, so they cannot be added")
    recipe = {"added": [first.recipe, second.recipe]} if first.recipe or second.recipe else {}
    return replace(first, fingerprint=known[0] if known else {}, recipe=recipe)


# Constructors --------------------------------------------------------------------------------------------------------


def weights(changes: Mapping[str, Any]) -> AdapterEdit:
    """Changes to weights by module path (or a site that is a module's output, such as `layers.3.attn.q`).

    Each is a pair `(up, down)` of [outputs, rank] and [rank, inputs] for a change of low rank, a matrix
    [outputs, inputs] for any change of the weight, or a vector [outputs] for one of the bias. Merges, folded biases,
    differences of two checkpoints. Raises `WrongShape`, `NotFinite`.
    """
    return AdapterEdit(tuple(_delta(path, change) for path, change in changes.items()))


def _delta(path: str, change: Any) -> Delta:
    if isinstance(change, tuple | list) and len(change) == 2 and all(isinstance(part, Tensor) for part in change):
        return LowRankDelta(path, down=change[1].detach(), up=change[0].detach())
    value = change.detach() if isinstance(change, Tensor) else torch.as_tensor(change, dtype=torch.float32)
    if value.dim() not in (1, 2):
        raise WrongShape(
            f"the change for {path} has shape {tuple(value.shape)}: give (up, down), a matrix [outputs, inputs] or a "
            "bias [outputs]"
        )
    return FullDelta(path, value) if value.dim() == 2 else BiasDelta(path, value)


class _Network(Protocol):
    module: nn.Module


def lora(
    model: _Network, rank: int, targets: str | Iterable[str], *, alpha: float | None = None, seed: int = 0
) -> AdapterEdit:
    """A low-rank adapter to train (arXiv 2106.09685): `down` random, `up` zero, so that nothing changes at first.

    `targets`: names of linear modules, as ends of their paths (`q_proj`) or patterns of whole paths
    (`model.layers.1*.mlp.*`). The change is `alpha / rank` times up @ down; `alpha` is `rank` unless given. Train it
    through `.trainable()`; there is no dropout. Raises `UnknownSite` where a target matches nothing, `BadInput`.
    """
    if rank < 1:
        raise BadInput(f"rank is {rank}: a low-rank adapter needs at least 1")
    paths = linear_modules(model.module)
    generator = torch.Generator().manual_seed(seed)
    scale = (rank if alpha is None else float(alpha)) / rank
    deltas = []
    for path in _matching(list(paths), [targets] if isinstance(targets, str) else list(targets)):
        inputs, outputs = paths[path]
        down = (torch.rand(rank, inputs, generator=generator) * 2 - 1) / math.sqrt(inputs)
        deltas.append(LowRankDelta(path, down, torch.zeros(outputs, rank), scale=scale))
    return AdapterEdit(tuple(deltas))


def _matching(paths: list[str], targets: list[str]) -> list[str]:
    chosen = []
    for target in targets:
        found = [path for path in paths if path == target or path.endswith(f".{target}") or fnmatchcase(path, target)]
        if not found:
            ends = list(dict.fromkeys(path.rpartition(".")[2] for path in paths))
            raise UnknownSite(f"no linear module is called '{target}': {did_you_mean(target, ends)}")
        chosen += found
    return [path for path in paths if path in set(chosen)]


def linear_modules(module: nn.Module) -> dict[str, tuple[int, int]]:
    """Paths of the modules that multiply with one matrix, with their numbers of inputs and outputs."""
    sizes = {path: linear_sizes(part) for path, part in module.named_modules()}
    return {path: size for path, size in sizes.items() if size is not None}


def linear_sizes(module: nn.Module) -> tuple[int, int] | None:
    """Numbers of inputs and outputs of a module that multiplies with one matrix, however it stores it; else None."""
    for names in (("in_features", "out_features"), ("nx", "nf")):
        sizes = tuple(getattr(module, name, None) for name in names)
        if all(type(size) is int for size in sizes) and hasattr(module, "weight"):
            return sizes  # type: ignore[return-value]
    return None
