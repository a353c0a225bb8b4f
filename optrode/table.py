"""The table of a network's sites: every address, and where in the network it lives."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .layouts import Port
from .towers import DECODER

if TYPE_CHECKING:
    from .host import Host


@dataclass(frozen=True)
class SiteInfo:
    """One activation of one model: its address, where it lives, and what it is.

    `rank` orders the sites of one stack of blocks by execution; None means unknown (raw module paths), so that no early
    stop can follow it. `scale` is what the block multiplies the site `adds_to` with before the addition. `tower` is the
    prefix of the tower it lies in, "" for the network's own blocks.
    """

    address: str
    layer: int | None
    module: str
    port: Port
    rank: tuple[int, int] | None
    adds_to: str | None = None
    scale: float = 1.0
    tower: str = ""

    @property
    def equation(self) -> str:
        return self.port.says

    @property
    def name(self) -> str:
        """What it is called within its block, or within its tower where it lies outside the blocks."""
        inner = self.address.removeprefix(f"{self.tower}.") if self.tower else self.address
        return inner.split(".", 2)[2] if self.layer is not None else inner

    def at(self, name: str) -> str:
        """The address of another site of the same block."""
        return self.address.removesuffix(self.name) + name


def whole_table(host: Host) -> dict[str, SiteInfo]:
    """Every named site by address, in order of execution: the towers first, then the network's own blocks."""
    found: dict[str, SiteInfo] = {}
    for prefix, tower in host.tower_hosts.items():
        for site in tower.table.values():
            found[f"{prefix}.{site.address}"] = _in_whole(host, prefix, site)
    found |= _own_table(host)
    for prefix, tower in host.tower_hosts.items():
        # The head is a part of the whole, although it goes on from one of the towers.
        head = tower.layout.head if tower.layout else None
        if head is not None and head.module in host.paths and "logits" not in found:
            found["logits"] = SiteInfo(
                "logits", None, head.module, _in_tower(prefix, head), (tower.layers + 1, 0), tower=prefix
            )
    return found


def _in_whole(host: Host, prefix: str, site: SiteInfo) -> SiteInfo:
    return replace(
        site,
        port=_in_tower(prefix, site.port),
        address=f"{prefix}.{site.address}",
        module=join(host.tower_paths[prefix], site.module),
        adds_to=f"{prefix}.{site.adds_to}" if site.adds_to else None,
        tower=prefix,
    )


def _in_tower(prefix: str, port: Port) -> Port:
    """A port of a tower: what a decoder writes are not the tokens of the prompts."""
    if prefix != DECODER:
        return port
    return replace(port, axes=tuple("written" if axis == "token" else axis for axis in port.axes))


def _own_table(host: Host) -> dict[str, SiteInfo]:
    found: dict[str, SiteInfo] = {}
    if host.layout is None:
        return found
    base, layout = host.base_path, host.layout
    for order, (name, port) in enumerate(layout.outer_before.items()):
        _enter(host, found, name, None, join(base, port.module), port, (-1, order), None)
    for layer in range(host.layers):
        block = join(base, layout.blocks, str(layer))
        for order, (name, port) in enumerate(layout.ports_of(host.blocks[layer]).items()):
            adds_to = f"layers.{layer}.{port.adds_to}" if port.adds_to else None
            address = f"layers.{layer}.{name}"
            _enter(host, found, address, layer, join(block, port.module), port, (layer, order), adds_to)
    for order, (name, port) in enumerate(layout.outer_after.items()):
        _enter(host, found, name, None, join(base, port.module), port, (host.layers, order), None)
    # The output of a network without head is no logits; where a map was measured, that was too.
    measured = layout.name.startswith("measured:")
    if layout.head is not None and (layout.head.module or base or measured):
        _enter(host, found, "logits", None, layout.head.module, layout.head, (host.layers + 1, 0), None)
    return found


def _enter(
    host: Host,
    found: dict[str, SiteInfo],
    address: str,
    layer: int | None,
    path: str,
    port: Port,
    rank: tuple[int, int],
    adds_to: str | None,
) -> None:
    # A part that this network does not have (no head, no pooler) has no site.
    if path in host.paths:
        found[address] = SiteInfo(address, layer, path, port, rank, adds_to, _scale(host, address, port))


def _scale(host: Host, address: str, port: Port) -> float:
    """The factor of the part that a sum such as `mid` is written through."""
    for equation in host.layout.equations if host.layout else ():
        if port.adds_to in equation.scale and address.endswith(f".{equation.result}"):
            return host.scales(equation)[port.adds_to]
    return 1.0


def join(*parts: str) -> str:
    """A module path of its parts, of which some may be empty."""
    return ".".join(part for part in parts if part)
