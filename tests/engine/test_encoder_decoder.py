"""Encoder and decoder in one network: addresses of both, measured in a forward of the whole, and in writing text."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import optrode as op
from optrode import edits
from optrode.batches import Role
from optrode.errors import UnknownSite

WIDTH = 32
VECTOR = 3 * torch.randn(WIDTH, generator=torch.Generator().manual_seed(2))
SHAPE = {"d_model": WIDTH, "d_kv": 8, "d_ff": 48, "num_layers": 3, "num_heads": 4, "decoder_start_token_id": 0}


def t5(tokenizer: Any = None, kind: str = "T5") -> nn.Module:
    import transformers

    config, network = (
        getattr(transformers, f"{kind}Config"),
        getattr(transformers, f"{kind}ForConditionalGeneration"),
    )
    ids = {"vocab_size": 99}
    if tokenizer is not None:
        ids = {
            "vocab_size": len(tokenizer),
            "pad_token_id": tokenizer.pad_token_id,
            "eos_token_id": tokenizer.eos_token_id,
        }
    torch.manual_seed(0)
    made = network(config(**SHAPE, **ids)).eval()
    for parameter in made.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, 0, 0.3)
    return made


@pytest.fixture(scope="module")
def model(tokenizer: Any) -> op.Model:
    return op.load(t5(tokenizer), tokenizer=tokenizer)


def given() -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(1)
    return {
        "input_ids": torch.randint(3, 90, (2, 6), generator=random),
        "decoder_input_ids": torch.randint(3, 90, (2, 4), generator=random),
    }


def answered(model: op.Model) -> Tensor:
    with torch.no_grad():
        return model.module(**given()).logits


@contextmanager
def hooked(module: nn.Module, change: Callable[[Tensor], Tensor]) -> Iterator[list[Tensor]]:
    seen: list[Tensor] = []

    def after(_: nn.Module, __: tuple, output: Any) -> Any:
        h = output[0] if isinstance(output, tuple) else output
        seen.append(h.detach().clone())
        return (change(h), *output[1:]) if isinstance(output, tuple) else change(h)

    handle = module.register_forward_hook(after)
    try:
        yield seen
    finally:
        handle.remove()


@pytest.mark.parametrize("kind", ["T5", "MT5"])
def test_both_towers_are_measured_in_the_whole(kind: str) -> None:
    model = op.load(t5(kind=kind))
    assert model.layout is None and model.layers_by_tower == {"encoder": 3, "decoder": 3, "": 0}
    assert model.measured is not None and all(check.holds for check in model.measured.checks)
    towers = [check.tower for check in model.measured.checks]
    assert (towers.count("encoder"), towers.count("decoder")) == (2 * 3, 3 * 3)
    assert {"encoder.layers.2.attn.pattern", "decoder.layers.2.cross.out", "logits"} <= set(model.table)


def test_one_forward_reads_both(model: op.Model) -> None:
    sites = ["encoder.layers.1.out", "decoder.layers.1.out", "decoder.layers.1.cross.heads", "logits"]
    blocks = [model.tower_hosts[prefix].blocks[1] for prefix in ("encoder", "decoder")]
    with hooked(blocks[0], lambda h: h) as encoder, hooked(blocks[1], lambda h: h) as decoder:
        logits = answered(model)
    acts = model.read(given(), sites)
    assert torch.equal(acts["encoder.layers.1.out"], encoder[0])
    assert torch.equal(acts["decoder.layers.1.out"], decoder[0])
    assert torch.equal(acts["logits"], logits)
    assert acts.axes["encoder.layers.1.out"] == ("example", "token", "feature")
    assert acts.axes["decoder.layers.1.cross.heads"] == ("example", "written", "head", "feature")
    assert (acts.layers_run, acts.layers_skipped) == (6, 0)


def test_a_read_stops_where_nothing_more_is_needed(model: op.Model) -> None:
    """What the encoder is asked for needs no tokens of a decoder."""
    acts = model.read({"input_ids": given()["input_ids"]}, "encoder.layers.1.out")
    assert (acts.layers_run, acts.layers_skipped) == (2, 4)
    acts = model.read(given(), ["encoder.layers.0.mlp.hidden", "decoder.layers.0.attn.out"])
    assert (acts.layers_run, acts.layers_skipped) == (4, 2)


def test_every_site_of_the_decoder_is_that_of_the_decoder_alone(model: op.Model) -> None:
    whole = model.read(given(), list(model.table))
    seen = model.read(given(), "encoder.final")["encoder.final"]
    decoder = model.tower("decoder", example={"input_ids": given()["decoder_input_ids"], "encoder_hidden_states": seen})
    alone = decoder.read(
        {"input_ids": given()["decoder_input_ids"], "encoder_hidden_states": seen}, list(decoder.table)
    )
    for address, value in alone.items():
        torch.testing.assert_close(whole[f"decoder.{address}"], value, rtol=1e-5, atol=1e-5)


def test_a_decoder_without_tokens_begins_with_its_start_token(model: op.Model, prompts: list[str]) -> None:
    acts = model.read(prompts, ["encoder.layers.2.out", "decoder.layers.2.out", "logits"], positions="last_prompt")
    assert acts["encoder.layers.2.out"].shape == (len(prompts), WIDTH)
    assert acts["decoder.layers.2.out"].shape == (len(prompts), 1, WIDTH)
    batch = model.encode(prompts)
    assert bool(batch.mask[:, 0].all()), "padded on the right"
    with torch.no_grad():
        start = torch.zeros(len(prompts), 1, dtype=torch.long)
        wanted = model.module(
            input_ids=batch.ids, attention_mask=batch.mask.long(), decoder_input_ids=start, use_cache=False
        ).logits
    torch.testing.assert_close(acts["logits"], wanted, rtol=1e-5, atol=1e-5)
    few = model.read(prompts, ["encoder.layers.2.out", "decoder.layers.2.attn.pattern"], tokens_per_forward=4)
    assert few["decoder.layers.2.attn.pattern"].shape == (len(prompts), 1, 4, 1)


@pytest.mark.parametrize("prefix", ["encoder", "decoder"])
def test_an_edit_is_the_one_made_by_hand(model: op.Model, prefix: str) -> None:
    plain = answered(model)
    with model.edited(edits.add(f"{prefix}.layers.1.out", VECTOR)) as receipt:
        got = answered(model)
    with hooked(model.tower_hosts[prefix].blocks[1], lambda h: h + VECTOR):
        wanted = answered(model)
    assert torch.equal(got, wanted) and not torch.equal(got, plain)
    assert receipt.sites[f"{prefix}.layers.1.out"].calls == 1
    with model.edited(edits.add(f"{prefix}.layers.1.out", VECTOR) * 0):
        assert torch.equal(answered(model), plain)


def test_logits_are_edited_where_they_are_made(model: op.Model) -> None:
    added = torch.linspace(-1, 1, answered(model).shape[-1])
    with model.edited(edits.add("logits", added)) as receipt:
        got = answered(model)
    torch.testing.assert_close(got, answered(model) + added)
    assert receipt.sites["logits"].selected == 2 * 4


def test_positions_of_the_decoder_are_those_of_its_own_tokens(model: op.Model) -> None:
    plain = model.read(given(), "decoder.layers.0.out")["decoder.layers.0.out"]
    with model.edited(edits.add("decoder.layers.0.out", VECTOR, "index:1,2")):
        got = model.read(given(), "decoder.layers.0.out")["decoder.layers.0.out"]
    assert (got != plain).any(-1).tolist() == [[False, True, True, False]] * 2


def test_text_is_written_with_both_edited(model: op.Model, prompts: list[str]) -> None:
    plain = model.completions(prompts, max_new_tokens=4, min_new_tokens=4)
    batch = model.encode(prompts)
    with torch.no_grad():
        wanted = model.module.generate(
            input_ids=batch.ids, attention_mask=batch.mask.long(), max_new_tokens=4, min_new_tokens=4, do_sample=False
        )
    assert [list(found.ids) for found in plain] == wanted[:, 1:].tolist()
    both = edits.add("decoder.layers.1.out", VECTOR, "generated") + edits.add("encoder.layers.1.out", VECTOR, "user")
    with model.edited(both) as receipt:
        changed = model.completions(prompts, max_new_tokens=4, min_new_tokens=4)
    assert changed != plain and model.completions(prompts, max_new_tokens=4, min_new_tokens=4) == plain
    decoder, encoder = receipt.sites["decoder.layers.1.out"], receipt.sites["encoder.layers.1.out"]
    # The start token is given, three more are fed back; the last one is never read.
    assert (decoder.prefill_calls, decoder.decode_calls) == (1, 3)
    assert decoder.selected == 3 * len(prompts)
    assert (encoder.calls, encoder.selected) == (1, int((batch.roles == Role.USER).sum()))


def test_a_decoder_that_no_table_knows_says_what_it_needs() -> None:
    """By itself it would skip its attention to the encoder, so that equations found there would be wrong."""
    from transformers import BartConfig, BartForConditionalGeneration

    shape = {"encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48}
    heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "max_position_embeddings": 64}
    torch.manual_seed(0)
    model = op.load(BartForConditionalGeneration(BartConfig(vocab_size=99, d_model=32, **shape, **heads)).eval())
    assert model.layers_by_tower == {"encoder": 2, "decoder": 0, "": 0}
    assert model.read({"input_ids": given()["input_ids"]}, "encoder.layers.*.out").layers_run == 2
    with pytest.raises(UnknownSite, match="encoder's output"):
        model.match("decoder.layers.0.out")
    assert "no named sites" in str(model.sites)
