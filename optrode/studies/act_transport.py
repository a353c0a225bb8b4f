"""Does a transport map work at its own strength, 1, where a mean difference has to be tuned?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..data import Behaviour, behaviour
from ..edits.base import Edit
from ..engine.progress import Steps
from ..model import load
from ..parts.statistics import interval_over_seeds
from ..parts.study import FIGURES, Finding, Study, above
from ..steering.act_transport import ActTransport
from ..steering.caa import CAA
from ..steering.trials import Budget, Trials

BEHAVIOUR, LAYERS = "formality", (12, 16, 20)
SITE = "layers.{12,16,20}.out"
MAPS = {
    "linear": ActTransport(site=SITE),
    "linear, at once": ActTransport(site=SITE, sequential=False),
    "gaussian": ActTransport(site=SITE, map="gaussian"),
    "mean": ActTransport(site=SITE, map="mean"),
}
STRENGTHS = (0.25, 0.5, 1.0, 1.5, 2.0)
DAMAGE = 1.2


def run(seeds: Sequence[int], full: bool, steps: Steps) -> list[Finding]:
    model = load("smollm2-135m")
    strengths = (0.05, 0.1, 0.2, 0.3, 0.4)
    budget = Budget(LAYERS, strengths, pairs=160 if full else 60, test=120 if full else 60, damage=DAMAGE)
    trials = Trials(model, behaviour(BEHAVIOUR), budget)
    maps: dict[str, Edit] = {}
    for name, method in steps.each(list(MAPS.items()), lambda item: f"fitting the map: {item[0]}"):
        maps[name] = method.fit(model, trials.behaviour)
    steps.at("tuning the mean difference")
    mean_difference, trial = trials.best(CAA(form="replies").fit_layers(model, trials.behaviour, LAYERS))
    steps.at("testing")
    gains = {name: trials.test.gain(edit) for name, edit in maps.items()}
    tuned = trials.test.gain(mean_difference)
    costs = {name: trials.test_neutral.perplexity_ratio(edit) for name, edit in maps.items()}
    own = trials.test.interval(gains["linear"])
    within = costs["linear"] <= DAMAGE
    verdict = "not reproduced" if own.low <= 0 else "reproduced" if within else "direction only"
    return [
        Finding(
            "At strength 1, untuned, the linear map moves the log-odds to the target",
            f"0; perplexity ratio on neutral text of at most {DAMAGE:g}",
            f"{own} nats; perplexity ratio {costs['linear']:.3f}", verdict, numbers={"gain": own.as_dict()},
        ),
        _paired(trials, "It moves them more than a mean difference that is tuned", gains["linear"], tuned,
                f"mean difference at layer {trial.layer}, {trial.strength:g} of the norm, perplexity ratio "
                f"{trials.test_neutral.perplexity_ratio(mean_difference):.3f}", True),
        _paired(trials, "The linear map does more than the map of means", gains["linear"], gains["mean"],
                f"mean map, perplexity ratio {costs['mean']:.3f}", True),
        _paired(trials, "Maps fitted in sequence do more than maps fitted at once", gains["linear"],
                gains["linear, at once"], f"at once, perplexity ratio {costs['linear, at once']:.3f}", False),
        _dial(trials, maps["linear"]),
        _shuffled(trials, seeds, steps),
        Finding("All maps at strength 1", f"{len(trials.test.groups)} items", ", ".join(
            f"{name} {np.mean(gain):+.2f} nats, ratio {costs[name]:.3f}" for name, gain in gains.items()
        ), FIGURES, False),
    ]  # fmt: skip


def _paired(trials: Trials, claim: str, one: np.ndarray, other: np.ndarray, baseline: str, essential: bool) -> Finding:
    more = trials.test.interval(one - other)
    return Finding(
        claim, f"{baseline}: {trials.test.interval(other)}", f"{trials.test.interval(one)}; more by {more}",
        above(more, 0.0), essential, {"more": more.as_dict()},
    )  # fmt: skip


def _dial(trials: Trials, edit: Edit) -> Finding:
    """The strength with the largest effect on the tuning items within the damage allowed."""
    tried = {}
    for strength in STRENGTHS:
        gain = float(trials.tune.gain(edit * strength).mean())
        tried[strength] = gain, trials.tune_neutral.perplexity_ratio(edit * strength)
    allowed = [strength for strength, (_, cost) in tried.items() if cost <= DAMAGE] or [min(STRENGTHS)]
    best = max(allowed, key=lambda strength: tried[strength][0])
    return Finding(
        "The best strength is 1", f"of {', '.join(f'{one:g}' for one in STRENGTHS)} on the tuning items",
        f"{best:g}; " + ", ".join(f"{s:g}: {gain:+.2f} nats, ratio {cost:.2f}" for s, (gain, cost) in tried.items()),
        "reproduced" if best == 1 else "not reproduced", False,
    )  # fmt: skip


def _shuffled(trials: Trials, seeds: Sequence[int], steps: Steps) -> Finding:
    """The same map fitted where a coin says which reply of a pair shows the behaviour."""
    means = []
    for seed in seeds:
        steps.at(f"shuffled sides, seed {seed}")
        edit = MAPS["linear"].fit(trials.model, _turned(trials.behaviour, seed))
        means.append(float(trials.test.gain(edit).mean()))
    found = interval_over_seeds(means)
    return Finding(
        "Fitted on shuffled sides it does nothing", "within 0.25 nats of 0", f"{found} nats over {len(means)} shuffles",
        "reproduced" if max(abs(found.low), abs(found.high)) < 0.25 else "not reproduced", False, {"means": means},
    )  # fmt: skip


def _turned(data: Behaviour, seed: int) -> Behaviour:
    coins = np.random.default_rng(seed).random(len(data.fit)) < 0.5
    pairs = [
        replace(pair, positive=pair.negative, negative=pair.positive) if coin else pair
        for pair, coin in zip(data.fit, coins, strict=True)
    ]
    return replace(data, fit=tuple(pairs))


STUDY = Study(
    id="act-transport",
    title="Transport maps at their own strength, beside a tuned mean difference",
    paper="2410.23054",
    shrunk="SmolLM2-135M on formality by forced choice, three layers' outputs, instead of toxicity of 2B and 8B models "
    "behind every norm; no diffusion model; one master seed but for the shuffles, intervals over subjects",
    run=run,
)
