"""Edited models in the evaluation harness of EleutherAI (`lm-eval`), which comes with `pip install 'optrode[lm-eval]'`.

`Harness(model, edit)` is a model for `lm_eval.simple_evaluate`. `python -m optrode.lm_eval` is the harness's own
command line, with a model type `optrode` besides its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import NotSupported

if TYPE_CHECKING:
    from .harness import Harness

__all__ = ["Harness"]


def __getattr__(name: str) -> Any:
    if name != "Harness":
        raise AttributeError(f"module 'optrode.lm_eval' has no attribute '{name}'")
    try:
        from .harness import Harness
    except ModuleNotFoundError as problem:
        if (problem.name or "").partition(".")[0] != "lm_eval":
            raise
        raise NotSupported("lm-eval is not installed: pip install 'optrode[lm-eval]'") from problem
    return Harness
