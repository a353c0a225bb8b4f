"""Writes the measured part of docs/explanation/performance.md from bench/results, with one chart a benchmark.

`make bench` writes the results; then run `python tools/performance.py`. The text around the tables is written by hand.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results"
PAGE = ROOT / "docs" / "explanation" / "performance.md"
CHARTS = ROOT / "docs" / "explanation" / "performance"

START, END = "<!-- measured: {} -->", "<!-- end -->"


def main() -> None:
    text = PAGE.read_text(encoding="utf-8")
    CHARTS.mkdir(exist_ok=True)
    for path in sorted(RESULTS.glob("*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        # The comparison of formats has a table of its own in store-format.md.
        if not isinstance(result.get("rows"), list):
            continue
        start = START.format(path.stem)
        if start not in text:
            sys.exit(f"{PAGE.name} has no place for {path.stem}: add a line '{start}' and below it '{END}'")
        (CHARTS / f"{path.stem}.svg").write_text(chart(result), encoding="utf-8")
        block = f"{start}\n{table(path.stem, result)}\n{END}"
        text = re.sub(re.escape(start) + r".*?" + re.escape(END), lambda _, block=block: block, text, flags=re.DOTALL)
    PAGE.write_text(text, encoding="utf-8")


def table(name: str, result: dict[str, Any]) -> str:
    """The rows as a table, the targets with what was measured, and the notes."""
    unit = result["unit"]
    lines = [f"![{result['title']}](performance/{name}.svg)", ""]
    lines += [
        f"| {result['title']} | {unit} | ratio | over {result['rows'][0]['rounds']} rounds |",
        "| --- | --- | --- | --- |",
    ]
    for row in result["rows"]:
        shown = f"**{row['name']}**" if row["name"].startswith("optrode") else row["name"]
        lines.append(f"| {shown} | {row['seconds']:.3g} | {row['ratio']:.2f} | {row['low']:.2f} to {row['high']:.2f} |")
    lines += ["", f"Ratios are to *{result['reference']}*, of the same round; the median is shown.", ""]
    for target in result["targets"]:
        word = "kept" if target["met"] else "**missed**"
        lines.append(f"- {target['what']}: {target['measured']:g}, bound {target['limit']:g}: {word}.")
    lines += [f"- {note}" for note in result["notes"]]
    facts = result["facts"]
    versions = ", ".join(f"{package} {version}" for package, version in facts["versions"].items())
    lines += ["", f"<small>{versions}; {facts['cores']} cores, {facts['threads']} threads.</small>"]
    return "\n".join(lines)


def chart(result: dict[str, Any]) -> str:
    """Bars of the ratios with their range over rounds; ours in colour. Wide ranges get a logarithmic axis."""
    import altair
    import vl_convert

    rows = [{**row, "ours": row["name"].startswith("optrode")} for row in result["rows"]]
    wide = max(row["ratio"] for row in rows) > 12 * min(row["ratio"] for row in rows)
    scale = altair.Scale(type="log") if wide else altair.Scale(zero=True)
    axis = altair.Axis(title=f"times {result['reference']}", grid=True, tickCount=6)
    names = altair.Axis(title=None, labelLimit=320, labelFontSize=12, domain=False, ticks=False)
    base = altair.Chart(altair.Data(values=rows)).encode(y=altair.Y("name:N", sort=None, axis=names))
    colour = altair.condition("datum.ours", altair.value("#5b3fa8"), altair.value("#b9b4c7"))
    if wide:
        marks = base.mark_circle(size=120, opacity=1).encode(
            x=altair.X("ratio:Q", scale=scale, axis=axis), color=colour
        )
    else:
        marks = base.mark_bar(height=14).encode(x=altair.X("ratio:Q", scale=scale, axis=axis), color=colour)
    spread = base.mark_rule(color="#333").encode(x=altair.X("low:Q", scale=scale), x2="high:Q")
    whole = (marks + spread).properties(width=380, height=26 * len(rows)).configure_view(stroke=None)
    return vl_convert.vegalite_to_svg(whole.configure(font="sans-serif").to_dict())


if __name__ == "__main__":
    main()
