"""Networks of several towers: each is a model of its own, and its edits act in forwards of the whole."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import optrode as op
from optrode import edits
from optrode.errors import UnknownName

SIZES = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
IMAGE = {**SIZES, "image_size": 32, "patch_size": 8}
TEXT = {
    **SIZES,
    "vocab_size": 99,
    "max_position_embeddings": 16,
    "bos_token_id": 97,
    "eos_token_id": 98,
    "pad_token_id": 1,
}


def clip() -> Any:
    from transformers import CLIPConfig, CLIPModel

    return CLIPModel(CLIPConfig(text_config=TEXT, vision_config=IMAGE, projection_dim=16))


def siglip() -> Any:
    from transformers import SiglipConfig, SiglipModel

    return SiglipModel(SiglipConfig(text_config=TEXT, vision_config=IMAGE))


@pytest.fixture(params=[clip, siglip], ids=["clip", "siglip"])
def model(request: pytest.FixtureRequest) -> op.Model:
    torch.manual_seed(0)
    return op.load(request.param().eval())


def inputs() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return {"input_ids": torch.randint(2, 90, (2, 7)), "pixel_values": torch.randn(2, 3, 32, 32)}


def test_the_whole_says_which_towers_it_has(model: op.Model) -> None:
    assert model.layout is None
    assert sorted(model.towers) == ["text_model", "vision_model"]
    assert "model.tower('vision_model')" in model.unmapped
    with pytest.raises(UnknownName, match="did you mean vision_model"):
        model.tower("vison_model")


@pytest.mark.parametrize(("name", "given"), [("vision_model", "pixel_values"), ("text_model", "input_ids")])
def test_a_tower_reads_what_the_whole_computes(model: op.Model, name: str, given: str) -> None:
    tower = model.tower(name)
    assert tower.layers == 3 and tower.measured is not None and not tower.unmapped
    assert tower.module is getattr(model.module, name)
    seen: list[torch.Tensor] = []
    block = tower.blocks[1]
    handle = block.register_forward_hook(lambda module, args, output: seen.append(output))
    with torch.no_grad():
        model.module(**inputs())
    handle.remove()
    acts = tower.read({given: inputs()[given]}, "layers.1.out")
    torch.testing.assert_close(acts["layers.1.out"], seen[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["vision_model", "text_model"])
def test_an_edit_of_a_tower_acts_in_the_whole(model: op.Model, name: str) -> None:
    tower = model.tower(name)
    vector = torch.randn(32, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        plain = model.module(**inputs()).logits_per_image
        with tower.edited(edits.add("layers.1.out", vector)) as receipt:
            edited = model.module(**inputs()).logits_per_image
        handle = tower.blocks[1].register_forward_hook(lambda module, args, output: output + vector)
        by_hand = model.module(**inputs()).logits_per_image
        handle.remove()
        after = model.module(**inputs()).logits_per_image
    assert receipt.sites["layers.1.out"].calls == 1
    torch.testing.assert_close(edited, by_hand, rtol=1e-5, atol=1e-6)
    assert not torch.equal(edited, plain)
    assert torch.equal(after, plain)


def test_an_encoder_is_mapped_and_a_decoder_asks_for_its_encoder() -> None:
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(0)
    config = T5Config(d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, vocab_size=99, decoder_start_token_id=0)
    whole = op.load(T5ForConditionalGeneration(config).eval())
    assert whole.towers == ["encoder", "decoder"]
    encoder = whole.tower("encoder")
    assert encoder.layers == 2 and "layers.1.mid" in encoder.table
    decoder = whole.tower("decoder")
    # Without an encoder's output nothing can be measured: the table's word is taken, and said to be unmeasured.
    assert decoder.layers == 2 and "encoder_hidden_states" in decoder.unmapped
    example = {"input_ids": torch.randint(2, 90, (2, 5)), "encoder_hidden_states": torch.randn(2, 7, 32)}
    decoder = whole.tower("decoder", example=example)
    assert not decoder.unmapped and decoder.measured is not None and len(decoder.measured.checks) == 6
    assert decoder.read(example, "layers.1.cross.out")["layers.1.cross.out"].shape == (2, 5, 32)


def test_a_network_of_one_stack_has_no_towers(llama: op.Model) -> None:
    assert llama.towers == []


def test_the_parts_of_one_block_are_not_taken_for_blocks() -> None:
    """A decoder block of T5 is itself a list of three parts, more than this network has blocks."""
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(0)
    config = T5Config(d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, vocab_size=99, decoder_start_token_id=0)
    decoder = T5ForConditionalGeneration(config).eval().get_decoder()
    example = {"input_ids": torch.randint(2, 90, (2, 5)), "encoder_hidden_states": torch.randn(2, 7, 32)}
    measured = op.load(decoder, layout="measured", example=example)
    assert measured.layers == 0 and "no two parts" in measured.unmapped
