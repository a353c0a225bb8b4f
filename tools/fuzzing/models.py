"""Tiny networks, and what our own code writes of them: seeds for most kinds."""

from __future__ import annotations

from functools import cache
from typing import Any

TEXTS = [f"Text number {number}. " + "The cat sat on the mat. " * (number % 3) for number in range(9)]


@cache
def tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<|pad|>", "<|end|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )  # fmt: skip
    core.train_from_iterator(TEXTS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<|pad|>", eos_token="<|end|>")


@cache
def llama() -> Any:
    """Two blocks of width 8 with random weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    import optrode as op

    torch.manual_seed(0)
    ids = {"bos_token_id": None, "eos_token_id": tokenizer().eos_token_id, "pad_token_id": tokenizer().pad_token_id}
    config = LlamaConfig(
        vocab_size=len(tokenizer()), hidden_size=8, intermediate_size=12, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=64, initializer_range=0.2, **ids,
    )  # fmt: skip
    return op.load(LlamaForCausalLM(config).eval(), tokenizer=tokenizer())
