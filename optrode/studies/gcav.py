"""Does a strength that is computed for each token beat one strength for all, along the same direction?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from ..data import behaviour
from ..edits import add
from ..edits.base import Edit
from ..engine.progress import Steps
from ..model import load
from ..parts.study import Finding, Study, above
from ..steering.gcav import GCAV
from ..steering.trials import Budget, Trials, stream_norms

GROUPS = {"early": 6, "middle": 14, "late": 22}
TARGETS = (0.9, 0.99, 0.999, 0.9999)
BEHAVIOUR = "formality"
# With `newest`, the default, nothing of a given reply is changed, so that damage to one could not be measured.
POSITIONS = "after_instruction"


def run(seeds: Sequence[int], full: bool, steps: Steps) -> list[Finding]:
    model = load("smollm2-135m")
    budget = Budget(
        tuple(GROUPS.values()), (0.05, 0.1, 0.2, 0.3, 0.4), pairs=160 if full else 60, test=120 if full else 60
    )
    trials = Trials(model, behaviour(BEHAVIOUR), budget)
    steps.at("fitting probes")
    fitted = {
        target: GCAV(probability=target, positions=POSITIONS).fit_layers(model, trials.behaviour, budget.layers)
        for target in TARGETS
    }
    norms = stream_norms(fitted[TARGETS[0]])
    directions = {layer: _direction(fitted[TARGETS[0]][layer]) for layer in budget.layers}
    findings, wins = [], []
    for name, layer in steps.each(list(GROUPS.items()), lambda item: f"{item[0]} layer"):
        adaptive, target = _best_target(trials, {p: edits[layer] for p, edits in fitted.items()})
        fixed, trial = trials.best({layer: add(f"layers.{layer}.out", directions[layer] * norms[layer], POSITIONS)})
        own, other = (trials.test.gain(edit) for edit in (adaptive, fixed))
        more = trials.test.interval(own - other)
        wins.append(more.low > 0)
        findings.append(
            Finding(
                f"At the {name} layer ({layer}), computed strengths move the log-odds more than one for all",
                f"fixed {trial.strength:g} of the norm: {trials.test.interval(other)}",
                f"to probability {target:g}: {trials.test.interval(own)}; more by {more}; perplexity ratio "
                f"{trials.test_neutral.perplexity_ratio(adaptive):.3f} against "
                f"{trials.test_neutral.perplexity_ratio(fixed):.3f}",
                above(more, 0.0), False, {"more": more.as_dict()},
            )
        )  # fmt: skip
    steps.at("controls")
    findings.insert(0, _two_of_three(wins))
    return [*findings, _against_random(trials, seeds, norms, fitted), _monotone(trials, fitted)]


def _direction(edit: Edit) -> Tensor:
    """The probe's unit weight."""
    weight = edit.tensors()["weight"].float()  # type: ignore[attr-defined]
    return weight / weight.norm()  # type: ignore[no-any-return]


def _best_target(trials: Trials, by_target: dict[float, Edit]) -> tuple[Edit, float]:
    """The probability with the largest effect on the tuning items within the damage allowed."""
    targets = list(by_target)
    # The search tells its candidates apart by a number, which here is that of the target.
    numbered = {number: by_target[target] for number, target in enumerate(targets)}
    edit, trial = trials.best(numbered, 1 / max(trials.budget.strengths))
    return edit, targets[trial.layer]


def _two_of_three(wins: Sequence[bool]) -> Finding:
    return Finding(
        "Strengths that are computed for each token beat one strength along the same direction, at equal damage",
        "in at least two of three layer groups, the whole interval above 0",
        f"in {sum(wins)} of {len(wins)}",
        "reproduced" if sum(wins) >= 2 else "direction only" if any(wins) else "not reproduced",
    )


def _against_random(
    trials: Trials, seeds: Sequence[int], norms: dict[int, float], fitted: dict[float, dict[int, Edit]]
) -> Finding:
    """The best layer's edit against 20 random directions through the same search."""
    best, trial = trials.best(fitted[TARGETS[-1]], 1 / max(trials.budget.strengths))
    own = trials.test.interval(trials.test.gain(best))
    drawn = trials.random(norms, 20, seeds[0])
    top = max(drawn)
    return Finding(
        "It moves the log-odds more than random directions through the same search",
        f"20 random directions: 5th to 95th percentile {np.quantile(drawn, 0.05):+.2f} to "
        f"{np.quantile(drawn, 0.95):+.2f}, best {top:+.2f}",
        f"{own} (layer {trial.layer})", above(own, top), True, {"gain": own.as_dict(), "random": drawn},
    )  # fmt: skip


def _monotone(trials: Trials, fitted: dict[float, dict[int, Edit]]) -> Finding:
    """The effect at the middle layer along the wanted probability."""
    layer = GROUPS["middle"]
    means = {target: float(trials.test.gain(edits[layer]).mean()) for target, edits in fitted.items()}
    rising = all(a <= b + 1e-3 for a, b in zip(list(means.values()), list(means.values())[1:], strict=False))
    return Finding(
        "The wanted probability is a dial: the effect rises with it", "middle layer",
        ", ".join(f"{target:g}: {value:+.2f}" for target, value in means.items()),
        "reproduced" if rising else "not reproduced", False, {"means": {str(k): v for k, v in means.items()}},
    )  # fmt: skip


STUDY = Study(
    id="gcav",
    title="Strengths computed for each token, against one for all",
    paper="2501.05764",
    shrunk="SmolLM2-135M on formality by forced choice instead of toxicity of a 7B model's continuations; one master "
    "seed, 20 random directions, intervals over subjects",
    run=run,
)
