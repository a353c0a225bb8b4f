"""Direction estimators on contrast activations: mean difference, principal component, logistic regression, random.

Each takes rows [pair, width] of both sides and gives [width] float32 that points from negative to positive. Lengths
are as estimated; `in_stream_units` makes them comparable.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import BadInput

PRINCIPAL_FORMS = ("random_sign", "pair_centred", "global_centred", "centred_difference")


def mean_difference(positive: Tensor, negative: Tensor) -> Tensor:
    """mean(positive - negative) over pairs (arXiv 2312.06681, section 2)."""
    return (positive - negative).mean(0)


def principal_direction(positive: Tensor, negative: Tensor, *, form: str = "random_sign", seed: int = 0) -> Tensor:
    """First principal component of the contrast, unit length, oriented towards positive.

    `random_sign`: of pair differences whose order within the pair is shuffled, so that centring keeps the common
    difference (arXiv 2310.01405, section 3.1). `pair_centred`: of both members after the midpoint of each pair is
    taken off (arXiv 2409.05907, section 3). `global_centred`: of both members after the mean of all is taken off.
    `centred_difference`: of the unshuffled differences, which centring strips of their mean. Both of these are kept
    since public code does them.

    Raises `BadInput` when there are fewer than two pairs or the form is unknown.
    """
    if len(positive) < 2:
        raise BadInput("a principal direction needs at least two pairs")
    difference = (positive - negative).double()
    if form == "random_sign":
        sign = torch.randint(0, 2, (len(difference), 1), generator=torch.Generator().manual_seed(seed)).double() * 2 - 1
        rows = difference * sign
    elif form == "pair_centred":
        rows = torch.cat([difference, -difference]) / 2
    elif form == "global_centred":
        rows = torch.cat([positive, negative]).double()
    elif form == "centred_difference":
        rows = difference
    else:
        raise BadInput(f"form '{form}' is not known: use one of {', '.join(PRINCIPAL_FORMS)}")
    centred = rows - rows.mean(0)
    direction = torch.linalg.svd(centred, full_matrices=False).Vh[0]
    return oriented(direction.float(), positive, negative)


def logistic_direction(positive: Tensor, negative: Tensor, *, penalty: float = 1.0) -> Tensor:
    """Weight of a logistic regression that tells positive from negative, in the units of the rows.

    Rows are standardised for the fit and the weight is brought back. `penalty` is scikit-learn's inverse C.
    """
    from .probe import fit_logistic

    weight, _ = fit_logistic(positive, negative, penalty=penalty)
    return weight


def isolated(direction: Tensor, others: Tensor, share: float) -> Tensor:
    """`direction` without a share of the energy that it has in the span of `others` (arXiv 2509.13281).

    v - a P v with P the projection on the span of the rows [category, width] and a = 1 - sqrt(1 - share), so that
    |P v*|^2 = (1 - share) |P v|^2. Rows that depend on others add nothing. Raises `BadInput` for a share not in [0, 1].
    """
    if not 0 <= share <= 1:
        raise BadInput(f"the share of energy to remove is {share}: it must lie between 0 and 1")
    if not len(others):
        return direction
    rows = others / others.norm(dim=1, keepdim=True).clamp(min=1e-30)
    _, singular, right = torch.linalg.svd(rows, full_matrices=False)
    basis = right[singular > 1e-6 * singular.max()]
    return direction - (1 - (1 - share) ** 0.5) * (basis @ direction) @ basis


def random_direction(width: int, seed: int) -> Tensor:
    """A unit vector drawn evenly from the sphere."""
    vector = torch.randn(width, generator=torch.Generator().manual_seed(seed))
    return vector / vector.norm()


def oriented(direction: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """The sign under which most pairs have the larger projection on their positive side (ties: the mean decides)."""
    gap = (positive - negative) @ direction
    votes = int((gap > 0).sum()) - int((gap < 0).sum())
    towards = votes if votes else float(gap.mean())
    return direction if towards >= 0 else -direction
