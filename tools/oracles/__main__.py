from __future__ import annotations

import argparse
import subprocess
import sys

from .environment import run
from .oracle import find, names, state, write


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.oracles", description="References, kept in files.")
    parser.add_argument("names", nargs="*", help="Oracles to run; without any, say how they stand.")
    parser.add_argument("--all", action="store_true", help="Run every oracle.")
    parser.add_argument("--here", metavar="NAME", help="Run one in this environment, which has its packages.")
    given = parser.parse_args()
    known = names()
    unknown = [name for name in (*given.names, given.here or known[0]) if name not in known]
    if unknown:
        parser.error(f"there is no oracle {unknown[0]}: there are {', '.join(known)}")
    if given.here:
        print(write(given.here))
        return 0
    chosen = known if given.all else given.names
    if not chosen:
        for name in known:
            oracle = find(name)[0]
            print(f"{name:18}{state(name):9}{oracle.fixture:62}{' '.join((*oracle.bare, *oracle.requires))}")
        return 0
    return sum([_made(name) for name in chosen]) and 1


def _made(name: str) -> bool:
    """Whether an oracle failed. One that cannot be built here leaves the others alone."""
    print(f"{name}:", flush=True)
    try:
        run(name, find(name)[0])
    except subprocess.CalledProcessError as problem:
        print(f"{name}: skipped, exit code {problem.returncode} of {' '.join(problem.cmd)}", file=sys.stderr)
        return True
    return False


if __name__ == "__main__":
    sys.exit(main())
