"""OLMo 2: norms only on what attention and MLP give, before it is added; both read the stream as it is."""

from dataclasses import replace

from .base import HEADS, Port, inside_attention
from .llama import BLOCK
from .llama import LAYOUT as LLAMA

LAYOUT = replace(
    LLAMA,
    name="olmo2",
    model_types=("olmo2", "olmo3"),
    ports={
        "in": Port("", "in", "stream before the block; attention reads it as it is"),
        "attn.q": Port("self_attn.q_norm", "out", "norm(queries) before rotation", HEADS, heads="query"),
        "attn.k": Port("self_attn.k_norm", "out", "norm(keys) before rotation", HEADS, heads="key"),
        "attn.v": BLOCK["attn.v"],
        **inside_attention("self_attn"),
        "attn.heads": BLOCK["attn.heads"],
        "attn.out": Port("post_attention_layernorm", "out", "attention part: norm(o_proj(heads))"),
        "mid": Port("mlp", "in", "in + attn.out; the MLP reads it as it is", adds_to="attn.out"),
        "mlp.gate": BLOCK["mlp.gate"],
        "mlp.up": BLOCK["mlp.up"],
        "mlp.hidden": BLOCK["mlp.hidden"],
        "mlp.out": Port("post_feedforward_layernorm", "out", "MLP part: norm(down_proj(hidden))"),
        "out": BLOCK["out"],
    },
)
