"""Dictionaries as SAELens saves them, of every kind that can be read here, with what they make of some rows."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch

from .oracle import Measured, Oracle

ORACLE = Oracle(
    fixture="tests/dictionaries/oracles/sae_lens.safetensors",
    requires=("sae-lens==6.54.12",),
)
WIDTH, FEATURES, ROWS = 8, 24, 5
HOOK = "blocks.1.hook_resid_post"


def measured() -> Measured:
    from sae_lens import (
        GatedSAE,
        GatedSAEConfig,
        JumpReLUSAE,
        JumpReLUSAEConfig,
        StandardSAE,
        StandardSAEConfig,
        TopKSAE,
        TopKSAEConfig,
    )  # fmt: skip

    common: dict[str, Any] = {"d_in": WIDTH, "d_sae": FEATURES}
    kinds: dict[str, tuple[Any, Any]] = {
        "standard": (StandardSAE, StandardSAEConfig(**common)),
        "without_bias": (StandardSAE, StandardSAEConfig(**common, apply_b_dec_to_input=False)),
        "layer_norm": (StandardSAE, StandardSAEConfig(**common, normalize_activations="layer_norm")),
        "constant_norm": (StandardSAE, StandardSAEConfig(**common, normalize_activations="constant_norm_rescale")),
        "topk": (TopKSAE, TopKSAEConfig(**common, k=4)),
        "rescaled": (TopKSAE, TopKSAEConfig(**common, k=4, rescale_acts_by_decoder_norm=True)),
        "jumprelu": (JumpReLUSAE, JumpReLUSAEConfig(**common)),
        "gated": (GatedSAE, GatedSAEConfig(**common)),
        "heads": (StandardSAE, StandardSAEConfig(**common, reshape_activations="hook_z")),
    }
    random = torch.Generator().manual_seed(0)
    rows = torch.randn(ROWS, WIDTH, generator=random)
    tensors, texts = {"rows": rows}, {}
    for name, (kind, config) in kinds.items():
        config.metadata.hook_name = "blocks.1.attn.hook_z" if name == "heads" else HOOK
        config.metadata.model_name = "tiny"
        network = kind(config)
        with torch.no_grad():
            for key, parameter in network.named_parameters():
                parameter.copy_(0.4 * torch.randn(parameter.shape, generator=random))
                if key == "threshold":
                    parameter.abs_()
        given = rows.reshape(ROWS, 2, WIDTH // 2) if name == "heads" else rows
        with torch.no_grad():
            tensors[f"{name}.features"] = network.encode(given)
            tensors[f"{name}.reconstruction"] = network.decode(network.encode(given)).reshape(ROWS, WIDTH)
        with tempfile.TemporaryDirectory() as folder:
            network.save_model(folder)
            for path in Path(folder).iterdir():
                content = path.read_bytes()
                if path.suffix == ".json":
                    texts[f"{name}/{path.name}"] = content.decode()
                else:
                    tensors[f"{name}/{path.name}"] = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    return tensors, texts
