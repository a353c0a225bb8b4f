"""DeepSeek V3: attention through small latents, then a mixture of routed experts beside one that every token takes.

The first layers (`first_k_dense_replace`) have a plain gated MLP. Keys and values of all heads are made of one latent
vector per token, which is what the cache holds; `attn.latent` is that vector.
"""

from dataclasses import replace

from .base import HEADS, Equation, Port, inside_attention
from .llama import BLOCK
from .llama import LAYOUT as LLAMA
from .mixtral import DENSE, mixture


def _ports(queries: str) -> dict[str, Port]:
    return {
        "in": BLOCK["in"],
        "attn.in": BLOCK["attn.in"],
        "attn.q": Port(queries, "out", "queries, their last features before rotation", HEADS, heads="query"),
        "attn.latent": Port("self_attn.kv_a_layernorm", "out", "what all heads make their keys and values of"),
        **inside_attention("self_attn"),
        "attn.heads": BLOCK["attn.heads"],
        "attn.out": BLOCK["attn.out"],
        "mid": BLOCK["mid"],
        "mlp.in": BLOCK["mlp.in"],
        **mixture(
            "mlp.gate",
            "router scores before sigmoid; groups and a bias for balance come after",
            "sigmoid(router) of the chosen, made to sum to 1 if the config says so, times routed_scaling_factor",
        ),
        "mlp.shared.gate": Port("mlp.shared_experts.gate_proj", "out", "gate of the expert that all tokens take"),
        "mlp.shared.up": Port("mlp.shared_experts.up_proj", "out", "the other factor of its gated product"),
        "mlp.shared.hidden": Port("mlp.shared_experts.down_proj", "in", "act(shared.gate) * shared.up: its neurons"),
        "mlp.shared.out": Port("mlp.shared_experts", "out", "what it adds: down_proj(shared.hidden)"),
        **{name: BLOCK[name] for name in DENSE},
        "mlp.out": Port("mlp", "out", "MLP part: sum over rank of weights * experts.out, and shared.out"),
        "out": BLOCK["out"],
    }


SMALL_QUERIES = replace(
    LLAMA,
    name="deepseek_v3",
    model_types=("deepseek_v3",),
    ports=_ports("self_attn.q_b_proj"),
    equations=(
        *LLAMA.equations,
        Equation("mlp.out", ("mlp.experts.out", "mlp.shared.out"), weights={"mlp.experts.out": "mlp.weights"}),
    ),
)

FULL_QUERIES = replace(SMALL_QUERIES, when={"q_lora_rank": None}, ports=_ports("self_attn.q_proj"))

LAYOUT = replace(FULL_QUERIES, variants=(SMALL_QUERIES,))
