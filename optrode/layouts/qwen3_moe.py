"""Qwen 3 MoE: the Qwen 3 block with a mixture of experts, and a plain gated MLP in layers that the config names."""

from dataclasses import replace

from .base import Port
from .llama import BLOCK
from .mixtral import DENSE, SUM_OF_EXPERTS, mixture
from .qwen3 import LAYOUT as QWEN3

LAYOUT = replace(
    QWEN3,
    name="qwen3_moe",
    model_types=("qwen3_moe",),
    ports={
        **{name: port for name, port in QWEN3.ports.items() if name not in (*DENSE, "mlp.out", "out")},
        **mixture(
            "mlp.gate",
            "router scores before softmax",
            "softmax(router) of the chosen, made to sum to 1 if the config says so",
        ),
        **{name: QWEN3.ports[name] for name in DENSE},
        "mlp.out": Port("mlp", "out", "MLP part: sum over rank of weights * experts.out, or down_proj(hidden)"),
        "out": BLOCK["out"],
    },
    equations=(*QWEN3.equations, SUM_OF_EXPERTS),
)
