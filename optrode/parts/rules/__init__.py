"""Rules that read a reply without a model: one file each, with `score(reply, prompt) -> float`.

A rule gives 1 for a reply that shows its behaviour, 0 for one that opposes it, 0.5 where it cannot tell. No rule was
fitted on anything: each is checked on the `judge` texts of its behaviour, which have a say in nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pkgutil import iter_modules

from ...errors import UnknownName, did_you_mean

Rule = Callable[[str, str], float]


def rules() -> list[str]:
    """The names of all rules, sorted.

    >>> "declines" in rules()
    True
    """
    return sorted(module.name for module in iter_modules(__path__))


def rule(name: str) -> Rule:
    """The rule of that name. Raises `UnknownName` with the nearest ones.

    >>> rule("declines")("I would rather not say.", "")
    1.0
    """
    if name not in rules():
        raise UnknownName(f"there is no rule {name!r}; {did_you_mean(name, rules())}")
    found: Rule = import_module(f".{name}", __name__).score
    return found
