"""`tools/fuzz.py`: it sees what it looks for, and finds nothing in the readers of this version."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits and peaks of memory are those of Linux")

# Readers that do what no reader may, each on inputs that were damaged and on none that is a seed.
NAUGHTY = """
import sys, time
sys.path.insert(0, "tools")
from fuzzing.kinds import kind

def seeds(box):
    (box / "plain").mkdir()
    (box / "plain" / "input.txt").write_bytes(b"plain")

def reader(act):
    def read(folder):
        file = folder / "input.txt"
        if not file.is_file() or file.read_bytes() != b"plain":
            act(folder)
    return read

def fails(folder): raise ValueError("of our own")
def says_much(folder):
    from optrode.errors import BadFile
    raise BadFile("two\\nlines")
ACTS = {
    "runs_code": lambda folder: exec("x = 1"), "writes": lambda folder: (folder / "more").write_text("x"),
    "looks_around": lambda folder: (folder.parents[1] / "outside" / "secret.txt").read_text(),
    "takes_long": lambda folder: time.sleep(30), "takes_much": lambda folder: bytearray(4 << 30), "fails": fails,
    "says_much": says_much, "starts_something": lambda folder: __import__("os").system("true"),
}
for name, act in ACTS.items():
    made = lambda box: seeds(box)
    made.__name__ = name
    kind(share=1, read=reader(act))(made)
names = [name.replace("_", "-") for name in ACTS]
inputs = str(6 * len(names))
sys.argv = ["fuzz.py", "--kinds", *names, "--inputs", inputs, "--limit", "0.5", "--keep", "0", "--workers", "1"]
import fuzz
sys.exit(fuzz.main())
"""


def fuzzed(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=1500)


def test_what_no_reader_may_do_is_seen():
    done = fuzzed("-c", NAUGHTY)
    assert done.returncode == 1, done.stderr[-2000:]
    told = [line for line in done.stdout.splitlines() if " inputs)" in line]
    for name, sign in {
        "runs-code": "audit: compile", "writes": "audit: open", "looks-around": "audit: open", "takes-long": "TooLong",
        "takes-much": "MemoryError", "fails": "ValueError", "says-much": "message of several lines",
        "starts-something": "audit: os.system",
    }.items():  # fmt: skip
        assert any(line.startswith(f"{name}: ") and sign in line for line in told), (name, done.stdout)


def test_some_hundred_inputs_of_all_kinds_give_no_finding():
    done = fuzzed("tools/fuzz.py", "--inputs", "800", "--seed", "1", "--workers", "1", "--keep", "0")
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    total = next(line.split() for line in done.stdout.splitlines() if line.startswith("all "))
    assert int(total[1]) == 800 and int(total[2]) > 20 and int(total[3]) > 200


@pytest.mark.slow
def test_some_thousand_inputs_give_no_finding(tmp_path: Path):
    done = fuzzed("tools/fuzz.py", "--inputs", "10000", "--seed", "2", "--out", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
