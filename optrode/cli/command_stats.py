"""`optrode stats SOURCE [DATA]`: norms by layer, outlier channels, sinks, massive activations, silent units."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ..errors import BadInput
from . import common

if TYPE_CHECKING:
    from ..stats.statistics import Statistics

COLLECT = ("mean", "variance", "norms", "extremes", "signs", "magnitudes")
ENDING = ".stats"
NEUTRAL_TEXTS = 16
# What only a model takes, and what a store takes too; a file of statistics takes neither.
_OF_MODELS = ("DATA", "--positions", "--context", "--system", "--column")
_OF_STORES = ("--sites", "--collect", "--mask", "--tokens")


def register(app: typer.Typer) -> None:
    @app.command("stats")
    def stats(
        source: str = typer.Argument(
            ..., metavar="SOURCE", help="A model (see optrode models), a store, or a file of statistics (.stats)."
        ),
        data: str | None = typer.Argument(
            None, help="For a model: a file or folder of texts or pictures; by default a few neutral texts."
        ),
        sites: list[str] | None = typer.Option(
            None,
            "--sites",
            "-s",
            help="Site pattern; may be given several times. By default layers.*.out of a model, all of a store.",
        ),
        collect: list[str] | None = typer.Option(
            None, "--collect", "-c", help="One more statistic, such as kurtosis; may be given several times."
        ),
        positions: str | None = typer.Option(None, help="For a model: which tokens, such as last_prompt or content."),
        mask: str = typer.Option("all", help="all, or usual, which leaves out special tokens and sinks."),
        tokens: int | None = typer.Option(None, help="Exactly so many rows; all by default."),
        context: int | None = typer.Option(None, help="For a model: the most tokens of a piece of text."),
        system: str | None = common.System,
        column: str | None = typer.Option(None, help="For a model: the column of the data that holds the text."),
        merge: list[Path] | None = typer.Option(
            None,
            "--merge",
            help="Statistics (.stats) of more data to add, measured alike; may be given several times.",
        ),
        report: Path | None = typer.Option(None, "--report", "-r", help="Write an HTML page with charts."),
        out: Path | None = typer.Option(
            None, "--out", "-o", help="Save the statistics (.stats), to merge or look at later."
        ),
        as_json: bool = common.Json,
    ) -> None:
        """Measure activations while they pass, and say what stands out in them.

        Example: [bold]optrode stats smollm2-135m --report stats.html[/]
        """  # fmt: skip
        _check_outputs(out, report)
        given = {
            "DATA": data, "--positions": positions, "--context": context, "--system": system, "--column": column,
            "--sites": sites, "--collect": collect, "--mask": None if mask == "all" else mask, "--tokens": tokens,
        }  # fmt: skip
        found = _measure(source, {name: value for name, value in given.items() if value not in (None, [])})
        found = found.merge(*map(_loaded, merge or ()))
        if collect and out is None:
            common.note(f"{', '.join(collect)} only go into a file: name one with --out")
        _show(found, out, report, as_json)


def _check_outputs(out: Path | None, report: Path | None) -> None:
    """Refuse names that cannot be written before anything is measured."""
    if out is not None and out.suffix != ENDING:
        raise BadInput(f"'{out.name}' is no name for statistics: use one that ends with {ENDING}")
    for path in (out, report):
        if path is not None and path.is_dir():
            raise BadInput(f"'{path}' is a folder: name a file in it")


def _show(found: Statistics, out: Path | None, report: Path | None, as_json: bool) -> None:
    from ..report.statistics import print_statistics, write_statistics
    from ..stats.summary import summary

    written = {}
    if out is not None:
        written["statistics"] = found.save(out)
    if report is not None:
        written["report"] = write_statistics(found, report)
    if as_json:
        common.print_json({**summary(found), **{name: str(path) for name, path in written.items()}})
        return
    print_statistics(summary(found), common.console())
    for name, path in written.items():
        common.note(f"{name}: {path}")


def _measure(source: str, given: dict[str, Any]) -> Statistics:
    """Statistics of what `source` names: a file of them, a store, or a model."""
    from ..stats.over import stats

    if source.endswith(ENDING):
        _refuse(given, (*_OF_MODELS, *_OF_STORES), f"'{source}' was measured before")
        return _loaded(Path(source))
    options = {name.removeprefix("--"): value for name, value in given.items() if name.startswith("--")}
    options["collect"] = [*COLLECT, *given.get("--collect", ())]
    if _is_store(source):
        _refuse(given, _OF_MODELS, f"'{source}' is a store, whose rows were chosen when it was harvested")
        return stats(source, **options)
    host = common.load_model(source)
    return stats(host, given["DATA"] if "DATA" in given else _texts_for(host), **options)


def _loaded(path: Path) -> Statistics:
    from ..stats.statistics import Statistics

    return Statistics.load(path)


def _is_store(source: str) -> bool:
    """Whether a store is meant; one that lost some of its files is met by what opens it."""
    if "://" in source:
        return True
    folder = Path(source)
    return folder.is_dir() and any(
        path.name in ("store.json", "index.json") or path.name.startswith("shard-") for path in folder.iterdir()
    )


def _texts_for(host: Any) -> list[str]:
    from ..data import neutral_texts

    if host.tokenizer is None:
        raise BadInput(f"{host.name} reads no text: name a folder of pictures after it")
    common.note(f"no data was named: measuring {NEUTRAL_TEXTS} neutral texts that come with optrode")
    return list(neutral_texts(NEUTRAL_TEXTS))


def _refuse(given: dict[str, Any], names: tuple[str, ...], because: str) -> None:
    wrong = [name for name in names if name in given]
    if wrong:
        raise BadInput(f"{because}: leave {', '.join(wrong)} out")
