"""Do deep networks train when they start on the edge of chaos, and elsewhere not? Digits, width 64, depth 10 and 40.

Xavier's start is no start far from the edge: between layers of one width its weights have sigma_w = 1 and sigma_b = 0,
which is tanh's edge where the signal shrinks slowly. The gain that torch lists for tanh, 5/3, lies in the chaos.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..engine.progress import Steps
from ..functions.methods.edge_of_chaos import EdgeOfChaos
from ..functions.methods.protocol import ActivationMethod
from ..functions.starts import Started
from ..functions.training.claims import alike, better, table
from ..functions.training.networks import mlp
from ..functions.training.tasks import digits
from ..functions.training.train import Trained, budget_of, train
from ..parts.study import Finding, Study

WIDTH = 64
SMALL, LARGE = EdgeOfChaos("tanh", 0.05), EdgeOfChaos("tanh", 1.0)
SILU, RELU = EdgeOfChaos("silu", 0.2), EdgeOfChaos("relu", 0.0)
METHODS: tuple[ActivationMethod, ...] = (
    SMALL, LARGE, Started("tanh", "xavier"), Started("tanh", "orthogonal"), Started("tanh", "torch gain"),
    SILU, Started("silu", "xavier"), Started("silu", "he"), RELU, Started("relu", "he"),
)  # fmt: skip


def run(seeds: Sequence[int], full: bool, steps: Steps) -> list[Finding]:
    found = {depth: trained(depth, seeds, full, steps) for depth in ((10, 40, 100) if full else (10, 40))}
    deep = found[40]
    return [
        better(
            "40 layers of tanh train better from the edge of chaos than from Xavier's start",
            deep[SMALL.label], deep["xavier, tanh"],
        ),
        better(
            "on the edge, 40 layers of tanh train better than 40 of ReLU", deep[SMALL.label], deep[RELU.label],
        ),
        better(
            "on the edge, small biases (sigma_b 0.05) train 40 layers of tanh better than large ones (1)",
            deep[SMALL.label], deep[LARGE.label],
        ),
        alike("control: ReLU's edge is He's start, so nothing is gained", deep[RELU.label], deep["he, ReLU"], 0.001),
        better(
            "the same for SiLU (sigma_b 0.2) against Xavier", deep[SILU.label], deep["xavier, SiLU"], essential=False
        ),
        better("the same for SiLU against He", deep[SILU.label], deep["he, SiLU"], essential=False),
        better("tanh on the edge against an orthogonal start", deep[SMALL.label], deep["orthogonal, tanh"],
               essential=False),
        better("tanh on the edge against the gain that torch lists", deep[SMALL.label], deep["torch gain, tanh"],
               essential=False),
        *(table(f"Test accuracy at depth {depth}", list(ones.values())) for depth, ones in found.items()),
    ]  # fmt: skip


def trained(depth: int, seeds: Sequence[int], full: bool, steps: Steps) -> dict[str, Trained]:
    """Every start at one depth, by its label."""
    task = digits()
    budget = budget_of(
        task, seeds=tuple(seeds), rates=(1e-3, 1e-2, 1e-1), steps=600 if full else 100, optimiser="sgd", cosine=False
    )
    build = mlp(task.inputs[0], [WIDTH] * depth, task.outputs)
    return {one.label: train(task, one, build, budget, steps=steps) for one in METHODS}


STUDY = Study(
    id="edge-of-chaos",
    title="The edge of chaos: which starts let deep networks train",
    paper="1902.06853",
    shrunk="digits, width 64 and 10 or 40 layers instead of MNIST, width 300 and 200 layers; 100 steps of SGD with "
    "momentum; accuracy of the test part; --full has 600 steps and 100 layers too",
    run=run,
    seeds=(0, 1, 2, 3),
)
