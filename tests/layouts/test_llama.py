from __future__ import annotations

from typing import Any, ClassVar

import torch.nn.functional as F
from checks import rms_norm
from llama_block import SIZE, LlamaChecks
from torch import Tensor, nn

from optrode.layouts.llama import LAYOUT


class TestLlama(LlamaChecks):
    options: ClassVar = {"attention_bias": True, "mlp_bias": True}


class TestLlamaWithoutBias(LlamaChecks):
    options: ClassVar = {"head_dim": SIZE, "tie_word_embeddings": True}


class TestMistral(LlamaChecks):
    model_type = "mistral"
    options: ClassVar = {"head_dim": SIZE}


class TestQwen2(LlamaChecks):
    model_type = "qwen2"


class TestSmolLM3(LlamaChecks):
    """Some layers have no rotary positions."""

    model_type = "smollm3"
    options: ClassVar = {"no_rope_layers": [1, 0, 1]}

    def turned(self, x: Tensor, layer: int, config: Any) -> Tensor:
        return super().turned(x, layer, config) if config.no_rope_layers[layer] else x


class TestGemma(LlamaChecks):
    """Norms scale by 1 + weight; the gate goes through GELU."""

    model_type = "gemma"
    options: ClassVar = {"head_dim": SIZE}

    def norm(self, x: Tensor, module: nn.Module, config: Any) -> Tensor:
        return rms_norm(x, module, config.rms_norm_eps, offset=1.0)

    def activation(self, gate: Tensor) -> Tensor:
        return F.gelu(gate, approximate="tanh")


def test_every_model_type_of_the_layout_is_tested() -> None:
    tested = {TestLlama, TestMistral, TestQwen2, TestSmolLM3, TestGemma}
    assert {checks.model_type for checks in tested} == set(LAYOUT.model_types)
