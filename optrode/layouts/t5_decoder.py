"""The decoder of T5 as a tower: self-attention, attention to the encoder's output, and MLP, each behind its RMSNorm."""

from dataclasses import replace

from .base import HEADS, Equation, Layout, Port
from .t5_encoder import SELF_ATTENTION, mlp

_SELF, _CROSS, _MLP = "layer.0", "layer.1", "layer.2"

_BEFORE = {
    **SELF_ATTENTION,
    "seen": Port(_SELF, "out", "in + attn.out"),
    "cross.in": Port(f"{_CROSS}.layer_norm", "out", "norm(seen): what attention to the encoder reads"),
    "cross.heads": Port(
        f"{_CROSS}.EncDecAttention.o", "in", "what each head brings from the encoder", HEADS, heads="query"
    ),
    "cross.out": Port(f"{_CROSS}.EncDecAttention", "out", "part that attention to the encoder adds"),
    "mid": Port(_CROSS, "out", "seen + cross.out"),
}

GATED = Layout(
    name="t5_decoder",
    # The encoder is of the same class: only the config tells them apart.
    module_classes=("T5Stack", "MT5Stack"),
    when={"is_decoder": True, "is_gated_act": True},
    blocks="block",
    ports={**_BEFORE, **mlp(_MLP, gated=True)},
    outer_before={"embed": Port("embed_tokens", "out", "token embeddings")},
    outer_after={"final": Port("final_layer_norm", "out", "norm(last out)")},
    head=Port("lm_head", "out", "logits over the vocabulary"),
    equations=(
        Equation("seen", ("in", "attn.out")),
        Equation("mid", ("seen", "cross.out")),
        Equation("out", ("mid", "mlp.out")),
    ),
)

PLAIN = replace(
    GATED,
    when={"is_decoder": True, "is_gated_act": False},
    ports={**_BEFORE, **mlp(_MLP, gated=False)},
)

LAYOUT = replace(GATED, variants=(PLAIN,))
