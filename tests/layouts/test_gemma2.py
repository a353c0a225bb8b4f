from __future__ import annotations

from typing import ClassVar

from llama_block import SIZE, GemmaChecks


class TestGemma2(GemmaChecks):
    """Capped scores and logits, a sliding window in every second layer."""

    layout = "gemma2"
    model_type = "gemma2"
    options: ClassVar = {
        "head_dim": SIZE,
        "query_pre_attn_scalar": 5,
        "sliding_window": 3,
        "attn_logit_softcapping": 2.0,
        "final_logit_softcapping": 1.5,
        "attention_bias": True,
    }
