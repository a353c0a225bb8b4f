"""Signal through depth: how the variance and the correlation of a wide random network's layers go from one to the next.

Layers are h -> f(W h + b) with W of variance weight_variance / width and b of variance bias_variance; in the limit of
width, pre-activations are Gaussian (arXiv 1606.05340, 1611.01232). `measured` is what a network of finite width does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import BadInput, NotFinite
from .moments import curve_of, product_moment, second_moment
from .of_formula import FormulaFunction
from .protocol import Function

if TYPE_CHECKING:
    import altair


@dataclass(frozen=True)
class Signal:
    """What `maps` gives, one entry for each layer, the input's first.

    variance: of pre-activations. correlation: between those of two inputs. slope: chi = weight_variance E[f'^2], the
    factor by which small differences and gradients grow in one layer; 1 is the edge of chaos.
    """

    variance: tuple[float, ...]
    correlation: tuple[float, ...]
    slope: tuple[float, ...]

    def plot(self) -> altair.Chart:
        """Variance, correlation and slope by layer, one panel each."""
        from .maps_chart import plot

        return plot(self)


def gain(function: str | Function, depth: int | None = None) -> float:
    """The factor on weights of variance 1/width that keeps a signal's size, as `torch.nn.init.calculate_gain`.

    Without a depth, 1/sqrt(E[f(z)^2]), z standard normal: pre-activations of variance 1 have variance 1 in every layer
    after. With a depth, the factor that keeps the gradient's size instead: the product of the slopes of that many
    layers is 1, which is the edge of chaos of a network of finite depth. It is found by bisection. Raises `NotFinite`
    where the moment has no value, `BadInput` for functions that mix elements.

    >>> round(gain("relu"), 6), round(gain("tanh"), 3)
    (1.414214, 1.593)
    """
    f = curve_of(function)
    second = second_moment(f, 1.0)
    if not (math.isfinite(second) and second > 0):
        raise NotFinite(f"the mean square of {f.name} under a normal input is {second}, so it has no gain")
    if depth is None:
        return 1 / math.sqrt(second)
    if depth < 1:
        raise BadInput(f"depth is {depth}: count at least one layer")
    low, high = 1e-3, 1e3
    for _ in range(60):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if _log_slopes(f, depth, middle * middle) < 0 else (low, middle)
    return math.sqrt(low * high)


def _log_slopes(f: FormulaFunction, depth: int, weight_variance: float) -> float:
    """The sum of the layers' log slopes, from variance 1, as far as the signal stays in a useful range."""
    q, total = 1.0, 0.0
    for _ in range(depth):
        slope = weight_variance * second_moment(f, q, 1)
        if not (slope > 0 and 1e-12 < q < 1e12):
            break
        total += math.log(slope)
        q = weight_variance * second_moment(f, q)
    return total


def maps(
    function: str | Function,
    depth: int,
    *,
    weight_variance: float = 1.0,
    bias_variance: float = 0.0,
    variance: float = 1.0,
    correlation: float = 0.5,
) -> Signal:
    """Variance, correlation and slope by layer, from those of the first layer's pre-activations.

    Raises `BadInput` for functions that mix elements. Cost: milliseconds a layer.
    """
    f = curve_of(function)
    q, c = [float(variance)], [float(correlation)]
    slopes = [weight_variance * second_moment(f, q[0], 1)]
    for _ in range(depth):
        mixed = weight_variance * product_moment(f, q[-1], c[-1]) + bias_variance
        q.append(weight_variance * second_moment(f, q[-1]) + bias_variance)
        c.append(max(-1.0, min(1.0, mixed / q[-1])) if q[-1] > 0 else 1.0)
        slopes.append(weight_variance * second_moment(f, q[-1], 1))
    return Signal(tuple(q), tuple(c), tuple(slopes))
