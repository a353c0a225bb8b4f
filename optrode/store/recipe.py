"""What a harvest is: everything that decides which numbers a store holds.

A call that differs in any of it is another harvest and needs another folder.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy
import torch

from ..encoding import start_token_policy
from ..errors import BadFile, StoreMismatch, UnknownSite
from ..host import Host
from ..messages import shown
from ..version import __version__
from .documents import Documents
from .layout import StoredSite
from .receipts import STORE, dump, parse, sealed, unsealed
from .storage import Storage

FORMAT = "optrode.store/1"
# How entries of a recipe are called in messages, in the order in which differences are told.
_SAYS = {
    "model": "model", "data": "data", "sites": "sites", "dtype": "dtype", "positions": "positions", "tokens": "tokens",
    "context": "context", "template": "template", "system": "system", "shard_rows": "shard_rows",
    "tokens_per_forward": "tokens_per_forward", "start_token": "start token", "unit": "kind of row",
}  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    """`entries` decide the numbers; `made` says with what, and `origin` where model and data were called by which name.

    A row is a token, a patch or a whole example: `entries["unit"]`.
    """

    entries: dict[str, Any]
    origin: dict[str, Any]
    made: dict[str, Any]

    @property
    def sites(self) -> list[StoredSite]:
        return [StoredSite.from_json(site) for site in self.entries["sites"]]

    def as_json(self) -> dict[str, Any]:
        return sealed({"format": FORMAT, "recipe": self.entries, "origin": self.origin, "made": self.made})

    @classmethod
    def from_bytes(cls, text: bytes) -> Recipe:
        """Raises `BadFile` for a damaged file and for one of a later format."""
        value = parse(text, STORE)
        if value.get("format") != FORMAT:
            raise BadFile(
                f"'{STORE}' has format {shown(value.get('format'))}, this version reads {FORMAT}: update optrode"
            )
        rest = unsealed(value, STORE)
        try:
            recipe = cls(rest["recipe"], rest["origin"], rest["made"])
            assert recipe.sites and len({site.address for site in recipe.sites}) == len(recipe.sites)
            assert isinstance(recipe.entries["unit"], str) and isinstance(recipe.entries["dtype"], str)
            assert isinstance(recipe.origin, dict) and isinstance(recipe.made, dict)
        except (LookupError, TypeError, ValueError, AttributeError, AssertionError, UnknownSite) as problem:
            raise BadFile(f"'{STORE}' is damaged: it does not say what the store holds") from problem
        return recipe


def made_with() -> dict[str, Any]:
    """What numbers depend on in their last bits."""
    return {
        "optrode": __version__,
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "threads": torch.get_num_threads(),
    }


def start_tokens(host: Host) -> dict[str, str]:
    """What stands at the start of raw texts and of conversations."""
    if host.tokenizer is None:
        return {}
    return {kind: start_token_policy(host, kind) for kind in ("raw", *(["chat"] if host.is_chat else []))}


def data_entry(documents: Documents) -> dict[str, str]:
    return {"kind": documents.kind, "sha256": documents.digest()}


def model_entry(host: Host) -> dict[str, str]:
    return dict(host.fingerprint)


def settle(storage: Storage, recipe: Recipe) -> Recipe:
    """Begin a store with this recipe, or go on with the one that is there.

    Raises `StoreMismatch` where the two differ, naming in what.
    """
    if STORE not in storage.names():
        storage.write(STORE, dump(recipe.as_json()))
        storage.settle()
        return recipe
    known = Recipe.from_bytes(storage.read(STORE))
    compare(storage.where, known, recipe)
    return known


def warn_of_last_bits(where: str, known: Recipe) -> None:
    """Say where a store goes on with another release of torch or another number of threads than it was begun with."""
    now = made_with()
    differing = [key for key in ("torch", "threads") if known.made.get(key) != now[key]]
    if differing:
        told = " and ".join(f"{key} {known.made.get(key)}, now {now[key]}" for key in differing)
        warnings.warn(f"'{where}' was begun with {told}: new shards may differ in last bits", stacklevel=5)


def compare(where: str, known: Recipe, recipe: Recipe) -> None:
    """Raise `StoreMismatch` unless both mean the same harvest."""
    differing = [key for key in _SAYS if known.entries.get(key) != recipe.entries.get(key)]
    if not differing:
        return
    if "dtype" in differing and _addresses(known) == _addresses(recipe):
        differing = [key for key in differing if key != "sites"]
    told = [_told(key, known.entries.get(key), recipe.entries.get(key)) for key in differing]
    raise StoreMismatch(
        f"'{where}' is another harvest: {'; '.join(told)}. Use the same settings to go on, or another folder"
    )


def _told(key: str, known: Any, asked: Any) -> str:
    if key == "data":
        return "the data has changed since, or is other data"
    if key == "model":
        parts = [part for part in ("config", "tokenizer", "weights") if known.get(part) != asked.get(part)]
        return f"it was harvested from a model with other {' and '.join(parts)}"
    if key == "sites":
        known, asked = ([site["address"] for site in sites] for sites in (known, asked))
        if known != asked:
            return f"its sites are {_few(known)}, not {_few(asked)}"
        return "its sites have other shapes or dtypes"
    return f"its {_SAYS[key]} is {known!r}, not {asked!r}"


def _addresses(recipe: Recipe) -> list[str]:
    return [site["address"] for site in recipe.entries["sites"]]


def _few(sites: list[str]) -> str:
    return ", ".join(sites) if len(sites) < 4 else f"{sites[0]} to {sites[-1]} ({len(sites)})"
