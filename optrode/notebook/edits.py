"""Edits in plain words, and receipts: what an edit really did, with the layers that ran."""

from __future__ import annotations

import re
from typing import Any

from ..messages import bytes_text
from .html import Html, attempt, card, code, facts, fold, joined, lines, notes, quiet, safely, table, tag
from .pictures import meter, strip
from .sites import layer_of
from .text import several

# Bytes of tensors beyond which an edit is told by its parts alone: an explanation goes through all of them.
MOST_BYTES = 2**26
_PARTS = 8


@safely
def edit(one: Any) -> Html:
    """An `Edit` of any kind, or an edit that is being trained."""
    taken = sum(value.numel() * value.element_size() for value in one.tensors().values())
    about = [f"{one.kind} edit" if one.kind else "", bytes_text(taken) if taken else "no tensors"]
    if taken > MOST_BYTES:
        rows = [(code(name), str(list(value.shape)), str(value.dtype).removeprefix("torch."))
                for name, value in one.tensors().items()]  # fmt: skip
        return card(
            "Edit", type(one).__name__, about, fold("tensors", table(("name", "shape", "dtype"), rows), opened=True)
        )
    return _explained(one.explain(), about)


@safely
def explanation(found: Any) -> Html:
    return _explained(found, [])


def _explained(found: Any, about: list[str]) -> Html:
    if len(found.parts) == 1 and not found.says:
        does, own = found.parts[0]
        return card("Edit", does, about, _facts({**own, **found.about}))
    parts = [
        fold(does, _facts(own), opened=len(found.parts) <= 3) for does, own in found.parts[:_PARTS]
    ]  # fmt: skip
    if len(found.parts) > _PARTS:
        parts.append(tag("div", quiet(f"and {len(found.parts) - _PARTS:,} more parts like these")))
    return card("Edit", found.says or several(len(found.parts), "part"), about, *parts, _facts(found.about))


def _facts(entries: dict[str, str]) -> Html:
    fixed = ("formula", "vector")
    return facts({name: code(value) if name in fixed else value for name, value in entries.items()})


@safely
def receipt(found: Any) -> Html:
    fired = [site for site in found.sites.values() if site.calls]
    idle = [site.address for site in found.sites.values() if not site.calls]
    title = f"{found.changed:,} positions changed by {found.relative_change:.1%} on average" if fired else "nothing ran"
    about = [several(found.forwards, "forward"), f"{len(fired)} of {several(len(found.sites), 'site')} ran"]
    head = ("site", "calls", "rows", "selected", "changed", "mean change", "largest")
    parts = [
        attempt(lambda: _layers(found, [site.address for site in fired])),
        table(head, map(_site, fired), right=(1, 2, 3, 4, 6)) if fired else "",
        fold("sites that never ran", lines(idle), about=f"{len(idle):,}") if idle else "",
        attempt(lambda: _by_row(found)),
    ]
    return card("Receipt", title, about, *parts, notes(found.notes))


def _site(site: Any) -> tuple[Any, ...]:
    calls = f"{site.prefill_calls} prefill + {site.decode_calls} decode"
    mean = joined(
        meter(site.relative_change, f"{site.relative_change:.1%} of the norm"), f" {site.relative_change:.1%}"
    )
    largest = f"{site.largest_change:.1%}{site.said}"
    return code(site.address), calls, f"{site.rows:,}", f"{site.selected:,}", f"{site.changed:,}", mean, largest


def _layers(found: Any, fired: list[str]) -> Html | None:
    """The layers of the last forward as a strip; in words where sites of several towers make the numbers ambiguous."""
    total = found.layers_run + found.layers_skipped
    if not total:
        return None
    said = f"{several(found.layers_run, 'layer')} run, {found.layers_skipped} skipped"
    if total > 400 or any(re.match(r"\w+\.layers\.", site.address) for site in found.sites.values()):
        return tag("div", quiet(said))
    edited = {layer_of(site) for site in fired}
    ran = range(found.first_layer, found.first_layer + found.layers_run)
    states = []
    for layer in range(total):
        state = "skipped" if layer not in ran else "edited" if layer in edited else "run"
        states.append((state, f"layer {layer}: {state}"))
    legend = quiet(f"{said}; edited layers in colour" if edited - {None} else said)
    return tag("figure", tag("figcaption", legend), strip(states, said))


def _by_row(found: Any) -> Html | None:
    rows = [
        (row.number, f"{row.selected:,}", f"{row.changed:,}", f"{row.relative_change:.1%}")
        for row in found.by_row.values()
    ]
    head = ("row", "selected", "changed", "mean change")
    return fold("by row", table(head, rows, right=range(4)), about=f"{len(rows):,}") if rows else None
