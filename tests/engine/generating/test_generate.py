from __future__ import annotations

import pytest
import torch
from torch import nn

import optrode as op
from optrode import edits
from optrode.engine.generating.generate import Completion, Sampling
from optrode.errors import BadInput, NotSupported

V = 3 * torch.randn(32, generator=torch.Generator().manual_seed(5))
OUT = "layers.1.out"
LONG = {"max_new_tokens": 8, "min_new_tokens": 8}


def ids(model: op.Model, prompts, **options) -> list[tuple[int, ...]]:
    return [completion.ids for completion in model.completions(prompts, **{**LONG, **options})]


def test_greedy_is_the_hosts_own(model: op.Model, prompts: list[str]):
    batch = model.encode(prompts)
    wanted = model.module.generate(
        input_ids=batch.ids, attention_mask=batch.mask.long(), do_sample=False, **LONG
    )[:, batch.width :]  # fmt: skip
    assert ids(model, prompts) == [tuple(row) for row in wanted.tolist()]
    assert ids(model, batch) == ids(model, prompts)


def test_one_prompt_gives_a_text_and_many_a_list(llama: op.Model, prompts: list[str]):
    one = llama.generate("The cat", **LONG)
    assert isinstance(one, str) and llama.generate(["The cat"], **LONG) == [one]
    talk = [{"role": "user", "content": "The cat"}]
    assert llama.generate(talk, **LONG) == one and llama.generate([talk], **LONG) == [one]
    many = llama.completions(prompts, **LONG)
    assert [str(completion) for completion in many] == llama.generate(prompts, **LONG)
    decoded = llama.tokenizer.decode(many[1].ids, skip_special_tokens=True)
    assert many[1] == Completion(decoded, many[1].ids)


@pytest.mark.parametrize("rows", [1, 2])
def test_batches_of_any_size_keep_the_order(rows: int, model: op.Model, prompts: list[str]):
    assert ids(model, prompts, rows_per_batch=rows) == ids(model, prompts)


def test_writing_stops_at_the_end_token(llama: op.Model, prompts: list[str]):
    end = llama.tokenizer.eos_token_id
    always = torch.full((len(llama.tokenizer),), -1e4)
    always[end] = 0
    with llama.edited(edits.replace("logits", always, "generated:1-")):
        found = llama.completions(prompts, max_new_tokens=8)
    for completion in found:
        assert len(completion.ids) == 3 and completion.ids[-1] == end and end not in completion.ids[:-1]
        assert completion.text == llama.tokenizer.decode(completion.ids[:-1])


def test_sampling_is_repeatable_and_leaves_the_global_generator_alone(llama: op.Model):
    warm = {"sampling": Sampling(temperature=1.5, seed=3)}
    torch.manual_seed(11)
    first = ids(llama, "The cat", **warm)
    after = torch.rand(1)
    torch.manual_seed(11)
    assert torch.equal(torch.rand(1), after)
    assert ids(llama, "The cat", **warm) == first
    assert ids(llama, "The cat", sampling=Sampling(temperature=1.5, seed=4)) != first
    assert ids(llama, "The cat", sampling=Sampling()) == ids(llama, "The cat")


def test_a_repetition_penalty_is_passed_on(llama: op.Model):
    plain = ids(llama, "The cat", max_new_tokens=30, min_new_tokens=30)[0]
    fined = ids(llama, "The cat", max_new_tokens=30, min_new_tokens=30, sampling=Sampling(repetition_penalty=5.0))[0]
    assert len(set(fined)) > len(set(plain))


def test_refusals(llama: op.Model, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(BadInput, match="at least 1"):
        llama.generate("a", max_new_tokens=0)
    with pytest.raises(NotSupported, match="cannot generate"):
        op.load(nn.Linear(2, 2), tokenizer=llama.tokenizer).generate("a")
    with pytest.raises(NotSupported, match="no tokenizer"):
        op.load(llama.module).completions(llama.encode("a"))
    assert llama.generate("a", num_beams=2, max_new_tokens=2) is not None, "beams are the host's own business"
    edit = edits.add(OUT, V)
    for options in ({"num_beams": 2}, {"assistant_model": llama.module}, {"prompt_lookup_num_tokens": 2}):
        with pytest.raises(NotSupported, match="edit cannot be active"), llama.edited(edit):
            llama.generate("a", **options)
    monkeypatch.setattr(llama.module.generation_config, "num_beams", 3)
    with pytest.raises(NotSupported, match="beam"), llama.edited(edit):
        llama.generate("a")


def test_a_static_cache_gives_the_same(llama: op.Model, prompts: list[str]):
    edit = edits.add(OUT, V, "after_instruction")
    with llama.edited(edit) as first:
        wanted = ids(llama, prompts)
    with llama.edited(edit) as second:
        assert ids(llama, prompts, cache_implementation="static") == wanted
    assert first.sites[OUT].selected == second.sites[OUT].selected


def test_a_prompt_that_is_read_in_parts(llama: op.Model, prompts: list[str]):
    for positions in ("last_prompt", "user", "after_instruction", "generated"):
        edit = edits.add(OUT, V, positions)
        with llama.edited(edit) as first:
            wanted = ids(llama, prompts)
        with llama.edited(edit) as second:
            assert ids(llama, prompts, prefill_chunk_size=5) == wanted
        assert first.sites[OUT].selected == second.sites[OUT].selected
        assert second.sites[OUT].decode_calls == first.sites[OUT].decode_calls == 7
        assert second.sites[OUT].prefill_calls > first.sites[OUT].prefill_calls == 1


def test_vectors_by_position_go_on_through_writing(llama: op.Model):
    """The p-th selected position gets the p-th vector, counted once from the prompt into what is written."""
    batch = llama.encode("The cat")
    vectors = torch.arange(1.0, 41.0)[:, None].expand(-1, 32)
    seen: list[float] = []
    own = llama.read(batch, OUT)[OUT]

    def note(rows: torch.Tensor) -> torch.Tensor:
        seen.extend(rows.mean(-1).tolist())
        return rows

    header = len(llama.tokenizer("<|im_start|>assistant\n")["input_ids"])
    cases = (("all", batch.width, 0), ("after_instruction", header, 0), ("generated:2-", 0, 2))
    for positions, prompt_count, skipped in cases:
        seen.clear()
        zero_then_number = edits.replace(OUT, torch.zeros(32), positions) >> edits.add_by_position(
            OUT, vectors, positions
        )
        with llama.edited(zero_then_number, edits.function(OUT, note)):
            ids(llama, "The cat")
        prompt, written = seen[: batch.width], seen[batch.width :]
        assert prompt[batch.width - prompt_count :] == pytest.approx(range(1, prompt_count + 1))
        wanted = range(prompt_count + 1, prompt_count + 8 - skipped)
        assert written[skipped:] == pytest.approx(wanted), positions
    assert torch.equal(llama.read(batch, OUT)[OUT], own)
