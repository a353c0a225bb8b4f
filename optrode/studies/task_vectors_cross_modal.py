"""Does a task vector carry a task from one format, or one modality, to another?

Text: SmolLM2 is shown examples as questions and answers, or told what to do; the vector replaces the last token of a
query written with an arrow. The layer is chosen on other items. Modalities: a small transformer is trained here on
handwritten digits and digit words, four tasks, examples and query always in one modality; the vector comes from words
and is put into queries that are pictures. The control is the vector of another task, and a network whose modalities
never shared a task.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ..data.texts import sections, select
from ..engine.likelihood import next_token_logits
from ..engine.progress import Steps
from ..model import Model, load
from ..parts.bench import maybe_edited
from ..parts.digit_tasks import DigitTasks, Picked, pick
from ..parts.statistics import bootstrap_mean, interval_over_seeds
from ..parts.study import Finding, Study, above
from ..steering.task_vectors_cross_modal import TaskVectorCrossModal

TOLD = {
    "capital": "Give the capital of the country:",
    "opposite": "Give the opposite of the word:",
    "plural": "Give the plural of the word:",
}
PLURALS = (
    ("cat", "cats"), ("dog", "dogs"), ("tree", "trees"), ("house", "houses"), ("book", "books"), ("car", "cars"),
    ("child", "children"), ("man", "men"), ("woman", "women"), ("city", "cities"), ("star", "stars"),
    ("bird", "birds"),
    ("river", "rivers"), ("king", "kings"), ("door", "doors"), ("hand", "hands"),
    ("letter", "letters"), ("day", "days"),
)  # fmt: skip


@dataclass(frozen=True)
class Size:
    """Items of each task to choose the layer on and to test; `steps` of training the small network."""

    chosen: int = 3
    tested: int = 6
    prompts: int = 6
    layers: tuple[int, ...] = (9, 13, 17, 21)
    steps: int = 900
    queries: int = 300


def run(seeds: Sequence[int], full: bool, steps: Steps) -> list[Finding]:
    size = Size(chosen=5, tested=8, prompts=30, layers=tuple(range(5, 28, 2)), steps=3000) if full else Size()
    model = load("smollm2-135m")
    return [
        *across_formats(model, size, steps),
        across_modalities([one_network(seed, True, size, steps) for seed in seeds], seeds, size, steps),
    ]


# Formats --------------------------------------------------------------------------------------------------------------


def items() -> dict[str, list[tuple[str, str]]]:
    """(input, output) of each task."""

    def packaged(kind: str) -> list[tuple[str, str]]:
        return list(select(sections("capability"), kind)[0].columns())

    return {"capital": packaged("capitals"), "opposite": packaged("opposites"), "plural": list(PLURALS)}


def across_formats(model: Model, size: Size, steps: Steps) -> list[Finding]:
    """Reproduced when test accuracy with the task's own vector is above that with another task's, interval over
    items; the same for examples and for instructions."""
    every = items()
    held = size.chosen + size.tested
    queries = TaskVectorCrossModal(format="arrows")
    dev = {task: found[: size.chosen] for task, found in every.items()}
    test = {task: found[size.chosen : held] for task, found in every.items()}
    sites = [f"layers.{layer}.out" for layer in size.layers]
    plain = np.concatenate([right(model, queries, test[task], None) for task in every])
    steps.at("examples in context")
    shown = np.concatenate([right(model, queries, test[task], None, every[task][held:]) for task in every])
    findings = []
    for source, data in (("examples", {task: found[held:] for task, found in every.items()}), ("instruction", TOLD)):
        vectors: dict[str, list[Any]] = {}
        for task in steps.each(every, partial("{}: {}".format, source)):
            vectors[task] = [
                TaskVectorCrossModal(site=site, prompts=size.prompts).fit(model, data[task]) for site in sites
            ]
        scores = [
            np.mean([right(model, queries, dev[task], vectors[task][k]).mean() for task in every])
            for k in range(len(size.layers))
        ]
        k, names = int(np.argmax(scores)), list(every)
        own = np.concatenate([right(model, queries, test[task], vectors[task][k]) for task in names])
        wrong = np.concatenate([right(model, queries, test[t], vectors[names[n - 1]][k]) for n, t in enumerate(names)])
        gain = bootstrap_mean(own - wrong)
        findings.append(
            Finding(
                claim=f"a vector of {source} makes a query in another format do the task",
                baseline=f"another task's vector {wrong.mean():.1%}, none {plain.mean():.1%}; examples in context "
                f"{shown.mean():.1%}",
                measured=f"{own.mean():.1%} at layer {size.layers[k]}; gain over the wrong task {gain.value:+.1%} "
                f"[{gain.low:+.1%}, {gain.high:+.1%}]",
                verdict=above(gain, 0.0),
                essential=source == "examples",
                numbers={"gain": gain.as_dict(), "dev": [round(float(score), 3) for score in scores]},
            )
        )
    return findings


def right(
    model: Model, queries: TaskVectorCrossModal, asked: Sequence[tuple[str, str]], edit: Any, shown: Any = ()
) -> np.ndarray:
    """Whether the likeliest first token is that of the answer, [item]; `shown` puts five examples in front."""
    front = "".join(f"{x} -> {y}\n" for x, y in list(shown)[:5])
    batch = model.encode([front + queries.query(x) for x, _ in asked], template="raw")
    with maybe_edited(model, edit):
        likeliest = next_token_logits(model, batch).argmax(-1).tolist()
    # Questions are answered without a space in front, arrows with one: a vector of either brings its own habit along.
    first = [
        {model.tokenizer(text, add_special_tokens=False)["input_ids"][0] for text in (f" {y}", y)} for _, y in asked
    ]
    return np.array([float(a in b) for a, b in zip(likeliest, first, strict=True)])


# Modalities -----------------------------------------------------------------------------------------------------------


def one_network(seed: int, shared: bool, size: Size, steps: Steps) -> DigitTasks:
    steps.at(f"training a network on words and pictures, seed {seed}")
    return DigitTasks.trained(seed, steps=size.steps, shared=shared)


def across_modalities(networks: Sequence[DigitTasks], seeds: Sequence[int], size: Size, steps: Steps) -> Finding:
    """Reproduced when the gain of the own task's vector from words over the wrong task's, on pictures, has its interval
    over seeds above 10 points."""
    found: list[Picked] = [pick(network, size.queries, seed) for network, seed in zip(networks, seeds, strict=True)]
    apart = [
        pick(one_network(seed, False, size, steps), size.queries, seed)
        for seed in steps.each(seeds[:1], lambda _: "control")
    ]
    gain = interval_over_seeds([one.own - one.wrong for one in found])
    return Finding(
        claim="a vector of word examples makes a picture query do the task (Idefics2: .51, from .01)",
        baseline=f"none {np.mean([one.none for one in found]):.1%}, another task's "
        f"{np.mean([one.wrong for one in found]):.1%}; picture examples in context "
        f"{np.mean([one.shown for one in found]):.1%}; where modalities never shared a task: own "
        f"{apart[0].own:.1%}, wrong {apart[0].wrong:.1%}",
        measured=f"{np.mean([one.own for one in found]):.1%}; gain over the wrong task {gain}; cosine of a task's "
        f"vectors from both modalities {np.mean([one.same for one in found]):.2f}, of different tasks "
        f"{np.mean([one.other for one in found]):.2f}",
        verdict=above(gain, 0.1),
        numbers={"gain": gain.as_dict(), "networks": [vars(one) for one in found], "apart": vars(apart[0])},
    )


STUDY = Study(
    id="task-vectors-cross-modal",
    title="Task vectors across formats and modalities",
    paper="2410.22330",
    shrunk="SmolLM2 on three text tasks, 6 test items each, four layers; a small transformer on scikit-learn digits "
    "and digit words in place of a vision-language model. First-token accuracy, not the paper's lenient score",
    run=run,
    seeds=(0, 1, 2),
)
