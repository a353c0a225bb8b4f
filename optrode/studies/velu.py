"""Does VeLU beat SiLU that is given the one thing it trains, a scale of its output?"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from ..engine.progress import Steps
from ..functions.methods.protocol import ActivationMethod, NamedFunction
from ..functions.methods.velu import VeLU
from ..functions.of_formula import from_formula
from ..functions.training.claims import better, table
from ..functions.training.networks import convolutional
from ..functions.training.tasks import digits
from ..functions.training.train import budget_of, train
from ..parts.study import Finding, Study


class ScaledSiLU(ActivationMethod):
    """SiLU times one trained number for each layer."""

    title = "scaled SiLU"

    def module(self, width: int, *, axis: int = -1) -> nn.Module:
        return from_formula("l*x*sigmoid(x)", parameters={"l": 1.0}).module(axis=axis)


def run(seeds: Sequence[int], full: bool, steps: Steps) -> list[Finding]:
    task = digits(picture=True)
    budget = budget_of(task, seeds=tuple(seeds), steps=800 if full else 200, clip=1.0)
    methods = [VeLU(), VeLU(transport=0.0), ScaledSiLU(), NamedFunction("silu"), NamedFunction("gelu")]
    found = {method.label: train(task, method, convolutional(), budget, steps=steps) for method in methods}
    own = found["VeLU"]
    return [
        better("VeLU is more accurate than SiLU with a trained scale", own, found["scaled SiLU"]),
        better("VeLU is more accurate than GELU", own, found["gelu"]),
        better("VeLU is more accurate than SiLU", own, found["silu"], essential=False),
        better("The transport penalty helps it", own, found["VeLU without penalty"], essential=False),
        table("Test accuracy of all", list(found.values())),
    ]


STUDY = Study(
    id="velu",
    title="VeLU against SiLU with a trained scale",
    paper="2504.15051",
    shrunk="three convolutions on digits, 200 steps, instead of six image data sets; the gate's constants are ours, "
    "since the paper's are not known",
    run=run,
    seeds=tuple(range(10)),
)
