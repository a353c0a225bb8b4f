from __future__ import annotations

from typing import ClassVar

from clip_block import PICTURES, ClipChecks, gelu
from torch import Tensor


class TestSiglipVision(ClipChecks):
    layout = "siglip_vision"
    kind = "SiglipVision"
    options: ClassVar = PICTURES
    ends = ("final", "pooled")

    def activation(self, x: Tensor) -> Tensor:
        return gelu(x)
