"""Does a condition keep a behaviour to the prompts that it is for, and is the network's own condition a good one?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..data import Conditioned, behaviour, everyday_requests
from ..edits import ConditionalEdit
from ..edits.base import Edit
from ..engine.progress import Steps
from ..model import Model, load
from ..parts.gates import Gate
from ..parts.sentences import embed
from ..parts.statistics import bootstrap_mean
from ..parts.study import Finding, Study, above
from ..steering.cast import CAST
from ..steering.fitting import spread
from ..steering.trials import Budget, Trials, declining

LAYERS = (14, 18, 22)
F1_WANTED, ASKED = 0.9, 36


def run(seeds: Sequence[int], full: bool, steps: Steps) -> list[Finding]:
    model, birds = load("smollm2-135m"), behaviour("decline-birds")
    budget = Budget(LAYERS, pairs=160 if full else 48, neutral=4)
    inside = [(one.prompt, one.group) for one in spread(birds.free, ASKED)]
    outside = [(one.prompt, one.group) for one in spread(birds.matched, ASKED)]
    tuning = list(dict.fromkeys((one.prompt, one.group) for one in birds.tune))[:16]
    on = Trials(model, birds, budget, tune_items=declining(*zip(*tuning, strict=True)),
                test_items=declining(*zip(*inside, strict=True)))  # fmt: skip
    off = Trials(model, birds, budget, tune_items=declining(*zip(*tuning[:2], strict=True)),
                 test_items=declining(*zip(*outside, strict=True)))  # fmt: skip
    # What the condition is fitted against: everyday requests, and no question about another animal.
    data = Conditioned(on.behaviour, list(dict.fromkeys(p.prompt for p in birds.fit))[:60], everyday_requests()[:60])
    steps.at("fitting vectors and conditions")
    method = CAST()
    gate = method.fit_gate(model, data, before=f"layers.{LAYERS[0]}.out")
    edits: dict[int, Edit] = {}
    for layer in LAYERS:
        (found,) = CAST(site=f"layers.{layer}.out").fit_layers(model, data, (layer,)).values()  # type: ignore[arg-type]
        edits[layer] = found
    steps.at("choosing layer and strength without the condition")
    # Damage is measured without the condition, which stays shut on neutral text and would hide it.
    plain, trial = on.best({layer: _unconditional(edit) for layer, edit in edits.items()})
    conditional = edits[trial.layer] * trial.strength
    steps.at("testing")
    gains = {name: (on.test.gain(edit), off.test.gain(edit)) for name, edit in (("if", conditional), ("all", plain))}
    return [
        kept(on, gains), spared(off, gains), gap(gains, trial.layer, trial.strength),
        *gates(model, gate, data, [p for p, _ in inside], [p for p, _ in outside]),
    ]  # fmt: skip


def _unconditional(edit: Edit) -> Edit:
    assert isinstance(edit, ConditionalEdit)
    return edit.edit


def kept(on: Trials, gains: dict[str, tuple[np.ndarray, np.ndarray]]) -> Finding:
    """The effect on birds with the condition is at least 0.8 of that without."""
    missing = on.test.interval(gains["if"][0] - 0.8 * gains["all"][0])
    return Finding(
        "On birds, the conditional edit does nearly what the unconditional one does",
        f"unconditional: decline log-odds {on.test.interval(gains['all'][0])}",
        f"conditional: {on.test.interval(gains['if'][0])}; over 0.8 of the other by {missing}",
        above(missing, 0.0), numbers={"margin": missing.as_dict()},
    )  # fmt: skip


def spared(off: Trials, gains: dict[str, tuple[np.ndarray, np.ndarray]]) -> Finding:
    """On other animals it moves less."""
    less = off.test.interval(gains["all"][1] - gains["if"][1])
    return Finding(
        "On the same questions about other animals, it changes less than the unconditional edit",
        f"unconditional: decline log-odds {off.test.interval(gains['all'][1])}",
        f"conditional: {off.test.interval(gains['if'][1])}; less by {less}",
        above(less, 0.0), numbers={"less": less.as_dict()},
    )  # fmt: skip


def gap(gains: dict[str, tuple[np.ndarray, np.ndarray]], layer: int, strength: float) -> Finding:
    """Birds less other animals: the two edits' gaps, whose difference is bootstrapped over both sets."""
    inside, outside = (gains["if"][n] - gains["all"][n] for n in (0, 1))
    draw = np.random.default_rng(0)
    found = [draw.choice(inside, len(inside)).mean() - draw.choice(outside, len(outside)).mean() for _ in range(2000)]
    low, high = np.quantile(found, [0.025, 0.975])
    value = float(inside.mean() - outside.mean())
    gaps = {name: float(on.mean() - off.mean()) for name, (on, off) in gains.items()}
    verdict = "reproduced" if low > 0 else "direction only" if value > 0 else "not reproduced"
    return Finding(
        "The gap between birds and other animals is wider with the condition",
        f"unconditional: gap {gaps['all']:+.2f}",
        f"conditional: gap {gaps['if']:+.2f}; wider by {value:.2f} [{low:.2f}, {high:.2f}] (layer {layer}, "
        f"{strength:g} of the norm)",
        verdict, numbers={"gaps": gaps},
    )  # fmt: skip


def gates(model: Model, gate: Gate, data: Conditioned, inside: list[str], outside: list[str]) -> list[Finding]:
    """F1 on questions of the test split: the network's gate, and a logistic probe of sentence embeddings."""
    fires = [fired(model, gate, prompts) for prompts in (inside, outside)]
    own = f1(fires[0], fires[1])
    from sklearn.linear_model import LogisticRegression

    texts = [*data.inside, *data.outside]
    probe = LogisticRegression(max_iter=2000).fit(embed(texts), [1] * len(data.inside) + [0] * len(data.outside))
    other = f1(*(probe.predict(embed(prompts)).astype(bool) for prompts in (inside, outside)))
    easy = gate.best.f1
    rate = bootstrap_mean(fires[1].astype(float))
    return [
        Finding(
            "The condition tells birds from everyday requests (held-out prompts)", f"F1 of at least {F1_WANTED:g}",
            f"F1 {easy:.2f} at {gate.best.site}", "reproduced" if easy >= F1_WANTED else "not reproduced", True,
            {"f1": easy},
        ),
        Finding(
            "It tells them from the same questions about other animals, on which it was not fitted",
            f"F1 of at least {F1_WANTED:g}; a probe of sentence embeddings on the same data: {other:.2f}",
            f"F1 {own:.2f}; it fires on {fires[0].mean():.0%} of bird questions and {rate} of the others",
            "reproduced" if own >= F1_WANTED else "direction only" if own > 0.75 else "not reproduced", False,
            {"f1": own, "embeddings": other},
        ),
    ]  # fmt: skip


def fired(model: Model, gate: Gate, prompts: list[str]) -> np.ndarray:
    """Whether the condition holds for each prompt."""
    condition = gate.condition
    (rows,) = model.read(prompts, condition.site, positions=condition.positions, reduce="mean").values()
    return condition.met(condition.measure(rows.float())).numpy()  # type: ignore[no-any-return]


def f1(inside: np.ndarray, outside: np.ndarray) -> float:
    """Harmonic mean of precision and recall."""
    hits, false = int(inside.sum()), int(outside.sum())
    return 2 * hits / max(1, hits + false + len(inside))


STUDY = Study(
    id="cast",
    title="Declining questions about birds, on condition",
    paper="2409.05907",
    shrunk="SmolLM2-135M; log-odds of fixed refusals over answers on 36 questions each, instead of judged replies "
    "to 950; one master seed, intervals over subjects",
    run=run,
)
