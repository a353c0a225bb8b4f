"""Mixtral: the Llama block whose MLP is a mixture of experts: each token takes its top k and adds them by weight."""

from dataclasses import replace

from .base import PAIRS, RANKS, ROUTER, Equation, Port
from .llama import BLOCK
from .llama import LAYOUT as LLAMA


def mixture(router: str, scores: str, weights: str, hidden: str = "act(gate) * up") -> dict[str, Port]:
    """The ports of a router module and of fused experts, in order of execution.

    `scores` and `weights` say what the router computes, `hidden` what an expert does.
    """
    advice = "raise or lower the scores at mlp.router, and the router chooses again"
    chosen = "the experts chosen, in the order of weights"
    return {
        "mlp.router": Port(router, "out", scores, ROUTER, flat=True, reruns=True),
        "mlp.weights": Port(router, "out", weights, RANKS, flat=True, item=1),
        "mlp.chosen": Port(router, "out", chosen, RANKS, flat=True, item=2, read_only=advice),
        "mlp.experts.hidden": Port("mlp.experts", "experts", f"{hidden} of each that was chosen", PAIRS, flat=True),
        "mlp.experts.out": Port("mlp.experts", "experts", "each chosen, before its weight", PAIRS, flat=True, item=1),
    }


SUM_OF_EXPERTS = Equation("mlp.out", ("mlp.experts.out",), weights={"mlp.experts.out": "mlp.weights"})

DENSE = ("mlp.gate", "mlp.up", "mlp.hidden")
BEFORE = {name: port for name, port in BLOCK.items() if name not in (*DENSE, "mlp.out", "out")}

LAYOUT = replace(
    LLAMA,
    name="mixtral",
    model_types=("mixtral",),
    ports={
        **BEFORE,
        **mixture("mlp.gate", "router scores before softmax", "softmax(router) of the chosen, made to sum to 1"),
        "mlp.out": Port("mlp", "out", "MLP part: sum over rank of weights * experts.out"),
        "out": BLOCK["out"],
    },
    equations=(*LLAMA.equations, SUM_OF_EXPERTS),
)
