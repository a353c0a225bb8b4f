"""Log-probabilities of the ends of rows, many rows in one forward, under whatever edits are active."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

import torch
from torch import Tensor

from ..engine.progress import track
from ..engine.reading.read import read
from ..host import Host
from .rows import Row, batch_of_rows, chunks

# Logits of the last columns alone are asked for by place, up to this many.
_SHORT = 64
# With long ends the logits of all tokens are computed: 1024 x 50,000 floats are 200 MB.
TOKENS_OF_SHORT_ENDS, TOKENS_OF_LONG_ENDS = 4096, 1024


def scored(host: Host, rows: Sequence[Row], rows_at_once: int | None, what: str) -> list[tuple[float, bool]]:
    """For each row the log-probability (nats) of its predicted tokens, and whether each is the likeliest there."""
    found: dict[int, tuple[float, bool]] = {}
    long = any(row.predicted > _SHORT for row in rows)
    parts = chunks(rows, rows_at_once, TOKENS_OF_LONG_ENDS if long else TOKENS_OF_SHORT_ENDS)
    with closing(track(parts, what)) as tracked:
        for part in tracked:
            own = [rows[number] for number in part]
            for number, row, logits in zip(part, own, _ends(host, own), strict=True):
                found[number] = _score(row, logits)
    return [found[number] for number in range(len(rows))]


def _ends(host: Host, rows: Sequence[Row]) -> list[Tensor]:
    """The logits that predict the end of each row, [predicted, vocabulary]."""
    batch = batch_of_rows(host, [row.given for row in rows])
    counts = [row.predicted for row in rows]
    longest = max(counts)
    whole = batch.ids.numel()
    if longest > _SHORT:
        logits = read(host, batch, "logits", tokens_per_forward=whole)["logits"]
        return [_last_of_row(logits[row], batch.mask[row], count) for row, count in enumerate(counts)]
    places = ",".join(str(-place) for place in range(longest, 0, -1))
    logits = read(host, batch, "logits", positions=f"index:{places}", tokens_per_forward=whole)["logits"]
    # Rows that are shorter than the longest end have fewer of these places.
    sizes = [min(longest, len(row) - 1) for row in rows]
    return [part[-count:] for part, count in zip(logits.split(sizes), counts, strict=True)]


def _last_of_row(logits: Tensor, mask: Tensor, count: int) -> Tensor:
    return logits[mask.to(logits.device)][-count:]


def _score(row: Row, logits: Tensor) -> tuple[float, bool]:
    targets = torch.tensor(row.targets, device=logits.device)
    logprobs = torch.log_softmax(logits.float(), -1)
    chosen = logprobs.gather(-1, targets[:, None])[:, 0]
    return float(chosen.sum()), bool((logprobs.argmax(-1) == targets).all())
