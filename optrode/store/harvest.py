"""Harvesting: activations of any amount of data to disk, shard by shard, to be gone on with after any interruption."""

from __future__ import annotations

import warnings
from os import PathLike
from typing import Any

import torch

from ..engine.hooks import active_sessions
from ..engine.request import Request
from ..errors import BadInput, NoSpace, NotSupported
from ..host import Host
from ..positions import Positions
from .documents import Data, Documents, documents_of
from .examples import TextSettings
from .feeds import Feed, PictureFeed, TextFeed
from .layout import StoredSite
from .opened import Store, open_store
from .precision import policy_of
from .recipe import Recipe, data_entry, made_with, model_entry, settle, start_tokens
from .run import HarvestRun
from .storage import Storage, storage_at

# A shard's values take about this much, in memory while it is made and on disk.
SHARD_BYTES = 256 * 2**20
CONTEXT = 1024
TOKENS_PER_FORWARD = 2048


def harvest(
    model: Host,
    data: Data,
    sites: str | list[str] = "layers.*.out",
    *,
    to: str | PathLike[str],
    dtype: torch.dtype | str | None = None,
    tokens: int | None = None,
    positions: str | Positions | None = None,
    context: int | None = None,
    template: str | None = None,
    system: str | None = None,
    column: str | None = None,
    shard_rows: int | None = None,
    tokens_per_forward: int = TOKENS_PER_FORWARD,
) -> Store:
    """Activations of `data` at `sites`, written to the folder or fsspec URL `to`; gives the store, open.

    `data`: a list of texts, conversations or token ids, or a path: text (a line is a document), JSONL, Parquet, a
    folder that `datasets` saved, a folder of pictures. `column` names where the text is (`optrode.store.documents`).
    Texts are used as they are, conversations through the chat template, unless `template` says otherwise. Documents of
    more than `context` tokens (1024, or what the network can take) are cut into pieces.

    A row is a token (or patch, or picture). Exactly `tokens` rows are written, or all that the data has (a warning says
    so where that is fewer); with `positions`, only selected tokens are rows. `dtype` is how values are kept: None as
    they are, or `float32`, `bfloat16`, `float16`, `float16_scaled` (see `optrode.store.precision`); every shard states
    what rounding did. A shard has up to `shard_rows` rows (as many as make 256 MiB) of whole examples.

    The same call goes on where an earlier one was stopped, whatever stopped it, and what was whole stays: at most the
    shard that was in the making is done again. Numbers do not depend on interruptions; they do, in their last bits, on
    `tokens_per_forward`, threads and torch's release. Raises `StoreMismatch` where the store was made from another
    model, other data or with other settings, `StoreInUse` while another process writes it, `NoSpace` on a full disk,
    `NotFinite` where a value does not fit into float16.

    Costs one forward of all data up to the last site, and two to three per cent for rounding, checksums and writing.
    Memory: one shard and one forward.

    >>> import optrode, tempfile
    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> shape = dict(vocab_size=9, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2)
    >>> model = optrode.load(LlamaForCausalLM(LlamaConfig(**shape)))
    >>> store = harvest(model, [[1, 2, 3], [4, 5]], to=tempfile.mkdtemp(), tokens=4)
    >>> len(store), store["layers.0.out"][1:3].shape
    (4, torch.Size([2, 8]))
    """
    _refuse_edits()
    if tokens is not None and tokens < 1:
        raise BadInput(f"tokens must be at least 1, not {tokens}")
    storage, documents, policy = storage_at(to), documents_of(data, column), policy_of(dtype)
    chosen = Positions(positions) if isinstance(positions, str) else positions
    request = Request(model.match(sites), None)
    length = _context(model, context)
    feed: Feed
    if documents.pictures:
        feed = PictureFeed(model, documents, Request(request.sites, chosen))
    else:
        if model.tokenizer is None and not _are_ids(documents):
            raise NotSupported(f"{model.name} has no tokenizer: give lists of token ids as data")
        feed = TextFeed(model, documents, request, TextSettings(length, template, system, chosen))
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
    _write(model, storage, Recipe(entries, origin, made_with()), feed)
    store = open_store(to)
    if tokens is not None and len(store) < tokens:
        warnings.warn(f"the data has {len(store)} rows, fewer than the {tokens} that were asked for", stacklevel=2)
    return store


def _write(model: Host, storage: Storage, recipe: Recipe, feed: Feed) -> None:
    """Make what is missing, and say how to go on where it was stopped."""
    with storage.lock() as lock:
        _refuse_foreign(storage)
        run = HarvestRun(model, storage, settle(storage, recipe), feed, lock)
        try:
            run.go()
        except NoSpace as problem:
            raise NoSpace(f"{problem}: {run.safe()}; make room, and the same call goes on") from problem
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"{run.safe()} in '{storage.where}'; the same call goes on") from None


def _refuse_edits() -> None:
    if any(session.edits or session.sums for session in active_sessions()):
        raise NotSupported("a store would not know of an edit that is active: leave the block, or bake the edit first")


def _are_ids(documents: Documents) -> bool:
    first = next(documents.starting(0), None)
    return first is not None and isinstance(first.content, list) and isinstance(first.content[0], int)


def _refuse_foreign(storage: Storage) -> None:
    """A folder of other files is no place for a store."""
    own = ("store.json", "index.json", "writer.lock", "writer.json")
    names = storage.names()
    others = sorted(n for n in names if n not in own and not n.startswith((".", "shard-")))
    if "store.json" not in names and (others or any(name.startswith("shard-") for name in names)):
        raise BadInput(f"'{storage.where}' holds other files ({(others or sorted(names))[0]}): name an empty folder")


def _context(model: Host, context: int | None) -> int:
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
