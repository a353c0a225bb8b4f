"""Plain words for what edits are made of: operators, changes of weights, positions, numbers, tensors."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor

from ..positions import Positions
from .base import Provenance


class Says(NamedTuple):
    """What an operator does: a verb phrase that ends where the site is named, and the change at strength 1."""

    does: str
    change: str
    # The new activation, where it is shorter to say than h plus a change.
    becomes: str = ""


OPERATORS: dict[str, Says] = {
    "add": Says("adds a vector to", "vector", "h + vector"),
    "add_by_position": Says("adds another vector for each selected token to", "vectors[p]", "h[p] + vectors[p]"),
    "scale": Says("multiplies", "(factor - 1) * h", "factor * h"),
    "project_out": Says("removes the span of some directions from", "-(h Q^T) Q", "h - (h Q^T) Q"),
    "affine": Says("scales and shifts every coordinate of", "weight * h + bias - h", "weight * h + bias"),
    "affine_within": Says(
        "scales and shifts, within a range, every coordinate of",
        "weight * h + bias - h where low < h < high",
        "weight * h + bias where low < h < high, else h",
    ),
    "low_rank": Says("makes a change of low rank to", "(down h + bias) up", "h + (down h + bias) up"),
    "subspace": Says(
        "rewrites a subspace of", "(weight h + bias - basis h) basis", "h + (weight h + bias - basis h) basis"
    ),
    "gated": Says("adds a vector where a gate opens to", "sigmoid(gate . h + bias) vector",
                  "h + sigmoid(gate . h + bias) vector"),
    "reach": Says("moves a linear score to a target by the smallest shift of",
                  "(target - weight . h - bias) weight / |weight|^2"),
    "replace": Says("puts fixed values in place of", "value - h", "value"),
    "clamp": Says("cuts to a range the values of", "min(max(h, low), high) - h", "min(max(h, low), high)"),
    "knockout": Says("hides tokens from", "-inf", "-inf at the hidden tokens"),
    "function": Says("runs a function of yours on", "function(h) - h", "function(h)"),
}  # fmt: skip
DELTAS: dict[str, Says] = {
    "low_rank": Says("changes by a product of low rank the weight of", "up @ down"),
    "full": Says("changes the weight of", "weight"),
    "bias": Says("changes the bias of", "bias"),
}
_POSITIONS = {
    "all": "every token, written ones too",
    "prompt": "every token of the prompt",
    "generated": "every written token",
    "last_prompt": "the last token of the prompt",
    "newest": "the last token of the prompt, and every written token",
    "after_instruction": "what follows the last user turn: assistant header, forced opening, all written tokens",
    "content": "all tokens but special ones and the template's own",
    "dialogue": "all tokens but special ones, the template's own and the system prompt",
    "template": "the chat template's own tokens",
    "system": "the system prompt",
    "user": "what the user says",
    "assistant": "what the assistant said in the prompt",
    "text": "the tokens of a prompt without template",
    "image": "the patches of a picture",
}


def operator(name: str) -> Says:
    """What an operator does; one that nobody described is called by its name."""
    return OPERATORS.get(name, Says(f"applies '{name}' to", f"{name}(h) - h", f"{name}(h)"))


def formula(says: Says, strength: float) -> str:
    """The new activation at a strength."""
    if strength == 0:
        return "h (strength 0: nothing is installed)"
    if strength == 1 and says.becomes:
        return says.becomes
    change = says.change if re.fullmatch(r"[\w\[\]]+", says.change) else f"({says.change})"
    return f"h + {change}" if strength == 1 else f"h {'-' if strength < 0 else '+'} {short(abs(strength))} * {change}"


def positions(chosen: Positions) -> str:
    """A selection of tokens, with what it means."""
    text = chosen.text
    means = _POSITIONS.get(text)
    if means is None and (found := re.fullmatch(r"generated:(\d+)(-(\d*))?", text)):
        first, last = int(found[1]), found[1] if found[2] is None else found[3]
        means = f"written tokens from number {first}" + (f" to {last}" if last else " on") + ", counted from 0"
        means = f"written token number {first}, counted from 0" if found[2] is None else means
    elif means is None and (found := re.fullmatch(r"first:(\d+)(@(\w+))?", text)):
        means = f"the first {found[1]} tokens" + (f" of {_POSITIONS[found[3]]}" if found[3] else "")
    elif means is None and text.startswith("index:"):
        means = "tokens by their place in the prompt"
    elif means is None and text.startswith("span:"):
        return f"the tokens of the text {text.removeprefix('span:')!r}, wherever it stands in the prompt"
    return f"{text}: {means}" if means else text


def short(number: float) -> str:
    """A number in few digits.

    >>> short(4.0), short(0.123456), short(195.3)
    ('4', '0.123', '195')
    """
    return f"{number:.3g}" if abs(number) < 1e6 else f"{number:.2e}"


def ranges(numbers: Sequence[int], most: int = 12) -> str:
    """Whole numbers in few words.

    >>> ranges([0, 2, 3, 4, 9])
    '0, 2-4, 9'
    """
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    texts = [str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs]
    return ", ".join(texts) if len(texts) <= most else f"{', '.join(texts[:most])} and more, {len(numbers)} in all"


def tensor(value: Tensor) -> str:
    """Shape, dtype and size of a tensor."""
    value = value.detach()
    kind = str(value.dtype).removeprefix("torch.")
    if not value.dim():
        return f"{short(float(value))} ({kind})"
    if not value.numel():
        return f"{list(value.shape)} {kind}, empty"
    wide = value.double()
    return (
        f"{list(value.shape)} {kind}, norm {short(float(wide.norm()))}, "
        f"values {short(float(wide.min()))} to {short(float(wide.max()))}"
    )


def recipe(provenance: Provenance) -> str:
    """How it was fitted, by method and settings; empty where nobody knows."""
    told = dict(provenance.recipe)
    if not told:
        return ""
    method = told.pop("method", None)
    settings = ", ".join(f"{name} {value}" for name, value in told.items() if not _is_long(value))
    if method is None:
        return settings
    return f"by {method}" + (f": {settings}" if settings else "")


def _is_long(value: Any) -> bool:
    return len(str(value)) > 60
