from __future__ import annotations

import pytest

from optrode.engine.sizes import as_bytes
from optrode.errors import BadInput
from optrode.messages import bytes_text


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("2GB", 2 * 10**9),
        ("2 gib", 2**31),
        ("1.5MB", 1_500_000),
        ("300k", 300_000),
        ("17", 17),
        (4096, 4096),
        ("1TiB", 2**40),
    ],
)
def test_sizes_as_people_write_them(text, count: int):
    assert as_bytes(text) == count


@pytest.mark.parametrize("text", ["", "GB", "two GB", "2GBB", "-1", 0, "1e9", "nan", "0.1B", "2 G B"])
def test_what_is_no_size(text):
    with pytest.raises(BadInput, match="2GB"):
        as_bytes(text)


def test_sizes_as_people_read_them():
    texts = [bytes_text(count) for count in (0, 999, 1000, 1_234_000, 5 * 10**9, 3 * 10**12)]
    assert texts == ["0 B", "999 B", "1 kB", "1.23 MB", "5 GB", "3 TB"]
