"""The probe direction against scikit-learn used directly."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from optrode.steering.probe_direction import ProbeDirection

PROMPTS = ["How was the sea?", "Where does the Eiffel Tower stand, and what is the weather there?"]
SITE = "layers.1.out"


@pytest.mark.parametrize("penalty", [0.1, 1.0, 30.0])
def test_the_vector_is_the_weight_of_a_regression_on_standardised_rows(model, twin, pairs, penalty):
    plain = twin(model)
    texts = [(pair.prompt, pair.positive) for pair in pairs] + [(pair.prompt, pair.negative) for pair in pairs]
    rows = np.stack([plain.stream(plain.answered(*text), 1)[-1].double().numpy() for text in texts])
    labels = [1] * len(pairs) + [0] * len(pairs)
    fitted = make_pipeline(StandardScaler(), LogisticRegression(C=1 / penalty, max_iter=5000)).fit(rows, labels)
    wanted = fitted[-1].coef_[0] / fitted[0].scale_
    got = ProbeDirection(site=SITE, penalty=penalty).fit(model, pairs).operator.vector.double().numpy()
    assert np.abs(got - wanted).max() <= 2e-3 * np.abs(wanted).max()
    assert np.corrcoef(rows @ got, fitted.decision_function(rows))[0, 1] > 0.9999


def test_it_points_to_the_positive_side(llama, pairs):
    method = ProbeDirection(site=SITE)
    contrast = method.contrast(llama, pairs, SITE)
    high, low = contrast.at(SITE)
    vector = method.direction(high, low)
    assert float((high @ vector).mean()) > float((low @ vector).mean())
    torch.testing.assert_close(method.direction(low, high), -vector, atol=1e-4, rtol=1e-3)


def test_steered_logits_of_a_padded_batch_equal_rows_steered_by_hand(model, twin, library_logits, pairs):
    plain = twin(model)
    edit = ProbeDirection(site=SITE).fit(model, pairs)
    vector = 2 * edit.operator.vector
    for got, prompt in zip(library_logits(model, PROMPTS, edit * 2), PROMPTS, strict=True):
        start = len(plain.asked(prompt))

        def change(h: torch.Tensor, start: int = start) -> torch.Tensor:
            h = h.clone()
            h[:, start:] += vector
            return h

        wanted = plain.logits(plain.answered(prompt), 1, "out", change)
        torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-4)
