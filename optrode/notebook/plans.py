"""Plans of reads, sweeps and harvests: names and values, with what does not fit in colour."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..messages import bytes_text
from .html import Html, attempt, card, code, facts, fold, safely, table, warning
from .sites import by_kind


@safely
def read_plan(plan: Any) -> Html:
    entries: dict[str, Any] = dict(plan.rows())
    if plan.verdict == "refused" and "budget" in entries:
        entries["budget"] = warning(entries["budget"])
    return card("Plan", "read", [plan.model], facts(entries), attempt(lambda: _sites(plan.sites)))


@safely
def told_plan(plan: Any) -> Html:
    """A plan that tells of itself in `lines()`; `late` names the lines that say what does not fit."""
    entries = {name: warning(value) if name in plan.late else value for name, value in plan.lines()}
    return card("Plan", plan.what, [plan.model], facts(entries))


def _sites(kept: Sequence[Any]) -> Html:
    """What is kept, sites of a kind that are alike in one line."""
    known = {site.site: site for site in kept}
    rows: list[tuple[Any, ...]] = []
    for name, sites in by_kind(known).items():
        alike: dict[tuple[Any, ...], list[Any]] = {}
        for site in sites:
            alike.setdefault((known[site].axes, known[site].shape, str(known[site].dtype)), []).append(known[site])
        for (axes, shape, dtype), same in alike.items():
            label = (
                name if len(alike) == 1 else ", ".join(one.site for one in same[:4]) + (" …" if len(same) > 4 else "")
            )
            sizes = " × ".join(f"{axis} {count}" for axis, count in zip(axes, shape, strict=False))
            taken = bytes_text(sum(one.nbytes for one in same))
            rows.append((code(label), sizes, dtype.removeprefix("torch."), taken))
    return fold("sites", table(("site", "axes", "dtype", "bytes"), rows, right=(3,)), about=f"{len(kept):,}")
