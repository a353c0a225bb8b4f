"""The contract of a method: a frozen dataclass of hyper-parameters whose `fit` gives an Edit, a Score or a Map.

Settings go into the constructor under the names they have in the paper, with the paper's defaults; data goes into
`fit`. What was fitted is the result, never state of the method, so that one method can be fitted many times.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, is_dataclass
from typing import Any, ClassVar


@dataclass(frozen=True)
class Method:
    """Base of all methods. `id` is the row of the catalogue, `title` what a table calls it, `paper` its arXiv id."""

    id: ClassVar[str] = ""
    title: ClassVar[str] = ""
    paper: ClassVar[str] = ""

    def recipe(self) -> dict[str, Any]:
        """What an edit file records of the method: its id and all settings, plain values only."""
        settings = asdict(self) if is_dataclass(self) else {}
        return {"method": self.id, **{name: _plain(value) for name, value in settings.items()}}


def _plain(value: Any) -> Any:
    if isinstance(value, str | int | float | bool) or value is None:
        return value
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return str(value)
