"""RepIt against its card: the paper's long way with whitening, the energy it leaves, and a planted topic."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

import optrode as op
from optrode.data import Categorised
from optrode.errors import BadInput
from optrode.parts.directions import isolated
from optrode.steering.repit import RepIt

SITE = "layers.1.in"
TARGET = [f"Is it {name}?" for name in ("cat", "dog", "mat", "door")]
OTHERS = {"places": ["Where is Paris?", "Where is the tower?"], "words": ["Say one word.", "Say a word, user."]}
NEUTRAL = [f"The capital {name} stands there." for name in ("one", "two", "six")]
DATA = Categorised(TARGET, OTHERS, NEUTRAL)
PROMPTS = ["How was the sea?", "Where does the Eiffel Tower stand, and what is the weather there?"]


def the_long_way(v: Tensor, others: Tensor, rho: float) -> Tensor:
    """Card, step 3: weights, covariance with a ridge, Cholesky, QR of what is whitened, back again."""
    weights = 1 / others.norm(dim=1)
    rows = others * (weights / weights.sum())[:, None]
    ridge = 1e-4 * rows.square().mean() + 1e-12
    covariance = rows.T @ rows / len(rows) + ridge * torch.eye(len(v), dtype=v.dtype)
    lower = torch.linalg.cholesky(covariance)
    white = torch.linalg.solve_triangular(lower, v[:, None], upper=False)[:, 0]
    q, _ = torch.linalg.qr(torch.linalg.solve_triangular(lower, rows.T, upper=False))
    white = white - (1 - math.sqrt(1 - rho)) * q @ (q.T @ white)
    return lower @ white


@pytest.mark.parity("repit")
@pytest.mark.parametrize("rho", [0.0, 0.33, 0.75, 0.99])
def test_the_closed_form_is_the_long_way(rho):
    made = torch.Generator().manual_seed(0)
    v, others = torch.randn(64, generator=made).double(), torch.randn(7, 64, generator=made).double() * 3
    left = isolated(v, others, rho)
    assert float((left - the_long_way(v, others, rho)).abs().max()) < 1e-9
    # The energy identity, and rho = 0 is v.
    q, _ = torch.linalg.qr(others.T)
    assert float((q.T @ left).square().sum()) == pytest.approx((1 - rho) * float((q.T @ v).square().sum()), rel=1e-9)
    assert rho or torch.equal(left, v)


def test_categories_that_repeat_each_other_change_nothing():
    made = torch.Generator().manual_seed(1)
    v, others = torch.randn(20, generator=made).double(), torch.randn(3, 20, generator=made).double()
    twice = torch.cat([others, 2 * others[:1], others[1:2] + others[2:]])
    assert torch.allclose(isolated(v, others, 0.8), isolated(v, twice, 0.8), atol=1e-9)
    assert torch.equal(isolated(v, others[:0], 0.8), v)
    with pytest.raises(BadInput, match="between 0 and 1"):
        isolated(v, others, 1.2)


@pytest.mark.parity("repit")
@pytest.mark.parametrize("towards", ["neutral", "target"])
def test_the_edit_is_affine_ablation_along_the_isolated_direction(llama, twin, towards):
    plain = twin(llama)

    def mean(prompts: list[str]) -> Tensor:
        return torch.stack([plain.stream(plain.answered(p), 1, "in")[-1].double() for p in prompts]).mean(0)

    neutral, target = mean(NEUTRAL), mean(TARGET)
    others = torch.stack([mean(prompts) - neutral for prompts in OTHERS.values()])
    left = the_long_way(target - neutral, others, 0.75)
    u, goal = left / left.norm(), neutral if towards == "neutral" else target
    edit = RepIt(site=SITE, towards=towards).fit(llama, DATA)
    assert float((edit.operator.basis[0] - u).abs().max()) < 1e-4
    assert edit.provenance.recipe["kept"] == pytest.approx(float(left.norm() / (target - neutral).norm()), abs=1e-3)
    batch = llama.encode(PROMPTS)
    before = llama.read(batch, SITE)[SITE][batch.mask].double()
    with llama.edited(edit):
        after = llama.read(batch, SITE)[SITE][batch.mask].double()
    u = edit.operator.basis[0].double()
    wanted = before - torch.outer(before @ u, u) + float(goal @ u) * u
    assert float((after - wanted).abs().max()) < 1e-4 * float(wanted.abs().max())
    assert torch.allclose(after @ u, torch.full((len(after),), float(goal @ u)).double(), atol=1e-4)


def test_a_planted_topic_is_isolated_from_what_it_shares():
    """The target's direction is a part of its own and a part that all topics share: the shared part goes."""
    own, shared, else_ = torch.eye(30).double()[:3]
    others = torch.stack([shared + 0.5 * else_, shared - 0.5 * else_])
    left = isolated(own + shared, others, 0.99)
    assert float(left @ own) == pytest.approx(1) and float(left @ shared) == pytest.approx(0.1, abs=1e-6)


def test_the_audit_tells_what_is_left(llama):
    rows = RepIt(site=SITE).audit(llama, DATA)
    assert [row["rho"] for row in rows] == [0.0, 0.33, 0.66, 0.99]
    assert rows[0]["kept"] == pytest.approx(1) and rows[0]["cosine"] == pytest.approx(1)
    assert all(a["kept"] > b["kept"] for a, b in pairwise(rows))
    for name in OTHERS:
        assert abs(rows[-1]["others"][name]) < abs(rows[0]["others"][name])


def test_pairs_have_no_other_categories(llama, pairs):
    one, other = (RepIt(site=SITE, rho=rho).fit(llama, pairs) for rho in (0.0, 0.75))
    assert torch.equal(one.operator.basis, other.operator.basis)
    assert RepIt().facing(1).towards == "target" and RepIt().facing(-1).towards == "neutral"


@pytest.mark.parametrize(
    ("data", "settings", "says"),
    [
        (Categorised([], OTHERS, NEUTRAL), {}, "'target' is empty"),
        (Categorised(TARGET, {"birds": []}, NEUTRAL), {}, "'birds' is empty"),
        (Categorised(TARGET, OTHERS, []), {}, "'neutral' is empty"),
        (Categorised(TARGET, {"same": TARGET}, NEUTRAL), {"rho": 1.0}, "lies in the span of the others"),
        (DATA, {"towards": "away"}, "use neutral or target"),
        (DATA, {"rho": 2.0}, "between 0 and 1"),
    ],
)
def test_what_cannot_be_is_told(llama, data, settings, says):
    with pytest.raises(BadInput, match=says) as caught:
        RepIt(site=SITE, **settings).fit(llama, data)
    assert "\n" not in str(caught.value)
    assert op.steering.RepIt is RepIt
