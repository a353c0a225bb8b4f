from __future__ import annotations

from typing import Any, ClassVar

from checks import rotated
from llama_block import SIZE, GemmaChecks
from torch import Tensor, nn


class TestGemma3(GemmaChecks):
    """Norms on query and key heads; local and global layers have rotary bases of their own."""

    layout = "gemma3"
    model_type = "gemma3_text"
    options: ClassVar = {
        "head_dim": SIZE,
        "query_pre_attn_scalar": 5,
        "sliding_window": 3,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        "final_logit_softcapping": 1.5,
    }

    def head_norm(self, x: Tensor, module: nn.Module | None, config: Any) -> Tensor:
        assert module is not None
        return self.norm(x, module, config)

    def turned(self, x: Tensor, layer: int, config: Any) -> Tensor:
        return rotated(x, config.rope_parameters[config.layer_types[layer]]["rope_theta"])
