"""From what a user writes to sites: addresses, patterns, names of other libraries, and plain module paths."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from .aliases import addresses_of, transformer_lens_name
from .errors import UnknownSite, did_you_mean
from .layouts import Port
from .layouts.base import inside_attention
from .sites import parse, select
from .table import SiteInfo, join

if TYPE_CHECKING:
    from .host import Host

# What looks like an address is never taken for a module path of a network whose sites are not known.
_ADDRESS = re.compile(r"layers\.\d+\.(in|out|mid|(attn|mlp)\.\w+)|embed|final|logits")


def match(host: Host, patterns: Any) -> list[SiteInfo]:
    """The sites that any of `patterns` (text or list of texts) selects, in order of execution.

    Raises `UnknownSite` naming the nearest addresses.
    """
    given = [patterns] if isinstance(patterns, str) else list(patterns)
    texts = [name for text in given for name in canonical(host, text)]
    named = [text for text in texts if not parse(text).raw]
    raw = [text for text in texts if parse(text).raw]
    for text in named:
        _refuse_unmapped(host, text)
        _refuse_inside_attention(host, text)
    addresses = select(named, list(host.table), host.layers_by_tower) if named or not raw else []
    found = {info.address: info for text in raw for info in _match_raw(host, text)}
    return [host.table[address] for address in addresses] + list(found.values())


def _refuse_unmapped(host: Host, text: str) -> None:
    """Say why a network, or the tower that is meant, has no named sites."""
    if not host.table:
        raise UnknownSite(
            f"{text!r}: {host.name} ({type(host.module).__name__}) has no layout, so name a module path: "
            f"{did_you_mean(text, [f'module:{path}' for path in host.paths if path])}"
        )
    tower = host.tower_hosts.get(text.partition(".")[0])
    if tower and tower.layout is None:
        why = tower.unmapped or "none is known"
        raise UnknownSite(
            f"{text!r}: this tower ({type(tower.module).__name__}) has no layout ({why}): "
            f"name a module path below module:{host.tower_paths[text.partition('.')[0]]}"
        )


def _refuse_inside_attention(host: Host, text: str) -> None:
    """Say why a network that has other sites has none of these."""
    inside = next((name for name in inside_attention("") if text.endswith(f".{name}")), None)
    tower = text.partition("layers.")[0]
    if inside and not any(address.startswith(tower) and address.endswith(f".{inside}") for address in host.table):
        raise UnknownSite(
            f"{text!r}: nothing inside the attention of {type(host.module).__name__} can be reached, since it "
            "does not go through the attention interface of transformers: use attn.out"
        )


# Other names ---------------------------------------------------------------------------------------------------------


def canonical(host: Host, text: str) -> list[str]:
    """The addresses or patterns that a name stands for: itself, unless it is an alias or a module path."""
    text = text.strip()
    if text in host.table or text.startswith("module:"):
        return [text]
    groups = addresses_of(text)
    if groups is not None:
        return [_first_there(host, text, group) for group in groups]
    if text.partition(":")[0] in host.paths and not (host.layout is None and _ADDRESS.fullmatch(text)):
        return [f"module:{text}"]
    return [text]


def transformer_lens_name_of(host: Host, site: SiteInfo) -> str | None:
    """What TransformerLens calls this activation, or None where it has no name for the same one."""
    if site.tower:
        return None
    name = transformer_lens_name(site.address, f"layers.{site.layer}.mlp.gate" in host.table)
    try:
        return name if name and canonical(host, name) == [site.address] else None
    except UnknownSite:
        return None


def _first_there(host: Host, text: str, group: tuple[str, ...]) -> str:
    """The first of an alias's addresses that this network has, as the same activation."""
    if group == ("embed",):
        return _token_embedding(host, text)
    for pattern in group:
        if any(parse(pattern).matches(address, host.layers) for address in host.table):
            if pattern.rpartition(".")[2] in _normed(host):
                raise UnknownSite(
                    f"{text!r} is the sum before the norm that follows it in {host.name}, where no site is: "
                    f"{pattern} is what the norm gives"
                )
            return pattern
    if not host.table:
        return group[0]
    raise UnknownSite(
        f"{text!r} is {group[-1]} here, and {host.name} has no such site: {did_you_mean(group[-1], host.table)}"
    )


def _normed(host: Host) -> set[str]:
    """Sums that are read after the norm that follows them."""
    return {equation.result for equation in host.layout.equations if equation.norm} if host.layout else set()


def _token_embedding(host: Host, text: str) -> str:
    """The output of the token embedding: `embed` only where nothing is added to it there."""
    find_embedding = getattr(host.base, "get_input_embeddings", None)
    try:
        module = find_embedding() if find_embedding else None
    except NotImplementedError:
        module = None
    path = next((path for path, found in host.paths.items() if path and found is module), None)
    if path is None:
        raise UnknownSite(f"{text!r}: {host.name} does not say which module embeds its tokens: name its path")
    return "embed" if "embed" in host.table and host.table["embed"].module == path else f"module:{path}"


# Module paths --------------------------------------------------------------------------------------------------------


def _match_raw(host: Host, text: str) -> list[SiteInfo]:
    pattern, _, side = text.removeprefix("module:").partition(":")
    if side not in ("", "in"):
        raise UnknownSite(f"{text!r}: after the path only :in (the first input) can follow")
    paths = [path for path in host.paths if path and parse(f"module:{pattern}").matches(f"module:{path}", host.layers)]
    if not paths:
        raise UnknownSite(
            f"no module {pattern!r} in {host.name}: {did_you_mean(pattern, [path for path in host.paths if path])}"
        )
    suffix = ":in" if side else ""
    port = Port("", side or "out", f"{'first input' if side else 'output'} of the module", axes=())
    return [SiteInfo(f"module:{path}{suffix}", None, path, port, _raw_rank(host, path)) for path in paths]


def _raw_rank(host: Host, path: str) -> tuple[int, int] | None:
    """A raw site inside a block is done when its block is; elsewhere nobody knows the order."""
    if host.layout is None:
        return None
    stem = join(host.base_path, host.layout.blocks) + "."
    index = path.removeprefix(stem).split(".")[0] if path.startswith(stem) else ""
    return (int(index), len(host.layout.ports)) if index.isdigit() else None
