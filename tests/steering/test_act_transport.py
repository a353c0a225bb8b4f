"""AcT against its card: maps by numpy.polyfit, use token by token, and sequential fitting with hooks of one's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import optrode as op
from optrode.errors import BadInput
from optrode.parts.transport import fit_map, sorted_distance
from optrode.steering.act_transport import ActTransport

SITE = "layers.1.out"
PROMPTS = ["How was the sea?", "Where does the Eiffel Tower stand, and what is the weather there?"]


def samples(seed: int = 0, count: int = 40, width: int = 6) -> tuple[Tensor, Tensor]:
    made = torch.Generator().manual_seed(seed)
    source = torch.randn(count, width, generator=made)
    return source, 2 * torch.randn(count, width, generator=made) ** 3 + 1


def linear_by_hand(source: Tensor, target: Tensor) -> tuple[np.ndarray, np.ndarray]:
    lines = [
        np.polyfit(np.sort(x), np.sort(y), 1)
        for x, y in zip(source.double().numpy().T, target.double().numpy().T, strict=True)
    ]
    return np.array([line[0] for line in lines]), np.array([line[1] for line in lines])


def moved_by_hand(h: Tensor, w: Tensor, b: Tensor, low: Tensor, high: Tensor, strength: float) -> Tensor:
    """Step 3 of the card, number by number."""
    new = h.clone().double()
    for place in np.ndindex(*h.shape):
        z, j = float(h[place]), place[-1]
        if float(low[j]) < z < float(high[j]):
            new[place] = (1 - strength) * z + strength * (float(w[j]) * z + float(b[j]))
    return new


def reply_means(plain: Any, pairs: Any, layer: int) -> tuple[Tensor, Tensor]:
    sides = []
    for which in ("negative", "positive"):
        rows = []
        for pair in pairs:
            start = len(plain.answered(pair.prompt))
            rows.append(plain.stream(plain.answered(pair.prompt, getattr(pair, which)), layer)[start:].mean(0))
        sides.append(torch.stack(rows))
    return sides[0], sides[1]


@pytest.mark.parity("act-transport")
def test_the_linear_map_is_polyfit_on_sorted_samples():
    source, target = samples()
    found = fit_map(source, target)
    w, b = linear_by_hand(source, target)
    assert np.allclose(found.weight, w, atol=1e-6) and np.allclose(found.bias, b, atol=1e-6)
    assert bool((found.weight > 0).all())
    assert torch.equal(found.low, source.min(0).values) and torch.equal(found.high, source.max(0).values)


@pytest.mark.parity("act-transport")
@pytest.mark.parametrize("kind", ["gaussian", "mean"])
def test_the_other_maps_are_their_closed_forms(kind):
    source, target = samples(1)
    source[:, 2] = 0.5
    found = fit_map(source, target, kind)
    for j in range(6):
        x, y = source[:, j].double().numpy(), target[:, j].double().numpy()
        w = y.std(ddof=1) / x.std(ddof=1) if kind == "gaussian" and j != 2 else 1.0
        b = y.mean() - w * x.mean() if j != 2 else 0.0
        assert float(found.weight[j]) == pytest.approx(w, rel=1e-6) and float(found.bias[j]) == pytest.approx(
            b, abs=1e-6
        )
    assert found.low is None


def test_a_line_is_recovered_exactly_and_order_does_not_matter():
    source, _ = samples(2)
    shuffled = (2 * source + 1)[torch.randperm(len(source), generator=torch.Generator().manual_seed(0))]
    for kind in ("linear", "gaussian"):
        found = fit_map(source, shuffled, kind)
        assert torch.allclose(found.weight, torch.full((6,), 2.0), atol=1e-5)
        assert torch.allclose(found.bias, torch.ones(6), atol=1e-5)


@pytest.mark.parametrize("kind", ["linear", "gaussian", "mean"])
def test_the_distance_between_the_sets_falls(kind):
    source, target = samples(3)
    found = fit_map(source, target, kind)
    moved = source * found.weight + found.bias
    assert bool((sorted_distance(moved, target) <= sorted_distance(source, target) + 1e-9).all())


def test_a_constant_coordinate_is_left_alone():
    source, target = samples(4)
    source[:, 1] = 3.0
    edit = fit_map(source, target).edit(SITE)
    new = edit.operator(source, torch.zeros(len(source), dtype=torch.long))
    assert torch.equal(new[:, 1], source[:, 1]) and not torch.equal(new[:, 0], source[:, 0])


def test_sorted_distance_is_scipys_where_there_is_one():
    from scipy.stats import wasserstein_distance

    source, target = samples(5)
    by_hand = [np.mean((np.sort(x) - np.sort(y)) ** 2) for x, y in zip(source.numpy().T, target.numpy().T, strict=True)]
    assert np.allclose(sorted_distance(source, target), by_hand, rtol=1e-5)
    first = [wasserstein_distance(x, y) for x, y in zip(source.numpy().T, target.numpy().T, strict=True)]
    # The first-order distance is at most the root of the second-order one.
    assert bool((np.array(first) <= np.sqrt(by_hand) + 1e-6).all())
    with pytest.raises(BadInput, match="equal size"):
        sorted_distance(source, target[:-1])


@pytest.mark.parity("act-transport")
@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_tokens_are_moved_within_the_sources_range(model, library_logits, twin, pairs, strength):
    plain = twin(model)
    edit = ActTransport(site=SITE).fit(model, pairs)
    source, target = reply_means(plain, pairs, 1)
    w, b = linear_by_hand(source, target)
    own = edit.operator
    # Six samples whose values are near each other: slopes are only as good as the activations are rounded.
    assert np.allclose(own.weight, w, rtol=1e-2, atol=1e-3) and np.allclose(own.bias, b, rtol=1e-2, atol=1e-2)
    assert torch.allclose(own.low, source.min(0).values, atol=1e-4)
    batch = model.encode(PROMPTS)
    before = model.read(batch, SITE)[SITE]
    with model.edited(edit * strength):
        after = model.read(batch, SITE)[SITE]
    wanted = moved_by_hand(before[batch.mask], own.weight, own.bias, own.low, own.high, strength)
    assert float((after[batch.mask] - wanted).abs().max()) <= 1e-5 * float(wanted.abs().max())
    assert 0 < float((after != before)[batch.mask].float().mean()) < 1
    for got, prompt in zip(library_logits(model, PROMPTS, edit * strength), PROMPTS, strict=True):
        ids = plain.answered(prompt)
        by_hand = plain.logits(
            ids, 1, "out", lambda h: moved_by_hand(h, own.weight, own.bias, own.low, own.high, strength).to(h.dtype)
        )
        torch.testing.assert_close(got, by_hand, atol=2e-3, rtol=2e-3)


def hooked(plain: Any, ids: list[int], edits: dict[int, op.edits.SiteEdit], layer: int) -> Tensor:
    """The stream of one row after a block, with hooks of one's own that apply maps at the blocks before."""
    handles, kept = [], []

    def at(index: int) -> Any:
        def after(_: Any, args: tuple, output: Any) -> Any:
            h = output[0] if isinstance(output, tuple) else output
            if index == layer:
                kept.append(h.clone())
            if index in edits:
                own = edits[index].operator
                h = torch.where((own.low < h) & (h < own.high), own.weight * h + own.bias, h)
            return (h, *output[1:]) if isinstance(output, tuple) else h

        return after

    for index, block in enumerate(plain.blocks):
        handles.append(block.register_forward_hook(at(index)))
    try:
        with torch.no_grad():
            plain.module(input_ids=torch.tensor([ids]), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return kept[0][0]


@pytest.mark.parity("act-transport")
@pytest.mark.parametrize("target", ["clean", "edited"])
@pytest.mark.parametrize("away", [False, True])
def test_sequential_maps_are_fitted_behind_those_before(llama, twin, pairs, target, away):
    plain = twin(llama)
    edit = ActTransport(site="layers.*.out", target=target, away=away).fit(llama, pairs)
    fitted = {int(leaf.site.split(".")[1]): leaf for leaf in edit.leaves()}
    assert list(fitted) == [0, 1, 2]
    for layer, leaf in fitted.items():
        before = {index: one for index, one in fitted.items() if index < layer}
        means = {}
        for which in ("positive", "negative"):
            moves = before if target == "edited" or (which == "negative") is not away else {}
            rows = []
            for pair in pairs:
                start = len(plain.answered(pair.prompt))
                ids = plain.answered(pair.prompt, getattr(pair, which))
                rows.append(hooked(plain, ids, moves, layer)[start:].mean(0))
            means[which] = torch.stack(rows)
        source, goal = means["negative"], means["positive"]
        source, goal = (goal, source) if away else (source, goal)
        own = leaf.operator
        assert torch.allclose(own.low, source.min(0).values, atol=1e-3)
        assert torch.allclose(own.high, source.max(0).values, atol=1e-3)
        # What the map does to the fitted samples is what polyfit's does.
        w, b = linear_by_hand(source, goal)
        by_hand = source.double() * torch.tensor(w) + torch.tensor(b)
        assert float((source * own.weight + own.bias - by_hand).abs().max()) <= 1e-2 * float(by_hand.abs().max())


def test_one_site_is_the_same_at_once_and_in_sequence_and_several_are_not(llama, pairs):
    one = [ActTransport(site=SITE, sequential=flag).fit(llama, pairs) for flag in (True, False)]
    assert all(torch.equal(a, b) for a, b in zip(one[0].tensors().values(), one[1].tensors().values(), strict=True))
    several = [ActTransport(site="layers.*.out", sequential=flag).fit(llama, pairs).leaves() for flag in (True, False)]
    assert torch.equal(several[0][0].operator.weight, several[1][0].operator.weight)
    assert not torch.allclose(several[0][2].operator.bias, several[1][2].operator.bias)


def test_strength_zero_is_bit_equal(llama, pairs):
    batch = llama.encode(PROMPTS)
    plain = llama.read(batch, "final")["final"]
    with llama.edited(ActTransport(site=SITE).fit(llama, pairs) * 0):
        assert torch.equal(llama.read(batch, "final")["final"], plain)


def test_a_planted_shift_is_what_every_map_finds():
    """Two sets that differ by a known vector alone: every map is that vector."""
    source, _ = samples(6, 30, 8)
    vector = torch.arange(8.0)
    for kind in ("mean", "gaussian", "linear"):
        found = fit_map(source, source + vector, kind)
        assert torch.allclose(found.weight, torch.ones(8), atol=1e-5)
        assert torch.allclose(found.bias, vector, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "says"), [({"map": "lineer"}, "did you mean linear"), ({"target": "clear"}, "did you mean clean")]
)
def test_settings_that_cannot_be_are_told(llama, pairs, settings, says):
    with pytest.raises(BadInput, match=says):
        ActTransport(site=SITE, **settings).fit(llama, pairs)


def test_sets_of_different_size_are_refused():
    source, target = samples()
    with pytest.raises(BadInput, match="as many source as target"):
        fit_map(source, target[:-1])
    with pytest.raises(BadInput, match="two at least"):
        fit_map(source[:1], target[:1])
