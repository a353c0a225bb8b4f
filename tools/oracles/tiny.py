"""What several oracles share: a tiny network, and a tokenizer of one token for each sign."""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import Tensor, nn

CONFIG = {
    "vocab_size": 98, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 512, "initializer_range": 0.3, "bos_token_id": None,
    "eos_token_id": 1, "pad_token_id": 0,
}  # fmt: skip
TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}:{{ message['content'] }}<end>{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


def network(**changes: Any) -> nn.Module:
    """A Llama of a few blocks, seeded, in eval mode."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**{**CONFIG, **changes})).eval()


def tokenizer() -> Any:
    """One token for each printable sign."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    signs = ["<pad>", "<end>", *map(chr, range(32, 127)), "\n"]
    core = Tokenizer(models.WordLevel({sign: number for number, sign in enumerate(signs)}, unk_token="<pad>"))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    core.decoder = decoders.Fuse()
    made = PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="<end>")
    made.chat_template = TEMPLATE
    return made


def kept(module: nn.Module, words: Any = None, **changes: Any) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The network and its tokenizer as they are kept in a file, so that a test needs no random numbers."""
    tensors = {f"network.{name}": value for name, value in module.state_dict().items()}
    about = {"config": json.dumps({**CONFIG, **changes})}
    if words is not None:
        about |= {"tokenizer": words.backend_tokenizer.to_str(), "template": TEMPLATE}
    return tensors, about
