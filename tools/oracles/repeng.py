"""Control vectors by repeng: both ways of its principal component, steered logits, and its file for llama.cpp."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import torch

from .oracle import Measured, Oracle
from .tiny import kept, network, tokenizer

ORACLE = Oracle(
    fixture="tests/steering/oracles/repeng.safetensors",
    # It asks for an older numpy than it works with.
    bare=("repeng==0.4.0",),
)
LAYERS = [0, 1, 2]
PAIRS = [
    ("How was it?", "Very good.", "Bad."),
    ("And the sea?", "Blue and calm.", "Cold, grey, loud."),
    ("Dinner?", "A feast!", "Burnt."),
    ("Your day?", "Long but fine.", "Long."),
    ("The train?", "On time again.", "Late, as ever."),
    ("Your room?", "Bright.", "It smells of mould."),
    # An odd number: where as many pairs point either way, the sign of repeng is that of its decomposition.
    ("The soup?", "Hot and rich.", "Cold."),
]
PROMPT, STRENGTH = "What of the film?", 1.5


def measured() -> Measured:
    # An annotation of it names what numpy 2 no longer has.
    np.float_ = np.float64  # type: ignore[attr-defined]
    from repeng import ControlModel, ControlVector, DatasetEntry

    from optrode.data import Pair
    from optrode.steering import ControlVector as Ours

    module, words = network(), tokenizer()
    sides = Ours().conversations([Pair(*texts, group="") for texts in PAIRS])
    texts = [
        tuple(words.apply_chat_template(side, tokenize=False, continue_final_message=True) for side in both)
        for both in zip(*sides, strict=True)
    ]
    prompt = words.apply_chat_template(
        [{"role": "user", "content": PROMPT}], tokenize=False, add_generation_prompt=True
    )
    ids = words(prompt, return_tensors="pt")["input_ids"]
    tensors, about = kept(module, words)
    tensors["ids"] = ids
    data = [DatasetEntry(*both) for both in texts]
    for method in ("pca_diff", "pca_center"):
        found = ControlVector.train(module, words, data, hidden_layers=LAYERS, method=method, batch_size=4)
        for layer, vector in found.directions.items():
            tensors[f"{method}.{layer}"] = torch.from_numpy(vector)
    # As it would be by default: block 0 is left out.
    usual = ControlVector.train(module, words, data, batch_size=4)
    for layer, vector in usual.directions.items():
        tensors[f"usual.{layer}"] = torch.from_numpy(vector)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vector.gguf"
        usual.export_gguf(path)
        tensors["gguf"] = torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8)
    steered = ControlModel(module, sorted(usual.directions))
    steered.set_control(usual, STRENGTH)
    with torch.no_grad():
        tensors["logits"] = steered(input_ids=ids, use_cache=False).logits[0]
    return tensors, {
        **about, "pairs": json.dumps(PAIRS), "texts": json.dumps(texts), "prompt": PROMPT, "strength": str(STRENGTH)
    }  # fmt: skip
