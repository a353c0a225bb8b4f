"""Write the fixture that holds CAA against the package steering-vectors, run on a tiny seeded network.

Run once, in an environment of its own, from the root of the repository:

    python -m venv .oracles/steering-vectors
    .oracles/steering-vectors/bin/pip install -c constraints.txt -e . steering-vectors==0.12.2
    .oracles/steering-vectors/bin/python tools/oracles/steering_vectors.py

The file keeps the network, its tokenizer, the texts, and what the package made of them, so that the test needs neither
the package nor the same random numbers.
"""

from __future__ import annotations

import json
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from optrode.data import Pair
from optrode.steering import CAA

TARGET = Path(__file__).parents[2] / "tests" / "steering" / "oracles" / "steering_vectors.safetensors"
CONFIG = {
    "vocab_size": 98, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 512, "initializer_range": 0.3, "bos_token_id": None,
    "eos_token_id": 1, "pad_token_id": 0,
}  # fmt: skip
TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}:{{ message['content'] }}<end>{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
PAIRS = [
    ("How was it?", "Very good.", "Bad."),
    ("And the sea?", "Blue and calm.", "Cold, grey, loud."),
    ("Dinner?", "A feast!", "Burnt."),
    ("Your day?", "Long but fine.", "Long."),
]
PROMPT, MULTIPLIER = "What of the film?", 1.5


def tokenizer() -> Any:
    """One token for each printable sign."""
    signs = ["<pad>", "<end>", *map(chr, range(32, 127)), "\n"]
    core = Tokenizer(models.WordLevel({sign: number for number, sign in enumerate(signs)}, unk_token="<pad>"))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    core.decoder = decoders.Fuse()
    made = PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="<end>")
    made.chat_template = TEMPLATE
    return made


def main() -> None:
    # This file has the name of the package that it needs, and its folder comes first.
    sys.path = [path for path in sys.path if Path(path or ".").resolve() != Path(__file__).parent]
    from steering_vectors import train_steering_vector

    torch.manual_seed(0)
    module, words = LlamaForCausalLM(LlamaConfig(**CONFIG)).eval(), tokenizer()
    positive, negative = CAA(form="letters").conversations([Pair(*texts, group="") for texts in PAIRS])
    texts = [
        # The answer is closed, so that its letter is the last token but one, as in the paper.
        tuple(words.apply_chat_template(side, tokenize=False, continue_final_message=True) + ")" for side in both)
        for both in zip(positive, negative, strict=True)
    ]
    found = train_steering_vector(module, words, texts, read_token_index=-2, layers=[0, 1])
    asked = words.apply_chat_template([{"role": "user", "content": PROMPT}], tokenize=False)
    prompt = words(asked + "assistant:", return_tensors="pt")["input_ids"]
    tensors = {f"network.{name}": value.contiguous() for name, value in module.state_dict().items()}
    for layer, vector in found.layer_activations.items():
        tensors[f"vector.{layer}"] = vector.float().contiguous()
        one = type(found)({layer: vector})
        with torch.no_grad(), one.apply(module, multiplier=MULTIPLIER, min_token_index=len(words(asked)["input_ids"])):
            tensors[f"logits.{layer}"] = module(input_ids=prompt, use_cache=False).logits[0].contiguous()
    about = {
        "config": json.dumps(CONFIG),
        "tokenizer": words.backend_tokenizer.to_str(),
        "template": TEMPLATE,
        "pairs": json.dumps(PAIRS),
        "texts": json.dumps(texts),
        "prompt": PROMPT,
        "multiplier": str(MULTIPLIER),
        "versions": json.dumps(
            {name: metadata.version(name) for name in ("steering-vectors", "torch", "transformers")}
        ),
    }
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, TARGET, metadata=about)
    print(f"{TARGET}: {sum(value.numel() for value in tensors.values())} numbers")


if __name__ == "__main__":
    main()
