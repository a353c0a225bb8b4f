"""CAA by steering-vectors on a tiny network: vectors, steered logits, and a file as torch.save writes it."""

from __future__ import annotations

import io
import json

import torch

from .oracle import Measured, Oracle
from .tiny import kept, network, tokenizer

ORACLE = Oracle(
    fixture="tests/steering/oracles/steering_vectors.safetensors",
    # It asks for an older transformers than it works with.
    bare=("steering-vectors==0.12.2",),
)
LAYERS = {"num_hidden_layers": 2}
PAIRS = [
    ("How was it?", "Very good.", "Bad."),
    ("And the sea?", "Blue and calm.", "Cold, grey, loud."),
    ("Dinner?", "A feast!", "Burnt."),
    ("Your day?", "Long but fine.", "Long."),
]
PROMPT, MULTIPLIER = "What of the film?", 1.5


def measured() -> Measured:
    from steering_vectors import train_steering_vector

    from optrode.data import Pair
    from optrode.steering import CAA

    module, words = network(**LAYERS), tokenizer()
    positive, negative = CAA(form="letters").conversations([Pair(*texts, group="") for texts in PAIRS])
    texts = [
        # The answer is closed, so that its letter is the last token but one, as in the paper.
        tuple(words.apply_chat_template(side, tokenize=False, continue_final_message=True) + ")" for side in both)
        for both in zip(positive, negative, strict=True)
    ]
    found = train_steering_vector(module, words, texts, read_token_index=-2, layers=[0, 1])
    asked = words.apply_chat_template([{"role": "user", "content": PROMPT}], tokenize=False)
    prompt = words(asked + "assistant:", return_tensors="pt")["input_ids"]
    tensors, about = kept(module, words, **LAYERS)
    for layer, vector in found.layer_activations.items():
        tensors[f"vector.{layer}"] = vector.float()
        one = type(found)({layer: vector})
        with torch.no_grad(), one.apply(module, multiplier=MULTIPLIER, min_token_index=len(words(asked)["input_ids"])):
            tensors[f"logits.{layer}"] = module(input_ids=prompt, use_cache=False).logits[0].contiguous()
    # The package has no format of its own: its users save the object.
    file = io.BytesIO()
    torch.save(found, file)
    tensors["file"] = torch.frombuffer(bytearray(file.getvalue()), dtype=torch.uint8)
    # Other places that a vector may be for, each applied to every token.
    for kind in ("decoder_block", "self_attn", "mlp", "input_layernorm", "post_attention_layernorm"):
        other = type(found)({1: found.layer_activations[1]}, layer_type=kind)
        with torch.no_grad(), other.apply(module):
            tensors[f"at.{kind}"] = module(input_ids=prompt, use_cache=False).logits[0].contiguous()
    tensors["ids"] = prompt
    return tensors, {
        **about, "pairs": json.dumps(PAIRS), "texts": json.dumps(texts), "prompt": PROMPT, "multiplier": str(MULTIPLIER)
    }  # fmt: skip
