"""Language models that see and that no table names: their blocks are those of the language model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import optrode as op
from optrode import edits
from optrode.errors import UnknownSite

TEXT = {
    "vocab_size": 99, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
SEES = {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 8,
    "patch_size": 4,
}  # fmt: skip
PICTURE, PATCHES = 98, 4


def paligemma() -> nn.Module:
    from transformers import GemmaConfig, PaliGemmaConfig, PaliGemmaForConditionalGeneration, SiglipVisionConfig

    text, sees = GemmaConfig(**TEXT, head_dim=8).to_dict(), SiglipVisionConfig(**SEES).to_dict()
    shape = {"vocab_size": 99, "projection_dim": 32, "hidden_size": 32, "image_token_index": PICTURE}
    return PaliGemmaForConditionalGeneration(PaliGemmaConfig(text_config=text, vision_config=sees, **shape))


def gemma3() -> nn.Module:
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration, Gemma3TextConfig, SiglipVisionConfig

    kinds = ["sliding_attention", "full_attention"]
    text = Gemma3TextConfig(**TEXT, head_dim=8, sliding_window=4, layer_types=kinds)
    ids = {"image_token_index": PICTURE, "boi_token_index": 96, "eoi_token_index": 97}
    config = Gemma3Config(vision_config=SiglipVisionConfig(**SEES), text_config=text, mm_tokens_per_image=4, **ids)
    return Gemma3ForConditionalGeneration(config)


def smolvlm() -> nn.Module:
    from transformers import LlamaConfig, SmolVLMConfig, SmolVLMForConditionalGeneration

    config = SmolVLMConfig(vision_config=SEES, text_config=LlamaConfig(**TEXT), image_token_id=PICTURE, scale_factor=1)
    return SmolVLMForConditionalGeneration(config)


def llava_siglip() -> nn.Module:
    """LLaVA itself, with another encoder and another decoder."""
    from transformers import LlavaConfig, LlavaForConditionalGeneration, Qwen2Config, SiglipVisionConfig

    options = {"image_token_index": PICTURE, "vision_feature_select_strategy": "full"}
    sees, text = SiglipVisionConfig(**SEES), Qwen2Config(**TEXT)
    return LlavaForConditionalGeneration(LlavaConfig(vision_config=sees, text_config=text, **options))


KINDS: list[Callable[[], nn.Module]] = [paligemma, gemma3, smolvlm, llava_siglip]


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind.__name__)
def model(request: pytest.FixtureRequest) -> op.Model:
    torch.manual_seed(0)
    network = request.param().eval()
    for parameter in network.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, 0, 0.2)
    return op.load(network)


def inputs(model: op.Model) -> dict[str, Any]:
    random = torch.Generator().manual_seed(1)
    ids = torch.randint(3, 90, (2, 8), generator=random)
    ids[:, 2 : 2 + PATCHES] = PICTURE
    pixels = torch.randn(2, 3, 8, 8, generator=random)
    # SmolVLM takes several pictures for each text.
    return {"input_ids": ids, "pixel_values": pixels[:, None] if "SmolVLM" in model.name else pixels}


def answered(model: op.Model) -> torch.Tensor:
    with torch.no_grad():
        return model.module(**inputs(model), use_cache=False).logits


def test_its_blocks_are_those_of_the_language_model(model: op.Model) -> None:
    assert model.layers_by_tower == {"vision": 3, "": 2} and not model.unmapped
    assert model.measured is not None and all(check.holds for check in model.measured.checks)
    assert {check.tower for check in model.measured.checks} == {"vision", ""}
    assert {"embed", "layers.1.attn.pattern", "final", "logits", "vision.layers.2.mlp.out"} <= set(model.table)


def test_one_forward_reads_and_edits_both(model: op.Model) -> None:
    sites = ["vision.layers.1.out", "layers.1.out", "logits"]
    plain = model.read(inputs(model), sites)
    assert plain["vision.layers.1.out"].shape == (2, PATCHES, 16) and plain["layers.1.out"].shape == (2, 8, 32)
    assert torch.equal(plain["logits"], answered(model))
    with model.edited(edits.add("vision.layers.0.out", torch.linspace(-2, 2, 16))) as receipt:
        changed = model.read(inputs(model), sites)
    assert receipt.sites["vision.layers.0.out"].calls == 1 and receipt.forwards == 1
    for site in sites:
        assert not torch.equal(changed[site], plain[site]), site
    # The text before the picture sees nothing of it, unless the network lets it look ahead.
    assert torch.equal(changed["layers.1.out"][:, :2], plain["layers.1.out"][:, :2]) or "PaliGemma" in model.name


def test_patches_have_a_role_there_too(model: op.Model) -> None:
    acts = model.read(inputs(model), "layers.0.out", positions="image")
    assert len(acts["layers.0.out"]) == 2 * PATCHES


def test_what_a_table_does_not_know_is_mapped_by_measurement(model: op.Model) -> None:
    measured = op.load(model.module, layout="measured")
    assert measured.layout is not None and measured.layout.name.startswith("measured:")
    assert measured.layers_by_tower == {"vision": 3, "": 2}
    for site in ("layers.1.mid", "vision.layers.1.mlp.out"):
        assert torch.equal(measured.read(inputs(model), site)[site], model.read(inputs(model), site)[site])


def test_an_encoder_that_cannot_be_mapped_leaves_the_language_model() -> None:
    """The second half of these blocks is multiplied after its module, so that no two parts add up."""
    from transformers import InternVLConfig, InternVLForConditionalGeneration, Qwen2Config

    torch.manual_seed(0)
    sees = {**SEES, "image_size": [8, 8], "patch_size": [4, 4], "layer_scale_init_value": 0.5}
    config = InternVLConfig(vision_config=sees, text_config=Qwen2Config(**TEXT), image_token_id=PICTURE)
    model = op.load(InternVLForConditionalGeneration(config).eval())
    assert model.layers_by_tower == {"vision": 0, "": 2} and model.match("layers.1.mid")
    with pytest.raises(UnknownSite, match=r"this tower .* has no layout"):
        model.match("vision.layers.1.out")
