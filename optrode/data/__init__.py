"""Text that methods are fitted and judged on: behaviours with their contrast pairs, and neutral passages.

A behaviour is one file in `behaviours/`; it is found by its name (a hyphen for each underscore of the file's), so a new
file is all that a new behaviour takes. Your own data are read with `read_behaviour`. Nothing here imports torch.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from optrode.data import behaviours as _behaviours
from optrode.data.files import read_behaviour
from optrode.data.neutral import neutral_texts
from optrode.data.requests import Categorised, Conditioned, everyday_requests
from optrode.data.types import Behaviour, Choice, Labelled, Pair, Question
from optrode.errors import UnknownName, did_you_mean

__all__ = [
    "Behaviour",
    "Categorised",
    "Choice",
    "Conditioned",
    "Labelled",
    "Pair",
    "Question",
    "behaviour",
    "behaviours",
    "everyday_requests",
    "neutral_texts",
    "pairs",
    "read_behaviour",
]


@cache
def behaviour(name: str) -> Behaviour:
    """The behaviour of that name, the same on every machine and at every call (a few milliseconds at first use).

    Raises `UnknownName`, with the nearest names, when there is none.

    >>> behaviour("sentiment").words
    ('Love', 'Hate')
    """
    known, name = behaviours(), name.replace("_", "-")
    if name not in known:
        raise UnknownName(f"there is no behaviour {name!r}; {did_you_mean(name, known)}")
    found: Behaviour = import_module(f"{_behaviours.__name__}.{name.replace('-', '_')}").build()
    return found


def behaviours() -> list[str]:
    """The names of all behaviours that come with optrode, sorted.

    >>> "sentiment" in behaviours()
    True
    """
    files = (module.name for module in iter_modules(_behaviours.__path__))
    return sorted(name.replace("_", "-") for name in files if not name.startswith("_"))


def pairs(name: str) -> tuple[Pair, ...]:
    """The pairs of a behaviour for fitting directions: its `fit` split.

    >>> pairs("sentiment")[0].group
    'the soup'
    """
    return behaviour(name).fit
