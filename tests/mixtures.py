"""Tiny mixtures of experts of the real transformers classes, for the tests of experts."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

SHAPE = {
    "hidden_size": 32, "intermediate_size": 24, "moe_intermediate_size": 24, "num_hidden_layers": 3,
    "num_attention_heads": 4, "max_position_embeddings": 256, "num_experts_per_tok": 2, "bos_token_id": None,
}  # fmt: skip
KINDS: dict[str, dict[str, Any]] = {
    "mixtral": {"num_local_experts": 8, "num_key_value_heads": 2},
    "qwen3_moe": {"num_experts": 8, "num_key_value_heads": 2, "head_dim": 8, "mlp_only_layers": [0]},
    "gpt_oss": {"num_local_experts": 8, "num_key_value_heads": 2, "head_dim": 8},
    "deepseek_v3": {
        "n_routed_experts": 8, "n_group": 2, "topk_group": 1, "n_shared_experts": 1, "first_k_dense_replace": 1,
        "num_key_value_heads": 4, "kv_lora_rank": 16, "q_lora_rank": 12, "qk_rope_head_dim": 4, "qk_nope_head_dim": 6,
        "v_head_dim": 8,
    },
}  # fmt: skip
ROTARY = {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}


@torch.no_grad()
def mixture(kind: str, tokenizer: Any, dtype: torch.dtype = torch.float32, seed: int = 0) -> nn.Module:
    """Three blocks of width 32 with eight experts, two for each token; weights so large that every part matters."""
    from transformers import AutoConfig, AutoModelForCausalLM

    ids = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = AutoConfig.for_model(kind, **(SHAPE | ROTARY | KINDS[kind] | ids))
    network = AutoModelForCausalLM.from_config(config)
    random = torch.Generator().manual_seed(seed)
    for name, parameter in network.named_parameters():
        if parameter.dim() > 1:
            size = math.sqrt(parameter[0].numel()) if ".experts." in name else parameter.shape[-1]
            parameter.normal_(0, 1 / math.sqrt(size), generator=random)
        elif not name.endswith("norm.weight"):
            parameter.normal_(0, 0.1, generator=random)
    return network.to(dtype).eval()
