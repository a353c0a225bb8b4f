"""What a harvest with these settings is, before anything runs but a trial of a few tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..engine.reading.request import Request
from ..errors import BadInput, NotSupported
from ..host import Host
from ..positions import Positions
from .documents import Data, Documents, documents_of
from .examples import TextSettings
from .feeds import Feed, PictureFeed, TextFeed
from .layout import StoredSite
from .precision import policy_of
from .recipe import Recipe, data_entry, made_with, model_entry, start_tokens

# A shard's values take about this much, in memory while it is made and on disk.
SHARD_BYTES = 256 * 2**20
CONTEXT = 1024
TOKENS_PER_FORWARD = 2048


@dataclass(frozen=True)
class Prepared:
    """A harvest that can begin: its recipe and where its examples come from."""

    recipe: Recipe
    feed: Feed


def prepare(
    model: Host,
    data: Data,
    sites: str | list[str],
    *,
    dtype: torch.dtype | str | None = None,
    tokens: int | None = None,
    positions: str | Positions | None = None,
    context: int | None = None,
    template: str | None = None,
    system: str | None = None,
    column: str | None = None,
    shard_rows: int | None = None,
    tokens_per_forward: int = TOKENS_PER_FORWARD,
) -> Prepared:
    """The settings of `optrode.store.harvest`, checked and settled."""
    if tokens is not None and tokens < 1:
        raise BadInput(f"tokens must be at least 1, not {tokens}")
    documents, policy = documents_of(data, column), policy_of(dtype)
    chosen = Positions(positions) if isinstance(positions, str) else positions
    length = context_of(model, context)
    feed = feed_of(model, documents, sites, chosen, TextSettings(length, template, system, chosen))
    stored = feed.trial(policy)
    entries: dict[str, Any] = {
        "model": model_entry(model),
        "data": data_entry(documents),
        "sites": [site.as_json() for site in stored],
        "unit": feed.unit,
        "dtype": policy,
        "positions": str(chosen) if chosen is not None else None,
        "tokens": tokens,
        "context": length,
        "template": template,
        "system": system,
        "start_token": start_tokens(model),
        "shard_rows": shard_rows or _shard_rows(stored, tokens_per_forward),
        "tokens_per_forward": tokens_per_forward,
    }
    origin = {"model": model.name, "data": documents.name or None, "column": column}
    return Prepared(Recipe(entries, origin, made_with()), feed)


def feed_of(
    model: Host, documents: Documents, sites: str | Sequence[str], chosen: Positions | None, settings: TextSettings
) -> Feed:
    """Where the examples of documents come from. Raises `NotSupported` for texts without a tokenizer."""
    request = Request(model.match(sites), None)
    if documents.pictures:
        return PictureFeed(model, documents, Request(request.sites, chosen))
    if model.tokenizer is None and not _are_ids(documents):
        raise NotSupported(f"{model.name} has no tokenizer: give lists of token ids as data")
    return TextFeed(model, documents, request, settings)


def _are_ids(documents: Documents) -> bool:
    first = next(documents.starting(0), None)
    return first is not None and isinstance(first.content, list) and isinstance(first.content[0], int)


def context_of(model: Host, context: int | None) -> int:
    """Tokens of an example: what was asked for, or a usual number, within what the network can take."""
    limit = model.entry("max_position_embeddings") or model.entry("n_positions")
    # Tokenizers may know better: positions of RoBERTa begin after that of the padding token.
    own = getattr(model.tokenizer, "model_max_length", None)
    most = min([n for n in (limit, own) if isinstance(n, int) and n > 0] or [CONTEXT])
    if context is None:
        return min(CONTEXT, most)
    if not 1 <= context <= most:
        raise BadInput(f"a context of {context} tokens is not possible: {model.name} takes 1 to {most}")
    return context


def _shard_rows(sites: list[StoredSite], tokens_per_forward: int) -> int:
    """About `SHARD_BYTES` of rows, full forwards of them where that is possible."""
    rows = max(1, SHARD_BYTES // sum(site.row_bytes for site in sites))
    return min(2**20, rows - rows % tokens_per_forward if rows > tokens_per_forward else rows)
