"""A trial forward: made-up inputs that a network can take, and eval mode for as long as it is measured."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ...host import Host
from ...layouts.base import PIXELS
from ...towers import DECODER, language_tower
from ..run import Inputs

ROWS, TOKENS = 2, 4
# Enough for the deepest convolutional networks, which halve an image five times.
SIDE = 64


def trial_inputs(host: Host) -> Inputs | None:
    """Inputs of two short random rows, the same every time: token ids, images or vectors; None where no guess is safe.

    Made from the config where there is one, otherwise from the first parameters that the network has.
    """
    random = torch.Generator().manual_seed(0)
    if host.tower_hosts and not language_tower(host.base, host.config):
        return _for_towers(host, random)
    main = getattr(host.base, "main_input_name", None)
    sees = "pixel_values" in host.accepts and "input_ids" not in host.accepts
    if main == "pixel_values" or sees or (main is None and _first_site_is_pixels(host)):
        return _images(host, random)
    ids = trial_ids(host, ROWS, TOKENS)
    if ids is not None:
        return {"input_ids": ids}
    return None if host.config is not None and main is not None else _from_weights(host.module, random)


def _for_towers(host: Host, random: torch.Generator) -> Inputs | None:
    """What a network that takes in something for each of its towers needs."""
    ids = trial_ids(host, ROWS, TOKENS)
    if ids is None:
        return None
    if DECODER in host.tower_hosts:
        return {"input_ids": ids, "decoder_input_ids": ids.flip(-1)}
    pixels = _images(host, random)
    return {"input_ids": ids, **pixels} if isinstance(pixels, dict) else None


@contextmanager
def in_eval_mode(module: nn.Module) -> Iterator[None]:
    """Dropout off and running statistics left alone; each part's own mode is restored."""
    training = [part for part in module.modules() if part.training]
    try:
        for part in training:
            part.training = False
        yield
    finally:
        for part in training:
            part.training = True


@contextmanager
def one_thread() -> Iterator[None]:
    """A trial of a few tokens has no work for several threads; on a busy machine they would wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def trial_ids(host: Host, rows: int, tokens: int) -> Tensor | None:
    """Random token ids, [row, token] int64, the same every time; None for a network that takes none."""
    vocabulary = host.entry("vocab_size")
    if not isinstance(vocabulary, int) or "input_ids" not in host.accepts:
        return None
    return _ids(vocabulary, {host.entry(name) for name in _NO_TEXT}, (rows, tokens))


def _first_site_is_pixels(host: Host) -> bool:
    return host.layout is not None and host.layout.ports["in"].axes == PIXELS


def _images(host: Host, random: torch.Generator) -> Inputs:
    config = getattr(host.config, "vision_config", None) or host.config
    size = getattr(config, "image_size", None) or SIDE
    height, width = size if isinstance(size, list | tuple) else (size, size)
    channels = getattr(config, "num_channels", None) or 3
    pixels = torch.randn(ROWS, channels, height, width, generator=random).to(host.dtype)
    return {"pixel_values": pixels} if "pixel_values" in host.accepts else pixels


# Padding would not count as a position in some encoders; a token that stands for a picture needs one.
_NO_TEXT = ("pad_token_id", "image_token_id", "image_token_index")


def _ids(vocabulary: int, avoided: set[Any], shape: tuple[int, int]) -> Tensor:
    usable = torch.tensor([token for token in range(min(vocabulary, 1000)) if token not in avoided])
    return usable[torch.randint(0, len(usable), shape, generator=torch.Generator().manual_seed(0))]


def _from_weights(module: nn.Module, random: torch.Generator) -> Tensor | None:
    """The first part that has weights says what it takes: an embedding ids, a convolution images, a linear vectors."""
    for part in module.modules():
        if isinstance(part, nn.Embedding):
            return torch.randint(0, part.num_embeddings, (ROWS, TOKENS), generator=random)
        if isinstance(part, nn.Conv2d):
            return torch.randn(ROWS, part.in_channels, SIDE, SIDE, generator=random).to(part.weight.dtype)
        if isinstance(part, nn.Linear):
            return torch.randn(ROWS, TOKENS, part.in_features, generator=random).to(part.weight.dtype)
    return None
