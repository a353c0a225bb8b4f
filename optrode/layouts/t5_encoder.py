"""The encoder of T5 as a tower: RMSNorm before each part, one position bias that the first block makes for all."""

from dataclasses import replace

from .base import HEADS, Equation, Layout, Port, inside_attention

_SELF, _MLP = "layer.0", "layer.1"

# Up to the attention part, the blocks of encoder and decoder are the same.
SELF_ATTENTION = {
    "in": Port("", "in", "stream before the block"),
    "attn.in": Port(f"{_SELF}.layer_norm", "out", "norm(in): what attention reads"),
    "attn.q": Port(f"{_SELF}.SelfAttention.q", "out", "queries", HEADS, heads="query"),
    "attn.k": Port(f"{_SELF}.SelfAttention.k", "out", "keys", HEADS, heads="query"),
    "attn.v": Port(f"{_SELF}.SelfAttention.v", "out", "values", HEADS, heads="query"),
    **inside_attention(f"{_SELF}.SelfAttention"),
    "attn.heads": Port(f"{_SELF}.SelfAttention.o", "in", "pattern @ v of each head", HEADS, heads="query"),
    "attn.out": Port(f"{_SELF}.SelfAttention", "out", "attention part: o(heads)"),
}


def mlp(module: str, gated: bool) -> dict[str, Port]:
    """The ports of the MLP in one part of a block, and of the block's end."""
    if gated:
        inner = {
            "mlp.gate": Port(f"{module}.DenseReluDense.wi_0", "out", "gate before the activation function"),
            "mlp.up": Port(f"{module}.DenseReluDense.wi_1", "out", "the other factor of the gated product"),
        }
    else:
        inner = {"mlp.up": Port(f"{module}.DenseReluDense.wi", "out", "MLP before the activation function")}
    hidden = "act(gate) * up: the MLP's neurons" if gated else "act(up): the MLP's neurons"
    return {
        "mlp.in": Port(f"{module}.layer_norm", "out", "norm(mid): what the MLP reads"),
        **inner,
        "mlp.hidden": Port(f"{module}.DenseReluDense.wo", "in", hidden),
        "mlp.out": Port(f"{module}.DenseReluDense", "out", "MLP part: wo(hidden)"),
        "out": Port("", "out", "mid + mlp.out"),
    }


_BEFORE = {**SELF_ATTENTION, "mid": Port(_SELF, "out", "in + attn.out")}

GATED = Layout(
    name="t5_encoder",
    # The decoder is of the same class: only the config tells them apart.
    module_classes=("T5Stack", "MT5Stack"),
    when={"is_decoder": False, "is_gated_act": True},
    blocks="block",
    ports={**_BEFORE, **mlp(_MLP, gated=True)},
    outer_before={"embed": Port("embed_tokens", "out", "token embeddings")},
    outer_after={"final": Port("final_layer_norm", "out", "norm(last out)")},
    equations=(Equation("mid", ("in", "attn.out")), Equation("out", ("mid", "mlp.out"))),
    causal=False,
)

PLAIN = replace(
    GATED,
    when={"is_decoder": False, "is_gated_act": False},
    ports={**_BEFORE, **mlp(_MLP, gated=False)},
)

LAYOUT = replace(GATED, variants=(PLAIN,))
