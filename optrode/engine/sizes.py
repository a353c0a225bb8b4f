"""Bytes and seconds as people write and read them."""

from __future__ import annotations

import re

from ..errors import BadInput

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


def as_bytes(size: str | int | float) -> int:
    """A number of bytes from a number or a text such as `2GB`, `500 MB` or `1.5GiB`. Raises `BadInput`.

    >>> as_bytes("2GB"), as_bytes("1.5 KiB"), as_bytes(4096)
    (2000000000, 1536, 4096)
    """
    found = re.fullmatch(r"\s*([0-9]{1,15}(?:\.[0-9]{1,15})?)\s*([kmgt]i?)?b?\s*", str(size).lower())
    count = int(float(found[1]) * _UNITS[found[2] or ""]) if found else 0
    if count <= 0:
        raise BadInput(f"{size!r} is no number of bytes: write one like 2GB, 500MB or 1.5GiB")
    return count


def seconds_text(seconds: float) -> str:
    """A short text of a time.

    >>> seconds_text(3.14159), seconds_text(600), seconds_text(7200)
    ('3.1 s', '10 min', '2.0 h')
    """
    if seconds < 100:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
