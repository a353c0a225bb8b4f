"""Probes: scikit-learn used directly, and cross-validation that no group leaks through."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from optrode.errors import BadInput, UnknownSite
from optrode.parts.contrast import Contrast
from optrode.parts.probe import LinearProbe, accuracy_by_layer, cross_validated_accuracy, fit_logistic

SITE = "layers.0.out"


def rows(seed: int, count: int = 40, width: int = 6, shift: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    low = torch.randn(count, width, generator=generator)
    return low + shift * torch.eye(width)[0] + torch.randn(count, width, generator=generator), low


def contrast(high: torch.Tensor, low: torch.Tensor, groups: list[str]) -> Contrast:
    return Contrast({SITE: high}, {SITE: low}, {SITE: 1.0}, tuple(groups))


def test_log_odds_are_scikit_learns():
    high, low = rows(0)
    weight, bias = fit_logistic(high, low, penalty=2.0)
    both = torch.cat([high, low]).double().numpy()
    direct = make_pipeline(StandardScaler(), LogisticRegression(C=0.5, max_iter=5000)).fit(both, [1] * 40 + [0] * 40)
    np.testing.assert_allclose(both @ weight.numpy() + bias, direct.decision_function(both), atol=2e-3)


def test_a_coordinate_that_never_changes_is_no_trouble():
    high, low = rows(1)
    high[:, 3] = low[:, 3] = 5.0
    weight, bias = fit_logistic(high, low)
    assert bool(torch.isfinite(weight).all()) and np.isfinite(bias)


def test_groups_do_not_leak():
    """Each subject has a direction of its own: within a subject the sides are far apart, across subjects unrelated."""
    generator = torch.Generator().manual_seed(0)
    subjects, each, width = 20, 6, 60
    own = torch.randn(subjects, width, generator=generator).repeat_interleave(each, 0)
    noise = 0.1 * torch.randn(2, subjects * each, width, generator=generator)
    high, low = own + noise[0], -own + noise[1]
    names = [f"s{number // each}" for number in range(subjects * each)]
    honest = cross_validated_accuracy(contrast(high, low, names), SITE)
    leaking = cross_validated_accuracy(contrast(high, low, list(map(str, range(len(names))))), SITE)
    assert leaking.value > 0.95 and 0.3 < honest.value < 0.7


def test_what_holds_across_groups_is_found():
    high, low = rows(2, count=60, shift=4.0)
    found = cross_validated_accuracy(contrast(high, low, [f"s{n % 6}" for n in range(60)]), SITE)
    assert found.value > 0.9 and found.low <= found.value <= found.high


def test_no_difference_is_chance():
    high, low = rows(3, count=200, shift=0.0)
    low = low[torch.randperm(200, generator=torch.Generator().manual_seed(0))] * 2**0.5
    found = cross_validated_accuracy(contrast(high, low, [f"s{n % 20}" for n in range(200)]), SITE)
    assert 0.4 < found.value < 0.6


def test_one_group_or_one_class_is_refused():
    high, low = rows(4, count=5)
    with pytest.raises(BadInput, match="at least two groups"):
        cross_validated_accuracy(contrast(high, low, ["s"] * 5), SITE)
    with pytest.raises(BadInput, match="both classes"):
        fit_logistic(high[:0], low)


def test_by_layer():
    high, low = rows(5)
    both = Contrast(
        {f"layers.{n}.out": high * n for n in (1, 2)},
        {f"layers.{n}.out": low * n for n in (1, 2)},
        {},
        tuple("ab" * 20),
    )
    found = accuracy_by_layer(both, ["layers.1.out", "layers.2.out"])
    assert [entry["layer"] for entry in found] == [1, 2] and {entry["chance"] for entry in found} == {0.5}
    # Standardising makes the size of a layer irrelevant.
    assert found[0]["accuracy"]["value"] == pytest.approx(found[1]["accuracy"]["value"])


def test_a_linear_probe_is_a_score_of_the_positive_side(llama):
    pairs = [(f"How was it, {n}?", f"{n} was fine", f"It was bad, {n}") for n in range(8)]
    score = LinearProbe(site="layers.1.out").fit(llama, pairs)
    talk = [
        [{"role": "user", "content": p}, {"role": "assistant", "content": r}] for p, r in ((p[0], p[1]) for p in pairs)
    ]
    acts = llama.read(talk, score.sites, positions=score.positions)
    literal = acts["layers.1.out"] @ score.weight + score.bias
    torch.testing.assert_close(score(acts), literal)
    assert float(score.probability(acts).mean()) > 0.8
    torch.testing.assert_close(score.probability(acts), torch.sigmoid(literal))
    with pytest.raises(UnknownSite):
        LinearProbe(site="layers.1.uot").fit(llama, pairs)
    with pytest.raises(BadInput, match="selects 3 sites"):
        LinearProbe(site="layers.*.out").fit(llama, pairs)
