"""Corpus vectors and several behaviours at once against their card, done by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import optrode as op
from optrode.data import Categorised
from optrode.edits import add, scale
from optrode.errors import BadInput
from optrode.steering.broad_skills import BroadSkills, merged, permuted, simultaneous
from optrode.steering.caa import CAA

SITE = "layers.1.out"
TEXTS = Categorised(
    target=["The cat sat on the mat.", "Paris is the capital of France.", "A dog lay by the door and slept."],
    others={},
    neutral=["def f(x): return x", "for i in range(3): print(i)"],
)
VECTORS = [torch.randn(32, generator=torch.Generator().manual_seed(seed)) for seed in range(4)]


@pytest.mark.parity("broad-skills")
@pytest.mark.parametrize("reading", ["last", "mean"])
def test_v_is_the_difference_of_streaming_means(model, twin, close, reading):
    plain, means = twin(model), []
    for texts in (TEXTS.target, TEXTS.neutral):
        mean = 0.0
        for count, text in enumerate(texts, 1):
            rows = plain.stream(plain.ids(text), 1).double()
            row = rows[-1] if reading == "last" else rows.mean(0)
            mean = mean + (row - mean) / count
        means.append(mean)
    edit = BroadSkills(site=SITE, reading=reading).fit(model, TEXTS)
    close(edit.operator.vector, (means[0] - means[1]).float())
    assert str(edit.positions) == "all"


@pytest.mark.parity("broad-skills")
def test_on_questions_it_is_caa(model, pairs):
    own = BroadSkills(site=SITE).fit(model, pairs)
    caa = CAA(site=SITE).fit(model, pairs)
    torch.testing.assert_close(own.operator.vector, caa.operator.vector, atol=1e-6, rtol=1e-5)


@pytest.mark.parity("broad-skills")
def test_merging_is_linear_and_orthogonal_parts_share_nothing():
    edits = [add(SITE, vector, "all") * (number + 1.0) for number, vector in enumerate(VECTORS)]
    plain = np.stack([(number + 1.0) * vector.numpy() for number, vector in enumerate(VECTORS)]).astype(float)
    total = merged(edits, SITE).operator.vector.numpy()
    np.testing.assert_allclose(total, plain.sum(0), atol=1e-5)
    np.testing.assert_allclose(merged([e * 2 for e in edits], SITE).operator.vector.numpy(), 2 * total, atol=1e-5)
    np.testing.assert_allclose(merged(edits, SITE, form="mean").operator.vector.numpy(), plain.mean(0), atol=1e-5)
    apart = np.zeros(32)
    for row in range(4):
        others = np.delete(plain, row, 0)
        coefficients = np.linalg.lstsq(others.T, plain[row], rcond=None)[0]
        left = plain[row] - coefficients @ others
        assert np.abs(others @ left).max() < 1e-9 * np.abs(plain).max() * 32
        apart += left
    np.testing.assert_allclose(merged(edits, SITE, form="orthogonal").operator.vector.numpy(), apart, atol=1e-4)


@pytest.mark.parity("broad-skills")
def test_simultaneous_at_one_layer_is_the_single_edit_and_at_two_both(llama, library_logits):
    fitted = {
        name: {layer: add(f"layers.{layer}.out", vector, "all") for layer in range(3)}
        for name, vector in zip(("one", "other"), VECTORS, strict=False)
    }
    prompts = ["The cat", "Where is Paris?"]
    single = library_logits(llama, prompts, fitted["one"][1])
    for got, wanted in zip(library_logits(llama, prompts, simultaneous(fitted, {"one": 1})), single, strict=True):
        assert torch.equal(got, wanted)
    both = library_logits(llama, prompts, simultaneous(fitted, {"one": 0, "other": 2}))
    nested = library_logits(llama, prompts, fitted["one"][0], fitted["other"][2])
    for got, wanted in zip(both, nested, strict=True):
        torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-5)


def test_the_control_has_the_same_coordinates_in_another_order():
    edit = add(SITE, VECTORS[0], "all")
    control = permuted(edit, 3)
    assert torch.equal(control.operator.vector.sort().values, VECTORS[0].sort().values)
    assert not torch.equal(control.operator.vector, VECTORS[0])
    assert torch.equal(permuted(edit, 3).operator.vector, control.operator.vector)


def test_wrong_settings_are_one_line(llama):
    edit = add(SITE, VECTORS[0], "all")
    for make, match in (
        (lambda: BroadSkills(site=SITE, reading="lasst").fit(llama, TEXTS), "reading"),
        (lambda: BroadSkills(site=SITE).fit(llama, Categorised([], {}, TEXTS.neutral)), "'target' is empty"),
        (lambda: merged([edit], SITE, form="summ"), "form"),
        (lambda: merged([], SITE), "at least one edit"),
        (lambda: merged([scale(SITE, 2.0)], SITE), "add a vector"),
        (lambda: simultaneous({"a": {1: edit}, "b": {1: edit}}, {"a": 1, "b": 1}), "same layer"),
        (lambda: simultaneous({"a": {1: edit}}, {"a": 2}), "was not fitted"),
    ):
        with pytest.raises(BadInput, match=match) as caught:
            make()
        assert "\n" not in str(caught.value)
    assert op.steering.BroadSkills is BroadSkills
