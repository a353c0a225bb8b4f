from __future__ import annotations

from typing import Any, ClassVar

from checks import rms_norm
from llama_block import SIZE, LlamaChecks
from torch import Tensor, nn


class TestQwen3(LlamaChecks):
    """A norm on each query and key head before rotation."""

    layout = "qwen3"
    model_type = "qwen3"
    options: ClassVar = {"head_dim": SIZE, "attention_bias": True}

    def head_norm(self, x: Tensor, module: nn.Module, config: Any) -> Tensor:
        return rms_norm(x, module, config.rms_norm_eps)
