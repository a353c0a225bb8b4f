from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from checks import VOCABULARY, At, LayoutChecks, attention, layer_norm, linear, randomised, relative_error, split
from torch import Tensor, nn

import optrode
from optrode.errors import UnknownSite

WIDTH, HIDDEN, HEADS, SIZE = 32, 40, 4, 8


class BertChecks(LayoutChecks):
    layout = "bert"
    model_type: ClassVar[str]
    width = WIDTH
    sizes: ClassVar = {
        **{f"attn.{name}": (HEADS, SIZE) for name in ("q", "k", "v", "heads")},
        "mlp.up": (HIDDEN,),
        "mlp.hidden": (HIDDEN,),
    }

    def network(self) -> nn.Module:
        from transformers import AutoConfig, AutoModel

        shape = {"hidden_size": WIDTH, "intermediate_size": HIDDEN, "num_attention_heads": HEADS}
        config = AutoConfig.for_model(self.model_type, vocab_size=VOCABULARY, num_hidden_layers=3, **shape)
        return randomised(AutoModel.from_config(config))

    def block(self, block: Any, layer: int, config: Any, h: Tensor, at: At) -> Tensor:
        eps, attn = config.layer_norm_eps, block.attention
        h = at("in", h)
        q = at("attn.q", split(linear(h, attn.self.query), HEADS))
        k = at("attn.k", split(linear(h, attn.self.key), HEADS))
        v = at("attn.v", split(linear(h, attn.self.value), HEADS))
        heads = at("attn.heads", attention(q, k, v))
        part = at("attn.out", linear(heads.flatten(-2), attn.output.dense))
        mid = at("mid", layer_norm(h + part, attn.output.LayerNorm, eps))
        hidden = at("mlp.hidden", F.gelu(at("mlp.up", linear(mid, block.intermediate.dense))))
        part = at("mlp.out", linear(hidden, block.output.dense))
        return at("out", layer_norm(mid + part, block.output.LayerNorm, eps))

    def final(self, model: optrode.Model) -> Tensor:
        return model.module(**self.inputs()).last_hidden_state

    def test_the_ends_read(self, model: optrode.Model) -> None:
        acts = model.read(self.inputs(), ["embed", "layers.-1.out", "pooled"])
        wanted = model.module(**self.inputs())
        assert relative_error(acts["layers.2.out"], wanted.last_hidden_state) < 1e-5
        assert relative_error(acts["pooled"], wanted.pooler_output) < 1e-5
        assert acts.axes["pooled"] == ("example", "feature")
        assert torch.equal(acts["embed"], model.read(self.inputs(), "layers.0.in")["layers.0.in"])


class TestBert(BertChecks):
    model_type = "bert"


class TestRoberta(BertChecks):
    model_type = "roberta"


class TestXLMRoberta(BertChecks):
    model_type = "xlm-roberta"


def test_every_model_type_of_the_layout_is_tested() -> None:
    from optrode.layouts.bert import LAYOUT

    assert {checks.model_type for checks in (TestBert, TestRoberta, TestXLMRoberta)} == set(LAYOUT.model_types)


def test_a_network_without_pooler_has_no_such_site() -> None:
    from transformers import BertConfig, BertModel

    config = BertConfig(vocab_size=9, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2)
    model = optrode.load(BertModel(config, add_pooling_layer=False).eval())
    with pytest.raises(UnknownSite, match="pooled"):
        model.read({"input_ids": torch.ones(1, 2, dtype=torch.long)}, "pooled")


def test_minilm_puts_like_sentences_close_together() -> None:
    model = optrode.load("minilm-l6")
    sentences = [
        "A cat sleeps on the warm window sill.",
        "A kitten is napping by the sunny window.",
        "The central bank raised interest rates by half a point.",
        "Borrowing became dearer after the bank lifted its key rate.",
    ]
    acts = model.read(sentences, "layers.-1.out")
    mask = acts.batch.mask[..., None]
    means = (acts["layers.5.out"] * mask).sum(1) / mask.sum(1)
    likeness = F.normalize(means, dim=-1) @ F.normalize(means, dim=-1).T
    same = min(likeness[0, 1], likeness[2, 3])
    other = likeness[:2, 2:].max()
    assert same > 0.5 > 0.2 > other
    # A batched answer equals the single one: padding does not leak in.
    alone = model.read(sentences[0], "layers.-1.out")["layers.5.out"].mean(1)
    torch.testing.assert_close(alone[0], means[0], rtol=1e-4, atol=1e-5)
