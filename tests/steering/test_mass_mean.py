"""The mass-mean direction against scikit-learn's linear discriminant analysis, and against CAA on the same replies."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.covariance import shrunk_covariance
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from optrode.errors import BadInput
from optrode.steering.caa import CAA
from optrode.steering.mass_mean import MassMean

SITE = "layers.1.out"


def rows(count: int = 40, width: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    mixed = torch.randn(width, width, generator=random)
    positive, negative = (torch.randn(count, width, generator=random) @ mixed for _ in range(2))
    return positive + torch.randn(width, generator=random), negative


@pytest.mark.parametrize("shrinkage", [0.01, 0.1, 1.0])
def test_whitened_is_the_weight_of_discriminant_analysis(shrinkage):
    positive, negative = rows()
    got = MassMean(form="whitened", shrinkage=shrinkage).direction(positive, negative).double().numpy()

    # scikit-learn standardises features before it shrinks a covariance; it is given ours, shrunk without that.
    class Shrunk:
        def fit(self, x: np.ndarray) -> Shrunk:
            pooled = (np.cov(positive.numpy().T, bias=True) + np.cov(negative.numpy().T, bias=True)) / 2
            self.covariance_ = shrunk_covariance(pooled, shrinkage)
            return self

    data = torch.cat([positive, negative]).double().numpy()
    labels = [1] * len(positive) + [0] * len(negative)
    fitted = LinearDiscriminantAnalysis(solver="lsqr", covariance_estimator=Shrunk()).fit(data, labels)
    wanted = fitted.coef_[0]
    assert np.abs(got - wanted).max() <= 1e-5 * np.abs(wanted).max()


def test_mean_is_the_direction_of_caa_on_replies(model, pairs, close):
    got = MassMean(site=SITE).fit(model, pairs).operator.vector
    close(got, CAA(site=SITE, form="replies").fit(model, pairs).operator.vector)


def test_whitening_separates_where_the_mean_is_drowned():
    """One channel varies widely and tells a little; another hardly varies and tells everything."""
    random = torch.Generator().manual_seed(1)
    positive, negative = (torch.randn(400, 2, generator=random) * torch.tensor([20.0, 0.1]) for _ in range(2))
    positive += torch.tensor([2.0, 1.0])
    mean, whitened = (
        MassMean(form=form, shrinkage=1e-4).direction(positive, negative) for form in ("mean", "whitened")
    )
    right = [
        float(((positive @ v) > (positive @ v + negative @ v).mean() / 2).float().mean()) for v in (mean, whitened)
    ]
    assert right[0] < 0.75 and right[1] > 0.99


def test_wrong_settings_are_told():
    positive, negative = rows()
    with pytest.raises(BadInput, match="did you mean whitened"):
        MassMean(form="whitend").direction(positive, negative)
    for shrinkage in (0.0, 1.5):
        with pytest.raises(BadInput, match="shrinkage must be above 0"):
            MassMean(form="whitened", shrinkage=shrinkage).direction(positive, negative)
