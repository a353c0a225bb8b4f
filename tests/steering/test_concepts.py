"""GCAV, ConVA and SCAV against their cards, done by hand: one closed form, three ways to use it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

import optrode as op
from optrode import edits
from optrode.errors import BadInput
from optrode.parts.concepts import Concept, JointShift, fit_concepts, joint_shift
from optrode.parts.contrast import Contrast
from optrode.parts.pairs import conversation
from optrode.steering.conva import ConVA
from optrode.steering.gcav import GCAV
from optrode.steering.scav import SCAV

SITE = "layers.1.out"
PROMPTS = ["How was the sea?", "Where does the Eiffel Tower stand, and what is the weather there?"]
KINDS = {"gcav": GCAV, "conva": ConVA, "scav": SCAV}
LONG = {"max_new_tokens": 6, "min_new_tokens": 6}


def logit(p: float) -> float:
    return math.log(p / (1 - p))


def probe_by_hand(high: Tensor, low: Tensor) -> tuple[Tensor, float]:
    """The reference: scikit-learn on the rows as they are."""
    rows = torch.cat([high, low]).double().numpy()
    labels = [1] * len(high) + [0] * len(low)
    found = LogisticRegression(C=1.0, max_iter=20_000, tol=1e-9).fit(rows, labels)
    return torch.tensor(found.coef_[0]), float(found.intercept_[0])


def shifted_by_hand(h: Tensor, w: Tensor, b: float, p: float, side: str) -> Tensor:
    """The card's step 4, one token at a time, with plain numbers."""
    new = []
    for row in h.double().tolist():
        score = sum(x * y for x, y in zip(row, w.tolist(), strict=True)) + b
        norm = math.sqrt(sum(y * y for y in w.tolist()))
        now = 1 / (1 + math.exp(-score))
        wanted = now < p if side == "at_least" else now > p
        eps = (logit(p) - score) / norm if wanted else 0.0
        new.append([x + eps * y / norm for x, y in zip(row, w.tolist(), strict=True)])
    return torch.tensor(new, dtype=torch.float64)


def rows_by_hand(plain: Any, pairs: Any, layer: int) -> tuple[Tensor, Tensor]:
    sides = []
    for which in ("positive", "negative"):
        replies = [plain.answered(pair.prompt, getattr(pair, which)) for pair in pairs]
        sides.append(torch.stack([plain.stream(ids, layer)[-1] for ids in replies]))
    return sides[0], sides[1]


def newest(start: int, change: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """A change of the last prompt token, number `start`, and of what is written after it, as far as the row goes."""

    def changed(h: Tensor) -> Tensor:
        h = h.clone()
        h[0, start:] = change(h[0, start:]).to(h.dtype)
        return h

    return changed


# The closed form ------------------------------------------------------------------------------------------------------


@pytest.mark.parity("gcav")
@pytest.mark.parity("conva")
@pytest.mark.parity("scav")
@pytest.mark.parametrize("name", KINDS)
def test_probes_are_scikit_learns_on_rows_read_by_hand(llama, twin, pairs, name):
    settings = {"gate": "none"} if name == "conva" else {}
    edit = KINDS[name](site=SITE, **settings).fit(llama, pairs)
    w, b = probe_by_hand(*rows_by_hand(twin(llama), pairs, 1))
    assert float((edit.operator.weight - w).abs().max()) < 1e-4 * float(w.abs().max())
    assert float(edit.operator.bias) == pytest.approx(b, rel=1e-4, abs=1e-4)


@pytest.mark.parity("gcav")
@pytest.mark.parity("conva")
@pytest.mark.parity("scav")
@pytest.mark.parametrize("side", ["at_least", "at_most"])
@pytest.mark.parametrize("name", KINDS)
def test_the_shift_is_the_cards_token_by_token(model, library_logits, twin, pairs, name, side):
    plain, p = twin(model), 0.9 if side == "at_least" else 0.1
    settings = {"gate": "none"} if name == "conva" else {}
    edit = KINDS[name](site=SITE, probability=p, side=side, positions="newest", **settings).fit(model, pairs)
    w, b = edit.operator.weight.double(), float(edit.operator.bias)
    batch = model.encode(PROMPTS)
    before = model.read(batch, SITE)[SITE]
    with model.edited(edit):
        after = model.read(batch, SITE)[SITE]
    chosen = op.Positions("newest").in_prompt(batch)
    wanted = shifted_by_hand(before[chosen], w, b, p, side)
    assert float((after[chosen] - wanted).abs().max()) <= 1e-5 * float(wanted.abs().max())
    assert torch.equal(after[~chosen & batch.mask], before[~chosen & batch.mask])
    for got, prompt in zip(library_logits(model, PROMPTS, edit), PROMPTS, strict=True):
        ids = plain.answered(prompt)
        change = newest(len(ids) - 1, lambda h: shifted_by_hand(h, w, b, p, side))
        torch.testing.assert_close(got, plain.logits(ids, 1, "out", change), atol=1e-4, rtol=1e-4)


@pytest.mark.parity("gcav")
@pytest.mark.parametrize("p", [1e-6, 0.3, 0.5, 0.99, 1 - 1e-6])
def test_afterwards_the_probe_says_the_target_and_what_satisfied_it_is_untouched(p):
    torch.manual_seed(0)
    w, b, h = torch.randn(7).double(), 0.4, 3 * torch.randn(50, 7).double()
    one = Concept(SITE, w, b)
    for side in ("at_least", "at_most", "exactly"):
        new = one.edit(p, side).operator(h, torch.zeros(50, dtype=torch.long))
        moved = {"at_least": one.probability(h) < p, "at_most": one.probability(h) > p}.get(side, torch.ones(50).bool())
        assert torch.allclose(new[moved] @ w + b, torch.tensor(logit(p)).double(), atol=1e-9)
        assert torch.equal(new[~moved], h[~moved])
        # The length of the change is |eps|, and it is along the unit vector that points to the concept.
        eps = one.shift(h, p, side)
        assert torch.allclose((new - h).norm(dim=-1), eps.abs()) and torch.allclose(
            new - h, eps[:, None] * one.direction
        )
    # To add with p and to remove with p are the two halves of going there exactly.
    halves = one.shift(h, p, "at_least") + one.shift(h, p, "at_most")
    assert torch.allclose(halves, one.shift(h, p, "exactly"))


def test_written_tokens_are_shifted_each_by_its_own_length(model, twin, pairs):
    plain = twin(model)
    edit = GCAV(site=SITE, probability=0.999999).fit(model, pairs)
    w, b = edit.operator.weight.double(), float(edit.operator.bias)
    with model.edited(edit) as receipt:
        done = model.completions(PROMPTS, **LONG)
    assert receipt.sites[SITE].selected == len(PROMPTS) * 6
    for prompt, completion in zip(PROMPTS, done, strict=True):
        ids = plain.answered(prompt)
        change = newest(len(ids) - 1, lambda h: shifted_by_hand(h, w, b, 0.999999, "at_least"))
        assert list(completion.ids) == plain.written(ids, 6, 1, "out", change)
    with model.edited(edit):
        assert [one.ids for one in model.completions(PROMPTS, use_cache=False, **LONG)] == [one.ids for one in done]
        assert [model.completions([prompt], **LONG)[0].ids for prompt in PROMPTS] == [one.ids for one in done]


def test_layers_in_a_row_each_reach_their_target_on_what_the_last_one_left(llama, pairs):
    method = GCAV(site="layers.0-2.out", probability=0.999, accuracy=0.0, positions="all")
    edit = method.fit(llama, pairs)
    batch = llama.encode(PROMPTS)
    with llama.edited(edit):
        acts = llama.read(batch, "layers.*.out")
    for leaf in edit.leaves():
        scores = acts[leaf.site][batch.mask] @ leaf.operator.weight + leaf.operator.bias
        assert float(scores.min()) > logit(0.999) - 1e-2
    assert all(leaf.provenance.recipe["held_out_accuracy"] >= 0 for leaf in edit.leaves())


def test_only_layers_that_separate_are_used_and_none_is_told(llama, pairs):
    concepts = SCAV().concepts(llama, pairs)
    accuracies = sorted(one.accuracy for one in concepts.values())
    between = (accuracies[0] + accuracies[-1]) / 2
    if accuracies[0] < accuracies[-1]:
        kept = [leaf.site for leaf in SCAV(accuracy=between).fit(llama, pairs).leaves()]
        assert kept == [site for site, one in concepts.items() if one.accuracy > between]
    with pytest.raises(BadInput, match=r"the best is layers\.\d\.out with") as caught:
        SCAV(accuracy=1.0).fit(llama, pairs)
    assert "\n" not in str(caught.value)


def test_a_planted_concept_is_found_and_reached():
    """Rows that differ by a known direction alone: the probe points there, the shift is the distance to the plane."""
    torch.manual_seed(3)
    axis = torch.zeros(6)
    axis[2] = 1.0
    noise = torch.randn(40, 6)
    noise[:, 2] *= 0.1
    contrast = Contrast({SITE: noise + 2 * axis}, {SITE: noise - 2 * axis}, {SITE: 1.0}, tuple(map(str, range(40))))
    one = fit_concepts(contrast, [SITE])[SITE]
    assert float(one.direction @ axis) > 0.999 and one.accuracy == 1.0
    assert torch.allclose(one.shift(noise, 0.5, "exactly"), -noise[:, 2], atol=0.1)


# Several concepts -----------------------------------------------------------------------------------------------------


def concepts(count: int, width: int = 8) -> list[Concept]:
    made = torch.Generator().manual_seed(5)
    return [Concept(SITE, torch.randn(width, generator=made), 0.2 * k, None) for k in range(count)]


def satisfied(shift: JointShift, probabilities: list[float], sides: list[str]) -> bool:
    found = shift.probabilities.numpy()
    signs = np.array([1 if side == "at_least" else -1 for side in sides])
    return bool((signs * (found - np.array(probabilities)) > -1e-7).all())


@pytest.mark.parity("gcav")
def test_several_concepts_are_as_slsqp_finds_them():
    from scipy.optimize import minimize

    many, p, sides = concepts(3), [0.9, 0.2, 0.7], ["at_least", "at_most", "at_least"]
    h = torch.randn(6, 8, generator=torch.Generator().manual_seed(6))
    found = joint_shift(h, many, p, sides)
    assert satisfied(found, p, sides) and 1 <= found.condition < 100
    w = torch.stack([one.weight for one in many]).double().numpy()
    v = w / np.linalg.norm(w, axis=1, keepdims=True)
    b, signs = np.array([one.bias for one in many]), np.array([1, -1, 1])
    for row, lengths in zip(h.double().numpy(), found.lengths.numpy(), strict=True):

        def slack(z: np.ndarray, row: np.ndarray = row) -> np.ndarray:
            return signs * (w @ (row + (z[:3] - z[3:]) @ v) + b - np.array([logit(x) for x in p]))

        # The paper's own solver, in parts above and below zero so that it meets no corner.
        bound = {"type": "ineq", "fun": slack}
        best = minimize(
            np.sum, np.zeros(6), jac=np.ones_like, method="SLSQP", bounds=[(0, None)] * 6, constraints=[bound]
        )
        assert slack(best.x).min() > -1e-6 and abs(np.abs(lengths).sum() - best.fun) < 1e-4


@pytest.mark.parametrize("side", ["at_least", "at_most"])
def test_one_concept_is_the_closed_form(side):
    (one,), h = concepts(1), torch.randn(9, 8, generator=torch.Generator().manual_seed(7))
    found = joint_shift(h, [one], [0.8], [side])
    assert torch.allclose(found.lengths[:, 0].float(), one.shift(h, 0.8, side), atol=1e-5)


def test_opposite_concepts_are_refused_and_near_ones_warned_of():
    one = concepts(1)[0]
    other = Concept(SITE, -one.weight, -one.bias)
    with pytest.raises(BadInput, match="the same direction, or opposite"):
        joint_shift(torch.zeros(1, 8), [one, other], [0.9, 0.9], ["at_least", "at_least"])
    near = Concept(SITE, one.weight + 1e-3 * torch.randn(8), one.bias)
    assert joint_shift(torch.zeros(1, 8), [one, near], [0.9, 0.9], ["at_least", "at_least"]).condition > 1000
    with pytest.raises(BadInput, match="no bound"):
        joint_shift(torch.zeros(1, 8), [one], [0.9], ["exactly"])
    with pytest.raises(BadInput, match="one of each"):
        joint_shift(torch.zeros(1, 8), [one], [0.9, 0.1], ["at_least"])


# What is particular to each -------------------------------------------------------------------------------------------


def test_gcav_input_reads_prompts_that_ask_for_the_concept(llama, small):
    edit = GCAV(site=SITE, form="input").fit(llama, small)
    sides = []
    for told in small.instructions:
        talks = [[{"role": "system", "content": told}, {"role": "user", "content": pair.prompt}] for pair in small.fit]
        sides.append(torch.stack([llama.read([talk], SITE, positions="last_prompt")[SITE][0] for talk in talks]))
    w, _ = probe_by_hand(*sides)
    assert float((edit.operator.weight - w).abs().max()) < 1e-3 * float(w.abs().max())
    with pytest.raises(BadInput, match="use form='replies'"):
        GCAV(site=SITE, form="input").fit(llama, small.fit)
    with pytest.raises(BadInput, match="did you mean input"):
        GCAV(site=SITE, form="inputs").fit(llama, small)


def test_gcav_output_keeps_prompts_that_were_answered_as_told(llama, small, monkeypatch):
    from optrode.steering import gcav

    answers: list[list[str]] = []

    def judge(texts: list[str]) -> np.ndarray:
        """The first instruction works on the first four, the second on the last four: two are left."""
        answers.append(texts)
        low = len(answers) == 2
        return np.array([0.1 if low and n >= 2 else 0.9 if n < 4 or low else 0.2 for n in range(len(texts))])

    monkeypatch.setattr(gcav, "fit_judge", lambda texts: judge)
    contrast = GCAV(form="output").contrast(llama, small, [SITE])
    assert len(contrast.groups) == 2 and contrast.groups == tuple(pair.group for pair in small.fit[2:4])
    answers.clear()
    monkeypatch.setattr(gcav, "fit_judge", lambda texts: lambda texts: np.full(len(texts), 0.9))
    with pytest.raises(BadInput, match="only 0 of 6 prompts"):
        GCAV(form="output").contrast(llama, small, [SITE])


@pytest.mark.parity("conva")
def test_conva_leaves_prompts_alone_that_do_not_touch_the_value(llama, pairs):
    inside = [f"Is it {name}?" for name in ("cat", "dog", "mat", "door", "tower", "sea")]
    outside = [f"The capital {name} stands there." for name in ("one", "two", "six", "ten", "Paris", "France")]
    data = op.data.Conditioned(pairs, inside, outside)
    edit = ConVA(site="layers.1-2.out", accuracy=0.0, last=0, positions="all").fit(llama, data)
    assert edit.condition.site in ("layers.0.out",)
    batch = llama.encode(inside + outside)
    plain = llama.read(batch, "logits")["logits"]
    with llama.edited(edit) as receipt:
        got = llama.read(batch, "logits")["logits"]
    met = receipt.conditions[0].met
    assert sum(met[n] for n in range(6)) >= 5 and sum(met[n] for n in range(6, 12)) <= 1
    for row in range(12):
        assert torch.equal(got[row], plain[row]) is not met[row]
    free = ConVA(site="layers.1-2.out", accuracy=0.0, last=0, positions="all", gate="none").fit(llama, data)
    with llama.edited(free):
        everywhere = llama.read(batch, "logits")["logits"]
    same = [row for row in range(12) if met[row]]
    assert torch.allclose(got[same], everywhere[same], atol=1e-5)


def test_conva_leaves_the_last_blocks_out(llama, pairs):
    edit = ConVA(accuracy=0.0, last=1, gate="none").fit(llama, pairs)
    assert [leaf.site for leaf in edit.leaves()] == ["layers.0.out", "layers.1.out"]
    with pytest.raises(BadInput, match="use a smaller last="):
        ConVA(accuracy=0.0, last=3).fit(llama, pairs)
    with pytest.raises(BadInput, match="did you mean none"):
        ConVA(gate="non").fit(llama, pairs)


def test_conva_is_gcavs_shift(llama, pairs):
    one = ConVA(site=SITE, gate="none", probability=0.99, positions="all").fit(llama, pairs)
    other = GCAV(site=SITE, probability=0.99, positions="all").fit(llama, pairs)
    assert all(torch.equal(a, b) for a, b in zip(one.tensors().values(), other.tensors().values(), strict=True))


@pytest.mark.parity("scav")
def test_the_official_skew_reads_a_blocks_input_and_edits_its_output(llama, twin, pairs):
    edit = SCAV(site=SITE, skewed=True).fit(llama, pairs)
    w, _ = probe_by_hand(*rows_by_hand(twin(llama), pairs, 0))
    assert edit.site == SITE and float((edit.operator.weight - w).abs().max()) < 1e-4 * float(w.abs().max())
    assert float(edit.operator.target) == pytest.approx(logit(1e-4), rel=1e-6)
    with pytest.raises(BadInput, match="a block's input"):
        SCAV(site="layers.1.mlp.out", skewed=True).fit(llama, pairs)


@pytest.mark.parity("scav")
def test_the_audit_gives_accuracy_and_the_relative_shift_of_each_layer(llama, twin, pairs):
    plain, rows = twin(llama), SCAV().audit(llama, pairs)
    assert [row["site"] for row in rows] == [f"layers.{layer}.out" for layer in range(3)]
    for layer, row in enumerate(rows):
        high, low = rows_by_hand(plain, pairs, layer)
        w, b = probe_by_hand(high, low)
        for name, p in (("to_boundary", 0.5), ("to_target", 1e-4)):
            lengths = (shifted_by_hand(high, w, b, p, "at_most") - high).norm(dim=-1) / high.norm(dim=-1)
            assert row[name]["value"] == pytest.approx(float(lengths.mean()), rel=1e-3)
            assert row[name]["low"] <= row[name]["value"] <= row[name]["high"]
        assert 0 <= row["accuracy"] <= 1


@pytest.mark.parametrize("name", KINDS)
def test_against_is_the_mirror_target(name):
    method = KINDS[name]()
    towards, away = method.facing(1), method.facing(-1)
    assert towards.side == "at_least" and away.side == "at_most"
    assert towards.probability == pytest.approx(1 - away.probability) and towards.probability > 0.5


@pytest.mark.parametrize(
    ("settings", "says"), [({"probability": 1.0}, "between 0 and 1"), ({"side": "at_lest"}, "did you mean at_least")]
)
def test_targets_that_cannot_be_are_told(llama, pairs, settings, says):
    with pytest.raises(BadInput, match=says):
        GCAV(site=SITE, **settings).fit(llama, pairs)
    with pytest.raises(BadInput, match="zero"):
        edits.reach(SITE, torch.zeros(4), 0.0, 0.9)


def test_conversations_are_read_at_their_last_token(llama, pairs):
    contrast = GCAV().contrast(llama, pairs, [SITE])
    alone = llama.read([conversation(pairs[2].prompt, pairs[2].negative)], SITE)[SITE][0, -1]
    torch.testing.assert_close(contrast.negative[SITE][2], alone, atol=1e-4, rtol=1e-4)
