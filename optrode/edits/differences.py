"""What differs between two edits: sites, kinds, strengths, tokens, tensors, and where they come from.

>>> import torch
>>> from optrode import edits
>>> edit = edits.add("layers.3.out", torch.ones(8))
>>> print(edits.diff(edit, edit * 2))
1 difference
  add at layers.3.out
    strength  first: 1, second: 2
>>> len(edits.diff(edit, edit))
0
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from . import words
from .anatomy import Part, combined, parts_of, plain
from .base import Edit, Provenance
from .trainable import Trainable

NONE = "none"


@dataclass(frozen=True)
class Difference:
    """One thing that differs: of which part, what, as it is in the first and in the second, and how far apart."""

    of: str
    what: str
    first: str
    second: str
    apart: str = ""


@dataclass(frozen=True)
class EditDiff:
    """What differs between two edits. `len()` is how many differences there are; `str()` shows them.

    `alike` names the parts that are the same in both, to the last bit.
    """

    differences: tuple[Difference, ...]
    alike: tuple[str, ...]
    names: tuple[str, str] = ("first", "second")

    def __len__(self) -> int:
        return len(self.differences)

    def as_dict(self) -> dict[str, Any]:
        return {"differences": [asdict(one) for one in self.differences], "alike": list(self.alike)}

    def __str__(self) -> str:
        if not self.differences:
            return "no difference"
        first, second = self.names
        lines = [f"{len(self)} difference{'s' if len(self) > 1 else ''}"]
        for of in dict.fromkeys(one.of for one in self.differences):
            own = [one for one in self.differences if one.of == of]
            width = max(len(one.what) for one in own)
            lines.append(f"  {of}")
            for one in own:
                apart = f"; {one.apart}" if one.apart else ""
                lines.append(f"    {one.what:<{width}}  {first}: {one.first}, {second}: {one.second}{apart}")
        if self.alike:
            lines.append(f"alike: {', '.join(self.alike)}")
        return "\n".join(lines)

    __repr__ = __str__


def diff(first: Edit | Trainable, second: Edit | Trainable, names: tuple[str, str] = ("first", "second")) -> EditDiff:
    """What differs between two edits of any kind. `names` is what they are called where the result is shown.

    Parts that do the same at the same place are compared with each other, then those at one place, then those that do
    the same at different places; what is left is in one of the two alone. Tensors of one shape are compared by their
    cosine and their largest difference, in float64, as they are saved, without the strength.
    """
    ours, theirs = plain(first), plain(second)
    found: list[Difference] = []
    if ours.kind != theirs.kind:
        found.append(Difference("the whole", "kind", ours.kind, theirs.kind))
    if combined(ours) != combined(theirs):
        found.append(Difference("the whole", "parts", combined(ours) or "one", combined(theirs) or "one"))
    alike = []
    for one, other in _pairs(parts_of(ours), parts_of(theirs)):
        own = list(_compared(one, other))
        found += own
        if not own and one is not None:
            alike.append(one.title)
    return EditDiff(tuple(found), tuple(alike), names)


def _pairs(first: list[Part], second: list[Part]) -> list[tuple[Part | None, Part | None]]:
    """Parts that belong together, in the order of the first; those without a partner come with None."""
    partner: dict[int, int] = {}
    keys: list[Callable[[Part], Any]] = [
        lambda part: (part.within, part.what, part.where),
        lambda part: (part.what, part.where),
        lambda part: (part.within, part.where),
        lambda part: (part.within, part.what),
    ]
    for key in keys:
        for place, part in enumerate(first):
            free = (other for other in range(len(second)) if other not in partner.values())
            match = next((other for other in free if key(second[other]) == key(part)), None)
            if place not in partner and match is not None:
                partner[place] = match
    pairs: list[tuple[Part | None, Part | None]] = [
        (part, second[partner[place]] if place in partner else None) for place, part in enumerate(first)
    ]
    return pairs + [(None, part) for place, part in enumerate(second) if place not in partner.values()]


def _compared(first: Part | None, second: Part | None) -> Iterator[Difference]:
    if first is None or second is None:
        part = first or second
        assert part is not None
        yield Difference(part.title, "is there", "yes" if first else "no", "yes" if second else "no")
        return
    of = first.title
    named = [("does", first.what, second.what), ("at", first.where, second.where), ("of", first.within, second.within)]
    if first.strength is not None or second.strength is not None:
        named.append(("strength", _number(first.strength), _number(second.strength)))
    named.append(("unit", first.unit, second.unit))
    yield from (Difference(of, what, one or NONE, other or NONE) for what, one, other in named if one != other)
    yield from _tables(of, "", first.facts, second.facts)
    for name in dict.fromkeys([*first.tensors, *second.tensors]):
        yield from _tensors(of, name, first.tensors.get(name), second.tensors.get(name))
    yield from _origins(of, first.provenance, second.provenance)


def _number(value: float | None) -> str:
    return NONE if value is None else f"{value:.10g}"


def _tables(of: str, before: str, first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[Difference]:
    for name in dict.fromkeys([*first, *second]):
        one, other = str(first.get(name, NONE)), str(second.get(name, NONE))
        if one != other:
            yield Difference(of, f"{before}{name}", one, other)


def _tensors(of: str, name: str, first: Tensor | None, second: Tensor | None) -> Iterator[Difference]:
    if first is None or second is None:
        texts = [NONE if value is None else words.tensor(value) for value in (first, second)]
        yield Difference(of, name, *texts)
        return
    first, second = first.detach().cpu(), second.detach().cpu()
    same_kind = first.shape == second.shape and first.dtype == second.dtype
    if same_kind and torch.equal(first, second):
        return
    apart = ""
    if first.shape == second.shape and first.numel():
        wide = first.double(), second.double()
        largest = float((wide[0] - wide[1]).nan_to_num().abs().max())
        apart = f"cosine {_cosine(*wide)}, largest difference {words.short(largest)}"
    says = _norm if same_kind and first.dim() else words.tensor
    yield Difference(of, name, says(first), says(second), apart)


def _norm(value: Tensor) -> str:
    return f"norm {words.short(float(value.double().norm()))}"


def _cosine(first: Tensor, second: Tensor) -> str:
    scale = float(first.norm() * second.norm())
    if not scale or not math.isfinite(scale):
        return "undefined"
    value = float(first.flatten() @ second.flatten()) / scale
    return f"{max(-1.0, min(1.0, value)):.4f}"


def _origins(of: str, first: Provenance, second: Provenance) -> Iterator[Difference]:
    yield from _tables(of, "model: ", first.fingerprint, second.fingerprint)
    yield from _tables(of, "fitted: ", first.recipe, second.recipe)
    yield from _tables(of, "equation of ", first.equations, second.equations)
    norms = [{site: words.short(norm) for site, norm in one.stream_norm.items()} for one in (first, second)]
    yield from _tables(of, "stream norm at ", *norms)
    if first.start_token != second.start_token:
        yield Difference(of, "prompts begin", first.start_token or NONE, second.start_token or NONE)
