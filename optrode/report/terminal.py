"""A comparison in the terminal: the verdict, the ranked table, and what the best methods make the model say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from optrode.report.foreign import harmless
from optrode.report.result import (
    budget,
    checked,
    interval,
    mapping,
    name_of,
    number,
    over_budget,
    records,
    spread,
    within_random,
)
from optrode.report.text import NOT_MEASURED, bounds, decimal, duration, plain

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text

STYLES = {"control": "dim", "unsteered": "dim", "baseline": "italic"}
# Least widths at which log-odds show their interval too, heads are whole words, and shift shows its interval.
WIDE, WORDS, NARROW = 116, 92, 72
COMPLETIONS_SHOWN, PROMPTS_SHOWN = 2, 2


def print_comparison(result: dict[str, Any], console: Console) -> None:
    """Print the verdict, the warnings, the ranked table and the best methods' completions to `console`.

    The table fits 100 columns and shows the interval of the shift; from 116 on also that of the log-odds. Below 92 its
    heads are short, below 72 intervals and times are left out; from 54 on no number is cut. Baselines are italic,
    controls and the unsteered model dim. Foreign texts are printed as they are, without markup, and control characters
    in them are replaced. Raises `BadInput` when `result` is no comparison result.

    >>> from rich.console import Console
    >>> print_comparison({"schema": "optrode.comparison/1", "headline": "Prompting wins."}, Console(width=40))
    ╭─ Steering comparison ────────────────╮
    │ Prompting wins.                      │
    ╰──────────────────────────────────────╯
    No method was measured.
    """
    checked(result)
    console.print(_verdict(result))
    for warning in filter(None, result.get("warnings") or []):
        console.print(_text(f"Warning: {harmless(warning)}", "yellow"))
    rows = records(result, "rows")
    if not rows:
        console.print(_text("No method was measured."))
        return
    console.print(_table(result, rows, console.width))
    effects = _effects(rows)
    if effects is not None:
        console.print(_text(""))
        console.print(effects)
    for note in _notes(result, rows):
        console.print(_text(note, "dim"))
    for part in _completions(rows):
        console.print(part)


def _text(value: str, style: str = "") -> Text:
    from rich.text import Text

    return Text(value, style=style)


def _verdict(result: dict[str, Any]) -> RenderableType:
    from rich.panel import Panel

    headline = harmless(result.get("headline")) or "No verdict was recorded."
    title = harmless(result.get("title")) or "Steering comparison"
    return Panel(_text(headline), title=_text(title, "bold"), title_align="left", border_style="blue")


def _table(result: dict[str, Any], rows: list[dict[str, Any]], width: int) -> Table:
    from rich import box
    from rich.table import Table

    limit = budget(result)
    gap = 1 if width >= WORDS else 0
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, gap, 0, 0), header_style="bold", show_edge=False)
    table.add_column("method", min_width=8, overflow="fold")
    for head in _heads(width):
        table.add_column(head, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*_line(row, limit, width), style=STYLES.get(str(row.get("kind")), ""))
    return table


# Side effects that a terminal has room for: key of a row, head of the column.
EFFECTS = (
    ("completion_perplexity_ratio", "replies' ppl."),
    ("distinct_2", "distinct-2"),
    ("repetition", "repetition"),
    ("declines", "declined"),
    ("capability", "capability"),
    ("off_target", "off-target"),
)


def _effects(rows: list[dict[str, Any]]) -> Table | None:
    """Side effects by method; None where they were not measured."""
    from rich import box
    from rich.table import Table

    measured = [row for row in rows if interval(row.get("capability")).measured]
    if not measured:
        return None
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold", show_edge=False)
    table.add_column("side effects", min_width=8, overflow="fold")
    for _, head in EFFECTS:
        table.add_column(head, justify="right")
    for row in measured:
        cells = [_text(_cell(row.get(key), 2).replace("n.m.", "–")) for key, _ in EFFECTS]
        table.add_row(_text(name_of(row).replace("\n", " ")), *cells, style=STYLES.get(str(row.get("kind")), ""))
    return table


def _heads(width: int) -> list[str]:
    if width >= WORDS:
        return ["layer", "strength", "shift", "log-odds", "perplexity", "KL", "seconds"]
    return ["layer", "str.", "shift", "log-odds", "ppl.", "KL", *(["sec."] if width >= NARROW else [])]


def _line(row: dict[str, Any], limit: float | None, width: int) -> list[Text]:
    over = over_budget(row, limit)
    perplexity = _cell(row.get("perplexity_ratio"), 2) + ("*" if over else "")
    cells = [
        _text(name_of(row).replace("\n", " ")),
        _text(plain(row.get("layer"))),
        _text(plain(row.get("strength"))),
        _text(_cell(row.get("shift"), 2, whole=width >= NARROW)),
        _text(_cell(row.get("log_odds"), 2, whole=width >= WIDE)),
        _text(perplexity, "red" if over else ""),
        _text(_cell(row.get("kl_neutral"), 3)),
    ]
    return [*cells, _text(_seconds(row))] if width >= NARROW else cells


def _cell(value: Any, places: int, *, whole: bool = False) -> str:
    parts = interval(value)
    if not parts.measured:
        return "n.m."
    return f"{decimal(parts.value, places)} {bounds(parts, places) if whole else ''}".strip()


def _seconds(row: dict[str, Any]) -> str:
    """Time to fit and tune together, when either was measured."""
    parts = [value for key in ("seconds_fit", "seconds_tune") if (value := number(row.get(key))) is not None]
    return decimal(sum(parts), 1) if parts else "–"


def _notes(result: dict[str, Any], rows: list[dict[str, Any]]) -> list[str]:
    limit, random = budget(result), spread(result)
    notes = []
    if any(over_budget(row, limit) for row in rows):
        notes.append("* over the perplexity budget" + (f" of {plain(limit)}" if limit is not None else ""))
    if any(
        not interval(row.get(key)).measured
        for row in rows
        for key in ("shift", "log_odds", "perplexity_ratio", "kl_neutral")
    ):
        notes.append(f"n.m. {NOT_MEASURED}")
    if number(random.get("p95")) is not None:
        span = f"{decimal(random.get('p05'))} to {decimal(random.get('p95'))}, best {decimal(random.get('best'))}"
        notes.append(f"{plain(random.get('count'))} random directions shift by {span} (5th to 95th percentile)")
        inside = [name_of(row) for row in rows if within_random(row, random)]
        notes += [f"no better than a random direction: {', '.join(inside)}"] if inside else []
    seconds = mapping(result, "record").get("seconds")
    return [*notes, f"took {duration(seconds)}"] if number(seconds) is not None else notes


def _completions(rows: list[dict[str, Any]]) -> list[RenderableType]:
    """Per prompt: the unsteered completion, then that of each of the best rows."""
    from rich.padding import Padding

    best = [row for row in rows if row.get("kind") not in ("unsteered", "control") and records(row, "completions")]
    best = best[:COMPLETIONS_SHOWN]
    if not best:
        return []
    parts: list[RenderableType] = []
    for pair in records(best[0], "completions")[:PROMPTS_SHOWN]:
        said = [("unsteered", pair.get("unsteered"), "dim")]
        said += [(name_of(row), _steered(row, pair.get("prompt")), "bold") for row in best]
        parts += [_text(""), _text(harmless(pair.get("prompt")) or NOT_MEASURED, "bold cyan")]
        parts += [Padding.indent(_said(*item), 2) for item in said]
    return parts


def _steered(row: dict[str, Any], prompt: Any) -> Any:
    return next((pair.get("steered") for pair in records(row, "completions") if pair.get("prompt") == prompt), None)


def _said(name: str, words: Any, style: str) -> Text:
    from rich.text import Text

    shown = " ".join(harmless(words).split()) or NOT_MEASURED
    return Text.assemble((f"{name}: ", style), (shown, "dim" if style == "dim" else ""))
