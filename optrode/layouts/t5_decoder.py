"""The decoder of T5 as a tower: self-attention, attention to the encoder's output, and MLP, each behind its RMSNorm."""

from dataclasses import replace

from .base import HEADS, Equation, Layout, Port, inside_attention

_SELF, _CROSS, _MLP = "layer.0", "layer.1", "layer.2"

_BEFORE = {
    "in": Port("", "in", "stream before the block"),
    "attn.in": Port(f"{_SELF}.layer_norm", "out", "norm(in): what attention reads"),
    "attn.q": Port(f"{_SELF}.SelfAttention.q", "out", "queries", HEADS, heads="query"),
    "attn.k": Port(f"{_SELF}.SelfAttention.k", "out", "keys", HEADS, heads="query"),
    "attn.v": Port(f"{_SELF}.SelfAttention.v", "out", "values", HEADS, heads="query"),
    **inside_attention(f"{_SELF}.SelfAttention"),
    "attn.heads": Port(f"{_SELF}.SelfAttention.o", "in", "pattern @ v of each head", HEADS, heads="query"),
    "attn.out": Port(f"{_SELF}.SelfAttention", "out", "attention part: o(heads)"),
    "seen": Port(_SELF, "out", "in + attn.out"),
    "cross.in": Port(f"{_CROSS}.layer_norm", "out", "norm(seen): what attention to the encoder reads"),
    "cross.heads": Port(
        f"{_CROSS}.EncDecAttention.o", "in", "what each head brings from the encoder", HEADS, heads="query"
    ),
    "cross.out": Port(f"{_CROSS}.EncDecAttention", "out", "part that attention to the encoder adds"),
    "mid": Port(_CROSS, "out", "seen + cross.out"),
    "mlp.in": Port(f"{_MLP}.layer_norm", "out", "norm(mid): what the MLP reads"),
}
_AFTER = {
    "mlp.out": Port(f"{_MLP}.DenseReluDense", "out", "MLP part: wo(hidden)"),
    "out": Port("", "out", "mid + mlp.out"),
}

GATED = Layout(
    name="t5_decoder",
    # The encoder is of the same class: only the config tells them apart.
    module_classes=("T5Stack",),
    when={"is_decoder": True, "is_gated_act": True},
    blocks="block",
    ports={
        **_BEFORE,
        "mlp.gate": Port(f"{_MLP}.DenseReluDense.wi_0", "out", "gate before the activation function"),
        "mlp.up": Port(f"{_MLP}.DenseReluDense.wi_1", "out", "the other factor of the gated product"),
        "mlp.hidden": Port(f"{_MLP}.DenseReluDense.wo", "in", "act(gate) * up: the MLP's neurons"),
        **_AFTER,
    },
    outer_before={"embed": Port("embed_tokens", "out", "token embeddings")},
    outer_after={"final": Port("final_layer_norm", "out", "norm(last out)")},
    equations=(
        Equation("seen", ("in", "attn.out")),
        Equation("mid", ("seen", "cross.out")),
        Equation("out", ("mid", "mlp.out")),
    ),
)

PLAIN = replace(
    GATED,
    when={"is_decoder": True, "is_gated_act": False},
    ports={
        **_BEFORE,
        "mlp.up": Port(f"{_MLP}.DenseReluDense.wi", "out", "MLP before the activation function"),
        "mlp.hidden": Port(f"{_MLP}.DenseReluDense.wo", "in", "act(up): the MLP's neurons"),
        **_AFTER,
    },
)

LAYOUT = replace(GATED, variants=(PLAIN,))
