"""The command line. Exit codes: 0 done, 1 it could not be done (one line says why), 2 the command was wrong.

One file per command; heavy libraries are imported inside the commands, so that `optrode --help` is quick.
"""

from __future__ import annotations

import os
import sys


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the `optrode` program."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: list[str]) -> int:
    """Run one command and give its exit code. Errors that optrode raises on purpose are one line on standard error."""
    import typer

    from ..errors import OptrodeError
    from ..messages import plain
    from .app import build

    # Our own bars say what is going on; those of the libraries below would only mix with them.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        return int(build().main(args=arguments, prog_name="optrode", standalone_mode=False) or 0)
    except OptrodeError as problem:
        return _say(f"{problem} (see: {problem.help})", 1)
    except typer.Exit as ending:
        return ending.exit_code
    except (typer.Abort, KeyboardInterrupt):
        return _say("stopped", 130)
    except BrokenPipeError:
        # The reader of our output has gone, as in `optrode models | head -1`.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (stays open until the process ends)
        return 0
    except OSError as problem:
        # What the system refuses about a file that was named; anything else of it is a fault of ours.
        if problem.filename is None or problem.errno is None:
            raise
        named = os.fsdecode(problem.filename) if isinstance(problem.filename, str | bytes) else str(problem.filename)
        return _say(f"'{plain(named)}' cannot be used: {os.strerror(problem.errno)}", 1)
    except Exception as problem:
        # Typer brings its own copy of click or uses the installed one: a usage error is known by what it can do.
        if not hasattr(problem, "format_message"):
            raise
        text = str(problem.format_message())
        # Without any arguments the help is printed, and that says enough.
        # The context knows which command was meant.
        command = getattr(getattr(problem, "ctx", None), "command_path", "optrode")
        return _say(f"{text.rstrip('.?')}; see {command} --help", 2) if text else 2


def _say(text: str, code: int) -> int:
    print(f"optrode: {' '.join(text.split())}", file=sys.stderr)
    return code
