"""Edits: changes to activations that can be combined, scaled, saved and taken away without trace.

Algebra, with e(h) the new activation: `e * s` is h + s (e(h) - h); `e1 + e2` adds changes taken from the same h;
`e1 >> e2` applies one after the other; strength 0 installs nothing. Where edits sit at different sites, each acts at
its own.

An edit has one of four kinds. `site` edits are pure functions of one activation and are defined here; `prefix` edits
add tokens (see `prefix.py`); `adapter` edits change weights and `policy` edits own the decode loop.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import torch

from ..errors import NotFinite, NotSupported
from ..positions import Positions
from .operators import Operator

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

    from .conditions import Condition
    from .differences import EditDiff
    from .explanation import Explanation, Network
    from .trainable import Trainable


class Places(Protocol):
    """What the engine tells an edit about the activation at hand."""

    def select(self, positions: Positions) -> tuple[Tensor | None, Tensor] | None:
        """None if nothing is selected; else the mask ([example, token], or None for all) and the running numbers."""

    def routed(self, experts: tuple[int, ...], positions: Positions) -> Tensor | None:
        """Which chosen experts are among `experts`: bool [example, token, rank]; None where nothing was chosen."""

    def keys(self, positions: Positions) -> Tensor:
        """Which keys are selected at a site whose last axis is keys: bool [example, key]."""


class Bakes(Protocol):
    """A model that can take an edit into its network."""

    def baked(self, edit: Edit) -> nn.Module: ...

    def folded(self, edit: Edit) -> nn.Module: ...


Change = Callable[["Tensor", Places], "Tensor"]

# What a strength of 1 means; see `SiteEdit`.
UNITS = ("operator", "stream")


@dataclass(frozen=True)
class Provenance:
    """Where an edit comes from: what it must meet again to be used."""

    fingerprint: dict[str, str] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)
    equations: dict[str, str] = field(default_factory=dict)
    stream_norm: dict[str, float] = field(default_factory=dict)
    start_token: str = ""


@dataclass(frozen=True, eq=False)
class Edit:
    """Base of all edits."""

    kind: ClassVar[str] = ""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        # Before a dataclass writes its own, which would print every number of every tensor.
        cls.__repr__ = Edit.__repr__  # type: ignore[method-assign]

    def __repr__(self) -> str:
        from .anatomy import brief

        return f"<{type(self).__name__}: {brief(self)}>"

    def __mul__(self, strength: float) -> Edit:
        raise NotSupported(f"a {self.kind} edit has no strength: use it as it is or not at all")

    def __rmul__(self, strength: float) -> Edit:
        return self * strength

    def __neg__(self) -> Edit:
        return self * -1

    def __add__(self, other: Edit) -> Edit:
        raise NotSupported(
            f"a {self.kind} edit cannot be added to another: enter both with model.edited, one in the other"
        )

    def __rshift__(self, other: Edit) -> Edit:
        raise NotSupported(f"a {self.kind} edit cannot be chained: enter both with model.edited, one in the other")

    def __sub__(self, other: Edit) -> Edit:
        return self + -other

    def tensors(self) -> dict[str, Tensor]:
        """The tensors of all parts, by a dotted name such as `vector` or `0.weight`."""
        return {}

    def with_tensors(self, tensors: dict[str, Tensor]) -> Edit:
        """The same edit with other tensors, named as `tensors` names them."""
        return self

    def constrained(self) -> Edit:
        """The edit with tensors that an optimiser moved put back where they have to be, such as on orthonormal rows."""
        return self

    def trainable(self, *fields: str) -> Trainable:
        """Its tensors as the parameters of a module, for any optimiser. See `optrode.edits.trainable.Trainable`.

        `fields` names those to train, such as `vector` or `bias`; all of them where none is named.
        """
        from .trainable import Trainable

        return Trainable(self, *fields)

    def bake(self, model: Bakes) -> nn.Module:
        """A network of the model's own class with this edit inside, to compile or export. See `optrode.engine.bake`."""
        return model.baked(self)

    def fold(self, model: Bakes) -> nn.Module:
        """A plain network with this edit in its biases; any program loads its checkpoint. See `optrode.engine.bake`."""
        return model.folded(self)

    def explain(self, model: Network | None = None) -> Explanation:
        """What it does, where, how strongly, fitted on what, in plain words; with a model, whether it fits that one.

        See `optrode.edits.explanation.explain`.
        """
        from .explanation import explain

        return explain(self, model)

    def diff(self, other: Edit | Trainable) -> EditDiff:
        """What differs between this edit and another. See `optrode.edits.differences.diff`."""
        from .differences import diff

        return diff(self, other)

    def export(self, path: str | Path, model: Any = None) -> Path:
        """Write the edit for another tool, such as a control vector for llama.cpp. See `optrode.edits.export`."""
        from .formats import export

        return export(self, path, model)

    def save(self, path: str | Path) -> Path:
        """Write the edit to one safetensors file. See `optrode.load_edit`."""
        from .file import save

        return save(self, path)

    def _repr_html_(self) -> str:
        from ..notebook.edits import edit

        return edit(self)


@dataclass(frozen=True, eq=False)
class SiteEditBase(Edit):
    """Base of edits that are pure functions of one activation."""

    kind: ClassVar[str] = "site"

    def patterns(self) -> list[str]:
        """The site patterns of all parts, in order."""
        raise NotImplementedError

    def at(self, address: str, matches: Callable[[str, str], bool]) -> Change | None:
        """What happens at `address`, or None. `matches(pattern, address)` is the model's own matcher."""
        raise NotImplementedError

    def leaves(self) -> list[SiteEdit]:
        raise NotImplementedError

    def watches(self) -> list[Condition]:
        """The conditions that are read to decide whether it acts; see `when`."""
        return []

    def with_provenance(self, provenance: Provenance) -> SiteEditBase:
        raise NotImplementedError

    def with_tensors(self, tensors: dict[str, Tensor]) -> SiteEditBase:
        raise NotImplementedError

    def constrained(self) -> SiteEditBase:
        raise NotImplementedError

    def __add__(self, other: Edit) -> Edit:
        if not isinstance(other, SiteEditBase):
            raise NotSupported(f"a site edit and a {other.kind} edit cannot be added: enter both with model.edited")
        return Sum((*_parts(self, Sum), *_parts(other, Sum)))

    def __rshift__(self, other: Edit) -> Edit:
        if not isinstance(other, SiteEditBase):
            raise NotSupported(f"a site edit and a {other.kind} edit cannot be chained: enter both with model.edited")
        return Chain((*_parts(self, Chain), *_parts(other, Chain)))


@dataclass(frozen=True, eq=False)
class SiteEdit(SiteEditBase):
    """One operator at the sites that a pattern selects.

    `features` and `heads` narrow it to some coordinates of the last axis, or some heads of a site that has heads;
    `keys` narrows it to the tokens that are looked at, at `attn.scores` and `attn.pattern`; `experts` to what some
    experts do to the tokens that chose them or, at a router, to their scores.
    `unit` says what a strength of 1 means: `operator` (as fitted) or `stream` (the operator's change is one median
    norm of the stream at that site; see `in_stream_units`).
    """

    site: str
    operator: Operator
    positions: Positions = field(default_factory=Positions)
    strength: float = 1.0
    features: tuple[int, ...] | None = None
    heads: tuple[int, ...] | None = None
    keys: Positions | None = None
    experts: tuple[int, ...] | None = None
    unit: str = "operator"
    provenance: Provenance = field(default_factory=Provenance)

    def __mul__(self, strength: float) -> SiteEdit:
        return replace(self, strength=scaled(self.strength, strength))

    def patterns(self) -> list[str]:
        return [self.site]

    def leaves(self) -> list[SiteEdit]:
        return [self]

    def with_provenance(self, provenance: Provenance) -> SiteEdit:
        return replace(self, provenance=provenance)

    def tensors(self) -> dict[str, Tensor]:
        return self.operator.tensors()

    def with_tensors(self, tensors: dict[str, Tensor]) -> SiteEdit:
        return replace(self, operator=self.operator.with_tensors(tensors))

    def constrained(self) -> SiteEdit:
        return replace(self, operator=self.operator.constrained())

    def at(self, address: str, matches: Callable[[str, str], bool]) -> Change | None:
        if self.strength == 0 or not matches(self.site, address):
            return None
        return _LeafChange(self)


class _LeafChange:
    """Applies one leaf to a whole activation; keeps the operator's tensors on the device they are needed on."""

    def __init__(self, edit: SiteEdit):
        self.edit = edit
        self._operator = edit.operator
        self._at: tuple[Any, Any] | None = None

    def __call__(self, h: Tensor, places: Places) -> Tensor:
        chosen = places.select(self.edit.positions)
        if chosen is None:
            return h
        mask, index = chosen
        if self.edit.operator.trained:
            # Never kept: an optimiser moves its tensors, and the next forward needs a graph of its own.
            self._operator = self.edit.operator.to(h.device, h.dtype).constrained()
        elif self._at != (h.device, h.dtype):
            self._operator, self._at = self.edit.operator.to(h.device, h.dtype), (h.device, h.dtype)
        experts = self.edit.experts
        routed = places.routed(experts, self.edit.positions) if experts is not None else None
        if mask is None:
            new = self._on_experts(h, index, routed)
        else:
            new = h.clone()
            new[mask] = self._on_experts(h[mask], index[mask], routed if routed is None else routed[mask])
        if self.edit.keys is None:
            return new
        return torch.where(places.keys(self.edit.keys)[:, None, None], new, h)

    def _on_experts(self, h: Tensor, index: Tensor, routed: Tensor | None) -> Tensor:
        """The change of those pairs alone whose token chose one of the experts: `routed` is bool [..., rank]."""
        if routed is None:
            return self._on(h, index, self.edit.experts if self.edit.features is None else self.edit.features)
        if not bool(routed.any()):
            return h
        # Weights are one number for each pair.
        new = h.clone().unsqueeze(-1) if h.dim() == routed.dim() else h.clone()
        new[routed] = self._on(new[routed], index[..., None].expand_as(routed)[routed], self.edit.features)
        return new.reshape(h.shape)

    def _on(self, h: Tensor, index: Tensor, features: tuple[int, ...] | None) -> Tensor:
        heads = self.edit.heads
        if features is None and heads is None:
            return self._apply(h, index)
        new = h.clone()
        if heads is not None:
            part = h[..., list(heads), :]
            if features is None:
                new[..., list(heads), :] = self._apply(part, index)
            else:
                part = part.clone()
                part[..., list(features)] = self._apply(part[..., list(features)], index)
                new[..., list(heads), :] = part
        else:
            assert features is not None
            new[..., list(features)] = self._apply(h[..., list(features)], index)
        return new

    def _apply(self, h: Tensor, index: Tensor) -> Tensor:
        strength = self.edit.strength
        if strength == 1:
            return self._operator(h, index)
        return h + strength * self._operator.change(h, index)


@dataclass(frozen=True, eq=False)
class Sum(SiteEditBase):
    """Changes taken from the same activation and added."""

    parts: tuple[SiteEditBase, ...]

    def __mul__(self, strength: float) -> Sum:
        return Sum(tuple(part * strength for part in self.parts))  # type: ignore[misc]

    def patterns(self) -> list[str]:
        return [pattern for part in self.parts for pattern in part.patterns()]

    def leaves(self) -> list[SiteEdit]:
        return [leaf for part in self.parts for leaf in part.leaves()]

    def watches(self) -> list[Condition]:
        return [one for part in self.parts for one in part.watches()]

    def with_provenance(self, provenance: Provenance) -> Sum:
        return Sum(tuple(part.with_provenance(provenance) for part in self.parts))

    def tensors(self) -> dict[str, Tensor]:
        return _numbered(self.parts)

    def with_tensors(self, tensors: dict[str, Tensor]) -> Sum:
        return Sum(_with_numbered(self.parts, tensors))

    def constrained(self) -> Sum:
        return Sum(tuple(part.constrained() for part in self.parts))

    def at(self, address: str, matches: Callable[[str, str], bool]) -> Change | None:
        changes = [change for part in self.parts if (change := part.at(address, matches)) is not None]
        if len(changes) < 2:
            return changes[0] if changes else None

        def added(h: Tensor, places: Places) -> Tensor:
            new = h
            for change in changes:
                part = change(h, places)
                new = new if part is h else new + (part - h)
            return new

        return added


@dataclass(frozen=True, eq=False)
class Chain(SiteEditBase):
    """One after the other: each part sees what the one before it left."""

    parts: tuple[SiteEditBase, ...]
    strength: float = 1.0

    def __mul__(self, strength: float) -> Chain:
        return replace(self, strength=scaled(self.strength, strength))

    def patterns(self) -> list[str]:
        return [pattern for part in self.parts for pattern in part.patterns()]

    def leaves(self) -> list[SiteEdit]:
        """The leaves of all parts; those of a chain of strength 0 have strength 0 too, since nothing of it is used."""
        leaves = [leaf for part in self.parts for leaf in part.leaves()]
        return leaves if self.strength else [leaf * 0 for leaf in leaves]

    def watches(self) -> list[Condition]:
        return [one for part in self.parts for one in part.watches()] if self.strength else []

    def with_provenance(self, provenance: Provenance) -> Chain:
        return replace(self, parts=tuple(part.with_provenance(provenance) for part in self.parts))

    def tensors(self) -> dict[str, Tensor]:
        return _numbered(self.parts)

    def with_tensors(self, tensors: dict[str, Tensor]) -> Chain:
        return replace(self, parts=_with_numbered(self.parts, tensors))

    def constrained(self) -> Chain:
        return replace(self, parts=tuple(part.constrained() for part in self.parts))

    def at(self, address: str, matches: Callable[[str, str], bool]) -> Change | None:
        changes = [change for part in self.parts if (change := part.at(address, matches)) is not None]
        if not changes or self.strength == 0:
            return None

        def chained(h: Tensor, places: Places) -> Tensor:
            new = h
            for change in changes:
                new = change(new, places)
            return new if self.strength == 1 else h + self.strength * (new - h)

        return chained


def scaled(own: float, strength: float) -> float:
    total = own * float(strength)
    if not math.isfinite(total):
        raise NotFinite(f"an edit cannot have strength {total}: give a finite number")
    return total


def _numbered(parts: tuple[SiteEditBase, ...]) -> dict[str, Tensor]:
    return {f"{number}.{name}": value for number, part in enumerate(parts) for name, value in part.tensors().items()}


def _with_numbered(parts: tuple[SiteEditBase, ...], tensors: dict[str, Tensor]) -> tuple[SiteEditBase, ...]:
    """The parts with their tensors out of a dictionary that `_numbered` could have made."""
    own: list[dict[str, Tensor]] = [{} for _ in parts]
    for name, value in tensors.items():
        number, _, rest = name.partition(".")
        own[int(number)][rest] = value
    return tuple(part.with_tensors(values) for part, values in zip(parts, own, strict=True))


def _parts(edit: SiteEditBase, kind: type) -> tuple[SiteEditBase, ...]:
    """Flatten nested sums and unscaled chains, so that files and messages stay short."""
    if isinstance(edit, kind) and getattr(edit, "strength", 1.0) == 1.0:
        return edit.parts  # type: ignore[attr-defined]
    return (edit,)
