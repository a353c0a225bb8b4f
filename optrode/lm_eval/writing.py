"""Completions up to a stop text, many prompts at a time, under whatever edits are active."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

import torch
from torch import Tensor

from ..engine.generating.generate import Sampling, generate
from ..engine.generating.policies import active_policy
from ..engine.progress import track
from ..host import Host
from .rows import Row, batch_of_rows, chunks

# Settings of a task that mean something here; all others go to the network's own `generate`.
_SAMPLING = ("temperature", "top_p", "top_k", "repetition_penalty", "seed")
# Contexts of this many tokens are continued together.
TOKENS = 8192


def written(
    host: Host,
    rows: Sequence[Row],
    stops: Sequence[str],
    max_new_tokens: int,
    sampling: Sampling,
    rows_at_once: int | None,
    options: dict[str, Any],
) -> list[str]:
    """What is written after each row, up to the first of the stop texts or an end token."""
    found: dict[int, str] = {}
    at_once = 1 if active_policy(host) is not None else rows_at_once
    with closing(track(chunks(rows, at_once, TOKENS), "writing")) as parts:
        for part in parts:
            batch = batch_of_rows(host, [rows[number] for number in part])
            completions = generate(
                host, batch, max_new_tokens=max_new_tokens, sampling=sampling, rows_per_batch=len(part),
                stopping_criteria=[_stopped_at(host.tokenizer, stops, batch.width, len(part))], **options,
            )  # fmt: skip
            for number, completion in zip(part, completions, strict=True):
                found[number] = until(completion.text, stops)
    return [found[number] for number in range(len(rows))]


def until(text: str, stops: Sequence[str]) -> str:
    """A text up to the first stop text in it.

    >>> until("yes. no\\n", ["\\n", "."])
    'yes'
    """
    for stop in stops:
        text = text.partition(stop)[0] if stop else text
    return text


def _stopped_at(tokenizer: Any, stops: Sequence[str], width: int, rows: int) -> Callable[..., Tensor]:
    """A criterion for `generate`: which rows hold a stop text among their written tokens."""
    wanted = [stop for stop in stops if stop]
    # A token stands for one byte of the text at least; those before may begin in the middle of a character.
    reach = max((len(stop.encode()) for stop in wanted), default=0) + 4
    done = torch.zeros(rows, dtype=torch.bool)

    def stopped(ids: Tensor, scores: Any, **_: Any) -> Tensor:
        for row in (~done).nonzero().flatten().tolist() if wanted and len(ids) == rows else ():
            end = tokenizer.decode(ids[row, max(width, ids.shape[1] - reach) :], skip_special_tokens=True)
            done[row] = any(stop in end for stop in wanted)
        return done.to(ids.device) if len(ids) == rows else torch.zeros(len(ids), dtype=torch.bool, device=ids.device)

    return stopped


def sampling_of(settings: dict[str, Any]) -> tuple[Sampling, dict[str, Any]]:
    """How a task wants tokens chosen, and its other settings for `generate`."""
    # The length is that of the context and what is written, and is known already.
    settings.pop("max_length", None)
    own = {name: settings.pop(name) for name in _SAMPLING if name in settings}
    if not settings.pop("do_sample", False):
        own["temperature"] = 0.0
    return Sampling(**own), settings
