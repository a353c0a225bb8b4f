"""Harvesting: activations of any amount of data to disk, shard by shard, to be gone on with after any interruption."""

from __future__ import annotations

import warnings
from os import PathLike

import torch

from ..engine.hooks import active_sessions
from ..errors import BadInput, NoSpace, NotSupported
from ..host import Host
from ..positions import Positions
from .documents import Data
from .feeds import Feed
from .opened import Store, open_store
from .prepare import TOKENS_PER_FORWARD, prepare
from .recipe import Recipe, settle
from .run import HarvestRun
from .storage import Storage, storage_at


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
    storage = storage_at(to)
    prepared = prepare(
        model, data, sites, dtype=dtype, tokens=tokens, positions=positions, context=context, template=template,
        system=system, column=column, shard_rows=shard_rows, tokens_per_forward=tokens_per_forward,
    )  # fmt: skip
    _write(model, storage, prepared.recipe, prepared.feed)
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


def _refuse_foreign(storage: Storage) -> None:
    """A folder of other files is no place for a store."""
    own = ("store.json", "index.json", "writer.lock", "writer.json")
    names = storage.names()
    others = sorted(n for n in names if n not in own and not n.startswith((".", "shard-")))
    if "store.json" not in names and (others or any(name.startswith("shard-") for name in names)):
        raise BadInput(f"'{storage.where}' holds other files ({(others or sorted(names))[0]}): name an empty folder")
