"""What an edit of any kind is made of, in one form: what explanations and comparisons of edits are written from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Any

from torch import Tensor, nn

from . import words
from .adapter import AdapterEdit, Delta
from .base import Chain, Edit, Provenance, SiteEdit, SiteEditBase, Sum
from .conditional import ConditionalEdit
from .conditions import Condition
from .part import PartEdit
from .policy import PolicyEdit
from .prefix import PrefixEdit
from .rows import RowsEdit
from .together import Together
from .trainable import Trainable


@dataclass(frozen=True)
class Part:
    """One thing that an edit does at one place.

    `what`: operator, form of a change of weights, `prompt`, or the name of a policy. `where`: site, module, or nothing.
    `within`: what of the whole it is, such as `row 2`. `says` is a sentence, `facts` what else there is to know.
    `strength` is None for what has none; `unit` says what 1 means. `width`: that of the site, where the tensors tell.
    """

    what: str
    where: str
    says: str
    formula: str = ""
    within: str = ""
    strength: float | None = None
    unit: str = ""
    facts: dict[str, str] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    provenance: Provenance = field(default_factory=Provenance)
    width: int | None = None

    @property
    def title(self) -> str:
        """What it is and where, in a few words."""
        place = f"{self.what} at {self.where}" if self.where else self.what
        return f"{place} ({self.within})" if self.within else place


def plain(edit: Edit | Trainable) -> Edit:
    """The edit itself, where it is being trained as it is now."""
    return edit.edit if isinstance(edit, Trainable) else edit


def combined(edit: Edit) -> str:
    """How the parts of an edit go together; empty for one that has no parts."""
    if isinstance(edit, Sum):
        return "a sum: changes that are taken from the same activation and added"
    if isinstance(edit, Chain):
        scaled = "" if edit.strength == 1 else f", of which {words.short(edit.strength)} times the change is made"
        return f"a chain: each part sees what the one before it left{scaled}"
    if isinstance(edit, ConditionalEdit):
        return "an edit on a condition"
    if isinstance(edit, RowsEdit):
        return f"an edit by row, for {len(edit.rows)} prompts"
    if isinstance(edit, Together):
        return f"{len(edit.edits)} edits that go together"
    return ""


def parts_of(edit: Edit) -> list[Part]:
    """All parts of an edit, in the order in which they act."""
    return list(_parts(edit, ""))


def brief(edit: Edit | Trainable) -> str:
    """An edit in one line, such as `add at layers.18.out, strength 4, on after_instruction`."""
    parts = parts_of(plain(edit))
    if not parts:
        return "nothing"
    first = parts[0]
    said = [first.title]
    if first.strength is not None and first.strength != 1:
        said.append(f"strength {words.short(first.strength)}")
    if "tokens" in first.facts and not first.facts["tokens"].startswith("all:"):
        said.append(f"on {first.facts['tokens'].partition(':')[0]}")
    if "system" in first.facts:
        said.append(first.facts["system"])
    more = f"; and {len(parts) - 1} more parts" if len(parts) > 2 else f"; and {parts[1].title}" if parts[1:] else ""
    trained = " (being trained)" if isinstance(edit, Trainable) else ""
    return ", ".join(said) + more + trained


def _parts(edit: Edit, within: str) -> Iterator[Part]:
    if isinstance(edit, SiteEdit):
        yield _leaf(edit, within)
    elif isinstance(edit, Sum | Chain):
        for part in edit.parts:
            for found in _parts(part, within):
                yield _in_chain(found, edit) if isinstance(edit, Chain) else found
    elif isinstance(edit, RowsEdit):
        for part, rows in _rows(edit):
            yield from _parts(part, f"row{'s' if len(rows) > 1 else ''} {words.ranges(rows)}")
    elif isinstance(edit, ConditionalEdit):
        for found in _parts(edit.edit, within):
            yield replace(found, facts={**found.facts, "only if": str(edit.condition)})
        yield from (_condition(one, edit, within) for one in edit.condition.leaves())
    elif isinstance(edit, PrefixEdit):
        yield _prefix(edit)
    elif isinstance(edit, AdapterEdit):
        yield from (_delta(delta, edit.provenance) for delta in edit.deltas)
    elif isinstance(edit, PartEdit):
        yield from (_stand_in(path, module, edit) for path, module in edit.parts)
    elif isinstance(edit, Together):
        for one in edit.edits:
            yield from _parts(one, within)
    elif isinstance(edit, PolicyEdit):
        yield from _policy(edit)
    else:
        yield Part(edit.kind or type(edit).__name__, "", f"is an edit of kind '{edit.kind or type(edit).__name__}'")


def _in_chain(part: Part, chain: Chain) -> Part:
    if chain.strength == 1:
        return part
    outer = f" times {part.facts['within a chain of strength']}" if "within a chain of strength" in part.facts else ""
    return replace(part, facts={**part.facts, "within a chain of strength": f"{words.short(chain.strength)}{outer}"})


def _rows(edit: RowsEdit) -> list[tuple[SiteEditBase, list[int]]]:
    """The edits of the rows, each with all rows that share it."""
    found: dict[int, tuple[SiteEditBase, list[int]]] = {}
    for number, part in edit.parts():
        found.setdefault(id(part), (part, []))[1].append(number)
    return list(found.values())


def _leaf(edit: SiteEdit, within: str) -> Part:
    says = words.operator(edit.operator.name)
    facts = {"tokens": words.positions(edit.positions)}
    for name, chosen in (("heads", edit.heads), ("features", edit.features), ("experts", edit.experts)):
        if chosen is not None:
            facts[name] = words.ranges(chosen)
    if edit.keys is not None:
        facts["looked at"] = words.positions(edit.keys)
    facts |= {name: words.short(value) for name, value in edit.operator.settings().items()}
    if edit.operator.name == "function":
        function = edit.operator.function  # type: ignore[attr-defined]
        facts["function"] = getattr(function, "__name__", type(function).__name__)
    return Part(
        what=edit.operator.name,
        where=edit.site,
        says=f"{says.does} {edit.site}",
        formula=words.formula(says, edit.strength),
        within=within,
        strength=edit.strength,
        unit=edit.unit,
        facts=facts,
        tensors=edit.operator.tensors(),
        provenance=edit.provenance,
        width=_width(edit),
    )


def _condition(one: Condition, edit: ConditionalEdit, within: str) -> Part:
    return Part(
        what="condition",
        where=one.site,
        says=f"decides for each prompt from {one.site}",
        within=within,
        facts={
            "measure": one.measure.name,
            "met": f"{one.fires} {one.threshold:.10g}",
            "read": words.positions(one.positions),
        },
        tensors=one.measure.tensors(),
        provenance=edit.leaves()[0].provenance,
        width=next(iter(one.measure.tensors().values())).shape[-1],
    )


def _width(edit: SiteEdit) -> int | None:
    """The width of the site, as the last axis of the tensors tells it; None where they are narrowed or numbers."""
    own = edit.operator
    wide = [value.shape[-1] for name, value in own.tensors().items() if value.dim() and name not in own.by_rank]
    return wide[0] if wide and edit.features is None else None


def _prefix(edit: PrefixEdit) -> Part:
    facts = {"system": repr(edit.system)} if edit.system else {}
    facts |= {f"turn {number}": f"{role}: {text}" for number, (role, text) in enumerate(edit.turns)}
    says = "puts a system prompt" if edit.system else "puts example turns"
    says += f" and {len(edit.turns)} example turns" if edit.system and edit.turns else ""
    return Part("prompt", "", f"{says} in front of every conversation", facts=facts, provenance=edit.provenance)


def _delta(delta: Delta, provenance: Provenance) -> Part:
    says = words.DELTAS[delta.form]
    target = "bias" if delta.form == "bias" else "weight"
    return Part(
        what=delta.form,
        where=delta.module,
        says=f"{says.does} {delta.module}",
        formula=f"{target} + {words.short(delta.scale)} * ({says.change})",
        strength=delta.scale,
        unit="weight",
        tensors=delta.tensors(),
        provenance=provenance,
    )


def _stand_in(path: str, module: nn.Module, edit: PartEdit) -> Part:
    title = str(getattr(module, "title", type(module).__name__))
    return Part(
        what=title,
        where=f"module:{path}",
        says=f"puts {title} in the place of module:{path}",
        formula="new(x)" if edit.strength == 1 else f"old(x) + {words.short(edit.strength)} * (new(x) - old(x))",
        strength=edit.strength,
        unit="operator",
        tensors=dict(module.state_dict()),
        provenance=edit.provenance,
    )


def _policy(edit: PolicyEdit) -> Iterator[Part]:
    values: dict[str, Any] = {item.name: getattr(edit, item.name) for item in fields(edit)}
    inner = values.pop("edit", None)
    found = values.pop("provenance", None)
    tensors = {name: value for name, value in values.items() if isinstance(value, Tensor)}
    facts = {name: str(value) for name, value in values.items() if isinstance(value, str | int | float)}
    where = ", ".join(edit.sites)
    facts.pop("site", None)
    says = "owns the loop in which text is written" + (f" and watches {where}" if where else "")
    name = str(getattr(edit, "name", "") or type(edit).__name__)
    provenance = found if isinstance(found, Provenance) else Provenance()
    yield Part(name, where, says, facts=facts, tensors=tensors, provenance=provenance)
    if isinstance(inner, Edit):
        yield from _parts(inner, "once it fires")
