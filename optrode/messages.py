"""What a file, a library or a user has said, made fit for one line of ours: cut, and without characters that steer."""

from __future__ import annotations

import reprlib


def plain(text: str, longest: int = 80) -> str:
    """A text as it can stand inside a message; what is not printable becomes a mark.

    >>> plain("two\\nlines\\x1b[2J"), plain("x" * 100, 10)
    ('two�lines�[2J', 'xxxxxxx...')
    """
    cut = text if len(text) <= longest else text[: longest - 3] + "..."
    if cut.isprintable():
        return cut
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in cut)


def shown(value: object, longest: int = 80) -> str:
    """Any value that a file may hold, as its `repr` begins: texts in quotes, long lists and numbers cut.

    >>> shown("a\\nb"), shown([0] * 100), shown(10**400, 20)
    ("'a\\\\nb'", '[0, 0, 0, 0, 0, 0, ...]', '10000000000000000...')
    """
    text = repr(value[:longest]) if isinstance(value, str) else reprlib.repr(value)
    return plain(text, longest)


def one_line(error: BaseException | str, longest: int = 200) -> str:
    """The first line that says something, cut to `longest` characters: causes are quoted inside our own one line.

    >>> one_line("\\n  Header too large\\nTraceback")
    'Header too large'
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return "" if isinstance(error, str) else type(error).__name__
    return plain(lines[0], longest)


def bytes_text(count: float) -> str:
    """A short text of a number of bytes.

    >>> bytes_text(512), bytes_text(2_350_000), bytes_text(4_000_000_000)
    ('512 B', '2.35 MB', '4 GB')
    """
    for unit, size in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{int(count)} B"
