"""Llama and its relatives: RMSNorm before each part, rotary positions, gated MLP, separate q, k and v projections."""

from .base import HEADS, Equation, Layout, Port, inside_attention

BLOCK = {
    "in": Port("", "in", "stream before the block"),
    "attn.in": Port("input_layernorm", "out", "norm(in): what attention reads"),
    "attn.q": Port("self_attn.q_proj", "out", "queries before rotation", HEADS, heads="query"),
    "attn.k": Port("self_attn.k_proj", "out", "keys before rotation", HEADS, heads="key"),
    "attn.v": Port("self_attn.v_proj", "out", "values", HEADS, heads="key"),
    **inside_attention("self_attn"),
    "attn.heads": Port("self_attn.o_proj", "in", "pattern @ v of each query head", HEADS, heads="query"),
    "attn.out": Port("self_attn", "out", "attention part: o_proj(heads)"),
    "mid": Port("post_attention_layernorm", "in", "in + attn.out", adds_to="attn.out"),
    "mlp.in": Port("post_attention_layernorm", "out", "norm(mid): what the MLP reads"),
    "mlp.gate": Port("mlp.gate_proj", "out", "gate before the activation function"),
    "mlp.up": Port("mlp.up_proj", "out", "the other factor of the gated product"),
    "mlp.hidden": Port("mlp.down_proj", "in", "act(gate) * up: the MLP's neurons"),
    "mlp.out": Port("mlp", "out", "MLP part: down_proj(hidden)"),
    "out": Port("", "out", "mid + mlp.out"),
}

LAYOUT = Layout(
    name="llama",
    model_types=("llama", "mistral", "qwen2", "smollm3", "gemma"),
    blocks="layers",
    ports=BLOCK,
    outer_before={"embed": Port("embed_tokens", "out", "token embeddings")},
    outer_after={"final": Port("norm", "out", "norm(last out): what the head reads")},
    head=Port("lm_head", "out", "logits over the vocabulary"),
    equations=(Equation("mid", ("in", "attn.out")), Equation("out", ("mid", "mlp.out"))),
)
