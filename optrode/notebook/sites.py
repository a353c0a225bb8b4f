"""Sites of a model: the blocks that have the same ones are told once, with how many they are."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from .html import Html, card, code, fold, joined, notes, quiet, safely, table, tag
from .text import several, spans

_LAYER = re.compile(r"^((?:\w+\.)?layers)\.(\d+)\.(.+)$")


@safely
def site_tree(tree: Any) -> Html:
    """`SiteTree`: every address, folded by block."""
    host = tree._host
    kind = type(host.module).__name__
    return card("Sites", host.name, [kind if kind != host.name else "", several(len(tree), "site")], body(host))


def body(host: Any) -> Html:
    """The sites of a network, towers one after the other; module paths where it has no others."""
    if not host.table:
        return _modules(host)
    stacks: dict[str, list[Any]] = {}
    for site in host.table.values():
        stacks.setdefault(site.tower, []).append(site)
    parts: list[Any] = []
    if host.layout is not None and host.layout.name.startswith("measured:"):
        parts.append(quiet("no table knows this network: its sites were found by measurement"))
    if len(stacks) == 1:
        return joined(*parts, *_stack(next(iter(stacks.values())), next(iter(stacks))))
    for prefix, sites in stacks.items():
        parts.append(fold(code(prefix or "the whole"), *_stack(sites, prefix), about=several(len(sites), "site")))
    for prefix, tower in host.tower_hosts.items():
        if prefix not in stacks:
            parts.append(notes([f"{prefix}: no named sites, {tower.unmapped or 'no layout is known'}"]))
    return joined(*parts)


def _stack(sites: Sequence[Any], prefix: str) -> list[Html]:
    """What lies before the blocks, the blocks by what they have, and what lies after them."""
    layers: dict[int, list[Any]] = {}
    before: list[Any] = []
    after: list[Any] = []
    for site in sites:
        if site.layer is not None:
            layers.setdefault(site.layer, []).append(site)
        else:
            (after if layers else before).append(site)
    alike: dict[tuple[Any, ...], list[int]] = {}
    for layer, own in layers.items():
        alike.setdefault(tuple((site.name, site.port.axes, site.equation) for site in own), []).append(layer)
    stem = f"{prefix}.layers" if prefix else "layers"
    parts = [_table(before)] if before else []
    for number, (_, same) in enumerate(alike.items()):
        own = layers[same[0]]
        about = f"{several(len(same), 'layer')} × {several(len(own), 'site')}"
        parts.append(fold(code(f"{stem}.{spans(same)}"), _table(own, short=True), about=about, opened=number == 0))
    return [*parts, _table(after)] if after else parts


def _table(sites: Iterable[Any], short: bool = False) -> Html:
    rows = [
        (
            tag("code", site.name if short else site.address, title=site.module),
            " × ".join(site.port.axes),
            site.equation,
        )
        for site in sites
    ]
    return table(("site", "axes", "what it is"), rows)


def _modules(host: Any) -> Html:
    found = [(f"module:{path}", type(module).__name__) for path, module in host.module.named_modules() if path]
    why = [f"no named sites: {host.unmapped}"] if host.unmapped else []
    listed = table(("module", "class"), [(code(path), kind) for path, kind in found])
    return joined(fold("module paths", listed, about=f"{len(found):,}", opened=len(found) <= 12), notes(why))


def by_kind(sites: Iterable[str]) -> dict[str, list[str]]:
    """Sites that differ by layer alone, together: a pattern, and the addresses that are of it.

    >>> by_kind(["layers.0.out", "layers.1.out", "logits"])
    {'layers.0-1.out': ['layers.0.out', 'layers.1.out'], 'logits': ['logits']}
    """
    found: dict[tuple[str, str], list[tuple[int, str]]] = {}
    for site in sites:
        parts = _LAYER.match(site)
        key = (parts[1], parts[3]) if parts else (site, "")
        found.setdefault(key, []).append((int(parts[2]) if parts else 0, site))
    named = {}
    for (stem, name), own in found.items():
        label = f"{stem}.{spans(layer for layer, _ in own)}.{name}" if name else stem
        named[label] = [site for _, site in own]
    return named


def layer_of(site: str) -> int | None:
    """The number of the block that a site is in; None for one that is in none."""
    found = _LAYER.match(site)
    return int(found[2]) if found else None
