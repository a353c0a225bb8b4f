"""Activations, gradients and exact ablations inside a network by captum, on a tiny network."""

from __future__ import annotations

import torch
from torch import Tensor

from .oracle import Measured, Oracle
from .tiny import kept, network, tokenizer

ORACLE = Oracle(fixture="tests/engine/oracles/captum.safetensors", requires=("captum==0.9.0",))
PROMPT, TARGET = "The film was", 40


def measured() -> Measured:
    from captum.attr import LayerActivation, LayerFeatureAblation, LayerGradientXActivation

    module, words = network(), tokenizer()
    for parameter in module.parameters():
        parameter.requires_grad_(True)
    ids = words(PROMPT, return_tensors="pt")["input_ids"]

    def last(ids: Tensor) -> Tensor:
        """Logits of the last token, which TARGET is one of."""
        return module(input_ids=ids, use_cache=False).logits[:, -1]

    tensors, about = kept(module, words)
    tensors["ids"] = ids
    layers = {f"layers.{number}.out": block for number, block in enumerate(module.model.layers)}
    layers |= {f"layers.{number}.mlp.out": block.mlp for number, block in enumerate(module.model.layers)}
    for name, layer in layers.items():
        found = {
            "activation": LayerActivation(last, layer).attribute(ids),
            "gradient": LayerGradientXActivation(last, layer, multiply_by_inputs=False).attribute(ids, target=TARGET),
            "product": LayerGradientXActivation(last, layer).attribute(ids, target=TARGET),
            # Every token by itself put to zero: the mask gives all features of a token one number.
            "ablation": LayerFeatureAblation(last, layer).attribute(
                ids, target=TARGET, layer_mask=torch.arange(ids.shape[1])[None, :, None]
            ),
        }
        for kind, value in found.items():
            value = value[0] if isinstance(value, tuple) else value
            tensors[f"{kind}.{name}"] = value.detach()[0]
    # The same number stands at every feature of a token.
    for name in layers:
        tensors[f"ablation.{name}"] = tensors[f"ablation.{name}"][:, 0].clone()
    with torch.no_grad():
        tensors["logit"] = last(ids)[0, TARGET]
    return tensors, {**about, "prompt": PROMPT, "target": str(TARGET)}
