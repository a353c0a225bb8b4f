"""The sites of a model as a tree that prints, and what each of them is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .host import Host, SiteInfo
from .layouts import Port

if TYPE_CHECKING:
    from rich.tree import Tree


class SiteTree:
    """Every address of a model. `str()` shows one block for all, with how many have a site that some lack.

    `sizes` tells the shape of sites by address, `measured` what was measured on load at a layer's site, as a text.
    """

    def __init__(
        self,
        host: Host,
        sizes: Callable[[list[str]], dict[str, tuple[int, ...]]] | None = None,
        measured: Callable[[SiteInfo], str] | None = None,
    ):
        self._host = host
        self._sizes = sizes or (lambda addresses: {})
        self._measured = measured or (lambda site: "")

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
        """What an activation is: equation, axes with the model's own sizes, the module it lives in, and what else it is
        called. Runs one forward of a few tokens to know the sizes."""
        found = self._host.match(address)
        sizes = self._sizes([site.address for site in found])
        return "\n".join(self._explain(site, sizes.get(site.address)) for site in found)

    def _explain(self, site: SiteInfo, sizes: tuple[int, ...] | None) -> str:
        where = {"in": "input", "out": "output"}.get(site.port.side, "inside")
        line = (
            f"{site.address} = {site.equation}; axes: {_axes(site.port, sizes)}; "
            f"{where} of {site.module or 'the network'}"
        )
        if site.adds_to:
            line += f"; written by adding the change to {site.adds_to}"
        measured = self._measured(site)
        if measured:
            line += f"; measured on load: {measured}"
        same = [other for other, info in self._host.table.items() if _is_output_of(info, site)]
        if site.address.startswith("module:") and same:
            line += f"; the same as {same[0]}"
        name = self._host.transformer_lens_name(site)
        return f"{line}; TransformerLens: {name}" if name else line

    def as_dict(self) -> dict[str, dict[str, Any]]:
        """Address -> module, side, axes, equation; plain values for JSON."""
        return {
            address: {"module": s.module, "side": s.port.side, "axes": list(s.port.axes), "equation": s.equation}
            for address, s in self._host.table.items()
        }

    def to_rich(self) -> Tree:
        from rich.markup import escape
        from rich.tree import Tree

        host = self._host
        tree = Tree(f"[bold]{host.name}[/] ({type(host.module).__name__}, {len(self)} sites)")
        if not host.table:
            for path, module in host.module.named_modules():
                if path:
                    tree.add(f"module:{path}  [dim]{type(module).__name__}[/]")
            if host.unmapped:
                tree.add(f"[dim]no named sites: {escape(host.unmapped)}[/]")
            return tree
        if host.layout and host.layout.name.startswith("measured:"):
            tree.add("[dim]no table knows this network: its sites were found by measurement[/]")
        for prefix, tower in host.tower_hosts.items():
            branch = tree.add(f"{prefix}  [dim]{type(tower.module).__name__}[/]")
            if tower.layout is None:
                branch.add(f"[dim]no named sites: {escape(tower.unmapped or 'no layout is known')}[/]")
            _grow(branch, host, prefix)
        _grow(tree, host, "")
        return tree

    def __str__(self) -> str:
        from rich.console import Console

        console = Console(width=120, color_system=None, force_jupyter=False, force_terminal=False)
        with console.capture() as capture:
            console.print(self.to_rich())
        return capture.get()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from .notebook.sites import site_tree

        return site_tree(self)


def _grow(tree: Tree, host: Host, prefix: str) -> None:
    """Add the sites of a tower, or of the network's own blocks, to a tree: one block for all."""
    sites = [site for site in host.table.values() if site.tower == prefix]
    stem, layers, branch = f"{prefix}." if prefix else "", host.layers_by_tower[prefix], None
    for site in sites:
        if site.layer is None:
            tree.add(f"{site.address}  [dim]{site.equation}[/]")
        elif branch is None:
            branch = tree.add(f"{stem}layers.0 to {stem}layers.{layers - 1}")
            for name, (count, port) in _block(host.of(site), sites).items():
                some = "" if count == layers else f" (in {count} of {layers} layers)"
                branch.add(f"{name}  [dim]{', '.join(port.axes)}: {port.says}{some}[/]")


def _block(host: Host, sites: list[SiteInfo]) -> dict[str, tuple[int, Port]]:
    """The sites of a block in order, and in how many blocks each of them is."""
    assert host.layout is not None
    inside = [site for site in sites if site.layer is not None]
    names, axes = [site.name for site in inside], {site.name: site.port.axes for site in inside}
    ports = {name: replace(port, axes=axes[name]) for name, port in host.layout.ports.items() if name in axes}
    return {name: (names.count(name), port) for name, port in ports.items()}


# Sizes along these axes are the input's, not the model's.
_OF_INPUT = ("example", "token", "written", "key", "row", "column", "position")


def _axes(port: Port, sizes: tuple[int, ...] | None) -> str:
    if not port.axes:
        return "as the module gives them"
    known: tuple[int | None, ...] = sizes if sizes and len(sizes) == len(port.axes) else (None,) * len(port.axes)
    pairs = zip(port.axes, known, strict=True)
    return ", ".join(name if size is None or name in _OF_INPUT else f"{name} {size}" for name, size in pairs)


def _is_output_of(info: SiteInfo, raw: SiteInfo) -> bool:
    """Whether a site is, whole and as it is, what a raw site reads."""
    port = info.port
    plain = not (port.part or port.heads or port.channels_first or port.flat or port.adds_to or port.item)
    return plain and (info.module, port.side) == (raw.module, raw.port.side)
