"""GPT-OSS: the Llama block with biases, sinks in attention, and experts whose gate is clamped and never closes."""

from dataclasses import replace

from .base import Port
from .llama import BLOCK
from .llama import LAYOUT as LLAMA
from .mixtral import BEFORE, SUM_OF_EXPERTS, mixture

LAYOUT = replace(
    LLAMA,
    name="gpt_oss",
    model_types=("gpt_oss",),
    ports={
        **BEFORE,
        **mixture(
            "mlp.router",
            "router scores, of which the largest are chosen",
            "softmax over the chosen scores alone",
            "(up + 1) * gate * sigmoid(alpha * gate), gate and up clamped,",
        ),
        "mlp.out": Port("mlp", "out", "MLP part: sum over rank of weights * experts.out"),
        "out": BLOCK["out"],
    },
    equations=(*LLAMA.equations, SUM_OF_EXPERTS),
)
