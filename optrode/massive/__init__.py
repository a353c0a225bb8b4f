"""Massive activations: the few values of a network that are thousands of times larger than the rest, and what they do.

Every method of this folder is one file with one class; it is found by its `id`, so there is no list to edit. What a
value has to be to count as massive is `optrode.stats.find_massive`; `protocol` surveys a network by that definition.
"""

from pathlib import Path

from ..parts.discovery import lazy_family

__getattr__, __dir__ = lazy_family(__name__, str(Path(__file__).parent))
