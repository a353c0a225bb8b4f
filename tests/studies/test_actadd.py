"""The ActAdd study on networks of which it is known whether a topic can be planted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import optrode as op
from optrode.engine.progress import Steps
from optrode.parts.study import overall
from optrode.studies import actadd

TOPIC = actadd.Topic(" cat", " ", ("cat",))
PROMPTS = [" the dog", " the door", " the mat", " there", " what", " be like", " lay", " sat"]
UNRELATED = [" the dog lay by the door" * 40, " what the weather will be like" * 40]
SIZE = actadd.Size(
    layers=(0, 1), coefficients=(1.0, 4.0), draws_to_choose=4, draws_to_test=16, new_tokens=8, random_vectors=20
)
WIDTH = 64


@pytest.fixture(scope="module")
def on_cats(tokenizer: Any) -> Callable[[float], op.Model]:
    """A network that writes words at random, and " cat" the likelier the more of it its context holds.

    Words stand in the first half of the stream; one block attends evenly to all of the context and copies what it has
    of " cat" to the second half, times `gain`; the head reads only that half. With a gain of 0 no edit of the prompt
    can have an effect.
    """

    def make(gain: float) -> op.Model:
        from transformers import LlamaConfig, LlamaForCausalLM

        config = LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=2 * WIDTH, intermediate_size=8, num_hidden_layers=2,
            num_attention_heads=4, max_position_embeddings=512, bos_token_id=None, eos_token_id=2, pad_token_id=0,
        )  # fmt: skip
        module = LlamaForCausalLM(config).eval()
        words = torch.randn(len(tokenizer), WIDTH, generator=torch.Generator().manual_seed(0))
        cat = tokenizer.convert_tokens_to_ids("Ġcat")
        kept = words[cat] / words[cat].norm()
        others = torch.arange(len(words)) != cat
        words[others] -= words[others] @ kept[:, None] * kept
        with torch.no_grad():
            for name, weight in module.named_parameters():
                weight.fill_(1.0 if "norm" in name else 0.0)
            module.model.embed_tokens.weight[:, :WIDTH] = words
            module.lm_head.weight[:, WIDTH:] = words
            attention = module.model.layers[0].self_attn
            attention.v_proj.weight.copy_(torch.eye(2 * WIDTH))
            attention.o_proj.weight[WIDTH:, :WIDTH] = gain * torch.outer(kept, kept)
        return actadd.as_plain_text(op.load(module, tokenizer=tokenizer), "<|im_start|>")

    return make


def experiment(model: op.Model) -> list[Any]:
    with Steps("a test") as steps:
        return actadd.experiment(model, TOPIC, PROMPTS, UNRELATED, SIZE, 0, steps)


def test_a_planted_effect_is_reproduced(on_cats: Callable[[float], op.Model]) -> None:
    found = experiment(on_cats(0.33))
    for f in found: print(f)
    assert [finding.verdict for finding in found[:2]] == ["reproduced", "reproduced"]
    assert overall(found) == "reproduced"
