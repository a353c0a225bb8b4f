"""Do gates that may leave [0, 1] lower the loss, or would an even term have done?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import nn

from ..engine.progress import Steps
from ..functions.methods.expanded_gating import ExpandedGate
from ..functions.methods.protocol import ActivationMethod, NamedFunction
from ..functions.of_formula import from_formula
from ..functions.training.claims import better, table
from ..functions.training.networks import character_model
from ..functions.training.tasks import text
from ..functions.training.train import budget_of, train
from ..parts.study import Finding, Study


class EvenTerm(ActivationMethod):
    """GELU plus c |x| with c trained from 0: what an expanded gate does far out, without the gate."""

    title = "GELU + c|x|"

    def module(self, width: int, *, axis: int = -1) -> nn.Module:
        return from_formula("x*Phi(x)+c*abs(x)", parameters={"c": 0.0}).module(axis=axis)


@dataclass(frozen=True)
class Watched(ExpandedGate):
    """Remembers where alpha ended."""

    ended: list[float] = field(default_factory=list, compare=False)

    def after_training(self, network: nn.Module) -> None:
        self.ended.extend(float(parameter.detach()) for parameter in self.without_decay(network))


def run(seeds: Sequence[int], full: bool, steps: Steps) -> list[Finding]:
    task = text()
    budget = budget_of(task, seeds=tuple(seeds), rates=(1e-3, 3e-3, 1e-2), steps=1000 if full else 130)
    gates = [Watched(name) for name in ("gelu", "silu", "arctan")]
    methods = [*gates, *(NamedFunction(name) for name in ("gelu", "silu", "atlu")), EvenTerm()]
    build = character_model(task.outputs)
    found = {method.label: train(task, method, build, budget, steps=steps) for method in methods}
    return [
        better("xGELU has a lower loss than GELU", found["xGELU"], found["gelu"]),
        better("xGELU has a lower loss than GELU with a trained even term", found["xGELU"], found["GELU + c|x|"]),
        better("xSiLU has a lower loss than SiLU", found["xSiLU"], found["silu"]),
        better("xATLU has a lower loss than xGELU", found["xATLU"], found["xGELU"], essential=False),
        better("xATLU has a lower loss than ATLU", found["xATLU"], found["atlu"], essential=False),
        *(ended(gate) for gate in gates),
        table("Cross-entropy of all, nats a character", list(found.values())),
    ]


def ended(gate: Watched) -> Finding:
    """Where alpha ended in all runs; it decides nothing."""
    values = np.array(gate.ended)
    return Finding(
        f"{gate.label} uses its freedom: alpha leaves 0 by more than 0.02 in most layers", "starts at 0",
        f"mean {values.mean():+.3f}, from {values.min():+.3f} to {values.max():+.3f}, {len(values)} layers of all runs",
        "reproduced" if float((np.abs(values) > 0.02).mean()) > 0.5 else "not reproduced", False,
        {"alpha": [round(one, 4) for one in gate.ended]},
    )  # fmt: skip


STUDY = Study(
    id="expanded-gating",
    title="Expanded gates in a character model",
    paper="2405.20768",
    shrunk="two layers of width 64 on 200,000 characters, 130 steps, instead of nanoGPT on OpenWebText2",
    run=run,
    seeds=(0, 1, 2),
)
