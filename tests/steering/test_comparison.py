"""The whole comparison on networks of which it is known what steers them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import optrode as op
from optrode.data import Behaviour, Choice, Labelled, Pair, Question
from optrode.report import read_report, write_report
from optrode.steering import comparison
from optrode.steering.comparison import QUICK, Settings, Size

WIDTH = 64
SUBJECTS = ("the mat", "the door", "Paris", "the tower", "a word", "the user", "tomorrow", "the system")
SIZE = Size(
    "tiny", pairs=16, tune=6, test=8, written=8, new_tokens=8, neutral=2, layers=2, strengths=(0.5, 2.0),
    random_directions=20, methods=QUICK.methods,
)  # fmt: skip


class Reader:
    """A judge that reads literally: whether a reply holds more cats than dogs. `accuracy` is what it claims to have."""

    def __init__(self, accuracy: float = 0.95):
        self.accuracy = accuracy

    @property
    def trusted(self) -> bool:
        return self.accuracy >= 0.8

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        return np.array([0.5 + 0.5 * np.sign(text.count("cat") - text.count("dog")) for text in texts])

    def describe(self) -> dict[str, Any]:
        return {"name": "reader", "accuracy": self.accuracy, "texts": 0}


def behaviour(shown: str = " cat", opposed: str = " dog") -> Behaviour:
    """Cats rather than dogs. The pairs end with `shown` and `opposed`."""
    pairs = [Pair(f"Is it {s}{n}?", f"It is{shown}", f"It is{opposed}", s) for s in SUBJECTS for n in range(2)]
    tune = [Choice(f"And {s} then?", "Sure", (" cat",), (" dog",), f"{s} to tune") for s in SUBJECTS]
    test = [Choice(f"What of {s} now?", "Sure", (" cat",), (" dog",), f"{s} to test") for s in SUBJECTS]
    judged = [Labelled("a", 1, "x"), Labelled("b", 0, "y")]
    words = ("Say cat cat cat cat.", "Say dog dog dog dog.")
    return Behaviour(
        "cats", "cats rather than dogs", (" cat", " dog"), words, tuple(pairs), tuple(tune), tuple(test), tuple(judged)
    )


@pytest.fixture(scope="module")
def planted(tokenizer: Any) -> Callable[..., op.Model]:
    """A network with two ways to cats and dogs, each with a gain of its own.

    `direct`: a position that has some of the direction " cat" - " dog" writes the word itself. `context`: an even look
    back carries what the text holds of that direction to a place that only the head reads. All the rest is small noise.
    """

    def make(direct: float, context: float) -> op.Model:
        from transformers import LlamaConfig, LlamaForCausalLM

        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=2 * WIDTH, intermediate_size=16, num_hidden_layers=3,
            num_attention_heads=4, max_position_embeddings=1024, initializer_range=0.01, bos_token_id=None,
            eos_token_id=2, pad_token_id=0,
        )  # fmt: skip
        module = LlamaForCausalLM(config).eval()
        words = torch.randn(len(tokenizer), WIDTH)
        words[:3] = 0
        cat, dog = (tokenizer.convert_tokens_to_ids(word) for word in ("Ġcat", "Ġdog"))
        way = words[cat] - words[dog]
        way = way / way.norm()
        others = [token for token in range(len(words)) if token not in (cat, dog)]
        words[others] -= words[others] @ way[:, None] * way
        with torch.no_grad():
            module.model.embed_tokens.weight[:, :WIDTH] = words
            module.lm_head.weight.normal_(std=0.1)
            module.lm_head.weight[:, :WIDTH] += direct * torch.outer(words @ way, way)
            module.lm_head.weight[:, WIDTH:] += context * torch.outer(words @ way, way)
            first = module.model.layers[0].self_attn
            for part in (first.q_proj, first.k_proj, first.o_proj):
                part.weight.zero_()
            first.v_proj.weight.copy_(torch.eye(2 * WIDTH))
            first.o_proj.weight[WIDTH:, :WIDTH] = torch.eye(WIDTH)
        return op.load(module, tokenizer=tokenizer)

    return make


Run = Callable[..., tuple[dict[str, Any], op.Edit | None]]


@pytest.fixture(scope="module")
def run() -> Run:
    """The comparison with the literal judge in place of the real one."""

    def compare(model: op.Model, data: Behaviour, *, accuracy: float = 0.95, **settings: Any):
        chosen = {"size": SIZE, "direction": "for", "budget": 3.0, **settings}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(comparison, "fit_judge", lambda texts: Reader(accuracy))
            return comparison.run(model, data, Settings(**chosen))

    return compare


@pytest.fixture(scope="module")
def steerable(planted: Callable[..., op.Model]) -> op.Model:
    return planted(direct=0.13, context=0.0)


@pytest.fixture(scope="module")
def found(run: Run, steerable: op.Model) -> tuple[dict[str, Any], op.Edit | None]:
    """Every method on a network in which the pairs hold the direction that steers."""
    return run(steerable, behaviour())


def row(result: dict[str, Any], method: str) -> dict[str, Any]:
    return next(row for row in result["rows"] if row["method"] == method)


def test_the_planted_direction_is_found_and_wins(found):
    result, best = found
    assert result["rows"][0]["method"] in ("CAA (replies)", "control vector (PCA)")
    assert result["rows"][0]["shift"]["value"] == 0.5 and row(result, "prompting")["shift"]["value"] < 0.1
    assert result["headline"].startswith(f"{result['rows'][0]['method']} at layer ")
    assert "Chance wins" not in result["headline"] and "Prompting wins" not in result["headline"]
    assert " cat" in result["rows"][0]["completions"][0]["steered"]
    assert best is not None and best.leaves()[0].strength == result["rows"][0]["strength"]


def test_rows_stand_by_budget_then_by_shift_and_the_unsteered_last(run, steerable):
    result, _ = run(steerable, behaviour(), budget=0.9, methods=("caa", "probe-direction", "prompting"))
    assert result["rows"][-1]["method"] == "unsteered"
    keys = [(not row["within_budget"], -row["shift"]["value"]) for row in result["rows"][:-1]]
    assert keys == sorted(keys) and len({within for within, _ in keys}) == 2
    over = [row["method"] for row in result["rows"] if not row["within_budget"]]
    assert any("Over the budget" in text and over[0] in text for text in result["warnings"])


def test_every_method_variant_has_a_row_and_as_many_trials_as_the_others(found):
    result, _ = found
    methods = [row["method"] for row in result["rows"] if row["kind"] == "method"]
    assert sorted(methods) == ["ActAdd", "CAA (letters)", "CAA (replies)", "control vector (PCA)", "probe direction"]
    for method in methods:
        trials = [trial for trial in result["search"] if trial["method"] == method]
        assert len(trials) == len(result["protocol"]["layers"]) * len(SIZE.strengths)
        chosen = [trial for trial in trials if trial["chosen"]]
        assert len(chosen) == 1 and chosen[0]["layer"] == row(result, method)["layer"]
        allowed = [trial["log_odds"] for trial in trials if trial["perplexity_ratio"] <= 3.0]
        assert chosen[0]["log_odds"] == max(allowed)


def test_random_directions_go_through_the_same_search_and_give_their_spread(found):
    control = next(row for row in found[0]["rows"] if row["kind"] == "control")
    values = control["spread"]["values"]
    assert len(values) == control["spread"]["count"] == 20
    assert control["spread"]["p95"] == pytest.approx(np.quantile(values, 0.95))
    assert control["spread"]["best"] == max(values)
    assert control["spread_log_odds"]["values"] != [0.0] * 20


def test_the_test_split_has_no_say_in_what_is_chosen(run, steerable):
    """With the test's sides swapped every choice stays and every test figure turns its sign."""
    data, only = behaviour(), {"methods": ("caa", "control-vector")}
    turned = replace(data, test=tuple(replace(c, positive=c.negative, negative=c.positive) for c in data.test))
    result, other = (run(steerable, one, **only)[0] for one in (data, turned))
    assert result["search"] == other["search"]
    for one in result["rows"]:
        assert row(other, one["method"])["log_odds"]["value"] == pytest.approx(-one["log_odds"]["value"], abs=1e-5)


def test_the_tune_split_has_no_say_in_what_is_fitted_or_tested(run, steerable):
    data, only = behaviour(), {"methods": ("control-vector",), "size": replace(SIZE, strengths=(0.5,), layers=1)}
    other_tune = replace(data, tune=tuple(replace(c, prompt=c.prompt + " Well?") for c in data.tune))
    result, other = (run(steerable, one, **only)[0] for one in (data, other_tune))
    assert result["search"] != other["search"]
    for measured in ("shift", "log_odds", "perplexity_ratio", "kl_neutral"):
        assert result["rows"][0][measured] == other["rows"][0][measured]


def test_passages_for_tuning_and_for_the_test_are_different_ones(run, steerable, monkeypatch):
    seen: list[tuple[str, ...]] = []
    real = comparison.Neutral

    def spy(model: op.Model, passages: Sequence[str], *rest: Any) -> Any:
        seen.append(tuple(passages))
        return real(model, passages, *rest)

    monkeypatch.setattr(comparison, "Neutral", spy)
    run(steerable, behaviour(), methods=("prompting",))
    assert len(seen) == 2 and not set(seen[0]) & set(seen[1]) and len(seen[0]) == len(seen[1]) == SIZE.neutral


def test_chance_wins_when_the_directions_are_useless(run, planted):
    model = planted(direct=0.6, context=0.0)
    result, _ = run(
        model, behaviour(" mat", " door"), budget=100.0, methods=("caa", "probe-direction", "random-direction")
    )
    control = next(row for row in result["rows"] if row["kind"] == "control")
    assert result["rows"][0]["shift"]["value"] <= control["spread"]["p95"]
    assert control["spread"]["p95"] > 0.1
    assert result["headline"].startswith("Chance wins")


def test_prompting_wins_when_it_does(run, planted):
    model = planted(direct=0.0, context=0.5)
    result, _ = run(model, behaviour(" mat", " door"), methods=("control-vector", "probe-direction", "prompting"))
    assert row(result, "prompting")["shift"]["value"] > 0.2
    assert row(result, "prompting")["shift"]["value"] > result["rows"][1]["shift"]["value"]
    assert result["headline"].startswith("Prompting wins: +0.")


@pytest.mark.parametrize(("accuracy", "ranked"), [(0.79, False), (0.8, True)])
def test_a_judge_below_80_percent_ranks_nothing(run, steerable, accuracy, ranked):
    result, _ = run(steerable, behaviour(), accuracy=accuracy, methods=("caa", "control-vector", "prompting"))
    assert result["headline"].startswith("Not ranked: the judge is right on only 79%") is not ranked
    if not ranked:
        odds = [row["log_odds"]["value"] for row in result["rows"][:-1]]
        assert odds == sorted(odds, reverse=True)


def test_against_turns_directions_instructions_and_signs(run, steerable):
    only = {"methods": ("control-vector", "prompting"), "size": replace(SIZE, random_directions=0)}
    towards, away = (run(steerable, behaviour(), direction=which, **only)[0] for which in ("for", "against"))
    name = "control vector (PCA)"
    assert "against 'cats'" in away["headline"] and away["protocol"]["direction"] == "against"
    assert " dog" in row(away, name)["completions"][0]["steered"]
    assert " cat" in row(towards, name)["completions"][0]["steered"]
    assert row(away, name)["shift"]["value"] == row(towards, name)["shift"]["value"] == 0.5


def test_the_network_is_as_it_was(found, steerable, planted):
    fresh = planted(direct=0.13, context=0.0)
    for one, other in zip(steerable.module.parameters(), fresh.module.parameters(), strict=True):
        assert torch.equal(one, other)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in steerable.module.modules())


def test_it_is_plain_data_that_a_report_takes(found, tmp_path):
    result, _ = found
    assert result["schema"] == "optrode.comparison/1"
    again = json.loads(json.dumps(result))
    assert again["rows"] == result["rows"]
    page = write_report(result, tmp_path / "report.html")
    assert read_report(page)["headline"] == result["headline"]


def test_it_says_the_same_twice(run, steerable):
    only = {"methods": ("caa", "random-direction"), "size": replace(SIZE, random_directions=2)}
    timed = ("seconds_fit", "seconds_tune", "tokens_per_second")
    first, second = (
        [{key: value for key, value in row.items() if key not in timed} for row in result["rows"]]
        for result in (run(steerable, behaviour(), **only)[0] for _ in range(2))
    )
    assert first == second


EFFECTS = ("distinct_1", "distinct_2", "repetition", "declines", "capability", "off_target")


def test_side_effects_are_measured_where_the_size_asks_for_them(run, steerable, found):
    size = replace(SIZE, capability=12, off_target=2, requests=3, random_directions=0)
    result, _ = run(steerable, behaviour(), methods=("caa", "prompting", "few-shot", "shuffled-labels"), size=size)
    for one in result["rows"]:
        measured = [name for name in EFFECTS if name in one]
        assert measured == (list(EFFECTS[:-1]) if one["kind"] == "unsteered" else list(EFFECTS))
        for name in measured:
            values = one[name]
            assert values is None or values["low"] <= values["value"] <= values["high"]
        assert 0 <= one["capability"]["value"] <= 1
    assert set(row(result, "CAA (replies)")["off_target_by"]) == {
        "formality", "sentiment", "truthfulness", "decline-birds"
    }  # fmt: skip
    assert row(result, "CAA (replies)")["off_target"]["value"] > 0
    assert result["protocol"]["side_effects"]["capability_questions"] == 12
    assert not any(name in one for one in found[0]["rows"] for name in EFFECTS[:-1])


def test_shuffled_labels_stand_as_a_control_and_steer_less(run, steerable):
    result, _ = run(steerable, behaviour(), methods=("caa", "shuffled-labels"), size=replace(SIZE, random_directions=0))
    control = row(result, "shuffled labels")
    assert control["kind"] == "control" and "spread" not in control
    assert control["log_odds"]["value"] < row(result, "CAA (replies)")["log_odds"]["value"] / 2
    assert result["headline"].startswith("CAA")


def test_ablation_takes_away_what_the_network_leans_to(run, steerable):
    """Against the behaviour it removes the component; its strengths end at the whole removal."""
    only = {"methods": ("directional-ablation",), "size": replace(SIZE, random_directions=0, strengths=(0.1, 0.4))}
    result, best = run(steerable, behaviour(), direction="against", **only)
    tried = {trial["strength"] for trial in result["search"]}
    assert tried == {0.25, 1.0} and best is not None
    assert row(result, "directional ablation")["kind"] == "method"


def test_a_rule_judges_where_the_behaviour_names_one(run, steerable):
    labelled = tuple(Labelled(text, label, text) for text, label in (("a", 1), ("a " * 40, 0)))
    data = replace(behaviour(), rule="length", judge=labelled)
    result, _ = run(steerable, data, methods=("caa",), size=replace(SIZE, random_directions=0))
    assert result["protocol"]["judge"] == {"name": "rule: length", "accuracy": 1.0, "texts": 2}


def test_questions_of_their_own_are_what_is_answered_freely(run, steerable):
    asked = tuple(Question(f"Well, {s}?", s) for s in SUBJECTS)
    result, _ = run(
        steerable, replace(behaviour(), free=asked), methods=("caa",), size=replace(SIZE, random_directions=0)
    )
    prompts = {pair["prompt"] for pair in row(result, "CAA (replies)")["completions"]}
    assert prompts <= {question.prompt for question in asked} and prompts


def test_few_random_directions_are_warned_of(run, steerable):
    only = {"methods": ("random-direction", "prompting"), "size": replace(SIZE, random_directions=2)}
    assert any("Only 2 random directions" in text for text in run(steerable, behaviour(), **only)[0]["warnings"])


def test_the_headline_says_when_prompting_lies_inside_the_interval() -> None:
    from types import SimpleNamespace

    from optrode.steering.verdict import headline

    def row(kind: str, value: float, low: float, high: float) -> dict[str, object]:
        shift = {"value": value, "low": low, "high": high}
        return {"method": kind, "kind": kind, "layer": 3, "within_budget": True, "shift": shift}

    bench = SimpleNamespace(
        sign=1, behaviour=SimpleNamespace(name="sentiment"), judge=SimpleNamespace(trusted=True, accuracy=0.9)
    )
    settings = SimpleNamespace(budget=1.2)
    near = headline([row("method", 0.4, 0.2, 0.6), row("baseline", 0.25, 0.1, 0.4)], bench, settings)
    assert "no clear win" in near
    far = headline([row("method", 0.4, 0.3, 0.6), row("baseline", 0.25, 0.1, 0.4)], bench, settings)
    assert "no clear win" not in far and "Prompting gives +0.25." in far
    assert headline([row("baseline", 0.5, 0.1, 0.6), row("method", 0.4, 0.3, 0.6)], bench, settings).startswith(
        "Prompting wins"
    )
    nothing = headline([row("baseline", 0.0, 0.0, 0.0), row("method", 0.0, 0.0, 0.0)], bench, settings)
    assert not nothing.startswith("Prompting wins")
    assert nothing.startswith("Nothing moves freely written replies for 'sentiment'")
    odds = {"value": 1.5, "low": 1.0, "high": 2.0}
    forced = headline([row("method", 0.0, 0.0, 0.0) | {"log_odds": odds}], bench, settings)
    assert forced.endswith("In forced choice method at layer 3 goes furthest: +1.50 [+1.00, +2.00] nats.")


def test_rows_of_equal_shift_stand_in_order_of_log_odds() -> None:
    from optrode.steering.verdict import rank

    rows = [
        {"method": str(odds), "within_budget": True, "shift": {"value": 0.0}, "log_odds": {"value": odds}}
        for odds in (0.2, 1.5, 0.7)
    ]
    assert [row["method"] for row in rank(rows, judged=True)] == ["1.5", "0.7", "0.2"]
