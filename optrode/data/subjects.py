"""Subjects given one a line, for behaviours whose replies need no reasons of their own.

A section `== subjects | split` holds `name` or `name | more`; it stands for one `subject` section a line, with `more`,
where there is any, as the only reason of either side.
"""

from __future__ import annotations

from optrode.data.texts import Section, select

Parts = tuple[Section, ...]


def expanded(parts: Parts) -> Parts:
    """`parts` with every line of its `subjects` as a `subject` section of its own.

    >>> [part.fields for part in expanded((Section("subjects", ("fit",), ("owls", "robins")),))]
    [('fit', 'owls', 'owls', 'it'), ('fit', 'robins', 'robins', 'it')]
    """
    found: list[Section] = []
    for part in parts:
        if part.kind != "subjects":
            found.append(part)
            continue
        for line in part.lines:
            name, _, more = (piece.strip() for piece in line.partition("|"))
            found.append(Section("subject", (part.fields[0], name, name, "it"), (f"+ {more}", f"- {more}")))
    return tuple(found)


def rows(parts: Parts, kind: str, split: str) -> list[tuple[str, ...]]:
    """The lines of one section, cut at their bars."""
    lines = select(parts, kind, split)[0].lines
    return [tuple(piece.strip() for piece in line.split("|")) for line in lines]
