"""Activations: sites of a kind in one line, with axes, bytes, and how long their rows are from layer to layer."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from ..messages import bytes_text
from .html import Html, attempt, card, code, fold, joined, notes, quiet, safely, table, tag
from .pictures import bars, is_wide
from .sites import by_kind, layer_of
from .text import cut, number, several

# Rows of a site that its norm is taken from, and numbers that they may have together.
ROWS, NUMBERS = 48, 65_536
_PROMPTS = 12


@safely
def activations(acts: Any) -> Html:
    if acts.closed:
        return card("Activations", "closed", ["read them again"])
    kinds = by_kind(acts)
    lines = [line for name, sites in kinds.items() for line in _lines(acts, name, sites)]
    parts = [table(("site", "axes", "dtype", "bytes", "norm, median"), lines, right=(3,))]
    if len(acts) > len(lines):
        parts.append(fold("single sites", _single(acts), about=f"{len(acts):,}"))
    parts.append(attempt(lambda: _prompts(acts)))
    return card("Activations", several(len(acts), "site"), _about(acts), *parts, notes(attempt(lambda: acts.notes, [])))


def _about(acts: Any) -> list[str]:
    said = [attempt(lambda: bytes_text(acts.nbytes), "")]
    if acts.on_disk:
        said[0] += " on disk"
    if acts.batch is not None:
        said.append(
            attempt(lambda: f"{several(len(acts.batch), 'example')}, {int(acts.batch.mask.sum()):,} tokens", "")
        )
    if acts.layers_run + acts.layers_skipped:
        said.append(f"{several(acts.layers_run, 'layer')} run, {acts.layers_skipped} skipped")
    if acts.sources:
        said.append("with gradients")
    return said


def _lines(acts: Any, name: str, sites: Sequence[str]) -> list[tuple[Any, ...]]:
    """One line where all sites of a kind are alike, else one each."""
    forms = [attempt(partial(_form, acts, site), ("?", "?")) for site in sites]
    if len(set(forms)) > 1:
        return [_line(acts, site, [site], form) for site, form in zip(sites, forms, strict=True)]
    return [_line(acts, name, sites, forms[0])]


def _line(acts: Any, name: str, sites: Sequence[str], form: tuple[str, str]) -> tuple[Any, ...]:
    taken = attempt(partial(_bytes, acts, sites), "?")
    return code(name), form[0], form[1], taken, attempt(lambda: _norms(acts, sites), "")


def _form(acts: Any, site: str) -> tuple[str, str]:
    value = acts[site]
    named = zip(acts.axes.get(site, ()), value.shape, strict=False)
    axes = " × ".join(f"{name} {count}" for name, count in named) or "one number"
    where = "" if str(value.device) == "cpu" else f" on {value.device}"
    return axes, str(value.dtype).removeprefix("torch.") + where


def _bytes(acts: Any, sites: Sequence[str]) -> str:
    return bytes_text(sum(acts[site].numel() * acts[site].element_size() for site in sites))


def _norms(acts: Any, sites: Sequence[str]) -> Html | str:
    found = [attempt(partial(_norm, acts, site)) for site in sites]
    known = [value for value in found if value is not None]
    if not known:
        return ""
    if len(known) == 1:
        return number(known[0])
    told = [
        f"layer {layer_of(site)}: {'?' if one is None else number(one)}" for site, one in zip(sites, found, strict=True)
    ]
    scale = ", log scale" if is_wide(found) else ""
    span = quiet(f"{number(min(known))} to {number(max(known))}{scale}")
    return joined(bars(found, told, "norm by layer"), " ", span)


def _norm(acts: Any, site: str) -> float | None:
    """The median norm of some rows, padding left out; None where rows are no vectors of features."""
    axes, value = acts.axes[site], acts[site].detach()
    if axes[-1:] != ("feature",) or not value.is_floating_point() or not value.numel():
        return None
    lead = 2 if axes[:2] == ("example", "token") else 1 if axes[0] in ("example", "position") else 0
    if not lead:
        return None
    wide = 1
    for count in value.shape[lead:]:
        wide *= count
    most = max(1, min(ROWS, NUMBERS // max(1, wide)))
    rows = _some(acts, value, most) if lead == 2 else value[:: max(1, -(-len(value) // most))]
    found = float(rows.flatten(1).float().norm(dim=-1).median())
    return found if found == found else None


def _some(acts: Any, value: Any, most: int) -> Any:
    """Tokens from all over, padding left out."""
    if acts.batch is None:
        flat = value.shape[0] * value.shape[1]
        rows = range(0, flat, max(1, -(-flat // most)))
        return value[[row // value.shape[1] for row in rows], [row % value.shape[1] for row in rows]]
    places = acts.batch.mask.nonzero()
    places = places[:: max(1, -(-len(places) // most))].to(value.device)
    return value[places[:, 0], places[:, 1]]


def _single(acts: Any) -> Html:
    rows = []
    for site in acts:
        axes, dtype = attempt(partial(_form, acts, site), ("?", "?"))
        rows.append((code(site), axes, dtype, attempt(partial(_bytes, acts, [site]), "?")))
    return table(("site", "axes", "dtype", "bytes"), rows, right=(3,))


def _prompts(acts: Any) -> Html | None:
    """The prompts by their first words."""
    if acts.batch is None or not any(acts.batch.texts):
        return None
    counts = acts.batch.mask.sum(-1).tolist()
    shown = list(zip(acts.batch.texts, counts, strict=False))[:_PROMPTS]
    lines = [(place, cut(text, 140), count) for place, (text, count) in enumerate(shown)]
    more = len(counts) - len(shown)
    rest = tag("div", quiet(f"and {more:,} more")) if more > 0 else ""
    return fold("examples", table(("", "text", "tokens"), lines, right=(0, 2)), rest, about=f"{len(counts):,}")
