"""What an edit does, in plain words: at which sites, by which formula, on which tokens, how strongly, fitted on what.

>>> import torch
>>> from optrode import edits
>>> print((edits.add("layers.3.out", torch.ones(8), "last_prompt") * 2).explain())
adds a vector to layers.3.out
  formula   h + 2 * vector
  tokens    last_prompt: the last token of the prompt
  strength  2, where 1 is the change as fitted or given; the change is 5.66 long
  vector    [8] float32, norm 2.83, values 1 to 1
  needs     a model with layers.3.out of width 8
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from ..errors import OptrodeError
from . import words
from .anatomy import Part, combined, parts_of, plain
from .base import UNITS, Edit, Provenance
from .trainable import Trainable

# Adapters may change hundreds of modules.
_SHOWN = 12


class Network(Protocol):
    """What a model tells of itself; `optrode.Model` is one."""

    name: str

    @property
    def fingerprint(self) -> dict[str, str]: ...

    def match(self, patterns: Any) -> Sequence[Any]: ...


@dataclass(frozen=True)
class Explanation:
    """An edit in words: `str()` is a text for people, `as_dict()` plain values for JSON.

    `says` is what it is as a whole; `parts` holds for each part its sentence and its facts, `about` the facts that all
    parts share.
    """

    says: str
    parts: tuple[tuple[str, dict[str, str]], ...]
    about: dict[str, str]

    def as_dict(self) -> dict[str, Any]:
        return {"says": self.says, "parts": [{"does": does, **facts} for does, facts in self.parts], **self.about}

    def __str__(self) -> str:
        if len(self.parts) == 1 and not self.says:
            does, facts = self.parts[0]
            return "\n".join([does, *_table({**facts, **self.about})])
        lines = [self.says] if self.says else []
        for number, (does, facts) in enumerate(self.parts[:_SHOWN], 1):
            lines += [f"{number}. {does}", *_table(facts, "   ")]
        if len(self.parts) > _SHOWN:
            lines.append(f"and {len(self.parts) - _SHOWN} more parts like these")
        return "\n".join([*lines, *_table(self.about, "")])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from ..notebook.edits import explanation

        return explanation(self)


def explain(edit: Edit | Trainable, model: Network | None = None) -> Explanation:
    """What an edit does, where, how strongly, and what it asks of a model; with a `model`, whether it fits that one.

    Runs nothing of the network. Costs a pass over the edit's own tensors.
    """
    inner = plain(edit)
    parts = parts_of(inner)
    shared = all(part.provenance == parts[0].provenance for part in parts)
    told = [(f"{part.says}, {part.within}" if part.within else part.says, _facts(part, not shared)) for part in parts]
    about = _about(parts[0].provenance) if shared else {}
    if model is not None:
        about["here"] = _fits(inner, parts, model)
    says = combined(inner)
    if not says and len(parts) > 1:
        says = f"{len(parts)} parts"
    if isinstance(edit, Trainable):
        says = f"being trained; {says}".rstrip("; ")
    return Explanation(says, tuple(told), about)


def _facts(part: Part, own: bool) -> dict[str, str]:
    facts = {"formula": part.formula} if part.formula else {}
    facts |= part.facts
    if part.strength is not None:
        facts["strength"] = _strength(part)
    facts |= {name: words.tensor(value) for name, value in part.tensors.items()}
    equation = part.provenance.equations.get(part.where)
    if equation:
        facts["site"] = f"{part.where} = {equation}, as it was measured where the edit was fitted"
    needs = _needs(part)
    return facts | ({"needs": needs} if needs else {}) | (_about(part.provenance) if own else {})


def _strength(part: Part) -> str:
    assert part.strength is not None
    means = {
        "stream": "where 1 is a change as long as the stream's median norm there",
        "weight": "where 1 is the change of the weight as it stands",
    }.get(part.unit, "where 1 is the change as fitted or given")
    text = f"{words.short(part.strength)}, {means}"
    length = _length(part)
    if not length:
        return text
    norm = part.provenance.stream_norm.get(part.where)
    share = f", {length / norm:.0%} of the stream's median norm there ({words.short(norm)})" if norm else ""
    return f"{text}; the change is {words.short(length)} long{share}"


def _length(part: Part) -> float:
    """The norm of a change that is the same whatever the activation; 0 where it depends on that."""
    if part.what != "add" or part.tensors["vector"].dim() != 1 or part.strength is None:
        return 0.0
    return abs(part.strength) * float(part.tensors["vector"].detach().double().norm())


def _needs(part: Part) -> str:
    if not part.unit:
        return "a chat template, for the example turns" if "turn 0" in part.facts else ""
    if part.unit == "weight":
        return f"a model whose {part.where} has a weight of [{', '.join(map(str, _weight(part.tensors)))}]"
    width = f" of width {part.width}" if part.width else ""
    heads = ", divided by head" if "heads" in part.facts else ""
    experts = ", divided by expert" if "experts" in part.facts else ""
    return f"a model with {part.where}{width}{heads}{experts}"


def _weight(tensors: dict[str, Tensor]) -> list[int]:
    """The sizes of the weight that a change fits: outputs and inputs; outputs alone of a bias."""
    if "up" in tensors:
        return [tensors["up"].shape[0], tensors["down"].shape[1]]
    return list(next(iter(tensors.values())).shape)


def _about(provenance: Provenance) -> dict[str, str]:
    """Where it comes from and what it must meet again."""
    found: dict[str, str] = {}
    recipe, known = words.recipe(provenance), provenance.fingerprint
    if recipe:
        found["fitted"] = recipe
    if known:
        marks = ", ".join(f"{name} {known[name]}" for name in ("config", "tokenizer", "weights") if name in known)
        found["model"] = (
            f"{known.get('name', 'one without a name')} ({marks}); refused on another architecture, with a warning on "
            "other weights or with another tokenizer"
        )
    if provenance.start_token:
        found["prompts"] = f"began as '{provenance.start_token}' where it was fitted"
    return found


def _fits(edit: Edit, parts: Sequence[Part], model: Network) -> str:
    """Whether an edit belongs to a model, and how many of its sites it acts at."""
    for part in parts:
        known = part.provenance.fingerprint
        if known and known.get("config") != model.fingerprint["config"]:
            return f"does not fit {model.name}: it was fitted on {known.get('name', 'another model')}"
    try:
        sites = {site.address for part in parts if part.unit in UNITS for site in model.match(part.where)}
    except OptrodeError as problem:
        return f"does not fit {model.name}: {problem}"
    differs = sorted(
        {
            name
            for part in parts
            for name in ("tokenizer", "weights")
            if part.provenance.fingerprint and part.provenance.fingerprint.get(name) != model.fingerprint[name]
        }
    )
    text = f"fits {model.name}"
    if differs:
        text = f"fits the architecture of {model.name}, which has another {' and '.join(differs)}"
    elif any(part.provenance.fingerprint for part in parts):
        text = f"was fitted on {model.name}"
    return f"{text}, and acts at {len(sites)} site{'s' if len(sites) != 1 else ''}" if sites else text


def _table(facts: dict[str, str], indent: str = "  ") -> list[str]:
    """Facts under each other; what is the same as elsewhere is padded to one column."""
    width = max(map(len, facts), default=0)
    return [f"{indent}{name:<{width}}  {value}" for name, value in facts.items()]
