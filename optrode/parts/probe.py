"""Linear probes with group-aware splits: what can be read from a site, and by how much it beats chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ..errors import BadInput
from ..model import Model
from ..scores import LinearScore
from .contrast import Contrast, read_contrast
from .method import Method
from .pairs import as_pairs, conversation
from .statistics import Interval, bootstrap_mean


@dataclass(frozen=True)
class LinearProbe(Method):
    """Logistic regression on one site's activations, at one token per conversation.

    `fit` takes pairs (see `parts.pairs.as_pairs`) and gives a `LinearScore`: log-odds of the positive side.
    """

    id: ClassVar[str] = "linear-probe"
    title: ClassVar[str] = "linear probe"

    site: str
    positions: str = "last_prompt"
    penalty: float = 1.0

    def fit(self, model: Model, data: Any) -> LinearScore:
        """Raises `UnknownSite`, `BadInput` (empty or one-class data, more than one site), `NotFinite`."""
        pairs = as_pairs(data)
        sites = [found.address for found in model.match(self.site)]
        if len(sites) > 1:
            raise BadInput(
                f"'{self.site}' selects {len(sites)} sites, but a linear probe reads one: fit one probe each"
            )
        address = sites[0]
        contrast = read_contrast(
            model,
            [conversation(pair.prompt, pair.positive) for pair in pairs],
            [conversation(pair.prompt, pair.negative) for pair in pairs],
            address,
            positions=self.positions,
        )
        weight, bias = fit_logistic(*contrast.at(address), penalty=self.penalty)
        return LinearScore(address, weight, bias, self.positions)


def fit_logistic(
    positive: Tensor, negative: Tensor, *, penalty: float = 1.0, standardised: bool = True
) -> tuple[Tensor, float]:
    """Weight [width] float32 and bias of a logistic regression on standardised rows, brought back to their units.

    `standardised=False` fits the rows as they are, in which the penalty weighs wide coordinates less.
    """
    from sklearn.linear_model import LogisticRegression

    if not len(positive) or not len(negative):
        raise BadInput("a probe needs rows of both classes: one is empty")
    rows = torch.cat([positive, negative]).double().cpu().numpy()
    labels = np.repeat([1, 0], [len(positive), len(negative)])
    mean, scale = rows.mean(0), rows.std(0) + 1e-9
    if not standardised:
        # One scale for all coordinates, and a C that makes up for it, so that the solver meets numbers near 1.
        scale = np.full_like(scale, scale.max())
        settings = {"C": float(scale[0]) ** 2 / penalty, "max_iter": 10_000, "tol": 1e-8}
    else:
        settings = {"C": 1.0 / penalty, "max_iter": 2000}
    model = LogisticRegression(**settings).fit((rows - mean) / scale, labels)
    weight = model.coef_[0] / scale
    bias = float(model.intercept_[0] - weight @ mean)
    return torch.tensor(weight, dtype=torch.float32), bias


def cross_validated_accuracy(
    contrast: Contrast, site: str, *, folds: int = 5, penalty: float = 1.0, standardised: bool = True
) -> Interval:
    """Accuracy on groups that the probe was not fitted on, with an interval over groups; chance is 0.5.

    Raises `BadInput` when there are fewer than two groups.
    """
    from sklearn.model_selection import GroupKFold

    positive, negative = contrast.at(site)
    groups = np.array(contrast.groups)
    if len(set(groups)) < 2:
        raise BadInput("cross-validation by group needs at least two groups of pairs")
    right = np.zeros(len(groups))
    for train, test in GroupKFold(min(folds, len(set(groups)))).split(groups, groups=groups):
        weight, bias = fit_logistic(positive[train], negative[train], penalty=penalty, standardised=standardised)
        on_positive = (positive[test] @ weight + bias > 0).numpy()
        on_negative = (negative[test] @ weight + bias <= 0).numpy()
        right[test] = (on_positive.astype(float) + on_negative) / 2
    return bootstrap_mean(right, groups=list(groups))


def accuracy_by_layer(contrast: Contrast, sites: Sequence[str]) -> list[dict[str, Any]]:
    """One entry per site: its layer and its cross-validated accuracy."""
    return [
        {
            "layer": int(site.split(".")[1]),
            "accuracy": cross_validated_accuracy(contrast, site).as_dict(),
            "chance": 0.5,
        }
        for site in sites
    ]
