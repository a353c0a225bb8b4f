from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
from checks import ROWS, TOKENS, VOCABULARY, pictures, randomised, relative_error, token_ids
from llama_block import SHAPE, WIDTH, LlamaChecks
from torch import Tensor, nn

import optrode
from optrode import edits
from optrode.errors import BadInput

SIDE, PATCHES, PICTURE, VISION = 8, 4, VOCABULARY - 1, 3


class TestLlava(LlamaChecks):
    """A picture of four patches stands at places 2 to 5 of each text."""

    layout = "llava"
    network_options: ClassVar = {"image_size": SIDE, "patch_size": 4, "hidden_size": 16, "intermediate_size": 24}

    def network(self) -> nn.Module:
        from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

        vision = CLIPVisionConfig(num_hidden_layers=VISION, num_attention_heads=2, **self.network_options)
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

    def test_the_encoder_of_pictures_has_addresses_too(self, model: optrode.Model) -> None:
        assert model.layers_by_tower == {"vision": VISION, "": model.layers}
        path = "module:model.vision_tower.encoder.layers.1"
        acts = model.read(self.inputs(), ["vision.layers.1.out", "layers.1.out", path])
        assert acts.axes["vision.layers.1.out"] == ("example", "patch", "feature")
        assert torch.equal(acts["vision.layers.1.out"], acts[path])
        assert acts["vision.layers.1.out"].shape == (ROWS, PATCHES + 1, 16)
        assert torch.equal(acts["layers.1.out"], model.read(self.inputs(), "layers.1.out")["layers.1.out"])

    def test_both_stacks_are_measured(self, model: optrode.Model) -> None:
        assert model.measured is not None and all(check.holds for check in model.measured.checks)
        assert [check.tower for check in model.measured.checks].count("vision") == 2 * VISION

    def test_a_read_of_the_encoder_leaves_the_decoder_out(self, model: optrode.Model) -> None:
        acts = model.read(self.inputs(), "vision.layers.0.out")
        assert (acts.layers_run, acts.layers_skipped) == (1, VISION - 1 + model.layers)
        acts = model.read(self.inputs(), ["vision.layers.0.out", "layers.0.out"])
        assert (acts.layers_run, acts.layers_skipped) == (VISION + 1, model.layers - 1)

    def test_pictures_alone_run_the_encoder_alone(self, model: optrode.Model) -> None:
        whole = model.read(self.inputs(), "vision.layers.*.mlp.hidden")
        alone = model.read(pictures(SIDE), "vision.layers.*.mlp.hidden")
        assert list(alone) == list(whole) and all(torch.equal(alone[site], whole[site]) for site in whole)

    def test_positions_are_those_of_the_text_and_patches_stay_whole(self, model: optrode.Model) -> None:
        acts = model.read(self.inputs(), ["vision.layers.1.out", "layers.1.out"], positions="image")
        assert acts["vision.layers.1.out"].shape == (ROWS, PATCHES + 1, 16)
        assert len(acts["layers.1.out"]) == ROWS * PATCHES

    @pytest.mark.parametrize("name", ["out", "mid", "attn.heads", "attn.pattern"])
    def test_an_edit_of_the_encoder_changes_the_answer_as_by_hand(self, model: optrode.Model, name: str) -> None:
        """Block 1 of 3 is the last that LLaVA looks at, and its second half reaches the text."""
        site = f"vision.layers.1.{name}"
        plain, random = self.final(model), torch.Generator().manual_seed(4)
        value = torch.randn(model.read(self.inputs(), site)[site].shape[-1], generator=random)
        with model.edited(edits.scale(site, value)) as receipt:
            got = self.final(model)
        assert receipt.sites[site].calls == 1
        path = model.tower("vision")
        with path.edited(edits.scale(f"layers.1.{name}", value)):
            assert torch.equal(self.final(model), got)
        assert relative_error(got, plain) > 1e-3 and torch.equal(self.final(model), plain)
        if name == "out":
            block = model.module.model.vision_tower.encoder.layers[1]
            handle = block.register_forward_hook(lambda _, __, h: h * value, prepend=True)
            by_hand = self.final(model)
            handle.remove()
            assert torch.equal(by_hand, got)

    def test_what_a_processor_gives_is_read_as_it_is(self, model: optrode.Model) -> None:
        from transformers import BatchFeature

        sites = ["vision.layers.1.out", "layers.1.out"]
        got = model.read(BatchFeature(self.inputs()), sites, positions="image")
        wanted = model.read(self.inputs(), sites, positions="image")
        assert all(torch.equal(got[site], wanted[site]) for site in sites)

    def test_one_forward_edits_and_reads_both_stacks(self, model: optrode.Model) -> None:
        both = edits.add("vision.layers.0.out", torch.ones(16)) + edits.add("layers.0.out", torch.ones(WIDTH), "image")
        with model.edited(both) as receipt:
            got = model.read(self.inputs(), ["vision.layers.1.out", "layers.2.out"])
        assert receipt.forwards == 1 and all(site.calls == 1 for site in receipt.sites.values())
        assert receipt.sites["layers.0.out"].selected == ROWS * PATCHES
        plain = model.read(self.inputs(), ["vision.layers.1.out", "layers.2.out"])
        for site in plain:
            assert relative_error(got[site], plain[site]) > 1e-3
