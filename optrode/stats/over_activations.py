"""Statistics of activations that were read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..activations import Activations
from ..engine.progress import track
from ..errors import NotSupported
from ..positions import Positions
from ..sites import parse, select
from .choice import Wanted
from .feeding import Feeding, measured
from .rows import WHERE
from .statistics import Statistics
from .token_mask import token_mask


@dataclass(frozen=True)
class _Site:
    address: str
    axes: tuple[str, ...]
    shape: tuple[int, ...]
    own: torch.dtype


def of_activations(
    acts: Activations,
    sites: str | Sequence[str] | None,
    wanted: Sequence[Wanted],
    cross: Sequence[tuple[str, str]],
    positions: Positions | None,
    mask: str,
) -> Statistics:
    chosen = _chosen(acts, sites)
    outer = {address: 2 if acts.axes[address][1:2] == ("token",) else 1 for address in chosen}
    own = measured((_site(acts, address, outer[address]) for address in chosen), named=sites is not None)
    feeding = Feeding(own, wanted, cross)
    known: dict[int, str] = {}
    keep, where = _of_batch(acts, positions, mask)
    for address in track(feeding.addresses, "measuring"):
        h = acts[address]
        if outer[address] == 2 and keep is not None and where is not None:
            feeding.take(address, h, keep, where)
        else:
            if positions is not None or mask != "all":
                raise NotSupported(f"positions and mask= select tokens, and {address} was read without a token axis")
            feeding.take(address, h, None, _numbered(acts, h))
    feeding.done()
    if acts.tokenizer is not None and acts.batch is not None:
        known = {token: acts.tokenizer.decode([token]) for token in torch.unique(acts.batch.ids).tolist()}
    info: dict[str, Any] = {
        "model": "activations", "weights": None, "data": [], "unit": "token" if 2 in outer.values() else "row",
        "positions": str(positions) if positions else None, "mask": mask,
    }  # fmt: skip
    return feeding.statistics(info, known)


def _site(acts: Activations, address: str, outer: int) -> _Site:
    h = acts[address]
    return _Site(address, acts.axes[address][outer:], tuple(h.shape[outer:]), h.dtype)


def _chosen(acts: Activations, sites: str | Sequence[str] | None) -> list[str]:
    if sites is None:
        return list(acts)
    texts = [sites] if isinstance(sites, str) else list(sites)
    exact = [text for text in texts if text in acts]
    rest = [text for text in texts if text not in exact]
    plain = [address for address in acts if not parse(address).raw]
    found = select(rest, plain, acts._layers()) if rest else []
    return [address for address in acts if address in exact or address in found]


def _of_batch(acts: Activations, positions: Positions | None, mask: str) -> tuple[Tensor | None, np.ndarray | None]:
    """Which tokens count, bool [example, token], and where each comes from."""
    batch = acts.batch
    if batch is None:
        return None, None
    keep = token_mask(acts) if mask == "usual" else batch.mask
    if positions is not None:
        keep = keep & positions.in_prompt(batch)
    example = torch.arange(len(batch))[:, None].expand_as(batch.ids)
    parts = [example, example, batch.position_ids.cpu(), batch.ids.cpu()]
    return keep.cpu(), torch.stack(parts, -1).numpy()


def _numbered(acts: Activations, h: Tensor) -> np.ndarray:
    """The places of rows that were selected; row numbers where nothing is known of them."""
    where = np.full((len(h), len(WHERE)), -1, np.int64)
    where[:, 0] = where[:, 1] = np.arange(len(h))
    if acts.places is not None and len(acts.places) == len(h) and acts.batch is not None:
        example, column = acts.places.cpu().numpy().T
        where[:, 0] = where[:, 1] = example
        where[:, 2] = acts.batch.position_ids.cpu().numpy()[example, column]
        where[:, 3] = acts.batch.ids.cpu().numpy()[example, column]
    return where
