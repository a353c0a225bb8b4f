"""The PCA control vector against principal components by numpy, in all three forms, and the rule of its sign."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from optrode.errors import BadInput
from optrode.parts.directions import PRINCIPAL_FORMS
from optrode.steering.control_vector import ControlVector

PROMPTS = ["How was the sea?", "Where does the Eiffel Tower stand, and what is the weather there?"]
SITE = "layers.1.out"


def component_by_numpy(positive: np.ndarray, negative: np.ndarray, form: str, seed: int) -> np.ndarray:
    """First principal component, as the eigenvector of the covariance, turned by the majority of the pairs."""
    rows = []
    signs = torch.randint(0, 2, (len(positive), 1), generator=torch.Generator().manual_seed(seed))
    for number, (high, low) in enumerate(zip(positive, negative, strict=True)):
        if form == "random_sign":
            rows.append((high - low) if int(signs[number]) else (low - high))
        elif form == "pair_centred":
            middle = (high + low) / 2
            rows += [high - middle, low - middle]
        elif form == "global_centred":
            # The covariance takes the mean of all off.
            rows += [high, low]
        else:
            rows.append(high - low)
    values, vectors = np.linalg.eigh(np.cov(np.array(rows).T))
    direction = vectors[:, values.argmax()]
    gaps = [h @ direction - low @ direction for h, low in zip(positive, negative, strict=True)]
    higher = sum(gap > 0 for gap in gaps)
    lower = len(gaps) - higher
    stays = higher > lower if higher != lower else sum(gaps) > 0
    return direction if stays else -direction


@pytest.mark.parametrize("seed", [0, 3])
@pytest.mark.parametrize("form", PRINCIPAL_FORMS)
def test_the_vector_is_the_first_component_by_numpy(model, twin, pairs, form, seed):
    plain = twin(model)
    sides = [
        np.stack([plain.stream(plain.answered(pair.prompt, reply), 1)[-1].double().numpy() for pair, reply in side])
        for side in ([(pair, pair.positive) for pair in pairs], [(pair, pair.negative) for pair in pairs])
    ]
    vector = ControlVector(site=SITE, form=form, seed=seed).fit(model, pairs).operator.vector
    wanted = torch.tensor(component_by_numpy(*sides, form, seed)).float()
    assert float(vector.norm()) == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(vector, wanted, atol=1e-4, rtol=0)


def test_the_forms_differ(llama, pairs):
    found = [ControlVector(site=SITE, form=form).fit(llama, pairs).operator.vector for form in PRINCIPAL_FORMS]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert float((found[one] - found[other]).norm()) > 1e-2


def test_centring_unshuffled_differences_strips_their_common_part():
    """Why the forms are kept apart: a common difference of 10 is seen by the others and lost to one."""
    generator = torch.Generator().manual_seed(0)
    common = torch.zeros(8)
    common[0] = 10.0
    low = torch.randn(40, 8, generator=generator)
    high = low + common + torch.randn(40, 8, generator=generator) * torch.tensor([0.1] + [1.0] * 7)
    along = {form: abs(float(ControlVector(form=form).direction(high, low)[0])) for form in PRINCIPAL_FORMS}
    assert along["random_sign"] > 0.99 and along["pair_centred"] > 0.99 and along["centred_difference"] < 0.2


def test_it_points_to_the_side_on_which_most_pairs_project_higher():
    differences = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [-9.0, 0.0]])
    zero = torch.zeros_like(differences)
    # The mean points to -x, but three pairs of four do not.
    assert float(ControlVector(form="centred_difference").direction(differences, zero)[0]) == pytest.approx(1)
    assert float(ControlVector(form="centred_difference").direction(zero, differences)[0]) == pytest.approx(-1)


def test_where_the_pairs_are_split_evenly_the_mean_decides():
    differences = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-9.0, 0.0], [-9.0, 0.0]])
    zero = torch.zeros_like(differences)
    assert float(ControlVector(form="centred_difference").direction(differences, zero)[0]) == pytest.approx(-1)


@pytest.mark.parametrize("strength", [-3.0, 5.0])
def test_steered_logits_of_a_padded_batch_equal_rows_steered_by_hand(model, twin, library_logits, pairs, strength):
    plain = twin(model)
    edit = ControlVector(site=SITE).fit(model, pairs)
    vector = strength * edit.operator.vector
    for got, prompt in zip(library_logits(model, PROMPTS, edit * strength), PROMPTS, strict=True):
        wanted = plain.logits(plain.answered(prompt), 1, "out", lambda h: h + vector)
        torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-4)


def test_one_pair_and_unknown_forms_are_refused(llama, pairs):
    with pytest.raises(BadInput, match="at least two pairs"):
        ControlVector(site=SITE).fit(llama, pairs[:1])
    with pytest.raises(BadInput, match="pair_centred"):
        ControlVector(site=SITE, form="pca").fit(llama, pairs)
