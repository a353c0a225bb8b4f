"""The report page of statistics, and their table for the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from optrode.report.foreign import harmless
from optrode.report.result import finite, mapping, records
from optrode.report.text import decimal, plain

if TYPE_CHECKING:
    from rich.console import Console

    from optrode.stats.statistics import Statistics

SHOWN, SHOWN_IN_TERMINAL = 12, 6
_SITES = {
    "site": "site", "rows": "rows", "median": "median norm", "max": "largest norm", "value": "largest value",
    "unit": "channel", "text": "token", "outliers": "outliers", "sinks": "sinks", "silent": "silent",
}  # fmt: skip
# What stands out, each with its title and columns.
_SECTIONS: dict[str, tuple[str, dict[str, str]]] = {
    "massive": ("Massive activations", {
        "unit": "channel", "value": "value", "median": "median size", "text": "token", "document": "document",
        "position": "position", "layers": "massive at",
    }),
    "sinks": ("Sink tokens", {
        "text": "token", "document": "document", "position": "position", "norm": "norm", "ratio": "to the median",
        "layers": "sink at",
    }),
    "outliers": ("Outlier channels", {
        "unit": "channel", "ratio": "to the usual", "value": "largest value", "layers": "outlier at",
    }),
}  # fmt: skip
_WORDS, _CODE = ("site", "text", "layers"), ("site", "layers")


def write_statistics(statistics: Statistics, path: Path) -> Path:
    """Write statistics as one self-contained HTML file (about 1 MB) and return its path.

    The file makes no network request and forbids itself any; every foreign text is escaped. It carries
    `optrode.stats.summary.summary` as JSON, which `optrode.report.read_report` gets back. It is whole or absent; an
    existing one is replaced.
    """
    from optrode.home import written_whole
    from optrode.stats.summary import summary

    content = render(summary(statistics)).encode("utf-8", errors="replace")
    with written_whole(Path(path)) as aside:
        aside.write_bytes(content)
    return Path(path)


def render(summary: dict[str, Any]) -> str:
    """The whole page as text, from `optrode.stats.summary.summary`."""
    from optrode.report.charts import statistics as charts
    from optrode.report.html import render_page

    drawn = {
        "norms": charts.site_norms(summary),
        "magnitudes": charts.site_magnitudes(summary),
        "outliers": charts.outlier_channels(summary),
        "sinks": charts.sink_counts(summary),
        "silent": charts.silent_shares(summary),
    }
    return render_page("statistics.html.j2", view(summary), drawn, summary)


def view(summary: dict[str, Any]) -> dict[str, Any]:
    """Everything that the template shows, as plain strings."""
    info = mapping(summary, "info")
    lines = [_site(line) for line in records(summary, "sites")]
    tables = {key: _section(summary, key) for key in _SECTIONS}
    return {
        "title": _title(info),
        # A range of layers does not break in two.
        "headline": harmless(summary.get("headline")).replace("–", "\u2060–\u2060"),
        "facts": _facts(summary, info),
        "tables": {**tables, "sites": {"columns": _columns(_SITES, lines, ("–", "", "0")), "lines": lines, "left": 0}},
        "not_measured": "not collected",
    }


def _title(info: dict[str, Any]) -> str:
    model = harmless(info.get("model"))
    return f"Activations of {model}" if model not in ("", "activations") else "Activations"


def _facts(summary: dict[str, Any], info: dict[str, Any]) -> list[dict[str, str]]:
    from optrode.stats.rows import several

    unit = harmless(info.get("unit")) or "row"
    sites, skipped = records(summary, "sites"), summary.get("skipped") or 0
    kinds = list(dict.fromkeys(harmless(line.get("kind")) for line in sites))
    names = ", ".join(kinds[:3]) + (f" and {len(kinds) - 3} more" if len(kinds) > 3 else "")
    facts = [
        ("Model", info.get("model"), ""),
        ("Data", ", ".join(map(str, info.get("data") or [])), ""),
        (several(unit).capitalize(), _rows(summary), f"{skipped:,} left out: NaN or infinity" if skipped else ""),
        ("Sites", f"{len(sites):,}", names),
    ]
    if unit == "token":
        usual = info.get("mask") == "usual"
        mask = "no special tokens, no sinks" if usual else "special tokens and sinks too, padding never"
        facts.append(("Counted", info.get("positions") or "all positions", mask))
    return [{"term": a, "value": harmless(b) or "–", "detail": harmless(c)} for a, b, c in facts]


def _rows(summary: dict[str, Any]) -> str:
    """How many rows there are; from the least to the most where sites differ, as maps of pictures do."""
    counts = [line["rows"] for line in records(summary, "sites") if isinstance(line.get("rows"), int)]
    if not counts:
        return "–"
    return f"{min(counts):,}" if min(counts) == max(counts) else f"{min(counts):,} to {max(counts):,}"


def _section(summary: dict[str, Any], key: str) -> dict[str, Any]:
    items = [_LINES[key](item) for item in records(summary, key)]
    columns = _columns(_SECTIONS[key][1], items, ("–", ""))
    return {"columns": columns, "lines": items[:SHOWN], "left": max(0, len(items) - SHOWN)}


def _columns(heads: dict[str, str], lines: list[dict[str, str]], nothing: tuple[str, ...]) -> list[dict[str, Any]]:
    """The columns in which some line says more than `nothing`; `rows` only where the lines differ in it."""
    holding = [key for key in heads if any(line[key] not in nothing for line in lines)]
    if len({line.get("rows") for line in lines}) == 1:
        holding = [key for key in holding if key != "rows"]
    return [
        {"key": key, "head": heads[key], "number": key not in _WORDS, "code": key in _CODE, "token": key == "text"}
        for key in holding
    ]


def _site(line: dict[str, Any]) -> dict[str, str]:
    largest = mapping(line, "largest")
    return {
        "site": harmless(line.get("site")),
        "rows": _whole(line.get("rows")),
        "median": _number(line.get("norm_median")),
        "max": _number(line.get("norm_max")),
        "value": _number(largest.get("value")),
        "unit": plain(largest.get("unit")) if largest else "–",
        "text": shown(largest.get("text")) if largest else "",
        "outliers": _whole(line.get("outlier_units")),
        "sinks": _whole(line.get("sinks")),
        "silent": _whole(line.get("silent_units")),
    }


def _massive(item: dict[str, Any]) -> dict[str, str]:
    place = {key: plain(item.get(key)) for key in ("unit", "document", "position")}
    sizes = {"value": _number(item.get("value")), "median": _number(item.get("median"))}
    return {**place, **sizes, "layers": _layers(item), "text": shown(item.get("text"))}


def _sink(item: dict[str, Any]) -> dict[str, str]:
    place = {key: plain(item.get(key)) for key in ("document", "position")}
    sizes = {"norm": _number(item.get("norm")), "ratio": f"{_number(item.get('ratio'))} ×"}
    return {**place, **sizes, "layers": _layers(item), "text": shown(item.get("text"))}


def _outlier(item: dict[str, Any]) -> dict[str, str]:
    largest = mapping(item, "largest")
    sizes = {"ratio": f"{_number(item.get('ratio'))} ×", "value": _number(largest.get("value"))}
    return {"unit": plain(item.get("unit")), **sizes, "layers": _layers(item)}


_LINES = {"massive": _massive, "sinks": _sink, "outliers": _outlier}


def _layers(item: dict[str, Any]) -> str:
    """The sites as a pattern that `--sites` and `op.read` take."""
    kind = harmless(item.get("kind"))
    inside = harmless(item.get("layers")).replace("–", "-").replace(" ", "")
    if not inside:
        return harmless(item.get("site")) or kind
    return kind.replace("*", f"{{{inside}}}" if "," in inside else inside, 1)


def shown(text: Any) -> str:
    """A token as it can be seen: blanks and line breaks as signs.

    >>> shown(" the"), shown("\\n")
    ('␣the', '↵')
    """
    return harmless(text).replace(" ", "␣").replace("\n", "↵").replace("\t", "⇥")


def _number(value: Any) -> str:
    return decimal(value).replace("-", "\N{MINUS SIGN}") if finite(value) is not None else "–"


def _whole(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else "–"


# Terminal ----------------------------------------------------------------------------------------------------------


def print_statistics(summary: dict[str, Any], console: Console) -> None:
    """Print what stands out, a table of all sites, and the massive activations, sinks and outlier channels."""
    from rich.panel import Panel
    from rich.text import Text

    page = view(summary)
    title, headline = Text(page["title"], "bold"), harmless(summary.get("headline"))
    console.print(Panel(Text(headline), title=title, title_align="left", border_style="blue"))
    tables = page["tables"]
    console.print(_table(tables["sites"]["columns"], tables["sites"]["lines"]))
    for key, (name, _) in _SECTIONS.items():
        table = tables[key]
        if table["lines"]:
            console.print(Text(f"\n{name}", "bold"))
            console.print(_table(table["columns"], table["lines"][:SHOWN_IN_TERMINAL]))
            left = max(0, len(table["lines"]) - SHOWN_IN_TERMINAL) + table["left"]
            if left:
                console.print(Text(f"and {left:,} more", "dim"))
    told = [
        f"{fact['term'].lower()} {fact['value']}" for fact in page["facts"] if fact["term"] not in ("Model", "Data")
    ]
    console.print(Text(f"\n{'; '.join(told)}", "dim"))


def _table(columns: list[dict[str, Any]], lines: list[dict[str, str]]) -> Any:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold", show_edge=False)
    for column in columns:
        justify: Literal["left", "right"] = "right" if column["number"] else "left"
        # Addresses are folded where there is no room for them, numbers are never cut.
        table.add_column(
            column["head"].replace(" ", "\n", 1), justify=justify, no_wrap=not column["code"], overflow="fold"
        )
    for line in lines:
        table.add_row(
            *(Text(_cut(line[column["key"]]) if column["token"] else line[column["key"]]) for column in columns)
        )
    return table


def _cut(text: str, longest: int = 16) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
