"""How plans print: a title, and a name and a value a line."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from .sizes import seconds_text

if TYPE_CHECKING:
    from rich.table import Table

_UNKNOWN = "not known: no made-up input runs"


class Told:
    """What tells of itself in `lines`. `what` says what is planned; `late` names lines that say what does not fit."""

    what: ClassVar[str] = ""
    model: str
    late: tuple[str, ...] = ()

    def lines(self) -> list[tuple[str, str]]:
        """What is printed: a name and a value a line."""
        raise NotImplementedError

    def __str__(self) -> str:
        lines = [f"  {name + ':':<11}{value}" for name, value in self.lines()]
        return "\n".join([f"Plan of a {self.what} of {self.model}", *lines])

    def __repr__(self) -> str:
        return str(self)

    def __rich__(self) -> Table:
        from rich.markup import escape
        from rich.table import Table

        title = f"plan of a {self.what}: {escape(self.model)}"
        table = Table(box=None, show_header=False, pad_edge=False, title=title, title_justify="left")
        for name, value in self.lines():
            table.add_row(f"[bold]{name}[/]", escape(value), style="red" if name in self.late else "")
        return table

    def _repr_html_(self) -> str:
        from ..notebook.plans import told_plan

        return told_plan(self)


def takes_text(seconds: float | None, basis: str) -> str:
    """How long something takes, and how that is known."""
    if seconds is None:
        return _UNKNOWN
    return f"about {seconds_text(seconds)}" + (f" ({basis})" if seconds and basis else "")
