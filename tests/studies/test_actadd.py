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
    assert [finding.verdict for finding in found if finding.essential] == ["reproduced", "reproduced"]
    assert overall(found) == "reproduced"
    numbers = found[0].numbers
    assert len(numbers["random"]) == SIZE.random_vectors and max(numbers["random"]) < numbers["gain"]["value"]
    assert len(numbers["cells"]) == 4 and (numbers["layer"], numbers["coefficient"]) in [(0, 1.0), (0, 4.0)]
    # Here the word in front does as much: the network looks back evenly.
    assert found[2].claim.startswith("the vector does more") and found[2].verdict != "reproduced"


def test_without_an_effect_it_is_not_reproduced(on_cats: Callable[[float], op.Model]) -> None:
    found = experiment(on_cats(0.0))
    assert found[0].verdict == overall(found) == "not reproduced"
    # Where nothing happens no harm is done either: the two findings are told apart.
    assert found[1].verdict == "reproduced" and abs(found[1].numbers["drop"]["value"]) < 1e-3


def test_harm_alone_spoils_the_verdict(on_cats: Callable[[float], op.Model]) -> None:
    found = experiment(on_cats(1.0))
    assert found[0].verdict == "reproduced" and found[1].verdict != "reproduced"
    assert overall(found) == found[1].verdict


def test_plain_text_is_the_same_network_behind_a_start_token(llama: op.Model) -> None:
    plain = actadd.as_plain_text(llama, "<|im_start|>")
    batch = plain.encode(["the dog", "Paris is the capital"])
    start = llama.tokenizer.convert_tokens_to_ids("<|im_start|>")
    assert plain.module is llama.module and not plain.is_chat and llama.is_chat
    for row in range(2):
        ids = batch.ids[row][batch.mask[row]].tolist()
        assert ids[0] == start and start not in ids[1:]


def test_random_vectors_have_the_norms_of_the_rows(on_cats: Callable[[float], op.Model]) -> None:
    edit = actadd.fit(on_cats(0.33), actadd.Topic(" cat on the mat", " dog", ()), [1])[1] * 3
    one, other = actadd.random_like(edit, 1), actadd.random_like(edit, 2)
    rows = edit.operator.vectors
    assert len(rows) > 1 and (one.site, one.strength, one.positions) == (edit.site, 3.0, edit.positions)
    torch.testing.assert_close(one.operator.vectors.norm(dim=-1), rows.norm(dim=-1))
    cosine = torch.nn.functional.cosine_similarity(one.operator.vectors, other.operator.vectors)
    assert float(cosine.abs().max()) < 0.5


def test_the_positive_prompt_alone_is_what_stands_at_its_tokens(on_cats: Callable[[float], op.Model]) -> None:
    model = on_cats(0.33)
    edit = actadd.fit(model, TOPIC, [1])[1]
    alone = actadd.positive_alone(model, TOPIC, edit)
    whole = model.read(" cat", "layers.1.in")["layers.1.in"][0]
    torch.testing.assert_close(alone.operator.vectors, whole[1:])


def test_the_change_of_log_probability_by_hand(on_cats: Callable[[float], op.Model]) -> None:
    model = on_cats(2.0)
    edit = actadd.fit(model, TOPIC, [0])[0] * 4
    vectors = 4 * edit.operator.vectors
    found = actadd.logprob_change(model, [" the dog lay", " what the weather will be like"], edit)

    def logprobs(ids: list[int], edited: bool) -> torch.Tensor:
        def change(module: Any, args: tuple) -> tuple:
            h = args[0].clone()
            h[:, 1 : 1 + len(vectors)] += vectors
            return (h, *args[1:])

        hook = model.module.model.layers[0].register_forward_pre_hook(change) if edited else None
        with torch.no_grad():
            logits = model.module(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        if hook:
            hook.remove()
        # Not the token after the start, nor the one that is predicted from the edited position.
        return torch.stack([logits[place - 1, ids[place]] for place in range(1, len(ids)) if place != 2])

    for text, change in zip([" the dog lay", " what the weather will be like"], found, strict=True):
        ids = model.tokenizer(text)["input_ids"]
        assert change == pytest.approx(float((logprobs(ids, True) - logprobs(ids, False)).mean()), abs=1e-4)
        assert abs(change) > 1e-2


def test_stems_are_beginnings_of_words() -> None:
    topic = actadd.WEDDINGS
    assert topic.found("The Bride wore white.") and topic.found("they married") and topic.found("Weddings!")
    assert not topic.found("on Wednesday the newlywed bridge was grey")
    assert not topic.found("")


def test_the_gentle_cell_is_the_best_of_those_that_do_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    harm = {1.0: 0.01, 2.0: 0.04, 4.0: 0.2}
    monkeypatch.setattr(actadd, "logprob_change", lambda model, texts, edit: torch.tensor([-harm[edit]]).numpy())
    cells = [actadd.Cell(0, 1.0, 0.1), actadd.Cell(0, 2.0, 0.3), actadd.Cell(0, 4.0, 0.9)]
    with Steps("a test") as steps:
        assert actadd.gentlest(None, {0: 1.0}, cells, [], steps) == cells[1]  # type: ignore[arg-type]
        assert actadd.gentlest(None, {0: 1.0}, cells[2:], [], steps) is None  # type: ignore[arg-type]
        useless = [actadd.Cell(0, 1.0, 0.0)]
        assert actadd.gentlest(None, {0: 1.0}, useless, [], steps) is None  # type: ignore[arg-type]
    assert actadd.on_topic_gently(None, 0).verdict == "not reproduced"
