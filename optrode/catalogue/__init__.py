"""The catalogue: every published system that has a place in optrode, how far it is there, and a search over all."""

from __future__ import annotations

from .rows import Catalogue, System, all_systems

__all__ = ["Catalogue", "System", "all_systems", "systems"]


def systems(query: str | None = None, *, family: str | None = None, status: str | None = None) -> Catalogue:
    """The published systems, narrowed by family or status and, with a query, the best match first.

    Imports no method. The first search loads the sentence encoder (seconds).

    >>> len(systems())
    198
    >>> systems(family="massive", status="works")["massive-activations"].entry_points
    ('optrode.massive.MassiveActivations',)
    """
    if query is None:
        found = Catalogue(all_systems())
    else:
        from .search import search

        found = search(query)
    return found.where(family=family, status=status)
