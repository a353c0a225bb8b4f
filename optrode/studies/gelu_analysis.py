"""Is GELU the best of PyTorch's activation functions in a small residual network, as its analysis has it?"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..engine.progress import Steps
from ..functions.methods.protocol import NamedFunction
from ..functions.profiling import profile
from ..functions.training.claims import listed, numbers
from ..functions.training.comparing import agreement, first, gain
from ..functions.training.networks import residual_convolutional
from ..functions.training.tasks import digits
from ..functions.training.train import budget_of, train
from ..parts.study import FIGURES, Finding, Study

NAMES = (
    "gelu", "elu", "hardshrink", "hardsigmoid", "hardtanh", "hardswish", "leaky relu", "logsigmoid", "prelu", "relu",
    "relu6", "rrelu", "selu", "celu", "sigmoid", "softplus", "softshrink", "softsign", "tanh", "tanhshrink", "silu",
    "mish",
)  # fmt: skip
RATE = 3e-3
HALF = 0.5


def run(seeds: Sequence[int], full: bool, steps: Steps) -> list[Finding]:
    task = digits(picture=True)
    budget = budget_of(task, seeds=tuple(seeds), rates=(RATE,), steps=1000 if full else 200)
    found = [train(task, NamedFunction(name), residual_convolutional(), budget, steps=steps) for name in NAMES]
    chance, own = first(found), found[0]
    place = 1 + sum(np.mean(one.scores) > np.mean(own.scores) for one in found)
    best = max(found, key=lambda one: float(np.mean(one.scores)))
    behind = gain(best, own)
    verdict = "reproduced" if chance[own.label] > HALF else "direction only" if behind.low <= 0 else "not reproduced"
    return [
        constants(),
        Finding(
            "GELU is the most accurate of PyTorch's activation functions",
            f"probability of being first above {HALF:g} (bootstrap over seeds); else direction only where the first "
            "cannot be told from it",
            f"place {place} of {len(found)}, probability {chance[own.label]:.2f}; {best.label} is {behind} above; "
            f"agreement of ranks between seeds {agreement(found):.2f}",
            verdict,
            numbers={"first": chance, "agreement": agreement(found), **numbers(found)},
        ),
        Finding(
            "All, best first", f"{len(seeds)} seeds, rate {RATE:g}", listed(found), FIGURES, essential=False,
        ),
    ]  # fmt: skip


def constants() -> Finding:
    """The constants of the analysis, from symbolic derivatives."""
    found = profile("gelu")
    wanted = {"lipschitz": 1.128904, "smoothness": 0.797885, "minimum": -0.169971}
    got = {"lipschitz": found.lipschitz, "smoothness": found.smoothness, "minimum": found.lowest.value}
    right = all(math.isclose(got[name], value, abs_tol=1e-6) for name, value in wanted.items())
    return Finding(
        "Lipschitz constant 1.128904, smoothness constant 0.797885, minimum -0.169971",
        "to six decimals",
        ", ".join(f"{name} {value:.6f}" for name, value in got.items()),
        "reproduced" if right else "not reproduced",
        numbers=got,
    )


STUDY = Study(
    id="gelu-analysis",
    title="GELU among the activation functions of PyTorch",
    paper="2305.12073",
    shrunk="a residual network of two blocks on digits, 200 steps, one rate for all as in the paper, instead of CIFAR "
    "and STL-10",
    run=run,
    seeds=(0, 1, 2, 3, 4),
)
