"""What most built functions are made of. Coefficient lists stand on the last axis of a parameter, behind its channels.

Affine wrapper, gate over two halves, two pieces with a border, hinges and tables, polynomials by Horner and by
recurrence, blends with constraints, the mollified |x|, and a forward with another backward.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from ...errors import WrongShape

Map = Callable[[Tensor], Tensor]


def affine(g: Map, x: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """a g(b x + c) + d."""
    return a * g(b * x + c) + d


def halves(x: Tensor) -> tuple[Tensor, Tensor]:
    """Two equal halves of the features. Raises `WrongShape` for an odd number."""
    if x.shape[-1] % 2:
        raise WrongShape(f"a function of two halves needs an even number of features, not {x.shape[-1]}")
    first, second = x.chunk(2, dim=-1)
    return first, second


def pairs(x: Tensor) -> tuple[Tensor, Tensor]:
    """Features 0, 2, 4, ... and features 1, 3, 5, ..."""
    if x.shape[-1] % 2:
        raise WrongShape(f"a function of pairs needs an even number of features, not {x.shape[-1]}")
    return x[..., 0::2], x[..., 1::2]


def interleaved(first: Tensor, second: Tensor) -> Tensor:
    """The inverse of `pairs`."""
    return torch.stack([first, second], dim=-1).flatten(-2)


def two_pieces(x: Tensor, above: Tensor, below: Tensor, border: Tensor | float = 0.0) -> Tensor:
    """`above` where x is at the border or above it."""
    return torch.where(x >= border, above, below)


def hinge(x: Tensor) -> Tensor:
    return x.clamp(min=0)


def total(parts: Iterable[Tensor]) -> Tensor:
    """The sum, one part at a time, so that no list of large tensors is held."""
    found: Tensor | None = None
    for part in parts:
        found = part if found is None else found + part
    assert found is not None
    return found


def bins(x: Tensor, edges: Tensor) -> Tensor:
    """Which of the bins between inner edges (rising) x is in: bin 0 is below the first edge; edges belong upwards."""
    return torch.bucketize(x.detach().contiguous(), edges.detach().contiguous(), right=True)


def at(table: Tensor, index: Tensor) -> Tensor:
    """table[..., index] of a table [entries], or of [features, entries] with index [..., features]."""
    if table.dim() == 1:
        return table[index]
    return table.expand(*index.shape, table.shape[-1]).gather(-1, index[..., None])[..., 0]


def table_lookup(x: Tensor, values: Tensor, start: Tensor, step: Tensor) -> Tensor:
    """Linear interpolation of `values` at start + j step, with the end pieces continued outside."""
    place = (x - start) / step
    left = place.detach().floor().clamp(0, values.shape[-1] - 2).long()
    share = place - left
    return at(values, left) * (1 - share) + at(values, left + 1) * share


def polynomial(x: Tensor, coefficients: Tensor) -> Tensor:
    """Sum of c_j x^j by Horner's rule."""
    terms = coefficients.unbind(-1)
    found = terms[-1] + torch.zeros_like(x)
    for term in reversed(terms[:-1]):
        found = found * x + term
    return found


def chebyshev(x: Tensor, count: int) -> list[Tensor]:
    return recurrence(x, count, lambda j: (2.0, 0.0, 1.0))


def legendre(x: Tensor, count: int) -> list[Tensor]:
    return recurrence(x, count, lambda j: ((2 * j + 1) / (j + 1), 0.0, j / (j + 1)))


def hermite(x: Tensor, count: int) -> list[Tensor]:
    """The probabilists' polynomials: x, x^2 - 1, x^3 - 3 x."""
    return recurrence(x, count, lambda j: (1.0, 0.0, float(j)))


def recurrence(x: Tensor, count: int, step: Callable[[int], tuple[float, float, float]]) -> list[Tensor]:
    """P_0 = 1, P_1 = x, P_{j+1} = (p x + q) P_j - r P_{j-1} with (p, q, r) = step(j); the first `count` of them."""
    found = [torch.ones_like(x), x]
    for j in range(1, count - 1):
        p, q, r = step(j)
        found.append((p * x + q) * found[j] - r * found[j - 1])
    return found[:count]


def combined(weights: Tensor, parts: Sequence[Tensor]) -> Tensor:
    """Sum of w_j part_j, weights on the last axis."""
    return total(weight * part for weight, part in zip(weights.unbind(-1), parts, strict=True))


def mollified(x: Tensor, e: Tensor | float) -> Tensor:
    """sqrt(x^2 + e), a smooth |x|."""
    return torch.sqrt(x * x + e)


def surrogate(forward: Tensor, backward: Tensor) -> Tensor:
    """The value of `forward` with the gradient of `backward`."""
    return backward + (forward - backward).detach()


def normalised(x: Tensor, eps: float) -> Tensor:
    """x over its root mean square along the features."""
    return x / torch.sqrt(x.square().mean(-1, keepdim=True) + eps)
