"""What is put in place: the activations of a donor run, an ablation, a value, or an operator's answer to the base's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ...edits.operators import Operator
from ...errors import BadInput, WrongShape
from ...host import Host, SiteInfo
from ..axes import axes_of
from .cells import PLACES
from .examples import Example, Target
from .record import Recording, record


def put_in_place(donor: Any, sites: Sequence[SiteInfo], base: Recording, means: dict[str, Tensor]) -> dict[str, Tensor]:
    """One value of the shape of the base's for each site, where no donor was run. Raises `WrongShape`, `BadInput`."""
    return {site.address: _value(donor, site.address, base.values[site.address], means) for site in sites}


def _value(donor: Any, address: str, own: Tensor, means: dict[str, Tensor]) -> Tensor:
    if isinstance(donor, Operator):
        count = own.shape[0] if own.dim() > 1 else 1
        wide = own if own.dtype not in (torch.float16, torch.bfloat16) else own.float()
        return donor.to(own.device, wide.dtype)(wide, torch.arange(count, device=own.device)).to(own.dtype)
    if donor == "zero":
        return torch.zeros_like(own)
    if donor == "mean":
        return means[address].expand_as(own).to(own.dtype)
    if isinstance(donor, Mapping):
        if address not in donor:
            raise BadInput(f"the donor has no value for {address}: give one for every site of the sweep")
        donor = donor[address]
    value = torch.as_tensor(donor).detach().to(own.device, own.dtype)
    try:
        return value.expand_as(own)
    except RuntimeError as problem:
        raise WrongShape(
            f"a donor value of shape {tuple(value.shape)} does not fit {address}, which is {tuple(own.shape)}: "
            "give a number, or the last axes of the site"
        ) from problem


def means_of(host: Host, examples: Sequence[Example], sites: list[SiteInfo], target: Target) -> dict[str, Tensor]:
    """The mean of each site over the tokens of all base prompts: what "mean" puts in place."""
    totals: dict[str, Tensor] = {}
    counts: dict[str, int] = {}
    for example in examples:
        values = record(host, example.base, sites, Target(target.site, None)).values
        for site in sites:
            value = values[site.address]
            by_token = axes_of(site, value.dim() + 1)[1] in PLACES
            total = value.double().sum(0) if by_token else value.double()
            totals[site.address] = totals.get(site.address, torch.zeros_like(total)) + total
            counts[site.address] = counts.get(site.address, 0) + (value.shape[0] if by_token else 1)
    return {address: total / counts[address] for address, total in totals.items()}
