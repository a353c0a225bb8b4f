"""The kinds of input. A new kind is one function that writes seeds, with what reads one beside it:

    @kind(share=3, read=lambda folder: load_something(folder / "input.thing"))
    def something(box: Path) -> None:
        \"\"\"Things as our own code writes them.\"\"\"
        save_something(box / "plain" / "input.thing")

Each folder in `box` is one seed; one whose name begins with `refused` is right to be refused. Which damage an input
gets follows from the endings of its files (`mutate`); `seal` makes checksums fit again afterwards, so that damage gets
past them.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .trees import Tree

KINDS: dict[str, Kind] = {}


@dataclass(frozen=True)
class Kind:
    """One kind of input. `share` is its part of all inputs, `seeds` writes valid ones, `read` reads one.

    `read` may return or raise an error of `optrode.errors`; anything else is a finding. `imports` are libraries of
    which a file may choose modules.
    """

    name: str
    share: float
    seeds: Callable[[Path], None]
    read: Callable[[Path], Any]
    seal: Callable[[Tree, Tree], Tree]
    imports: tuple[str, ...] = ()


def kind(
    *,
    share: float,
    read: Callable[[Path], Any],
    seal: Callable[[Tree, Tree], Tree] = lambda tree, before: tree,
    imports: tuple[str, ...] = (),
) -> Callable[[Callable[[Path], None]], Callable[[Path], None]]:
    """Register the kind whose seeds the decorated function writes; its name is that of the function."""

    def registered(seeds: Callable[[Path], None]) -> Callable[[Path], None]:
        name = seeds.__name__.replace("_", "-")
        KINDS[name] = Kind(name, share, seeds, read, seal, imports)
        return seeds

    return registered


def all_kinds() -> dict[str, Kind]:
    """Every kind of every module `kinds_*` beside this one."""
    package = __name__.rpartition(".")[0]
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        if module.name.startswith("kinds_"):
            importlib.import_module(f"{package}.{module.name}")
    return KINDS
