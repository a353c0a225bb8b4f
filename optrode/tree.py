"""The sites of a model as a tree that prints, and what each of them is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .host import Host, SiteInfo

if TYPE_CHECKING:
    from rich.tree import Tree


class SiteTree:
    """Every address of a model. `str()` shows one block in full, since all blocks have the same sites."""

    def __init__(self, host: Host):
        self._host = host

    def __iter__(self) -> Iterator[str]:
        return iter(self._host.table or self.module_paths())

    def __len__(self) -> int:
        return len(self._host.table) or len(self.module_paths())

    def __contains__(self, address: str) -> bool:
        return address in self._host.table or address in self.module_paths()

    def match(self, patterns: Any) -> list[str]:
        """The addresses that patterns select. Raises `UnknownSite` naming the nearest ones."""
        return [site.address for site in self._host.match(patterns)]

    def module_paths(self) -> list[str]:
        """Raw addresses, `module:PATH`, which every network has."""
        return [f"module:{path}" for path, _ in self._host.module.named_modules() if path]

    def explain(self, address: str) -> str:
        """What an activation is: equation, axes, and the module it lives in."""
        return "\n".join(_explain(site) for site in self._host.match(address))

    def as_dict(self) -> dict[str, dict[str, Any]]:
        """Address -> module, side, axes, equation; plain values for JSON."""
        return {
            address: {"module": s.module, "side": s.port.side, "axes": list(s.port.axes), "equation": s.equation}
            for address, s in self._host.table.items()
        }

    def to_rich(self) -> Tree:
        from rich.tree import Tree

        host = self._host
        tree = Tree(f"[bold]{host.name}[/] ({type(host.module).__name__}, {len(self)} sites)")
        if not host.table:
            for path, module in host.module.named_modules():
                if path:
                    tree.add(f"module:{path}  [dim]{type(module).__name__}[/]")
            return tree
        branch = None
        for address, site in host.table.items():
            if site.layer is None:
                tree.add(f"{address}  [dim]{site.equation}[/]")
            elif site.layer == 0:
                branch = branch or tree.add(f"layers.0 to layers.{host.layers - 1}")
                name = address.removeprefix("layers.0.")
                branch.add(f"{name}  [dim]{', '.join(site.port.axes)}: {site.equation}[/]")
        return tree

    def __str__(self) -> str:
        from rich.console import Console

        console = Console(width=120, no_color=True)
        with console.capture() as capture:
            console.print(self.to_rich())
        return capture.get()

    __repr__ = __str__


def _explain(site: SiteInfo) -> str:
    where = "input" if site.port.side == "in" else "output"
    axes = ", ".join(site.port.axes) or "as the module gives them"
    line = f"{site.address} = {site.equation}; axes: {axes}; {where} of {site.module or 'the network'}"
    if site.adds_to:
        line += f"; written by adding the change to {site.adds_to}"
    return line
