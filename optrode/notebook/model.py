"""A model: what it is, how large, where it runs, and its sites in a fold."""

from __future__ import annotations

from typing import Any

from .html import Html, attempt, card, facts, fold, notes, safely
from .sites import body
from .text import several


@safely
def model(host: Any) -> Html:
    kind = attempt(lambda: type(host.module).__name__)
    about = [kind if kind != host.name else "", attempt(lambda: _layers(host)), attempt(lambda: _weights(host))]
    why = attempt(lambda: [f"no named sites: {host.unmapped}"] if host.unmapped and not host.table else [], [])
    entries = {
        "layout": attempt(lambda: _layout(host)),
        "stream": attempt(lambda: f"{host.width} wide" if host.width else None),
        "heads": attempt(lambda: _heads(host)),
        "weights": attempt(lambda: f"{_plain(host.dtype)} on {host.device}"),
        "tokenizer": attempt(lambda: _tokenizer(host)),
        "measured": attempt(lambda: _measured(host.measured)) if not why else None,
    }
    sites = attempt(lambda: fold("sites", body(host), about=_count(host)))
    return card("Model", host.name, about, facts(entries), sites, notes(why))


def _measured(found: Any) -> str | None:
    """How well the site equations held when the network was loaded."""
    if found is None:
        return None
    exact = found.worst is not None and not found.worst.error
    return f"{len(found.checks)} site equations on load, exact to the last bit" if exact else str(found)


def _layers(host: Any) -> str:
    count = sum(host.layers_by_tower.values())
    return several(count, "layer") if count else ""


def _weights(host: Any) -> str:
    count = sum(parameter.numel() for parameter in host.module.parameters())
    for unit, one in (("B", 1e9), ("M", 1e6)):
        if count >= one:
            return f"{count / one:.1f}{unit} parameters"
    return several(count, "parameter")


def _layout(host: Any) -> str:
    stacks = [("", host), *host.tower_hosts.items()]
    return " + ".join(f"{prefix} {own.layout.name}".strip() for prefix, own in stacks if own.layout) or "none"


def _heads(host: Any) -> str:
    counts = host.head_counts()
    shared = "" if counts["key"] == counts["query"] else f", {counts['key']} of keys and values"
    return f"{counts['query']}{shared}"


def _tokenizer(host: Any) -> str | None:
    if host.tokenizer is None:
        return None
    return f"{len(host.tokenizer):,} tokens, {'with a' if host.is_chat else 'no'} chat template"


def _count(host: Any) -> str:
    return f"{len(host.table):,}" if host.table else "module paths"


def _plain(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")
