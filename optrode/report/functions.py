"""The report page of a comparison of activation functions, and its table for the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from optrode.report.foreign import harmless
from optrode.report.result import interval, mapping, records
from optrode.report.text import bounds, decimal

if TYPE_CHECKING:
    from rich.console import Console

COLUMNS = {
    "function": "function", "score": "score", "interval": "95 % interval", "rank": "mean rank", "first": "first",
    "rate": "rate", "dead": "dead units", "sparsity": "zeros", "gradients": "gradient first/last", "step": "ms a step",
    "kept": "kept, kB",
}  # fmt: skip
# What a narrow terminal has no room for, and from which width on it has.
LEFT_OUT, WIDE = ("kept", "gradients", "rank", "step"), 100
_HELP = (
    ("score", "mean over seeds on data that neither weights nor learning rate were chosen on; {better} is better"),
    ("first", "probability of having the best mean, seeds drawn with replacement"),
    ("dead units", "hidden units that give the same for every example"),
    ("gradient first/last", "norm of the first weight's gradient over the last's, after training"),
    ("agreement of seeds", "mean rank correlation of two seeds; 0.5 and less says that the order is the seeds' own"),
    ("kept", "memory that one forward keeps for its backward"),
)


def write_functions(result: dict[str, Any], path: Path) -> Path:
    """Write a result as one self-contained HTML file that makes no network request; it carries the result as JSON."""
    from optrode.home import written_whole

    content = render(result).encode("utf-8", errors="replace")
    with written_whole(Path(path)) as aside:
        aside.write_bytes(content)
    return Path(path)


def render(result: dict[str, Any]) -> str:
    from optrode.report.charts import functions as charts
    from optrode.report.html import render_page

    drawn = {"scores": charts.scores(result), "losses": charts.losses(result)}
    return render_page("functions.html.j2", view(result), drawn, result)


def view(result: dict[str, Any]) -> dict[str, Any]:
    """Everything that the page and the terminal show, as plain strings."""
    task, protocol, agreed = mapping(result, "task"), mapping(result, "protocol"), result.get("agreement")
    rows, measure = records(result, "rows"), harmless(task.get("measure")) or "score"
    left_out = {key for key in COLUMNS if rows and all(row.get(key, 0) is None for row in rows)}
    heads = {**COLUMNS, "score": measure}
    explained = {
        heads.get(term, term): value.format(better="more" if task.get("higher") else "less") for term, value in _HELP
    }
    return {
        "title": harmless(result.get("title")) or "Activation functions",
        "headline": harmless(result.get("headline")),
        "warnings": [harmless(one) for one in result.get("warnings") or []],
        "columns": [
            {"key": key, "head": head, "number": key != "function"}
            for key, head in heads.items()
            if key not in left_out
        ],
        "lines": [_line(row) for row in rows],
        "help": [{"term": term, "value": value} for term, value in explained.items() if term not in left_out],
        "facts": [
            {"term": "Network", "value": harmless(protocol.get("network")) or "–"},
            {"term": "Seeds", "value": str(len(protocol.get("seeds") or []))},
            {"term": "Steps", "value": str(protocol.get("steps", "–"))},
            {"term": "Rates tried", "value": ", ".join(f"{rate:g}" for rate in protocol.get("rates") or [])},
            {"term": "Agreement of seeds", "value": "–" if agreed is None else f"{agreed:.2f}"},
        ],
    }


def _line(row: dict[str, Any]) -> dict[str, str]:
    score = interval(mapping(row, "score"))
    blown = bool(row.get("diverged")) and not score.measured
    return {
        "function": harmless(row.get("function")),
        "score": "blew up" if blown else decimal(score.value, 3),
        "interval": bounds(score, 3),
        "rank": decimal(row.get("rank"), 1),
        "first": _share(row.get("first")),
        "rate": f"{row['rate']:g}" if isinstance(row.get("rate"), int | float) else "–",
        "dead": _share(row.get("dead")),
        "sparsity": _share(row.get("sparsity")),
        "gradients": "–" if row.get("gradients") is None else decimal(row["gradients"], 2),
        "step": decimal(1000 * row["seconds_per_step"], 2) if row.get("seconds_per_step") else "–",
        "kept": decimal(row["kept"] / 1000, 0) if row.get("kept") else "–",
    }


def _share(value: Any) -> str:
    return f"{value:.0%}" if isinstance(value, int | float) else "–"


def print_functions(result: dict[str, Any], console: Console) -> None:
    """Print the verdict, the warnings and the ranked table."""
    from rich import box
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    page = view(result)
    console.print(Panel(Text(page["headline"]), title=Text(page["title"], "bold"), title_align="left",
                        border_style="blue"))  # fmt: skip
    for warning in page["warnings"]:
        console.print(Text(f"Warning: {warning}", "yellow"))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold", show_edge=False)
    shown = [column for column in page["columns"] if console.width >= WIDE or column["key"] not in LEFT_OUT]
    for column in shown:
        head = "\n".join(column["head"].rsplit(" ", 1))
        table.add_column(head, justify="right" if column["number"] else "left", no_wrap=True)
    for line in page["lines"]:
        table.add_row(*(Text(line[column["key"]]) for column in shown))
    console.print(table)
    console.print(Text("; ".join(f"{fact['term'].lower()} {fact['value']}" for fact in page["facts"]), "dim"))
