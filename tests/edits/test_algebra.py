"""The structure of sums, chains and strengths; what they do to numbers is in properties/test_12_algebra.py."""

from __future__ import annotations

import math

import pytest
import torch

from optrode import edits
from optrode.edits import Chain, PrefixEdit, Provenance, SiteEdit, Sum
from optrode.errors import BadInput, NotFinite, NotSupported
from optrode.positions import Positions


class Everywhere:
    """Places in which every position is selected, and which counts how often it was asked."""

    def __init__(self, rows: int):
        self.rows = rows
        self.asked: list[str] = []

    def select(self, positions: Positions):
        self.asked.append(positions.text)
        return None, torch.arange(self.rows)


def run(edit, h: torch.Tensor, address: str = "layers.1.out") -> torch.Tensor:
    change = edit.at(address, lambda pattern, at: pattern == at)
    return h if change is None else change(h, Everywhere(len(h)))


H = torch.tensor([[1.0, -2.0, 4.0], [0.5, 3.0, -1.0]], dtype=torch.float64)
V = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
ADD, DOUBLE = edits.add("layers.1.out", V), edits.scale("layers.1.out", 2.0)


def test_strengths_multiply_and_do_not_touch_the_original():
    assert (ADD * 2 * 3).strength == 6 and (2 * ADD).strength == 2 and (-ADD).strength == -1 and ADD.strength == 1
    assert torch.equal(run(ADD * -2, H), H - 2 * V)
    assert torch.equal(run(DOUBLE * 0.5, H), 1.5 * H)


def test_a_sum_takes_changes_from_the_same_activation_and_a_chain_in_turn():
    assert torch.equal(run(ADD + DOUBLE, H), 2 * H + V)
    assert torch.equal(run(ADD >> DOUBLE, H), 2 * (H + V))
    assert torch.equal(run(DOUBLE >> ADD, H), 2 * H + V)
    assert torch.equal(run((ADD >> DOUBLE) * 0.5, H), H + 0.5 * (2 * (H + V) - H))
    assert torch.equal(run((ADD + DOUBLE) * 3, H), H + 3 * V + 3 * H)
    assert torch.equal(run((ADD >> DOUBLE) + ADD, H), 2 * (H + V) + V)
    assert torch.equal(run((ADD + DOUBLE) >> ADD, H), 2 * H + 2 * V)
    assert torch.equal(run(ADD - ADD, H), H)


def test_sums_and_chains_flatten_only_where_that_is_the_same():
    assert len((ADD + DOUBLE + ADD).parts) == 3 and len((ADD >> DOUBLE >> ADD).parts) == 3
    assert len(((ADD + DOUBLE) * 2 + ADD).parts) == 3
    scaled = ((ADD >> DOUBLE) * 2) >> ADD
    assert len(scaled.parts) == 2 and torch.equal(run(scaled, H), H + 2 * (2 * (H + V) - H) + V)


def test_strength_zero_is_nothing_at_all():
    for nothing in (ADD * 0, (ADD + DOUBLE) * 0, (ADD >> DOUBLE) * 0, ADD * 0 + DOUBLE * 0, ADD * 0 >> DOUBLE * 0):
        assert nothing.at("layers.1.out", lambda pattern, at: True) is None
        assert all(leaf.strength == 0 for leaf in nothing.leaves())
    assert torch.equal(run(ADD * 0 + DOUBLE, H), 2 * H)
    assert torch.equal(run((DOUBLE >> DOUBLE) * 0 + ADD, H), H + V)


def test_parts_at_other_sites_stay_there():
    elsewhere = edits.zero_ablate("layers.2.out")
    assert torch.equal(run(ADD + elsewhere, H), H + V) and torch.equal(run(ADD >> elsewhere, H), H + V)
    assert (ADD + elsewhere).patterns() == ["layers.1.out", "layers.2.out"]
    assert (ADD + elsewhere).at("layers.0.out", lambda pattern, at: pattern == at) is None


@pytest.mark.parametrize("strength", [math.nan, math.inf, -math.inf])
def test_a_strength_is_a_finite_number(strength: float):
    for edit in (ADD, ADD + DOUBLE, ADD >> DOUBLE):
        with pytest.raises(NotFinite, match="finite"):
            edit * strength
    with pytest.raises(NotFinite):
        ADD * 1e300 * 1e300


def test_kinds_that_do_not_combine_say_so():
    prompt = edits.prompt("Be brief.")
    for wrong in (
        lambda: prompt * 2, lambda: -prompt, lambda: prompt + ADD, lambda: ADD + prompt, lambda: prompt >> ADD,
        lambda: ADD >> prompt, lambda: ADD - prompt, lambda: prompt - prompt,
    ):  # fmt: skip
        with pytest.raises(NotSupported):
            wrong()
    with pytest.raises(BadInput, match="both are empty"):
        PrefixEdit()


def test_provenance_reaches_every_leaf():
    known = Provenance(fingerprint={"config": "x"})
    for edit in (ADD, ADD + DOUBLE, (ADD >> DOUBLE) * 2, ADD + (DOUBLE >> ADD)):
        changed = edit.with_provenance(known)
        assert type(changed) is type(edit)
        assert all(leaf.provenance is known for leaf in changed.leaves())
        assert not any(leaf.provenance is known for leaf in edit.leaves())
        assert torch.equal(run(changed, H), run(edit, H))


def test_a_mask_leaves_the_other_rows_bit_equal():
    class Second(Everywhere):
        def select(self, positions: Positions):
            return torch.tensor([False, True]), torch.tensor([0, 5])

    by_place = edits.add_by_position("layers.1.out", torch.stack([V] * 6) * torch.arange(6.0)[:, None], "all")
    for edit, second in ((ADD, H[1] + V), (DOUBLE * -1, H[1] - H[1]), (by_place, H[1] + 5 * V)):
        change = edit.at("layers.1.out", lambda pattern, at: True)
        before = H.clone()
        new = change(H, Second(2))
        assert torch.equal(new[0], H[0]) and torch.equal(new[1], second)
        assert torch.equal(H, before), "the activation that was given is not written to"


def test_narrowing_to_features_and_heads():
    heads = torch.arange(24.0, dtype=torch.float64).reshape(2, 4, 3)
    one = torch.tensor([10.0], dtype=torch.float64)
    narrow = edits.add("layers.1.out", one, features=(2,), heads=(0, 3))
    new, wanted = run(narrow, heads), heads.clone()
    for row in range(2):
        for head in (0, 3):
            wanted[row, head, 2] += 10
    assert torch.equal(new, wanted)
    assert torch.equal(run(edits.zero_ablate("layers.1.out", heads=(1,)), heads)[:, 1], torch.zeros(2, 3))
    assert torch.equal(run(edits.zero_ablate("layers.1.out", features=(0, -1)), H), H * torch.tensor([0.0, 1, 0]))


def test_constructors_take_numbers_lists_and_tensors_that_have_a_graph():
    weight = torch.ones(3, requires_grad=True)
    assert not edits.add("layers.0.out", weight).operator.vector.requires_grad
    assert edits.scale("layers.0.out", 2).operator.factor.dtype == torch.float32
    assert torch.equal(edits.add("layers.0.out", [1, 2]).operator.vector, torch.tensor([1.0, 2.0]))
    edit = edits.add("layers.0.out", [1.0], "last_prompt")
    assert isinstance(edit, SiteEdit) and edit.positions == Positions("last_prompt")
    assert isinstance(ADD + edit, Sum) and isinstance(ADD >> edit, Chain)
    with pytest.raises(BadInput):
        edits.add("layers.0.out", [1.0], "the end")
