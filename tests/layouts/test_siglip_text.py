from __future__ import annotations

from typing import ClassVar

from clip_block import TEXTS, ClipChecks, gelu
from torch import Tensor


class TestSiglipText(ClipChecks):
    layout = "siglip_text"
    kind = "SiglipText"
    options: ClassVar = TEXTS
    ends = ("final", "pooled")

    def activation(self, x: Tensor) -> Tensor:
        return gelu(x)
