"""The sites of a model as a tree that prints, and what each of them is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .host import Host, SiteInfo
from .layouts import Port

if TYPE_CHECKING:
    from rich.tree import Tree


class SiteTree:
    """Every address of a model. `str()` shows one block for all, with how many have a site that some lack."""

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
            elif branch is None:
                branch = tree.add(f"layers.0 to layers.{host.layers - 1}")
                for name, (count, port) in self._block().items():
                    some = "" if count == host.layers else f" (in {count} of {host.layers} layers)"
                    branch.add(f"{name}  [dim]{', '.join(port.axes)}: {port.says}{some}[/]")
        return tree

    def _block(self) -> dict[str, tuple[int, Port]]:
        """The sites of a block in order, and in how many blocks each of them is."""
        assert self._host.layout is not None
        names = [address.split(".", 2)[2] for address, site in self._host.table.items() if site.layer is not None]
        ports = self._host.layout.ports
        return {name: (names.count(name), port) for name, port in ports.items() if name in names}

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
