"""Does learning the shape of a Padé unit help, or would its start have done as well?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ..engine.progress import Steps
from ..functions.built.primitives import polynomial
from ..functions.methods.pau import PAU, fit_points
from ..functions.methods.protocol import NamedFunction
from ..functions.training.claims import better, table
from ..functions.training.networks import mlp
from ..functions.training.tasks import digits
from ..functions.training.train import budget_of, train
from ..parts.study import Finding, Study

NUMBERS = 10


def run(seeds: Sequence[int], full: bool, steps: Steps) -> list[Finding]:
    task = digits()
    budget = budget_of(task, seeds=tuple(seeds), steps=1000 if full else 250)
    methods = [
        PAU(start="published"), PAU(start="published", trainable=False), PAU("B"), PAU("D"),
        *(NamedFunction(name) for name in ("relu", "leaky relu", "silu", "prelu")),
    ]  # fmt: skip
    build = mlp(64, (64, 64, 64), 10)
    found = {method.label: train(task, method, build, budget, steps=steps) for method in methods}
    own = found["PAU-A"]
    fixed = max((found[name] for name in ("relu", "leaky relu", "silu")), key=lambda one: float(np.mean(one.scores)))
    return [
        better("Trained coefficients are more accurate than the same ones frozen", own, found["PAU-A frozen"]),
        better("PAU is more accurate than the best fixed function", own, fixed),
        better("PAU is more accurate than leaky ReLU, its start", own, found["leaky relu"], essential=False),
        better("PAU is more accurate than PReLU", own, found["prelu"], essential=False),
        better("Noise in the coefficients helps", found["PAU-D"], found["PAU-B"], essential=False),
        flexible(),
        table("Test accuracy of all", list(found.values())),
    ]


def flexible() -> Finding:
    """The largest error on |sin 3x| of ten coefficients, and of a cubic spline with as many numbers."""
    from scipy.interpolate import make_lsq_spline

    x = np.linspace(-3, 3, 601)
    wanted = np.abs(np.sin(3 * x))
    above, below = fit_points("A", x, wanted)
    points = torch.from_numpy(x)
    got = polynomial(points, above.double()) / (1 + sum(below[k].abs() * points.abs() ** (k + 1) for k in range(4)))
    inner = np.linspace(-3, 3, NUMBERS - 2)[1:-1]
    spline = make_lsq_spline(x, wanted, np.r_[[-3.0] * 4, inner, [3.0] * 4], 3)
    own, other = float((got - torch.from_numpy(wanted)).abs().max()), float(np.abs(spline(x) - wanted).max())
    return Finding(
        "Ten coefficients come closer to |sin 3x| on [-3, 3] than a cubic spline of ten numbers",
        f"spline: largest error {other:.3f}", f"PAU-A: {own:.3f}",
        "reproduced" if own < other else "not reproduced", False, {"pau": own, "spline": other},
    )  # fmt: skip


STUDY = Study(
    id="pau",
    title="Padé units: trained, frozen, and fixed functions on digits",
    paper="1907.06732",
    shrunk="three layers of 64 on 1797 digits, 250 steps, instead of MNIST, CIFAR-10 and ImageNet",
    run=run,
    seeds=tuple(range(10)),
)
