"""`optrode fit METHOD`: fit one method and save its edit."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import typer

from ..errors import BadInput, UnknownName, did_you_mean
from . import common

FAMILIES = ("steering", "massive")


def register(app: typer.Typer) -> None:
    @app.command("fit")
    def fit(
        method: str = typer.Argument(..., help="Id of a method, such as caa, actadd or control-vector."),
        model: str = typer.Option(..., "--model", "-m", help=common.MODEL_HELP),
        data: str = typer.Option("sentiment", help="A behaviour, or a CSV or JSONL file of pairs."),
        site: str | None = typer.Option(None, help="Where to read and edit, such as layers.15.out."),
        settings: list[str] | None = typer.Option(None, "--set", help="Another setting of the method, as name=value."),
        out: Path | None = typer.Option(None, "--out", "-o", help="The edit file; METHOD.edit by default."),
        as_json: bool = common.Json,
    ) -> None:
        """Fit a method on contrast data and save the edit, with all it needs to be used rightly.

        Example: [bold]optrode fit caa --model smollm2-135m --data sentiment --site layers.18.out --out cheerful.edit[/]
        """
        from ..compare import as_behaviour
        from ..edits.base import Edit

        chosen = build(method, site, settings or [])
        target = out or Path(f"{method}.edit")
        fitted = chosen.fit(common.load_model(model), as_behaviour(data))
        if not isinstance(fitted, Edit):
            raise BadInput(f"'{method}' gives a {type(fitted).__name__}, not an edit: use it from Python")
        fitted.save(target)
        if as_json:
            common.print_json({"edit": str(target), "recipe": chosen.recipe()})
            return
        typer.echo(f"saved {target}: {chosen.recipe()}")
        common.note(f"try: optrode generate --edit {target} --strength 1 'Tell me about the new restaurant.'")


def build(name: str, site: str | None, settings: list[str]) -> Any:
    """A method with settings from texts. Raises `UnknownName` for a method or setting that does not exist."""
    kind = _find(name)
    given = dict(_split(setting) for setting in settings)
    if site is not None:
        given["site"] = site
    known = {item.name: item for item in fields(kind)}
    for key in given:
        if key not in known:
            raise UnknownName(f"'{name}' has no setting '{key}': {did_you_mean(key, known)}")
    return kind(**{key: _value(text, str(known[key].type)) for key, text in given.items()})


def _find(name: str) -> Any:
    from ..parts.discovery import find_method

    problem: UnknownName | None = None
    for family in FAMILIES:
        try:
            return find_method(f"optrode.{family}", name)
        except UnknownName as missing:
            problem = problem or missing
    assert problem is not None
    raise problem


def _split(setting: str) -> tuple[str, str]:
    name, sign, value = setting.partition("=")
    if not sign or not name:
        raise BadInput(f"'{setting}' is no setting: write name=value")
    return name.strip(), value


def _value(text: str, kind: str) -> Any:
    """A setting's text as its field's type: bool, int, float, pair of texts, or text."""
    if "tuple" in kind:
        return tuple(part.strip() for part in text.split(","))
    if kind == "bool":
        if text.lower() not in ("true", "false", "yes", "no", "1", "0"):
            raise BadInput(f"'{text}' is neither true nor false")
        return text.lower() in ("true", "yes", "1")
    for wanted, make in (("int", int), ("float", float)):
        if kind.split(" |")[0] == wanted:
            try:
                return make(text)
            except ValueError as problem:
                raise BadInput(f"'{text}' is no number, but this setting needs one") from problem
    return text
