"""From names of statistics to the accumulators that bring them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from ..errors import BadInput, UnknownName, did_you_mean
from .accumulator import Accumulator
from .count import Count
from .covariance import Covariance
from .extremes import Extremes
from .histogram import Histogram, Magnitudes, log_edges
from .moments import Moments
from .norms import Norms
from .quantiles import Quantiles
from .sign_counts import SignCounts
from .top import Top

Shape = tuple[int, ...]
# A name of `NAMES`, or a function that makes an accumulator for rows of a shape.
Wanted: TypeAlias = "str | Callable[[Shape], Accumulator]"

DEFAULT: tuple[str, ...] = ("mean", "variance", "norms", "extremes", "signs")
_ORDERS = {"mean": 1, "variance": 2, "skewness": 3, "kurtosis": 4}
_MAKERS: dict[str, Callable[[Shape], Accumulator]] = {
    "count": Count,
    "covariance": Covariance,
    "extremes": Extremes,
    "top": Top,
    "quantiles": Quantiles,
    "histogram": lambda shape: Histogram(shape, log_edges(1e-3, 1e5)),
    "magnitudes": Magnitudes,
    "norms": Norms,
    "signs": SignCounts,
}
NAMES = (*_ORDERS, *_MAKERS)


def checked(collect: str | Sequence[Wanted]) -> list[Wanted]:
    """What was asked for as a list. Raises `UnknownName`, and `BadInput` for nothing."""
    wanted: list[Wanted] = [collect] if isinstance(collect, str) else list(collect)
    for name in wanted:
        if isinstance(name, str) and name not in NAMES:
            raise UnknownName(f"no statistic is called '{name}': {did_you_mean(name, NAMES)}")
    if not wanted:
        raise BadInput(f"nothing was asked for: collect= takes {', '.join(NAMES)}")
    return wanted


def accumulators(wanted: Sequence[Wanted], shape: Shape) -> dict[str, Accumulator]:
    """One accumulator for each kind that is needed, by kind; `count` is always among them."""
    made: list[Accumulator] = [Count(shape)]
    order = max((_ORDERS.get(name, 0) for name in wanted if isinstance(name, str)), default=0)
    if order:
        made.append(Moments(shape, order=max(2, order)))
    for name in wanted:
        if callable(name):
            made.append(name(shape))
        elif name in _MAKERS:
            made.append(_MAKERS[name](shape))
    return {accumulator.kind: accumulator for accumulator in made}
