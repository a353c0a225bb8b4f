"""The header of a model's GGUF file, checked before any library believes it.

The readers that convert a file loop over its counts and allocate what its shapes say, so that its tensors have to lie
in the file, and a network can be no larger than they are.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

from optrode.errors import BadFile
from optrode.gguf_format import DamagedFile, Description
from optrode.gguf_format import read_header as parse
from optrode.messages import shown

# Sizes from which networks are built; none can be larger than all weights together.
_SIZES = (
    "block_count", "embedding_length", "feed_forward_length", "expert_feed_forward_length", "attention.head_count",
    "attention.head_count_kv", "attention.key_length", "attention.value_length", "rope.dimension_count", "expert_count",
    "expert_used_count", "vocab_size", "ssm.conv_kernel", "ssm.inner_size", "ssm.state_size", "ssm.time_step_rank",
)  # fmt: skip


@dataclass
class Header:
    """What a file says of itself: scalars and texts by name, the lengths of its arrays, and its tensors' shapes."""

    values: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, int] = field(default_factory=dict)
    tensors: dict[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def elements(self) -> int:
        """Numbers in all tensors."""
        return sum(map(prod, self.tensors.values()))


def read_header(path: Path) -> Header:
    """The header of a GGUF file. Raises `BadFile` where it is damaged or says more than the file holds.

    Costs a pass over the header alone: some tenths of a second for a large vocabulary.
    """
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _header(data)
    except (DamagedFile, OSError, OverflowError, ValueError) as problem:
        cause = problem if isinstance(problem, DamagedFile) else "it cannot be mapped"
        raise BadFile(f"{path.name} is damaged or no GGUF file: {cause}") from problem


def _header(data: mmap.mmap) -> Header:
    found = parse(data)
    if any(tensor.start + _bytes(tensor) > len(data) for tensor in found.tensors):
        raise DamagedFile("a tensor is longer than the file")
    scalars = {name: value for name, value in found.values.items() if name not in found.arrays}
    header = Header(scalars, found.arrays, {tensor.name: tensor.shape for tensor in found.tensors})
    _check_sizes(header)
    return header


def _bytes(tensor: Description) -> int:
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    try:
        block, size = GGML_QUANT_SIZES[GGMLQuantizationType(tensor.kind)]
    except (KeyError, ValueError) as problem:
        raise DamagedFile(f"its tensor {shown(tensor.name)} is of the unknown type {tensor.kind}") from problem
    if 0 in tensor.shape or tensor.shape[0] % block:
        raise DamagedFile(f"its tensor {shown(tensor.name)} has a shape that its type cannot have")
    return prod(tensor.shape) // block * size


def _check_sizes(header: Header) -> None:
    """Raises for a network that would be larger than what the file holds of it."""
    architecture = header.values.get("general.architecture")
    if not isinstance(architecture, str):
        raise DamagedFile("it names no architecture")
    for size in _SIZES:
        value = header.values.get(f"{architecture}.{size}", 1)
        most = len(header.tensors) if size == "block_count" else header.elements
        if isinstance(value, str) or not 0 <= value <= most:
            raise DamagedFile(f"its {size} is more than its tensors can be")
