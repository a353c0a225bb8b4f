"""Draws docs/functions/zoo.svg: every elementwise function of the list with its derivative, in the list's order.

    python tools/functions_sheet.py

The SVG is written by hand, since hundreds of chart panels would make a file of many megabytes.
"""

from __future__ import annotations

import sys
from html import escape
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from optrode.functions import get, names  # noqa: E402
from optrode.functions.chart import COLOURS, GREY, curve  # noqa: E402

PAGE = ROOT / "docs" / "functions" / "zoo.svg"
COLUMNS, WIDE, HIGH, GAP, TITLE = 10, 92, 62, 12, 13
ENDS = 4.0


def main() -> None:
    shown = names(elementwise=True)
    rows = -(-len(shown) // COLUMNS)
    width, height = COLUMNS * (WIDE + GAP), rows * (HIGH + TITLE + GAP) + 24
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="system-ui, Segoe UI, Helvetica, Arial, sans-serif" font-size="8.2">',
        f"<style>text{{fill:{GREY}}}.f{{stroke:{COLOURS['f(x)']};stroke-width:1.4;fill:none}}"
        f".d{{stroke:{COLOURS['df/dx']};stroke-width:1;fill:none;stroke-dasharray:2.5 1.5}}"
        f".z{{stroke:{GREY};stroke-width:.5;opacity:.6}}</style>",
        '<text x="2" y="11" font-size="10">function (solid) and derivative (dashed), x from -4 to 4, each panel to its '
        "own height, at least from -1 to 1; values beyond 6 are cut off</text>",
    ]
    for number, name in enumerate(shown):
        left, top = (number % COLUMNS) * (WIDE + GAP) + 2, (number // COLUMNS) * (HIGH + TITLE + GAP) + 24
        parts.append(panel(name, left, top))
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text("\n".join([*parts, "</svg>"]) + "\n", encoding="utf-8")
    print(f"{len(shown)} functions, {PAGE.stat().st_size // 1024} KiB")


def panel(name: str, left: float, top: float) -> str:
    points = curve(get(name), -ENDS, ENDS, points=97)
    values = [point["y"] for point in points if point["y"] is not None]
    low, high = min([-1.0, *values]), max([1.0, *values])

    def across(x: float) -> float:
        return (x + ENDS) / (2 * ENDS) * WIDE

    def down(y: float) -> float:
        return (high - y) / (high - low) * HIGH

    lines = []
    for line, style in (("df/dx", "d"), ("f(x)", "f")):
        path, pen = "", "M"
        for point in points:
            if point["line"] != line:
                continue
            if point["y"] is None:
                pen = "M"
                continue
            path += f"{pen}{across(point['x']):.1f} {down(point['y']):.1f}"
            pen = "L"
        if path:
            lines.append(f'<path class="{style}" d="{path}"/>')
    short = name if len(name) <= 22 else name[:21] + "…"
    zero = f'<path class="z" d="M0 {down(0):.1f}H{WIDE}M{WIDE / 2} 0V{HIGH}"/>'
    title = f'<text x="0" y="-3">{escape(short)}</text>'
    return (
        f'<g transform="translate({left} {top + TITLE})"><title>{escape(name)}: {escape(get(name).formula)}</title>'
        + (title + zero + "".join(lines) + "</g>")
    )


if __name__ == "__main__":
    main()
