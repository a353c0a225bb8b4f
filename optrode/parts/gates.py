"""Fitting the condition of an edit: which prompts it is for, read at which site, above or below which threshold.

A gate is fitted on prompts inside and outside of a class. A direction is estimated on one part of them; layer,
threshold and comparison are then chosen by F1 on the other part, so that the F1 is no boast about its own data.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data import Conditioned, everyday_requests
from ..edits.conditions import COMPARISONS, Condition, condition
from ..errors import BadInput, NotFinite, did_you_mean
from ..model import Model
from .pairs import as_pairs

SEARCHES = ("midpoints", "official")
# The official code's grid, as its tutorial narrows it.
_OFFICIAL_GRID = np.arange(0.0, 0.06, 1e-4)

Estimator = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class GatePoint:
    """One site of the search: the best threshold there, the comparison that fires, and its F1 and rates.

    `margin` is the width of the gap that the threshold lies in, in standard deviations of all values. `inside` and
    `outside` are the shares of prompts of the class and of others that it fires on.
    """

    site: str
    threshold: float
    fires: str
    f1: float
    inside: float
    outside: float
    margin: float = 0.0


@dataclass(frozen=True)
class Gate:
    """A fitted condition, how well it tells the prompts apart that its direction was not fitted on, and all sites."""

    condition: Condition
    best: GatePoint
    points: tuple[GatePoint, ...]

    def recipe(self) -> dict[str, Any]:
        """What an edit file records of it."""
        best = self.best
        return {
            "gate_site": best.site, "gate_threshold": best.threshold, "gate_fires": best.fires, "gate_f1": best.f1,
            "gate_inside": best.inside, "gate_outside": best.outside,
        }  # fmt: skip


def prompts_of(data: Any) -> tuple[list[Any], list[Any]]:
    """Prompts inside and outside of the class that an edit is for.

    `Conditioned` data names both. For pairs or a `Behaviour` the class is what the pairs ask, and the others are
    `optrode.data.everyday_requests`. Raises `BadInput` where one class is empty, or both share a prompt.
    """
    if isinstance(data, Conditioned):
        inside, outside = list(data.inside), list(data.outside)
    else:
        inside = list(dict.fromkeys(pair.prompt for pair in as_pairs(data)))
        outside = [text for text in everyday_requests() if text not in inside]
    for name, prompts in (("inside", inside), ("outside", outside)):
        if len(prompts) < 2:
            raise BadInput(
                f"there are {len(prompts)} prompts {name} of the class: a condition needs at least two on either side"
            )
    shared = [prompt for prompt in inside if prompt in outside]
    if shared:
        raise BadInput(
            f"{len(shared)} prompts are inside and outside of the class, such as {shared[0]!r}: take them out"
        )
    return inside, outside


def pairs_of(data: Any) -> Any:
    """The contrast pairs in data that may come with a condition."""
    return data.pairs if isinstance(data, Conditioned) else data


def fit_gate(
    model: Model,
    inside: Sequence[Any],
    outside: Sequence[Any],
    sites: Sequence[str],
    estimator: Estimator,
    *,
    measure: str,
    positions: str = "content",
    search: str = "midpoints",
    read_at: Callable[[str], str] | None = None,
) -> Gate:
    """The condition that best tells prompts inside of a class from others, over sites, thresholds and comparisons.

    `estimator` takes rows [prompt, width] of both classes, means over `positions`, of equal number, and gives [width].
    Every second prompt of a class is for the estimator, the others choose site and threshold. `search`: `midpoints`
    tries every threshold that makes a difference and, of equally good ones, takes that in the widest gap, over all
    sites; `official` is
    the grid of the official code of arXiv 2409.05907, fitted and chosen on all prompts. `read_at` gives the site at
    which the estimator's rows are read, where that is another one.

    Costs one forward a prompt, up to the last site. Raises `BadInput`, `NotFinite`.
    """
    if search not in SEARCHES:
        raise BadInput(f"search '{search}' is not known: {did_you_mean(search, SEARCHES)}")
    origin = {site: read_at(site) if read_at else site for site in sites}
    prompts = [*inside, *outside]
    every = list(dict.fromkeys([*sites, *origin.values()]))
    acts = model.read(prompts, every, positions=positions, reduce="mean")
    rows = {site: value.float() for site, value in acts.items()}
    for site, value in rows.items():
        if not bool(torch.isfinite(value).all()):
            raise NotFinite(f"the activations at {site} hold NaN or infinity: use float32, or check the inputs")
    points: list[GatePoint] = []
    best: tuple[GatePoint, Tensor] | None = None
    for site in sites:
        fit_in, fit_out, test_in, test_out = _parted(rows[origin[site]], rows[site], len(inside), search)
        count = min(len(fit_in), len(fit_out))
        weight = estimator(fit_in[:count], fit_out[:count])
        read = condition(site, weight, measure=measure).measure
        point = best_threshold(read(test_in), read(test_out), site=site, search=search)
        points.append(point)
        # The official code keeps the first of equally good sites, and knows no margin.
        if best is None or (point.f1, point.margin) > (best[0].f1, best[0].margin):
            best = point, weight
    assert best is not None
    point, weight = best
    chosen = condition(
        point.site, weight, threshold=point.threshold, fires=point.fires, positions=positions, measure=measure
    )
    return Gate(chosen, point, tuple(points))


def _parted(origin: Tensor, rows: Tensor, inside: int, search: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rows to fit on, of both classes, and rows to choose by."""
    fit_in, fit_out, test_in, test_out = origin[:inside], origin[inside:], rows[:inside], rows[inside:]
    if search == "official":
        return fit_in, fit_out, test_in, test_out
    return fit_in[::2], fit_out[::2], test_in[1::2], test_out[1::2]


def best_threshold(inside: Tensor, outside: Tensor, *, site: str = "", search: str = "midpoints") -> GatePoint:
    """The threshold and comparison of largest F1 for values [prompt] inside and outside of a class."""
    high, low = (value.double().cpu().numpy() for value in (inside, outside))
    if search == "official":
        # Both comparisons at each threshold, `<` before `>`; the first of equally good ones stays, and it is rounded.
        tried = [(threshold, fires) for threshold in _OFFICIAL_GRID for fires in ("<=", ">")]
        scored = [(f1_of(high, low, threshold, fires), threshold, fires) for threshold, fires in tried]
        f1, threshold, fires = max(scored, key=lambda one: one[0])
        threshold, fires = round(float(threshold), 3), {"<=": "<", ">": ">"}[fires]
        return _point(site, high, low, threshold, fires, f1)
    values = np.unique(np.concatenate([high, low]))
    if len(values) < 2:
        raise BadInput("every prompt has the same value: the condition cannot tell the classes apart")
    middles, gaps = (values[1:] + values[:-1]) / 2, np.diff(values)
    found = [
        (f1_of(high, low, middle, fires), gap, middle, fires)
        for middle, gap in zip(middles, gaps, strict=True)
        for fires in (">", "<")
    ]
    f1, gap, threshold, fires = max(found, key=lambda one: (one[0], one[1]))
    return _point(site, high, low, float(threshold), fires, f1, float(gap / np.concatenate([high, low]).std()))


def _point(
    site: str, inside: np.ndarray, outside: np.ndarray, threshold: float, fires: str, f1: float, margin: float = 0.0
) -> GatePoint:
    shares = [float(_fired(values, threshold, fires).mean()) for values in (inside, outside)]
    return GatePoint(site, threshold, fires, float(f1), shares[0], shares[1], margin)


def f1_of(inside: np.ndarray, outside: np.ndarray, threshold: float, fires: str) -> float:
    """F1 of firing on the class: 2 hits / (2 hits + false alarms + misses); 0 where nothing fires."""
    hits, alarms = int(_fired(inside, threshold, fires).sum()), int(_fired(outside, threshold, fires).sum())
    return 2 * hits / (hits + alarms + len(inside)) if hits else 0.0


def _fired(values: np.ndarray, threshold: float, fires: str) -> np.ndarray:
    return COMPARISONS[fires](torch.from_numpy(values), threshold).numpy()
