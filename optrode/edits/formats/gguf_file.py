"""The floating-point tensors of a GGUF file that nobody vouches for, which is what a control vector needs.

The file is mapped, not read, so that a model of many gigabytes is told apart from a control vector without loading it.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...errors import BadFile, MissingFile, NotSupported
from ...gguf_format import MAGIC, DamagedFile, Description, Header, read_header
from ...messages import one_line, shown

# Types of tensors that are plain numbers.
_NUMBERS = {0: "f4", 1: "f2", 28: "f8"}


def read_gguf(path: Path, wanted: Callable[[Header], list[Description]]) -> tuple[Header, dict[str, Tensor]]:
    """The header of a GGUF file, and those of its tensors that `wanted` picks from it, float32 on the CPU.

    Raises `MissingFile`, `BadFile` where the file is cut or its numbers do not fit together, `NotSupported` for tensors
    that are quantised.
    """
    if not path.is_file():
        raise MissingFile(f"there is no file '{path}'")
    try:
        with open(path, "rb") as file:
            if file.read(4) != MAGIC:
                raise BadFile(f"'{path.name}' is no GGUF file: its first four bytes are not GGUF")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                header = read_header(data)
                return header, _tensors(data, header.order, wanted(header))
    except (ValueError, OverflowError, OSError) as problem:
        raise BadFile(f"'{path.name}' is damaged: {one_line(problem)}") from problem


def _tensors(data: mmap.mmap, order: str, chosen: list[Description]) -> dict[str, Tensor]:
    kinds = [_numbers(one, order) for one in chosen]
    sizes = [math.prod(one.shape) * kind.itemsize for one, kind in zip(chosen, kinds, strict=True)]
    # Many tensors may lie in the same bytes: all together are no larger than the file.
    if sum(sizes) > len(data):
        raise DamagedFile("its tensors are larger than the file")
    found = {}
    for one, kind, size in zip(chosen, kinds, sizes, strict=True):
        if one.start + size > len(data):
            past = one.start + size - len(data)
            raise DamagedFile(f"the tensor {shown(one.name)} ends {past} bytes after the file")
        array = np.frombuffer(data[one.start : one.start + size], kind).astype(np.float32)
        found[one.name] = torch.from_numpy(array.reshape(one.shape[::-1]))
    return found


def _numbers(tensor: Description, order: str) -> np.dtype[Any]:
    if tensor.kind not in _NUMBERS:
        raise NotSupported(f"the tensor {shown(tensor.name)} is quantised or holds no floating-point numbers")
    return np.dtype(order + _NUMBERS[tensor.kind])
