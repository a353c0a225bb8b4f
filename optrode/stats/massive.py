"""Massive activations and the size of the stream, by layer.

A value is massive when it is above 100 and above 1000 times the median magnitude of its layer's hidden state, all
tokens and channels together (arXiv 2402.17762).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..activations import Activations

ABSOLUTE_THRESHOLD = 100.0
RELATIVE_THRESHOLD = 1000.0


@dataclass(frozen=True)
class Massive:
    """One massive activation: where it is, its value, and the median magnitude of its layer.

    `position` is the token's place in its own row, from 0.
    """

    layer: int
    channel: int
    example: int
    position: int
    token: str
    value: float
    median: float


def find_massive(
    h: Tensor,
    mask: Tensor,
    *,
    limit: int | None = None,
    absolute: float = ABSOLUTE_THRESHOLD,
    relative: float = RELATIVE_THRESHOLD,
) -> list[tuple[int, int, int, float, float]]:
    """Massive values of one layer as (example, column, channel, value, median), largest magnitude first.

    `h`: [example, token, channel]; `mask`: bool [example, token], the real tokens. The median is taken over all
    examples together; give one example at a time where texts should not depend on each other.

    >>> h = torch.ones(1, 2, 3)
    >>> h[0, 1, 2] = -5000.0
    >>> find_massive(h, torch.ones(1, 2, dtype=torch.bool))
    [(0, 1, 2, -5000.0, 1.0)]
    """
    magnitude = h.float().abs()
    median = float(magnitude[mask].median())
    # "At least 1000 times" but "more than 100": the definition's own two signs.
    found = (magnitude > absolute) & (magnitude >= relative * median) & mask[..., None]
    places = found.nonzero()
    values = h.float()[found]
    order = values.abs().argsort(descending=True)[:limit]
    return [(*map(int, places[i]), float(values[i]), median) for i in order]  # type: ignore[misc]


def largest_and_median(h: Tensor, mask: Tensor, count: int = 3) -> tuple[Tensor, Tensor]:
    """The largest magnitudes of each example and the median one, over all its tokens and channels.

    `h`: [example, token, channel]; `mask`: bool [example, token]. Gives [example, count] and [example], float32.

    >>> h = torch.tensor([[[1.0, -9.0], [2.0, 3.0], [100.0, 100.0]]])
    >>> largest_and_median(h, torch.tensor([[True, True, False]]), count=2)
    (tensor([[9., 3.]]), tensor([2.]))
    """
    rows = [h[example][mask[example]].float().abs().flatten() for example in range(len(h))]
    return torch.stack([row.topk(count).values for row in rows]), torch.stack([row.median() for row in rows])


def massive_by_layer(acts: Activations, *, per_layer: int = 3) -> list[Massive]:
    """The largest massive activations of each layer whose output was read, all channels and tokens."""
    assert acts.batch is not None
    batch, found = acts.batch, []
    for site, h in acts.items():
        if not (site.startswith("layers.") and site.endswith(".out") and site.count(".") == 2):
            continue
        seen: set[int] = set()
        for example, column, channel, value, median in find_massive(h, batch.mask.to(h.device)):
            if channel in seen or len(seen) >= per_layer:
                continue
            seen.add(channel)
            position = int(batch.mask[example, :column].sum())
            token = acts.tokenizer.decode([int(batch.ids[example, column])]) if acts.tokenizer else ""
            found.append(Massive(int(site.split(".")[1]), channel, example, position, token, value, median))
    return found


def stream_norms(h: Tensor, mask: Tensor) -> dict[str, float]:
    """Median, 95th percentile and maximum of the rows' norms. `h`: [example, token, width]; `mask` bool."""
    norms = h.float().norm(dim=-1)[mask.to(h.device)]
    return {
        "median": float(norms.median()),
        "p95": float(torch.quantile(norms, 0.95)),
        "max": float(norms.max()),
    }
