"""Networks of several towers: refused as a whole with what to load instead, mapped one by one."""

from __future__ import annotations

import torch

import optrode as op

SHAPE = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}


def test_two_encoders_are_loaded_one_by_one() -> None:
    from transformers import CLIPConfig, CLIPModel

    config = CLIPConfig(
        text_config={**SHAPE, "vocab_size": 50, "eos_token_id": 2, "bos_token_id": 1},
        vision_config={**SHAPE, "image_size": 8, "patch_size": 4},
    )
    network = CLIPModel(config).eval()
    model = op.load(network)
    assert model.layout is None and not model.unmapped
    for tower, name in ((network.vision_model, "clip_vision"), (network.text_model, "clip_text")):
        found = op.load(tower)
        assert found.layout is not None and found.layout.name == name


def test_encoder_and_decoder_are_loaded_one_by_one() -> None:
    from transformers import T5Config, T5ForConditionalGeneration

    shape = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_heads": 2, "num_layers": 2}
    network = T5ForConditionalGeneration(T5Config(vocab_size=50, **shape)).eval()
    model = op.load(network)
    assert model.layout is None and not model.unmapped
    encoder = op.load(network.encoder)
    assert encoder.layout is not None and {"attn.out", "mid", "mlp.out"} <= set(encoder.layout.ports)
    assert not encoder.layout.causal
    acts = encoder.read({"input_ids": torch.arange(8).reshape(2, 4)}, ["layers.1.mid", "layers.1.out"])
    assert acts["layers.1.mid"].shape == (2, 4, 16)


def test_a_tower_behind_a_head_is_found() -> None:
    from transformers import (
        CLIPConfig,
        CLIPForImageClassification,
        CLIPVisionConfig,
        CLIPVisionModelWithProjection,
    )

    vision = {**SHAPE, "image_size": 8, "patch_size": 4}
    projected = op.load(CLIPVisionModelWithProjection(CLIPVisionConfig(**vision)).eval())
    assert projected.layout is not None and projected.layout.name == "clip_vision"
    classifier = op.load(CLIPForImageClassification(CLIPConfig(vision_config=vision)).eval())
    assert classifier.layout is not None and classifier.layout.name == "measured:CLIPForImageClassification"
    assert {"logits", "layers.1.attn.out", "layers.1.mid"} <= set(classifier.read(
        {"pixel_values": torch.ones(1, 3, 8, 8)}, ["logits", "layers.1.attn.out", "layers.1.mid"]
    ))  # fmt: skip


def test_blocks_of_a_known_type_that_are_elsewhere_have_no_table() -> None:
    from transformers import LlamaConfig, LlamaModel

    config = LlamaConfig(**SHAPE, vocab_size=50)

    class Wrapped(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.config = config
            self.inner = LlamaModel(config)

        def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
            return self.inner(input_ids=input_ids, use_cache=False).last_hidden_state

    model = op.load(Wrapped().eval())
    assert model.layout is not None and model.layout.name == "measured:Wrapped"
    assert model.layout.blocks == "inner.layers" and model.layout.causal
