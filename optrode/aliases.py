"""Names that other libraries give to the same activations: TransformerLens hook names, and module paths.

An alias is turned into the address before anything is matched; results carry the address. What a name means here and
there is the same activation of the network, with these differences that no alias can bridge:

- TransformerLens folds norms and centres weights unless it is told not to, so its numbers are those of another
  parametrisation; here the network is as its owner loaded it.
- `attn.scores` and `attn.pattern` have the axes (example, token, head, key); TransformerLens puts the head before the
  query.
- `attn.in`, `mlp.in` and `final` are what a norm gives, gain and bias included; `hook_normalized` is before them in
  some of TransformerLens' norms.
- `attn.out` and `mlp.out` are what is really added to the stream, after a norm that follows the part (Gemma 2, OLMo 2).
- `hook_embed` is the token embedding alone: where `embed` holds positions too (GPT-2, BERT) it stands for the module.
- `hook_resid_mid` and `hook_resid_post` of BERT-like blocks are the sums before the norms, which no site holds.
"""

from __future__ import annotations

import fnmatch
import re

from .errors import UnknownSite, did_you_mean
from .sites import spellings

# What follows `blocks.N.` -> what follows `layers.N.`; of several, the first that a network has.
IN_BLOCK: dict[str, tuple[str, ...]] = {
    "hook_resid_pre": ("in",),
    "ln1.hook_normalized": ("attn.in",),
    "attn.hook_q": ("attn.q",),
    "attn.hook_k": ("attn.k",),
    "attn.hook_v": ("attn.v",),
    "attn.hook_rot_q": ("attn.q_rotated",),
    "attn.hook_rot_k": ("attn.k_rotated",),
    "attn.hook_attn_scores": ("attn.scores",),
    "attn.hook_pattern": ("attn.pattern",),
    "attn.hook_z": ("attn.heads",),
    "hook_attn_out": ("attn.out",),
    "hook_resid_mid": ("mid",),
    "ln2.hook_normalized": ("mlp.in",),
    # Before the activation function: the gate where there is one.
    "mlp.hook_pre": ("mlp.gate", "mlp.up"),
    "mlp.hook_pre_linear": ("mlp.up",),
    "mlp.hook_post": ("mlp.hidden",),
    "hook_mlp_out": ("mlp.out",),
    "hook_resid_post": ("out",),
}
OUTSIDE: dict[str, tuple[str, ...]] = {"hook_embed": ("embed",), "ln_final.hook_normalized": ("final",)}

# Names of TransformerLens that are no activation of the network itself, and what to read instead.
INSTEAD = {
    "hook_result": "it is attn.heads of one head times its rows of the output projection: read layers.N.attn.heads",
    "hook_scale": "norms do not give their scale: read the norm's input and compute it",
    "hook_pos_embed": "positions are added or applied inside other modules: read embed or layers.0.in",
    "hook_attn_in": "the stream is not split by head: read layers.N.in",
    "hook_q_input": "the stream is not split by head: read layers.N.in",
    "hook_k_input": "the stream is not split by head: read layers.N.in",
    "hook_v_input": "the stream is not split by head: read layers.N.in",
    "hook_normalized_resid_mid": "what the norm after the attention gives is layers.N.mid in such blocks",
    "hook_normalized_resid_post": "what the norm after the MLP gives is layers.N.out in such blocks",
    "hook_mlp_in": "the stream before the norm is layers.N.mid",
}


def addresses_of(text: str) -> list[tuple[str, ...]] | None:
    """The address patterns that a TransformerLens name or pattern stands for, or None where it is no such name.

    One tuple for each activation it names; of a tuple the first that a network has is meant. Raises `UnknownSite` for
    a hook name that stands for nothing, naming the nearest.

    >>> addresses_of("blocks.*.hook_resid_post")
    [('layers.*.out',)]
    >>> addresses_of("layers.3.out") is None
    True
    """
    if "hook_" not in text or text.startswith("module:"):
        return None
    return [found for spelling in spellings(text) for found in _one(spelling)]


def transformer_lens_name(address: str, gated: bool = False) -> str | None:
    """What TransformerLens calls the activation at an address, or None.

    `gated`: whether the block's MLP has a gate.

    >>> transformer_lens_name("layers.3.attn.pattern")
    'blocks.3.attn.hook_pattern'
    """
    block = re.fullmatch(r"layers\.(\d+)\.(.+)", address)
    wanted = block[2] if block else address
    if wanted == "mlp.up":
        name: str | None = "mlp.hook_pre_linear" if gated else "mlp.hook_pre"
    else:
        table = IN_BLOCK if block else OUTSIDE
        name = next((theirs for theirs, ours in table.items() if wanted in ours), None)
    return f"blocks.{block[1]}.{name}" if block and name else name


def _one(text: str) -> list[tuple[str, ...]]:
    block = re.fullmatch(r"blocks\.([^.]+)\.(.+)", text)
    table, wanted = (IN_BLOCK, block[2]) if block else (OUTSIDE, text)
    stem = f"layers.{block[1]}." if block else ""
    found = [ours for theirs, ours in table.items() if fnmatch.fnmatchcase(theirs, wanted)]
    if not found:
        raise UnknownSite(f"{text!r} is no activation here: {_hint(text, block[1] if block else '*')}")
    return [tuple(stem + name for name in names) for names in found]


def _hint(text: str, layer: str) -> str:
    instead = INSTEAD.get(text.rpartition(".")[2])
    known = [f"blocks.{layer}.{name}" for name in IN_BLOCK] + list(OUTSIDE)
    return instead or did_you_mean(text, known)
