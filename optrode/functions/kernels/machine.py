"""LLVM code to a function of this process, for the processor at hand.

It takes some 10 ms and nothing is written to disk.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any

_ARGUMENTS = (*[ctypes.c_void_p] * 3, ctypes.c_int64, *[ctypes.c_void_p] * 2)
_lock = threading.Lock()


class Compiled:
    """One loop as machine code, which lives as long as this object. See `loops.HEAD` for its arguments."""

    def __init__(self, text: str, name: str) -> None:
        binding = _binding()
        with _lock:
            module = binding.parse_assembly(text)
            # An engine owns its target machine.
            self._engine = binding.create_mcjit_compiler(module, _target())
            self._engine.finalize_object()
            address = self._engine.get_function_address(name)
        self._call: Callable[..., int] = ctypes.CFUNCTYPE(ctypes.c_int, *_ARGUMENTS)(address)

    def __call__(self, *arguments: int | None) -> int:
        return self._call(*arguments)


@cache
def available() -> bool:
    """Whether llvmlite is here, and a processor that multiplies and adds with one rounding."""
    if find_spec("llvmlite") is None:
        return False
    try:
        binding = _binding()
        triple = binding.get_process_triple()
        if triple.startswith(("aarch64", "arm64")):
            return True
        return triple.startswith("x86_64") and bool(binding.get_host_cpu_features().get("fma"))
    except (ImportError, OSError, RuntimeError):
        return False


@cache
def _binding() -> Any:
    from llvmlite import binding

    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    return binding


def _target() -> Any:
    binding = _binding()
    features = binding.get_host_cpu_features().flatten()
    return binding.Target.from_default_triple().create_target_machine(
        cpu=binding.get_host_cpu_name(), features=features, opt=3
    )
