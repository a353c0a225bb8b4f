"""Study of massive-activations: are the huge values of SmolLM2 biases that it needs, and needs nothing else of?

One half of the neutral passages fits the edits, the other half is what everything is measured on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..edits import zero_ablate
from ..engine.progress import Steps
from ..maps import Map
from ..massive.bench import (
    FIRST,
    Bench,
    Texts,
    largest_at,
    onsets,
    place_of,
    random_entries,
    random_removal,
    ratio_over_seeds,
    texts_of,
    variation,
    variation_ratio,
)  # fmt: skip
from ..massive.massive_activations import MassiveActivations
from ..massive.protocol import Entry, selected
from ..model import Model, load
from ..parts.statistics import Interval, bootstrap_mean
from ..parts.study import Finding, Study, above, within
from ..positions import Positions

# The rules of the verdicts, set before any of the numbers that they judge was seen.
EXPLODES = 10.0
SAME = (0.98, 1.02)
FIXED = (0.9, 0.5)  # share of texts: reproduced above the first, direction above the second
INDEPENDENT = 10.0  # times smaller coefficient of variation than an ordinary channel's
EARLY, HALF = 0.25, 0.5  # share of the depth
ONE_MLP = (0.9, 1.1)
CONSTANT, ROUGHLY = 0.9, 0.5
VANISHED = (0.0, 0.1)
RECREATED = (0.0, 0.05)
FULL_SEEDS = 10
TEMPLATE = "raw"
CHAT_TEXTS = 16  # of either half: a chat template makes every text twice as long
WITHIN_TEXT = "index:-5"


def run(seeds: Sequence[int], full: bool, steps: Steps) -> list[Finding]:
    """All findings on SmolLM2. `full` draws more random controls; the texts are all there are either way."""
    return examine(load("smollm2-135m"), texts_of(), range(FULL_SEEDS) if full else seeds, steps)


def examine(model: Model, texts: Texts, seeds: Sequence[int], steps: Steps) -> list[Finding]:
    """The findings on any causal model; one negative finding where it has no massive activation to test."""
    steps.at("finding massive activations")
    bench, table = _look(model, texts, TEMPLATE)
    if bench is None:
        return [_absent(table)]
    parts: list[Callable[[], list[Finding]]] = [
        lambda: fixed_channels(bench),
        lambda: needed(bench),
        lambda: controls(bench, seeds),
        lambda: input_independence(bench),
        lambda: location(bench),
        lambda: no_return(bench),
        lambda: chat(model, texts) if model.is_chat else [],
    ]
    names = ("channels", "zero and mean", "controls", "input independence", "location", "later layers", "chat template")
    return [
        finding for name, part in steps.each(list(zip(names, parts, strict=True)), lambda x: x[0]) for finding in part()
    ]


def _look(model: Model, texts: Texts, template: str) -> tuple[Bench | None, Map]:
    """The bench, None where nothing is massive at the first token, and the table of all layers."""
    method = MassiveActivations(positions=(FIRST,), template=template)
    table = method.find(model, texts.fit)
    return (None if table.notes["first_layer"] is None else Bench(model, texts, method, table)), table


# Findings -------------------------------------------------------------------------------------------------------------


def fixed_channels(bench: Bench) -> list[Finding]:
    """The entries of the fit texts, looked for in texts that were not used to find them."""
    first = selected(bench.batch, FIRST)
    rows = [
        {item.example for item in bench.survey.found if _is(item, bench.layer, channel) and place_of(item) in first}
        for channel in bench.channels
    ]
    hits = [float(all(text in found for found in rows)) for text in range(len(bench.batch))]
    each = {channel: len(found) / len(hits) for channel, found in zip(bench.channels, rows, strict=True)}
    share = bootstrap_mean(hits)
    fewer = {item.channel for item in bench.survey.found} - set(bench.channels)
    return [
        Finding(
            "The same few channels are massive at the first token of nearly every text",
            f"reproduced above {FIXED[0]:.0%} of unseen texts, direction above {FIXED[1]:.0%}",
            f"{share} of unseen texts have all of them; after layer {bench.layer} "
            + ", ".join(f"channel {channel} in {part:.0%}" for channel, part in each.items()),
            above(share, FIXED[0], neutral=FIXED[1]),
            numbers={
                "share": share.as_dict(),
                "share_by_channel": each,
                "layer": bench.layer,
                "channels": bench.channels,
                "entries": [_as_dict(entry) for entry in bench.entries],
                "channels_massive_in_fewer_texts": sorted(fewer),
                "massive_at_other_tokens": sum(place_of(item) not in first for item in bench.survey.found),
                "by_layer": _by_layer(bench.table),
            },
        )
    ]


def _absent(table: Map) -> Finding:
    """What is said of a network that has nothing to test."""
    place = int(table.values[:, 0].argmax())
    top, median = table.values[place, 0], table.values[place, 3]
    return Finding(
        "The same few channels are massive at the first token of nearly every text",
        f"reproduced above {FIXED[0]:.0%} of texts",
        f"none: the largest magnitude is {top:.3g} (median {median:.2g}, layer {table.labels['layer'][place]})",
        "not reproduced",
        numbers={"by_layer": _by_layer(table)},
    )


def needed(bench: Bench) -> list[Finding]:
    """Perplexity of the test texts with the entries at zero and at their mean."""
    zero = bench.ratio(bench.zero_nll)
    mean, other = (bench.ratio(bench.nll(bench.mean_edit(source))) for source in (bench.texts.fit, bench.texts.other))
    perplexity = float(np.exp(bench.base.mean()))
    same = f"perplexity ratio within {SAME[0]:g} to {SAME[1]:g}"
    return [
        Finding(
            "Set to zero, they make perplexity explode",
            f"perplexity ratio above {EXPLODES:g}",
            f"ratio {zero} (perplexity {perplexity:.1f} before)",
            above(zero, EXPLODES, neutral=1.0),
            numbers={"ratio": zero.as_dict(), "perplexity": perplexity, "texts": len(bench.batch)},
        ),
        Finding(
            "Set to their mean over other passages, they leave perplexity as it is",
            same,
            f"ratio {_fine(mean)}",
            within(mean, *SAME),
            numbers={"ratio": mean.as_dict()},
        ),
        Finding(
            "Their mean over another kind of text does as well",
            same,
            f"ratio {_fine(other)}, mean over {len(bench.texts.other)} texts of that kind",
            within(other, *SAME),
            essential=False,
            numbers={"ratio": other.as_dict()},
        ),
    ]


def controls(bench: Bench, seeds: Sequence[int]) -> list[Finding]:
    """As many other entries, and a change of the same length in other directions, at the same token."""
    count = len(bench.channels)
    second = bench.ordinary[:count]
    largest = bench.ratio(bench.nll(zero_ablate(bench.site, FIRST, features=tuple(second))))
    random = ratio_over_seeds([bench.nll(random_entries(bench, seed)) - bench.base for seed in seeds])
    moved = [bench.nll(random_removal(bench, seed)) for seed in seeds]
    worse = ratio_over_seeds([bench.zero_nll - nll for nll in moved])
    alone = ratio_over_seeds([nll - bench.base for nll in moved])
    same = f"perplexity ratio within {SAME[0]:g} to {SAME[1]:g}"
    rarer = sorted({item.channel for item in bench.survey.found if item.layer == bench.layer} - set(bench.channels))
    beside = [_rarer(bench, rarer)] if rarer else []
    return [
        Finding(
            "Setting as many random entries of the same token to zero changes nothing",
            same,
            f"ratio {_fine(random)} over {len(seeds)} seeds",
            within(random, *SAME),
            numbers={"ratio": random.as_dict(), "seeds": len(seeds), "entries": count},
        ),
        Finding(
            "Setting the largest ordinary entries of the same token to zero changes nothing",
            same,
            f"ratio {_fine(largest)}, channels {second}",
            within(largest, *SAME),
            numbers={"ratio": largest.as_dict(), "channels": second},
        ),
        Finding(
            "It is these entries, not the size of the change: zero is worse than the same length in random directions",
            f"perplexity under zero above {EXPLODES:g} times that under random directions",
            f"{worse} times worse over {len(seeds)} seeds; random directions alone: ratio {alone}",
            above(worse, EXPLODES, neutral=1.0),
            numbers={"zero_to_random": worse.as_dict(), "random": alone.as_dict(), "seeds": len(seeds)},
        ),
        *beside,
    ]


def _rarer(bench: Bench, channels: list[int]) -> Finding:
    ratio = bench.ratio(bench.nll(zero_ablate(bench.site, FIRST, features=tuple(channels))))
    return Finding(
        "Channels that are massive in fewer texts can be set to zero without harm",
        f"perplexity ratio within {SAME[0]:g} to {SAME[1]:g}",
        f"ratio {_fine(ratio)}, channels {channels}",
        within(ratio, *SAME),
        essential=False,
        numbers={"ratio": ratio.as_dict(), "channels": channels},
    )


def input_independence(bench: Bench) -> list[Finding]:
    """Coefficient of variation over texts of the largest entry and of ordinary channels, at the same layer."""
    massive = bench.values([bench.site], FIRST, bench.top.channel)[0]
    usual = largest_at(bench, "last_prompt")
    ordinary = bench.values([bench.site], "last_prompt", usual)[0]
    beside = bench.values([bench.site], FIRST, bench.ordinary[0])[0]
    times, times_beside = variation_ratio(ordinary, massive), variation_ratio(beside, massive)
    own = variation(massive)
    # Beside the rule set in advance: all passages end in a full stop, which makes their last tokens much alike.
    word = largest_at(bench, WITHIN_TEXT)
    inside = bench.values([bench.site], WITHIN_TEXT, word)[0]
    times_inside = variation_ratio(inside, massive)
    return [
        Finding(
            "Their values hardly depend on the text",
            f"coefficient of variation over {INDEPENDENT:g} times smaller than an ordinary channel's at the last token",
            f"{times} times smaller ({own:.2g} against {variation(ordinary):.2g}, channel {usual})",
            above(times, INDEPENDENT, neutral=1.0),
            numbers={
                "times": times.as_dict(),
                "massive": own,
                "ordinary": variation(ordinary),
                "channel": usual,
                "different_first_tokens": len(set(bench.batch.ids[Positions(FIRST).in_prompt(bench.batch)].tolist())),
            },
        ),
        Finding(
            "This sets them apart from the largest ordinary channel of the same token, too",
            f"coefficient of variation over {INDEPENDENT:g} times smaller than that channel's",
            f"{times_beside} times smaller ({own:.2g} against {variation(beside):.2g}, channel {bench.ordinary[0]})",
            above(times_beside, INDEPENDENT, neutral=1.0),
            essential=False,
            numbers={"times": times_beside.as_dict(), "ordinary": variation(beside), "channel": bench.ordinary[0]},
        ),
        Finding(
            "And from an ordinary channel within the text (added after the first run: texts end in the same sign)",
            f"coefficient of variation over {INDEPENDENT:g} times smaller than at the fifth token from the end",
            f"{times_inside} times smaller ({own:.2g} against {variation(inside):.2g}, channel {word})",
            above(times_inside, INDEPENDENT, neutral=1.0),
            essential=False,
            numbers={"times": times_inside.as_dict(), "ordinary": variation(inside), "channel": word},
        ),
    ]


def location(bench: Bench) -> list[Finding]:
    """Where the largest entry comes from, how it goes on, and where it ends."""
    layers, top = bench.model.layers, bench.top.channel
    size = np.abs(bench.values([f"layers.{layer}.out" for layer in range(layers)], FIRST, top))
    part = bench.values([f"layers.{bench.layer}.mlp.out"], FIRST, top)[0]
    written = bootstrap_mean(part / bench.values([bench.site], FIRST, top)[0])
    depth = bootstrap_mean([(layer + 1) / layers for layer in onsets(bench, top)])
    middle = size[bench.layer : max(bench.layer + 1, int(0.75 * layers))]
    constant = bootstrap_mean(middle.min(0) / middle.max(0))
    left = bootstrap_mean(size[-1] / size.max(0))
    early = above(Interval(-depth.value, -depth.high, -depth.low), -EARLY - 1e-9, neutral=-HALF - 1e-9)
    return [
        Finding(
            "One MLP writes them",
            f"part of that MLP within {ONE_MLP[0]:g} to {ONE_MLP[1]:g} of the value",
            f"MLP of layer {bench.layer} writes {written} of the value",
            within(written, *ONE_MLP),
            numbers={"share": written.as_dict()},
        ),
        Finding(
            "They appear early",
            f"reproduced up to {EARLY:.0%} of the depth, direction up to {HALF:.0%}",
            f"after {depth} of the depth (layer {bench.layer} of 0 to {layers - 1})",
            early,
            numbers={"depth": depth.as_dict(), "layer": bench.layer, "layers": layers},
        ),
        Finding(
            "They stay almost constant through the middle layers",
            f"smallest over largest magnitude up to three quarters of the depth above {CONSTANT:g}",
            f"{constant}",
            above(constant, CONSTANT, neutral=ROUGHLY),
            numbers={"ratio": constant.as_dict(), "magnitude_by_layer": size.mean(1).tolist()},
        ),
        Finding(
            "They vanish at the last layer",
            f"magnitude there below {VANISHED[1]:g} of its largest",
            f"{left} is left",
            within(left, *VANISHED),
            numbers={"left": left.as_dict()},
        ),
    ]


def no_return(bench: Bench) -> list[Finding]:
    """Whether a later layer writes the values again once they are gone."""
    back = bench.method.recreated(bench.model, bench.zero, bench.batch)
    texts = {item.example for item in back}
    share = bootstrap_mean([float(text in texts) for text in range(len(bench.batch))])
    layers = sorted({item.layer for item in back})
    values = {layer: float(np.mean([item.value for item in back if item.layer == layer])) for layer in layers}
    said = ", ".join(f"layer {layer} mean value {value:.0f}" for layer, value in values.items())
    return [
        Finding(
            "No later layer writes them again after they are set to zero",
            f"share of texts with a massive value at the same place below {RECREATED[1]:.0%}",
            f"{share} of texts" + (f"; {said}" if said else ""),
            within(share, *RECREATED),
            essential=False,
            numbers={"share": share.as_dict(), "mean_value_by_layer": values},
        )
    ]


def chat(model: Model, texts: Texts) -> list[Finding]:
    """The two main figures where every text begins with the same token of the chat template."""
    texts = Texts(texts.fit[:CHAT_TEXTS], texts.test[:CHAT_TEXTS], texts.other)
    bench, table = _look(model, texts, "chat")
    if bench is None:
        return [replace(_absent(table), essential=False)]
    zero, mean = bench.ratio(bench.zero_nll), bench.ratio(bench.nll(bench.mean_edit(texts.fit)))
    verdicts = (above(zero, EXPLODES, neutral=1.0), within(mean, *SAME))
    ordered = ("reproduced", "direction only", "not reproduced")
    start = bench.zero.leaves()[0].provenance.start_token
    return [
        Finding(
            "Zero explodes and the mean changes nothing under the chat template, too",
            f"ratios above {EXPLODES:g} and within {SAME[0]:g} to {SAME[1]:g}",
            f"zero {zero}, mean {_fine(mean)}; channels {bench.channels} after layer {bench.layer}, start {start}",
            max(verdicts, key=ordered.index),
            essential=False,
            numbers={"zero": zero.as_dict(), "mean": mean.as_dict(), "channels": bench.channels, "layer": bench.layer},
        )
    ]


# Pieces ---------------------------------------------------------------------------------------------------------------


def _fine(ratio: Interval) -> str:
    """An interval about 1 with one digit more than others."""
    return f"{ratio.value:.4g} [{ratio.low:.4g}, {ratio.high:.4g}]"


def _is(item: Any, layer: int, channel: int) -> bool:
    return item.layer == layer and item.channel == channel


def _as_dict(entry: Entry) -> dict[str, Any]:
    return {name: getattr(entry, name) for name in entry.__dataclass_fields__}


def _by_layer(table: Map) -> list[dict[str, Any]]:
    """The table of the paper's figures: largest three magnitudes and median, each a mean over the fit texts."""
    rows = zip(table.labels["layer"], table.values.tolist(), strict=True)
    return [{"layer": layer, "top_3": row[:3], "median": row[3]} for layer, row in rows]


STUDY = Study(
    id="massive-activations",
    title="Massive activations are biases: zero ruins a model, the mean changes nothing",
    paper="2402.17762",
    shrunk=(
        "One model of 135M parameters and 92 short passages instead of several models and 100 long ones; "
        "32 of them for the chat template. Left out: the "
        "share of attention on these tokens and the split of attention into their constant part and the rest (both "
        "need the attention pattern), training with added keys and values, image models."
    ),
    run=run,
)
