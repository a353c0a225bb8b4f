"""Forwards of networks of several towers: which of them has to run, on which inputs, and what each call brings."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from ..errors import BadInput
from ..host import Host, SiteInfo
from ..towers import DECODER, language_tower, side_by_side
from .places import Forward, forward_from_call, running_batch


def alone(host: Host, sites: Iterable[SiteInfo], inputs: Any = None) -> str:
    """The prefix of the one tower that has to run for these sites; "" where the network runs as a whole.

    Towers that stand side by side get the network's own inputs, so that one of them computes without the others what it
    computes with them. So does a tower that sees, where there is no text beside the pictures.
    """
    towers = {site.tower for site in sites}
    if len(towers) != 1 or towers == {""}:
        return ""
    given = {"pixel_values"} if isinstance(inputs, Tensor) and inputs.is_floating_point() else inputs
    no_text = isinstance(given, dict | set) and not {"input_ids", "inputs_embeds"} & set(given)
    sees = no_text and language_tower(host.base, host.config) is not None
    return towers.pop() if sees or side_by_side(host.base) else ""


def arguments_of(host: Host, arguments: dict[str, Any], tower: str) -> dict[str, Any]:
    """The arguments of a forward of one tower ("" for the whole network), with what is missing and can be known.

    A decoder that nobody gave tokens begins with its start token. Raises `BadInput` for a tower without its input.
    """
    if host.tower_hosts and side_by_side(host.base):
        for prefix in [tower] if tower else host.tower_hosts:
            needed = getattr(host.tower_hosts[prefix].module, "main_input_name", None)
            if needed is not None and needed not in arguments:
                raise BadInput(f"the tower {prefix} of {host.name} needs {needed}: pass a dictionary that has it")
    if tower:
        accepted = host.tower_hosts[tower].head_accepts
        return {name: value for name, value in arguments.items() if name in accepted}
    if DECODER in host.tower_hosts and not any(name.startswith("decoder_input") for name in arguments):
        start = _start_token(host)
        main = next((value for value in arguments.values() if isinstance(value, Tensor)), None)
        if start is not None and main is not None:
            ids = torch.full((main.shape[0], 1), start, dtype=torch.long, device=main.device)
            return {**arguments, "decoder_input_ids": ids}
    return arguments


def _start_token(host: Host) -> int | None:
    places = (getattr(host.module, "generation_config", None), host.config)
    found = (getattr(place, name, None) for name in ("decoder_start_token_id", "bos_token_id") for place in places)
    return next((token for token in found if token is not None), None)


def tower_forward(host: Host, prefix: str, args: tuple, kwargs: dict, last: Forward | None) -> Forward:
    """What a call of one tower brings: the roles of the prompts it is given, or what can be seen of its own tokens.

    `last` is what its last call brought: a decoder that goes on from a cache goes on from there.
    """
    tower = host.tower_hosts[prefix]
    prompted = prefix != DECODER and "input_ids" in tower.accepts
    forward = forward_from_call(tower, args, kwargs, running_batch(host) if prompted else None)
    if forward.batch is None and forward.start and last is not None:
        return Forward(last.batch, forward.rows, forward.start, forward.count)
    return forward


def layers_run(host: Host, begun: list[str] | None, last: SiteInfo | None, first_layer: int) -> tuple[int, int]:
    """How many blocks run in one forward, and how many are skipped.

    `begun` are the towers that were called, or None where the network's own blocks alone are spoken of; `last` is the
    site after which the forward ends, if it does not run to its end; `first_layer` the block that it was resumed from.
    """
    counts = {"": host.layers} if begun is None else host.layers_by_tower
    ran = {prefix: counts[prefix] for prefix in begun or ()} | {"": host.layers}
    if last is not None:
        layer, order = last.rank or (-1, 0)
        # The network's own blocks go on from what the towers give. Before its first site nothing of a block has run.
        ran |= {"": 0, last.tower: max(0, min(layer + (order > 0), counts[last.tower]))}
    total = sum(ran.values()) - (first_layer if ran[""] else 0)
    return total, sum(counts.values()) - total
