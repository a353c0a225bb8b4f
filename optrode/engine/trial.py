"""A trial forward: made-up inputs that a network can take, and eval mode for as long as it is measured."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..host import Host
from ..layouts.base import PIXELS
from .hooks import hooks_alone
from .read import read
from .run import Inputs

ROWS, TOKENS = 2, 4
# Enough for the deepest convolutional networks, which halve an image five times.
SIDE = 64


def trial_inputs(host: Host) -> Inputs | None:
    """Inputs of two short random rows, the same every time: token ids, images or vectors; None where no guess is safe.

    Made from the config where there is one, otherwise from the first parameters that the network has.
    """
    random = torch.Generator().manual_seed(0)
    main = getattr(host.base, "main_input_name", None)
    if main == "pixel_values" or (main is None and _first_site_is_pixels(host)):
        return _images(host, random)
    vocabulary = host.entry("vocab_size")
    if isinstance(vocabulary, int) and "input_ids" in host.accepts:
        return {"input_ids": _ids(vocabulary, {host.entry(name) for name in _NO_TEXT}, random)}
    return None if host.config is not None and main is not None else _from_weights(host.module, random)


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


def sizes(host: Host, addresses: list[str]) -> dict[str, tuple[int, ...]]:
    """The shape of each site on the trial inputs; empty where these cannot be read."""
    inputs = trial_inputs(host)
    if inputs is None:
        return {}
    try:
        with hooks_alone(), in_eval_mode(host.module):
            return {site: tuple(value.shape) for site, value in read(host, inputs, addresses).items()}
    except Exception:  # whatever a network's own forward may raise on inputs that were made up
        return {}


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


def _ids(vocabulary: int, avoided: set[Any], random: torch.Generator) -> Tensor:
    usable = torch.tensor([token for token in range(min(vocabulary, 1000)) if token not in avoided])
    return usable[torch.randint(0, len(usable), (ROWS, TOKENS), generator=random)]


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
