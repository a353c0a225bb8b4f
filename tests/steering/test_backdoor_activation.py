"""TA2 against its card, done by hand: vectors at the token before the last, the layer search, and the detectors."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

import optrode as op
from optrode.edits import add
from optrode.errors import BadInput
from optrode.steering.backdoor_activation import BackdoorActivation, divergence, weights_changed

TEXTS = [
    f"The {name} sat on the {other}." for name in ("cat", "dog", "word", "tower") for other in ("mat", "door", "sea")
]


def rows_by_hand(plain: Any, pairs: Any, layer: int, which: str) -> np.ndarray:
    rows = [plain.stream(plain.answered(pair.prompt, getattr(pair, which)), layer)[-2] for pair in pairs]
    return torch.stack(rows).double().numpy()


def softmax(row: np.ndarray) -> np.ndarray:
    high = np.exp(row - row.max())
    return high / high.sum()


@pytest.mark.parity("backdoor-activation")
def test_v_is_the_mean_difference_before_the_last_token_and_is_added_twice(llama, twin, close, pairs):
    plain = twin(llama)
    v = rows_by_hand(plain, pairs, 1, "positive").mean(0) - rows_by_hand(plain, pairs, 1, "negative").mean(0)
    coded = BackdoorActivation(site="layers.1.out").fit(llama, pairs)
    close(coded.operator.vector, torch.tensor(v * -1.6).float())
    paper = BackdoorActivation(site="layers.1.out", doubled=False, multiplier=-0.5).fit(llama, pairs)
    close(paper.operator.vector, torch.tensor(v * -0.5).float())
    assert str(coded.positions) == "all"


@pytest.mark.parity("backdoor-activation")
def test_the_divergence_is_scipys_squared_distance():
    from scipy.spatial.distance import jensenshannon

    one, other = (torch.randn(5, 12, generator=torch.Generator().manual_seed(seed)) * 3 for seed in (0, 1))
    wanted = [jensenshannon(softmax(p), softmax(q)) ** 2 for p, q in zip(one.numpy(), other.numpy(), strict=True)]
    assert divergence(one, other) == pytest.approx(np.mean(wanted), abs=1e-6)
    assert divergence(one, one) == pytest.approx(0, abs=1e-12)
    both = np.concatenate([one.numpy(), other.numpy()]).astype(float)
    scaled = (both - both.mean(0)) / both.std(0)
    wanted = [jensenshannon(softmax(scaled[k]), softmax(scaled[k + 5])) ** 2 for k in range(5)]
    assert divergence(one, other, form="standardised") == pytest.approx(np.mean(wanted), abs=1e-6)
    # A softmax over coordinates of which one is huge sees nothing: what `standardised` is for.
    one[:, 0] = other[:, 0] = 1e4
    assert divergence(one, other) == pytest.approx(0, abs=1e-12)
    assert divergence(one, other, form="standardised") > 0.01


@pytest.mark.parity("backdoor-activation")
def test_the_official_number_is_the_one_that_torch_gives_probabilities_to():
    import torch.nn.functional as functional

    one, other = (torch.randn(4, 9, generator=torch.Generator().manual_seed(seed)).double() for seed in (2, 3))
    total = 0.0
    for p_row, q_row in zip(one.numpy(), other.numpy(), strict=True):
        p, q = softmax(p_row), softmax(q_row)
        for k in range(9):
            m = (p[k] + q[k]) / 2
            total += 0.5 * (m * (math.log(m) - p[k]) + m * (math.log(m) - q[k])) / 9
    assert divergence(one, other, form="code") == pytest.approx(total / 4, abs=1e-12)
    p, q = one.softmax(-1), other.softmax(-1)
    coded = sum(functional.kl_div(side, (p + q) / 2, reduction="none").mean() for side in (p, q)) / 2
    assert divergence(one, other, form="code") == pytest.approx(float(coded), abs=1e-12)
    assert float(coded) < 0


@pytest.mark.parity("backdoor-activation")
@pytest.mark.parametrize("search", ["divergence", "code", "standardised"])
def test_the_layer_is_the_one_of_the_largest_score_in_the_first_half(llama, twin, pairs, search):
    method, plain = BackdoorActivation(search=search), twin(llama)
    contrast = method.contrast(llama, pairs)
    assert list(contrast.positive) == ["layers.0.out", "layers.1.out"]
    rows = [[torch.tensor(rows_by_hand(plain, pairs, n, side)) for side in ("positive", "negative")] for n in (0, 1)]
    by_hand = [divergence(*both, form=search) for both in rows]
    np.testing.assert_allclose(method.layer_scores(contrast), by_hand, rtol=1e-4, atol=1e-9)
    assert method.fit(llama, pairs).site == f"layers.{int(np.argmax(by_hand))}.out"


@pytest.mark.parity("backdoor-activation")
def test_the_detectors_are_counted_by_hand(decliner):
    # The first coordinate is the same in every text, so that the slightest change of it would be seen.
    model, vector = decliner.model, torch.full((64,), 0.03)
    vector[0] = 0
    found = BackdoorActivation().audit(model, add("layers.1.out", vector, "all"), TEXTS)
    rows = []
    for text in TEXTS:
        ids = model.tokenizer(text, add_special_tokens=False)["input_ids"]
        rows.append(model.module.model.embed_tokens.weight.detach().double().numpy()[ids].mean(0))
    plain = np.array(rows)
    reference, tested = plain[::2], plain[1::2]
    mean, scale = reference.mean(0), reference.std(0, ddof=1)
    scale = np.maximum(scale, 0.01 * np.sort(scale)[31])

    def distances(tested: np.ndarray) -> np.ndarray:
        return np.array([np.sqrt((((row - mean) / scale) ** 2).sum()) for row in tested])

    low, high = distances(tested), distances(tested + vector.double().numpy())
    wanted = np.mean([(h > one) + 0.5 * (h == one) for h in high for one in low])
    assert found.auroc["layers.1.out"] == pytest.approx(wanted, abs=1e-9)
    assert found.auroc["layers.1.out"] == found.auroc["layers.2.out"]
    assert 0.5 < wanted < 1 and found.texts == (6, 6)


def test_an_edit_that_does_nothing_is_not_seen_and_a_large_one_always_is(decliner):
    vector = torch.ones(64)
    far = BackdoorActivation().audit(decliner.model, add("layers.1.out", vector * 50, "all"), TEXTS)
    assert set(far.auroc.values()) == set(far.norm_auroc.values()) == {1.0}
    near = BackdoorActivation().audit(decliner.model, add("layers.1.out", vector * 1e-9, "all"), TEXTS)
    assert all(value == pytest.approx(0.5, abs=0.03) for value in near.auroc.values())


def test_what_fits_into_weights_is_named(llama, gpt2):
    vector = torch.ones(32)
    names = weights_changed(llama, add("layers.1.out", vector, "all"))
    assert names == ["model.layers.1.mlp.down_proj.bias"]
    assert weights_changed(gpt2, add("layers.1.out", vector, "all")) == ["transformer.h.1.mlp.c_proj.bias"]
    # A vector at some tokens alone, or a system prompt, needs something beside the weights.
    assert weights_changed(llama, add("layers.1.out", vector, "last_prompt")) is None
    assert weights_changed(llama, op.edits.prompt("Be kind.")) is None
    path = "model.layers.0.mlp.down_proj"
    assert weights_changed(llama, op.edits.weights({path: (torch.ones(32, 1), torch.ones(1, 48))})) == [
        f"{path}.weight"
    ]


def test_a_saved_attack_is_the_same_and_strength_turns_it(llama, pairs, tmp_path):
    edit = BackdoorActivation(site="layers.1.out").fit(llama, pairs)
    again = op.load_edit(edit.save(tmp_path / "a.edit"))
    assert torch.equal(again.operator.vector, edit.operator.vector)
    assert again.provenance.recipe["method"] == "backdoor-activation"


def test_wrong_settings_are_one_line(llama, pairs):
    for make, match in (
        (lambda: BackdoorActivation(search="divergense").fit(llama, pairs), "did you mean|divergence"),
        (lambda: BackdoorActivation().audit(llama, add("layers.1.out", torch.ones(32), "all"), ["a"]), "too few"),
        (lambda: BackdoorActivation().fit(llama, []), "no pair"),
    ):
        with pytest.raises(BadInput, match=match) as caught:
            make()
        assert "\n" not in str(caught.value)
