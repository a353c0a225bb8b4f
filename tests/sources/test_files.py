from __future__ import annotations

import hashlib
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from optrode.home import written_whole
from optrode.messages import one_line
from optrode.sources.files import made_once, sha256_of


def test_hash_follows_the_content(tmp_path: Path):
    path = tmp_path / "file"
    for content in (b"", b"one", b"a longer one"):
        path.write_bytes(content)
        assert sha256_of(path) == hashlib.sha256(content).hexdigest()


def test_several_at_once_make_it_once(own_home: Path):
    made = []

    def make(target: Path) -> None:
        made.append(target)
        with written_whole(target) as aside:
            time.sleep(0.05)
            aside.write_text("whole")

    target = own_home / "things" / "thing"
    with ThreadPoolExecutor(4) as pool:
        texts = list(pool.map(lambda _: made_once(target, make).read_text(), range(8)))
    assert texts == ["whole"] * 8
    assert made == [target]


def test_causes_are_cut_to_one_line():
    assert one_line(ValueError("\n first \n second")) == "first"
    assert one_line(ValueError()) == "ValueError"
    assert len(one_line("x" * 1000)) == 200


def test_a_folder_that_takes_no_file_is_told_by_the_name_that_was_given():
    with pytest.raises(OSError) as problem, written_whole(Path("/proc/result.json")):
        pass
    assert problem.value.filename == "/proc/result.json"
