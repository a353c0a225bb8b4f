"""What a read must not do. An audit hook sees what Python does; limits stop what takes too long or too much memory.

A hook stays for the life of a process, so that inputs are read in processes of their own. It sees no file that a
library opens without Python (safetensors, Arrow, torch); those get names that Python chose.
"""

from __future__ import annotations

import os
import resource
import signal
import site
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

MIB = 1 << 20
_RUNS = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "subprocess.Popen", "pty.spawn")
_REACHES = ("pickle.find_class", "webbrowser.open", "urllib.Request", "ctypes.dlopen", "code.__new__")
_FORBIDDEN = frozenset((*_RUNS, *_REACHES))
_NETWORK = ("socket.", "ftplib.", "smtplib.", "http.")
_ACTS = ("remove", "rename", "mkdir", "rmdir", "link", "symlink", "chmod", "chown", "truncate", "mkfifo")
_MOVES = {"shutil.rmtree", "shutil.move", "shutil.copyfile", "shutil.copytree"}
_CHANGES = frozenset({f"os.{name}" for name in _ACTS} | _MOVES)
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class TooLong(BaseException):
    """Raised in the middle of a read that goes on for too long."""


class Guard:
    """Watches one process. `case` is the folder of the input, `own` where reads may write."""

    def __init__(self, case: Path, own: list[Path], seconds: float):
        self.seconds = seconds
        self.seen: list[str] = []
        self.allowed: tuple[str, ...] = ()
        self._armed = False
        self._case, self._own = str(case), tuple(map(str, own))
        paths = {sys.prefix, sys.base_prefix, sysconfig.get_paths()["stdlib"], *site.getsitepackages()}
        package = str(Path(sys.modules["optrode"].__file__ or "").parent)
        self._libraries = tuple(sorted({os.path.realpath(path) for path in paths} | paths | {package}))
        self._system = ("/proc/", "/sys/", "/dev/null", "/dev/urandom", "/etc/", "/usr/share/", "/usr/lib/")
        sys.addaudithook(self._hook)
        signal.signal(signal.SIGALRM, self._alarm)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch what the block does; `seen` says afterwards what it should not have done."""
        self.seen.clear()
        signal.setitimer(signal.ITIMER_REAL, self.seconds)
        self._armed = True
        try:
            yield
        finally:
            self._armed = False
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _alarm(self, number: int, frame: FrameType | None) -> None:
        raise TooLong(f"over {self.seconds:g} seconds")

    def _hook(self, event: str, args: tuple[Any, ...]) -> None:
        if not self._armed:
            return
        if event == "open":
            self._open(*args)
        elif event == "import":
            self._import(args[0])
        elif event == "exec":
            self._code(args[0])
        elif event == "compile":
            self._compile(args[1])
        elif event in _FORBIDDEN or event.startswith(_NETWORK) or self._changes(event, args):
            self._note(f"{event} {args!r:.150}")

    def _changes(self, event: str, args: tuple[Any, ...]) -> bool:
        # What is named within a folder that is open already is part of the removal of a tree, which has its own event.
        within = len(args) > 1 and isinstance(args[-1], int) and args[-1] >= 0
        return event in _CHANGES and not within and not self._inside(args[0], self._own)

    def _open(self, path: Any, mode: Any, flags: Any) -> None:
        if isinstance(path, int):
            return
        writes = bool(flags & _WRITING) if isinstance(flags, int) else False
        readable = (self._case, *self._libraries, *self._system)
        if self._inside(path, self._own) or (not writes and self._inside(path, readable)):
            return
        self._note(f"open {path!r:.150} {'to write' if writes else 'outside of the input'}")

    def _inside(self, path: Any, roots: tuple[str, ...]) -> bool:
        try:
            text = os.path.abspath(os.fsdecode(path))
        except (TypeError, ValueError):
            return False
        return any(text == root.rstrip("/") or text.startswith(root.rstrip("/") + "/") for root in roots)

    def _import(self, name: str) -> None:
        if not name.startswith(self.allowed):
            self._note(f"import {name}")

    def _code(self, code: Any) -> None:
        # Modules of libraries are run when they are imported, which is noted as an import.
        own = self._inside(getattr(code, "co_filename", "?"), self._libraries)
        if not own and not _in_a_library() and not _importing():
            self._note(f"exec {code!r:.150}")

    def _compile(self, filename: Any) -> None:
        own = self._inside(filename, self._libraries) or _only_parsed()
        if not own and not _in_a_library() and not _importing():
            self._note(f"compile {filename!r:.150}")

    def _note(self, what: str) -> None:
        if len(self.seen) < 20:
            self.seen.append(what)


def _only_parsed() -> bool:
    """Whether the text is parsed into a tree that nobody runs."""
    return any(name == "parse" and file.endswith("/ast.py") for name, file in _callers())


def _in_a_library() -> bool:
    """Whether a library makes a class of its own out of text, as dataclasses and named tuples do."""
    return any(file.endswith(("/dataclasses.py", "/collections/__init__.py")) for _, file in _callers())


def _importing() -> bool:
    """Whether a module is being imported, which makes classes out of text; which ones may be, is seen there."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        if frame.f_code.co_name == "_load_unlocked" and "importlib" in frame.f_code.co_filename:
            return True
        frame = frame.f_back
    return False


def _callers() -> Iterator[tuple[str, str]]:
    frame: FrameType | None = sys._getframe(2)
    for _ in range(8):
        if frame is None:
            return
        yield frame.f_code.co_name, frame.f_code.co_filename
        frame = frame.f_back


def limit_memory(mebibytes: int) -> None:
    """Let this process map no more than so much beyond what it has mapped now."""
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + mebibytes * MIB, resource.RLIM_INFINITY))


class Peak:
    """The most memory that was resident during a read, beyond what was before. MiB."""

    def __init__(self) -> None:
        # Open for as long as the process lives: opening them anew would be seen by the guard.
        self._status = open("/proc/self/status", "rb", buffering=0)  # noqa: SIM115
        self._clear = open("/proc/self/clear_refs", "wb", buffering=0)  # noqa: SIM115
        self._before = 0.0

    def start(self) -> None:
        self._clear.write(b"5")
        self._before = self._read(b"VmRSS:")

    def end(self) -> float:
        return max(0.0, self._read(b"VmHWM:") - self._before)

    def _read(self, name: bytes) -> float:
        self._status.seek(0)
        text = self._status.read(4096)
        start = text.index(name) + len(name)
        return int(text[start : text.index(b"kB", start)]) / 1024
