from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from checks import ROWS, TOKENS, VOCABULARY, At, LayoutChecks, attention, causal, layer_norm, linear, randomised, split
from torch import Tensor, nn

import optrode

WIDTH, HIDDEN, HEADS, SIZE = 32, 40, 4, 8


class TestOPT(LayoutChecks):
    layout = "opt"
    width = WIDTH
    norm_before: ClassVar[bool] = True
    sizes: ClassVar = {
        **{f"attn.{name}": (HEADS, SIZE) for name in ("q", "k", "v", "heads")},
        "mlp.up": (HIDDEN,),
        "mlp.hidden": (HIDDEN,),
    }

    def network(self) -> nn.Module:
        from transformers import OPTConfig, OPTForCausalLM

        shape = {"hidden_size": WIDTH, "ffn_dim": HIDDEN, "num_attention_heads": HEADS, "word_embed_proj_dim": 16}
        config = OPTConfig(vocab_size=VOCABULARY, num_hidden_layers=3, do_layer_norm_before=self.norm_before, **shape)
        return randomised(OPTForCausalLM(config))

    def block(self, block: Any, layer: int, config: Any, h: Tensor, at: At) -> Tensor:
        h = at("in", h)
        x = at("attn.in", layer_norm(h, block.self_attn_layer_norm, 1e-5))
        mid = at("mid", h + at("attn.out", self.attention_part(block.self_attn, x, at)))
        x = at("mlp.in", layer_norm(mid, block.final_layer_norm, 1e-5))
        return at("out", mid + at("mlp.out", self.mlp_part(block, x, at)))

    def attention_part(self, attn: Any, x: Tensor, at: At) -> Tensor:
        q = at("attn.q", split(linear(x, attn.q_proj), HEADS))
        k = at("attn.k", split(linear(x, attn.k_proj), HEADS))
        v = at("attn.v", split(linear(x, attn.v_proj), HEADS))
        heads = at("attn.heads", attention(q * SIZE**-0.5, k, v, causal(x.shape[1]), scale=1.0))
        return linear(heads.flatten(-2), attn.out_proj)

    def mlp_part(self, block: Any, x: Tensor, at: At) -> Tensor:
        return linear(at("mlp.hidden", F.relu(at("mlp.up", linear(x, block.fc1)))), block.fc2)

    def test_gradients_have_the_axes_of_flat_sites_too(self, model: optrode.Model) -> None:
        acts = model.read(self.inputs(), ["layers.1.mlp.hidden", "layers.2.out"], grad=True)
        gradient = acts.gradients(acts["layers.2.out"].pow(2).sum())["layers.1.mlp.hidden"]
        assert gradient.shape == (ROWS, TOKENS, HIDDEN)
        assert bool(torch.isfinite(gradient).all()) and float(gradient.abs().max()) > 0


class TestOPTNormAfter(TestOPT):
    """As in OPT-350m."""

    norm_before = False

    def block(self, block: Any, layer: int, config: Any, h: Tensor, at: At) -> Tensor:
        h = at("in", h)
        part = at("attn.out", self.attention_part(block.self_attn, h, at))
        mid = at("mid", layer_norm(h + part, block.self_attn_layer_norm, 1e-5))
        part = at("mlp.out", self.mlp_part(block, mid, at))
        return at("out", layer_norm(mid + part, block.final_layer_norm, 1e-5))


def test_a_read_with_logits_knows_roles_rows_and_layers(tokenizer: Any) -> None:
    """With a head, transformers calls the decoder and not the base model: a forward begins there."""
    network = TestOPT().network()
    network.resize_token_embeddings(len(tokenizer))
    model = optrode.load(network.eval(), tokenizer=tokenizer)
    prompts = ["The cat", "Paris is the capital of France"]
    alone = model.read(prompts, "layers.1.mlp.up", positions="last_prompt")
    both = model.read(prompts, ["layers.1.mlp.up", "logits"], positions="last_prompt")
    assert both.layers_run == 3
    torch.testing.assert_close(both["layers.1.mlp.up"], alone["layers.1.mlp.up"])
    with model.edited(optrode.edits.zero_ablate("layers.1.out", "generated")) as receipt:
        model.generate(prompts, max_new_tokens=3, min_new_tokens=3)
    assert receipt.sites["layers.1.out"].decode_calls == 2 and receipt.forwards == 3
