"""Jamba: blocks with attention and blocks with a Mamba mixer in its place; both with a gated MLP or experts."""

from dataclasses import replace

from .base import HEADS, Equation, Port, inside_attention
from .llama import BLOCK
from .llama import LAYOUT as LLAMA

_MLP = {
    "mlp.in": Port("pre_ff_layernorm", "out", "norm(mid): what the MLP reads"),
    "mlp.gate": Port("feed_forward.gate_proj", "out", "gate before the activation function"),
    "mlp.up": Port("feed_forward.up_proj", "out", "the other factor of the gated product"),
    "mlp.hidden": Port("feed_forward.down_proj", "in", "act(gate) * up: the MLP's neurons"),
    "mlp.out": Port("feed_forward", "out", "MLP part, or that of the experts"),
    "out": BLOCK["out"],
}

ATTENTION = {
    "in": BLOCK["in"],
    "attn.in": BLOCK["attn.in"],
    "attn.q": Port("self_attn.q_proj", "out", "queries; nothing rotates them", HEADS, heads="query"),
    "attn.k": Port("self_attn.k_proj", "out", "keys; nothing rotates them", HEADS, heads="key"),
    "attn.v": BLOCK["attn.v"],
    **inside_attention("self_attn"),
    "attn.heads": BLOCK["attn.heads"],
    "attn.out": BLOCK["attn.out"],
    "mid": Port("pre_ff_layernorm", "in", "in + attn.out", adds_to="attn.out"),
    **_MLP,
}

MIXER = {
    "in": BLOCK["in"],
    "mixer.in": Port("input_layernorm", "out", "norm(in): what the mixer reads"),
    "mixer.out": Port("mamba", "out", "the Mamba mixer's part"),
    "mid": Port("pre_ff_layernorm", "in", "in + mixer.out", adds_to="mixer.out"),
    **_MLP,
}

LAYOUT = replace(
    LLAMA,
    name="jamba",
    model_types=("jamba",),
    ports={"in": BLOCK["in"], "mixer.in": MIXER["mixer.in"], "mixer.out": MIXER["mixer.out"], **ATTENTION},
    kinds={"self_attn": ATTENTION, "mamba": MIXER},
    outer_after={"final": Port("final_layernorm", "out", "norm(last out): what the head reads")},
    equations=(
        Equation("mid", ("in", "attn.out")),
        Equation("mid", ("in", "mixer.out")),
        Equation("out", ("mid", "mlp.out")),
    ),
)
