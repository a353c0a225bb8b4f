"""A store: how much of what, from where, and whether it is whole."""

from __future__ import annotations

from typing import Any

from ..messages import bytes_text
from .html import Html, attempt, card, code, facts, fold, safely, table, warning
from .text import cut, several


@safely
def store(found: Any) -> Html:
    recipe, origin = found.recipe, found.origin
    about = [several(len(found.sites), "site"), bytes_text(found.nbytes), str(recipe.get("dtype") or "")]
    whole = found.complete
    if not whole:
        about.append(warning("not complete"))
    entries = {
        "where": cut(found.storage.where, 200),
        "model": attempt(lambda: str(origin.get("model") or "")),
        "data": attempt(lambda: cut(origin.get("data") or "", 200)),
        "tokens": attempt(lambda: f"positions {recipe['positions']}" if recipe.get("positions") else ""),
        "shards": f"{len(found.shards):,}{'' if whole else ', some are missing: run the same harvest to go on'}",
    }
    rows = attempt(lambda: [_site(found, address) for address in found.sites], [])
    listed = table(("site", "axes", "dtype", "bytes", "what it is"), rows, right=(3,))
    sites = fold("sites", listed, about=f"{len(rows):,}", opened=len(rows) <= 6)
    settings = {name: cut(value, 200) for name, value in recipe.items() if name not in ("sites", "model", "data")}
    made = attempt(lambda: {name: str(value) for name, value in found.made.items()}, {})
    recipe_told = fold("recipe", facts({**settings, **made}))
    return card("Store", f"{len(found):,} {found.unit}s", about, facts(entries), sites, recipe_told)


def _site(found: Any, address: str) -> tuple[Any, ...]:
    site = found.site(address)
    axes = " × ".join(f"{axis} {count}" for axis, count in zip(site.axes, site.shape, strict=False)) or "one number"
    kept = str(site.kept).removeprefix("torch.") + (", scaled" if site.scaled else "")
    return code(address), axes, kept, bytes_text(len(found) * site.row_bytes), site.equation
