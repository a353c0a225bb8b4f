from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
from checks import ROWS, TOKENS, VOCABULARY, pictures, randomised, token_ids
from llama_block import SHAPE, WIDTH, LlamaChecks
from torch import Tensor, nn

import optrode
from optrode import edits
from optrode.errors import BadInput

SIDE, PATCHES, PICTURE = 8, 4, VOCABULARY - 1


class TestLlava(LlamaChecks):
    """A picture of four patches stands at places 2 to 5 of each text."""

    layout = "llava"
    network_options: ClassVar = {"image_size": SIDE, "patch_size": 4, "hidden_size": 16, "intermediate_size": 24}

    def network(self) -> nn.Module:
        from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

        vision = CLIPVisionConfig(num_hidden_layers=2, num_attention_heads=2, **self.network_options)
        text = LlamaConfig(**SHAPE)
        config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=PICTURE)
        return randomised(LlavaForConditionalGeneration(config))

    def inputs(self) -> dict[str, Tensor]:
        ids = token_ids()["input_ids"].clamp(max=PICTURE - 1)
        ids[:, 2 : 2 + PATCHES] = PICTURE
        return {"input_ids": ids, **pictures(SIDE)}

    def turned(self, x: Tensor, layer: int, config: Any) -> Tensor:
        return super().turned(x, layer, config.text_config)

    def norm(self, x: Tensor, module: nn.Module, config: Any) -> Tensor:
        return super().norm(x, module, config.text_config)

    def test_patches_have_a_role(self, model: optrode.Model) -> None:
        whole = model.read(self.inputs(), "layers.1.out")["layers.1.out"]
        acts = model.read(self.inputs(), "layers.1.out", positions="image")
        assert acts.places is not None and acts.places[:PATCHES, 1].tolist() == [2, 3, 4, 5]
        assert torch.equal(acts["layers.1.out"], whole[:, 2 : 2 + PATCHES].flatten(0, 1))
        text = model.read(self.inputs(), "layers.1.out", positions="text")
        assert len(text["layers.1.out"]) == ROWS * (TOKENS - PATCHES)
        with pytest.raises(BadInput, match="select no token"):
            model.read(token_ids(), "layers.1.out", positions="image")

    def test_only_the_patches_are_edited(self, model: optrode.Model) -> None:
        plain = model.read(self.inputs(), "layers.0.out")["layers.0.out"]
        with model.edited(edits.add("layers.0.out", torch.ones(WIDTH), "image")) as receipt:
            got = model.read(self.inputs(), "layers.0.out")["layers.0.out"]
        changed = (got != plain).any(-1)
        assert changed[:, 2 : 2 + PATCHES].all() and changed.sum() == ROWS * PATCHES == receipt.changed

    def test_a_batch_answers_as_each_picture_alone(self, model: optrode.Model) -> None:
        inputs = self.inputs()
        both = model.read(inputs, "layers.2.out", positions="all", tokens_per_forward=TOKENS)
        alone = [
            model.read({name: value[[row]] for name, value in inputs.items()}, "layers.2.out")["layers.2.out"]
            for row in range(ROWS)
        ]
        torch.testing.assert_close(both["layers.2.out"], torch.cat(alone).flatten(0, 1), rtol=1e-4, atol=1e-5)

    def test_the_encoder_of_pictures_is_read_by_module_path(self, model: optrode.Model) -> None:
        name = "module:model.vision_tower.encoder.layers.1"
        assert model.read(self.inputs(), name)[name].shape == (ROWS, PATCHES + 1, 16)
