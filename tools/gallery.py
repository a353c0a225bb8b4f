"""Writes the gallery of systems: docs/systems/index.md, and a page with a chart for every row that has something here.

Run `python tools/catalogue.py` first, then `python tools/gallery.py [SHARED]`. SHARED is the folder with the cards,
whose list of pitfalls is kept in docs/data/pitfalls.json.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
import textwrap
from collections import defaultdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from optrode.catalogue.rows import System, all_systems  # noqa: E402

PAGES = ROOT / "docs" / "systems"
PITFALLS = ROOT / "docs" / "data" / "pitfalls.json"
RESULTS = ROOT / "studies" / "results"
COLOURS = {"reproduced": "#1b7f5c", "direction only": "#b07d00", "not reproduced": "#a5342a"}


def main() -> None:
    if len(sys.argv) > 1:
        keep_pitfalls(Path(sys.argv[1]))
    pitfalls = json.loads(PITFALLS.read_text(encoding="utf-8"))
    PAGES.mkdir(parents=True, exist_ok=True)
    for old in PAGES.glob("*"):
        old.unlink()
    for system in all_systems():
        if system.status != "planned":
            (PAGES / f"{system.id}.md").write_text(page(system, pitfalls.get(system.id, [])), encoding="utf-8")
    (PAGES / "index.md").write_text(index(), encoding="utf-8")


def keep_pitfalls(shared: Path) -> None:
    """The pitfalls of the cards of rows that are here."""
    shown = {system.id for system in all_systems() if system.status != "planned"}
    found = {card.stem: pitfalls_of(card.read_text(encoding="utf-8")) for card in sorted(shared.glob("cards/*/*.md"))}
    kept = {id: lines for id, lines in found.items() if id in shown}
    PITFALLS.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def pitfalls_of(card: str) -> list[str]:
    """The items of the list that follows **Pitfalls**, one line each."""
    found = re.search(r"\*\*Pitfalls\*\*:?[ \t]*\n(.*?)(?=\n\*\*|\Z)", card, re.DOTALL)
    items = re.split(r"^- ", found.group(1), flags=re.MULTILINE)[1:] if found else []
    return [" ".join(item.split()) for item in items]


def index() -> str:
    systems = all_systems()
    families = defaultdict(list)
    for system in systems:
        families[system.family].append(system)
    works = sum(system.status == "works" for system in systems)
    lines = [
        "# Systems",
        "",
        f"The {len(systems)} published systems that have a place here. {works} work: they have a method, a test",
        "against a reference or a second derivation, and a study that ran. What a study found is in its column; a",
        "claim that did not hold here is a result like any other. `optrode systems` prints this list and searches it.",
        "",
        "Written by `python tools/gallery.py`.",
    ]
    for family in sorted(families):
        lines += ["", f"## {family}", "", "| System | Status | Study | What it is for |", "| --- | --- | --- | --- |"]
        lines += [_line(system) for system in sorted(families[family], key=lambda system: system.id)]
    return "\n".join(lines) + "\n"


def _line(system: System) -> str:
    name = f"[{system.id}]({system.id}.md)" if system.status != "planned" else system.id
    job = textwrap.shorten(_first_sentence(system.job), 160, placeholder=" ...").replace("|", r"\|")
    return f"| {name} | {system.status} | {system.verdict or '-'} | {_safe(job)} |"


def _first_sentence(text: str) -> str:
    return re.split(r"(?<=[.;]) ", text)[0]


def _safe(text: str) -> str:
    """Text of a table or paragraph in which nothing is taken for a tag or emphasis; what is in backticks stays."""
    parts = text.split("`")
    # Stressed words lose their stress: cut texts would leave one half of it.
    parts[::2] = [re.sub(r"(?<![\w*])\*(\w[^*]*?)\*(?![\w*])", r"\1", part) for part in parts[::2]]
    plain = [part.replace("<", "&lt;").replace("*", r"\*").replace("_", r"\_") for part in parts[::2]]
    parts[::2] = plain
    return "`".join(parts)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def page(system: System, pitfalls: list[str]) -> str:
    paper = f"[arXiv {system.paper}](https://arxiv.org/abs/{system.paper})" if system.paper else "no arXiv id"
    lines = [f"# {system.id}", "", f"*{_safe(system.title)}* ({paper})", ""]
    lines += [f"**What it is for.** {_safe(_sentence(system.job))}", "", f"**Status.** {status(system)}", ""]
    if system.entry_points:
        shown = ", ".join(f"`{name}`" for name in system.entry_points)
        lines += ["## How to call it", "", f"{shown}", ""]
        for name in system.entry_points:
            lines += [f"::: {defined_at(name)}", ""]
    result = RESULTS / f"{system.id}.json"
    if result.exists():
        lines += study(system, json.loads(result.read_text(encoding="utf-8")))
    if pitfalls:
        lines += ["## Pitfalls", ""] + [f"- {_safe(item)}" for item in pitfalls]
    return "\n".join(lines).rstrip() + "\n"


def defined_at(entry_point: str) -> str:
    """The full name of a class that is reached by a shorter one: where its documentation is."""
    package, _, name = entry_point.rpartition(".")
    return f"{getattr(importlib.import_module(package), name).__module__}.{name}"


def status(system: System) -> str:
    if system.status == "works":
        return "works: method, parity test and study."
    return f"{system.status}: it has no {' and no '.join(system.missing)} yet."


def study(system: System, result: dict[str, Any]) -> list[str]:
    lines = ["## What its study found", "", f"**{result['verdict'].capitalize()}**, over all essential claims.", ""]
    if chart(system.id, result["findings"]):
        lines += [f"![What was measured, with intervals]({system.id}.svg)", ""]
        lines += [
            "Each line has units of its own. Green: reproduced; amber: the direction only; red: not reproduced.",
            "",
        ]
    lines += ["| Claim | Baseline | Measured | Verdict |", "| --- | --- | --- | --- |"]
    for finding in result["findings"]:
        beside = "" if finding["essential"] else " (beside)"
        cells = (finding["claim"], finding["baseline"], finding["measured"], finding["verdict"] + beside)
        lines.append("| " + " | ".join(_safe(cell.replace("|", r"\|").replace("\n", " ")) for cell in cells) + " |")
    record = result["record"]
    lines += ["", f"Smaller than the paper's: {result['shrunk']}." if result["shrunk"] else "At the paper's size.", ""]
    lines += [f"Repeat it: `optrode study {system.id}` ({record['seconds']:.0f} s of wall time when it ran).", ""]
    return lines


def chart(id: str, findings: list[dict[str, Any]]) -> bool:
    """One line a claim that has an interval: the value, its interval, and the verdict as colour. Each has own units."""
    import altair
    import vl_convert

    rows = [row for finding in findings if (row := _interval(finding))]
    if not rows:
        return False
    parts = [_line_of(row) for row in rows]
    whole = altair.vconcat(*parts, spacing=4).configure_view(stroke=None).configure(font="sans-serif")
    (PAGES / f"{id}.svg").write_text(vl_convert.vegalite_to_svg(whole.to_dict()), encoding="utf-8")
    return True


def _line_of(row: dict[str, Any]) -> Any:
    import altair

    faint = {"labelColor": "#666", "domainColor": "#ccc", "tickColor": "#ccc"}
    axis = altair.Axis(title=None, grid=False, tickCount=4, **faint)
    # A claim takes two lines where it is long.
    label = altair.Axis(
        title=None, labelLimit=420, domain=False, ticks=False, labelFontSize=12, labelExpr="split(datum.label, '|')"
    )
    base = altair.Chart(altair.Data(values=[row])).properties(width=300, height=28)
    name, colour = altair.Y("claim:N", axis=label), altair.value(COLOURS[row["verdict"]])
    # A value without spread would have an axis without width.
    alone = row["low"] == row["high"]
    around = sorted((0.9 * row["value"], 1.1 * row["value"] or 1.0)) if alone else altair.Undefined
    scale = altair.Scale(zero=False, nice=not alone, padding=12, domain=around)
    line = base.mark_rule(strokeWidth=3).encode(
        x=altair.X("low:Q", axis=axis, scale=scale), x2="high:Q", y=name, color=colour
    )
    return line + base.mark_circle(size=90, opacity=1).encode(x="value:Q", y=name, color=colour)


def _two_lines(text: str) -> str:
    return "|".join(textwrap.wrap(text.replace("|", "/"), 58, max_lines=2, placeholder=" ..."))


def _interval(finding: dict[str, Any]) -> dict[str, Any] | None:
    for value in finding["numbers"].values():
        if isinstance(value, dict) and {"value", "low", "high"} <= set(value):
            return {
                "claim": "|".join(
                    textwrap.wrap(finding["claim"].replace("|", "/"), 58, max_lines=2, placeholder=" ...")
                ),
                "verdict": finding["verdict"],
                **{key: value[key] for key in ("value", "low", "high")},
            }
    return None


if __name__ == "__main__":
    main()
