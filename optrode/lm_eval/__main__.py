"""`python -m optrode.lm_eval run --model optrode --model_args model=smollm2-135m,edit=best.edit --tasks ...`."""

from __future__ import annotations

import sys

from ..errors import OptrodeError


def main() -> None:
    """The harness's command line, after the model type `optrode` was added to its list."""
    try:
        from . import Harness

        assert Harness is not None
        from lm_eval.__main__ import cli_evaluate

        cli_evaluate()
    except OptrodeError as problem:
        print(f"optrode: {problem} (see: {problem.help})", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
