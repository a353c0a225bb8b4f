from __future__ import annotations

import contextvars
import threading
from functools import partial

import pytest
import torch
from torch import nn

import optrode as op
from optrode import edits
from optrode.edits import PrefixEdit
from optrode.engine.editing.edited import PREFIXES
from optrode.engine.hooks import ACTIVE
from optrode.errors import EditDidNothing, NotFinite, NotSupported, WrongShape

V = torch.randn(32, generator=torch.Generator().manual_seed(5))
OUT = "layers.1.out"


def last(model: op.Model, prompts="The cat sat") -> torch.Tensor:
    return model.read(prompts, "logits", positions="last_prompt")["logits"]


# Where an edit writes ------------------------------------------------------------------------------------------------

PLACES = {
    "llama": {
        "layers.1.in": ("", "in"), "layers.1.attn.in": ("input_layernorm", "out"),
        "layers.1.attn.out": ("self_attn", "out"), "layers.1.mlp.out": ("mlp", "out"), OUT: ("", "out"),
    },
    "gpt2": {
        "layers.1.in": ("", "in"), "layers.1.attn.in": ("ln_1", "out"), "layers.1.attn.out": ("attn", "out"),
        "layers.1.mlp.out": ("mlp", "out"), OUT: ("", "out"),
    },
}  # fmt: skip


@pytest.mark.parametrize(("name", "site"), [(name, site) for name in PLACES for site in PLACES[name]])
def test_an_edit_equals_a_plain_hook_at_the_same_place(name, site, prompts, block, forward, rewritten, request):
    model = request.getfixturevalue(name)
    batch = model.encode(prompts)
    path, side = PLACES[name][site]
    with rewritten(block(model, 1).get_submodule(path), lambda h: h + V, side):
        wanted = forward(model, batch).logits
    with model.edited(edits.add(site, V)) as receipt:
        got = model.read(batch, "logits")["logits"]
    assert torch.allclose(got[batch.mask], wanted[batch.mask], atol=1e-5)
    assert not torch.allclose(got, forward(model, batch).logits, atol=1e-2)
    assert list(receipt.sites) == [site]


def test_the_sum_in_the_middle_of_a_block_reaches_both_branches(model: op.Model, prompts: list[str]):
    """`mid` feeds the norm and the residual; setting it to a value must set both."""
    batch = model.encode(prompts)
    acts = model.read(batch, ["layers.1.mid", "layers.1.mlp.out", OUT])
    with model.edited(edits.replace("layers.1.mid", V)):
        inside = model.read(batch, ["layers.1.mid", "layers.1.mlp.out", OUT])
    mask = batch.mask
    assert torch.allclose(inside["layers.1.mid"][mask], V.expand_as(acts["layers.1.mid"][mask]), atol=1e-5)
    mid_and_mlp = inside["layers.1.mid"] + inside["layers.1.mlp.out"]
    assert torch.allclose(inside[OUT][mask], mid_and_mlp[mask], atol=1e-5)


@pytest.mark.parametrize("earlier", ["layers.1.in", "layers.1.attn.out"])
def test_a_sum_is_edited_after_its_parts_in_whatever_order_blocks_are_entered(earlier: str, model: op.Model):
    wanted = V.expand(3, -1)
    first, second = edits.add(earlier, 5 * torch.ones(32)), edits.replace("layers.1.mid", V)
    for outer, inner in ((first, second), (second, first)):
        with model.edited(outer), model.edited(inner):
            acts = model.read(["a", "b", "c"], "layers.1.mid", positions="last_prompt")
        assert torch.allclose(acts["layers.1.mid"], wanted, atol=1e-4)


def test_heads_features_and_fused_parts(gpt2: op.Model, llama: op.Model):
    for model in (gpt2, llama):
        plain = model.read("The cat", "layers.1.attn.{q,k,v,heads}")
        for part in ("q", "k", "v"):
            site = f"layers.1.attn.{part}"
            with model.edited(edits.zero_ablate(site, heads=(1,), features=(0, 3))):
                inside = model.read("The cat", "layers.1.attn.{q,k,v}")
            for other in ("q", "k", "v"):
                wanted = plain[f"layers.1.attn.{other}"].clone()
                if other == part:
                    wanted[:, :, 1, 0] = wanted[:, :, 1, 3] = 0
                assert torch.equal(inside[f"layers.1.attn.{other}"], wanted)


def test_logits_can_be_edited_in_reading_and_in_writing(llama: op.Model, prompts: list[str]):
    only = torch.full((len(llama.tokenizer),), -1e4)
    only[77] = 0
    for positions in ("all", "last_prompt", "after_instruction"):
        with llama.edited(edits.replace("logits", only, positions)) as receipt:
            assert torch.equal(last(llama, prompts), only.expand(3, -1))
            whole = llama.read(prompts, "logits")
        if positions == "last_prompt":
            assert not torch.equal(whole["logits"][:, -2], only.expand(3, -1))
        assert receipt.calls == 2
    with llama.edited(edits.replace("logits", only)):
        assert {completion.ids for completion in llama.completions(prompts, max_new_tokens=3)} == {(77, 77, 77)}
    with llama.edited(edits.replace("logits", only, "last_prompt")):
        assert all(completion.ids[0] == 77 for completion in llama.completions(prompts, max_new_tokens=3))


# Several at once -----------------------------------------------------------------------------------------------------


def test_later_edits_see_what_earlier_ones_left(model: op.Model):
    add, double = edits.add(OUT, V), edits.scale(OUT, 2.0)
    h = model.read("The cat", OUT)[OUT]
    for entered, wanted in (((add, double), (h + V) * 2), ((double, add), h * 2 + V)):
        with model.edited(*entered) as receipt:
            assert torch.allclose(model.read("The cat", OUT)[OUT], wanted, atol=1e-5)
        assert [site.address for site in receipt.sites.values()] == [OUT, OUT] and receipt.forwards == 1
        assert list(receipt.sites) == [f"0: {OUT}", f"1: {OUT}"]
        with model.edited(entered[0]), model.edited(entered[1]):
            assert torch.allclose(model.read("The cat", OUT)[OUT], wanted, atol=1e-5)
    with model.edited(add):
        with model.edited(double):
            pass_through = model.read("The cat", OUT)[OUT]
        assert torch.allclose(model.read("The cat", OUT)[OUT], h + V, atol=1e-6), "the inner one is gone"
    assert torch.allclose(pass_through, (h + V) * 2, atol=1e-5)


def test_blocks_that_end_in_another_order_than_they_began(llama: op.Model):
    """A generator holds an edit; the caller enters another one, and the generator is closed first."""
    h = llama.read("The cat", OUT)[OUT]

    def holding(edit):
        with llama.edited(edit):
            llama.read("The cat", OUT)
            yield

    generator = holding(edits.scale(OUT, 100.0))
    next(generator)
    with llama.edited(edits.add(OUT, V)):
        assert torch.allclose(llama.read("The cat", OUT)[OUT], h * 100 + V, atol=1e-3)
        generator.close()
        assert torch.allclose(llama.read("The cat", OUT)[OUT], h + V, atol=1e-6), "only the one that is still open"
    assert torch.equal(llama.read("The cat", OUT)[OUT], h) and ACTIVE.get() == ()


def test_a_context_that_was_copied_inside_a_block_does_not_keep_the_edit(llama: op.Model):
    h = llama.read("The cat", OUT)[OUT]
    with llama.edited(edits.scale(OUT, 3.0)), llama.edited(edits.prompt("Be brief.")):
        llama.read("The cat", OUT)
        copied = contextvars.copy_context()
        inside = copied.run(lambda: llama.read("The cat", OUT)[OUT])
    assert inside.shape[1] > h.shape[1]
    with llama.edited(edits.add(OUT, V)):
        llama.read("The cat", OUT)
        assert torch.equal(copied.run(lambda: llama.read("The cat", OUT)[OUT]), h)


def test_a_generator_that_is_closed_in_another_context(llama: op.Model):
    def holding():
        with llama.edited(edits.scale(OUT, 3.0)):
            llama.read("The cat", OUT)
            yield

    h = llama.read("The cat", OUT)[OUT]
    generator = holding()
    next(generator)
    contextvars.copy_context().run(generator.close)
    assert torch.equal(llama.read("The cat", OUT)[OUT], h)
    with llama.edited(edits.add(OUT, V)):
        assert torch.allclose(llama.read("The cat", OUT)[OUT], h + V, atol=1e-6)
    ACTIVE.set(())


def test_two_threads_with_two_edits_each_see_their_own(llama: op.Model):
    h = llama.read("The cat", OUT)[OUT]
    found, together = {}, threading.Barrier(3, timeout=30)

    def work(name: int, edit) -> None:
        def passes() -> list[torch.Tensor]:
            together.wait()
            return [llama.read("The cat", OUT)[OUT] for _ in range(10)]

        if edit is None:
            found[name] = passes()
        else:
            with llama.edited(edit) as receipt:
                found[name] = passes()
            assert receipt.forwards == 10 and receipt.sites[OUT].selected == 10 * h.shape[1]

    kinds = [edits.add(OUT, V), edits.scale(OUT, -2.0), None]
    threads = [threading.Thread(target=partial(work, name, edit)) for name, edit in enumerate(kinds)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    for name, wanted in enumerate((h + V, h * -2, h)):
        assert len(found[name]) == 10 and all(torch.allclose(got, wanted, atol=1e-6) for got in found[name])
    assert not llama.base._forward_pre_hooks


def test_two_wrappers_of_one_network(llama: op.Model):
    other = op.load(llama.module, tokenizer=llama.tokenizer)
    with other.edited(edits.add(OUT, V, "user")) as receipt:
        llama.read("The cat", OUT)
    user = int((llama.encode("The cat").roles == 3).sum())
    assert receipt.sites[OUT].selected == user
    with other.edited(edits.prompt("Be brief.")):
        assert "Be brief." in llama.encode("The cat").texts[0]


def test_the_network_can_be_called_by_its_owner(llama: op.Model, forward, rewritten, block):
    batch = llama.encode("The cat")
    with rewritten(block(llama, 1), lambda h: h + V):
        wanted = forward(llama, batch).logits
    with llama.edited(edits.add(OUT, V)) as receipt:
        assert torch.allclose(forward(llama, batch).logits, wanted, atol=1e-5)
        block(llama, 1).mlp(torch.ones(1, 1, 32))
    assert receipt.calls == 1
    with llama.edited(edits.add("layers.1.mlp.out", V)) as receipt, torch.no_grad():
        part = block(llama, 1).mlp(torch.ones(1, 1, 32))
    with torch.no_grad():
        assert torch.allclose(part, block(llama, 1).mlp(torch.ones(1, 1, 32)) + V)
    assert receipt.calls == 1 and receipt.forwards == 0


# Refusals ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (edits.add(OUT, torch.ones(31)), "width 31.*has 32"),
        (edits.add(OUT, torch.ones(1)), "width 1"),
        (edits.add("layers.*.out", torch.ones(9, 32)), "add_by_position"),
        (edits.replace(OUT, torch.ones(1, 32)), r"one of \[width\]"),
        (edits.project_out(OUT, torch.eye(31)[:2]), "width 31"),
        (edits.zero_ablate(OUT, heads=(0,)), "no heads"),
        (edits.zero_ablate("layers.1.mlp.hidden", heads=(0,)), "no heads"),
    ],
)
def test_shapes_that_cannot_fit_are_refused_before_anything_runs(edit, says: str, llama: op.Model):
    with pytest.raises(WrongShape, match=says), llama.edited(edit):
        pytest.fail("it was entered")


@pytest.mark.parametrize(
    "edit",
    [
        edits.add("layers.1.mlp.hidden", torch.ones(47)), edits.add("layers.1.attn.heads", torch.ones(3, 8)),
        edits.zero_ablate(OUT, features=(32,)), edits.zero_ablate("layers.1.attn.heads", heads=(4,)),
        edits.add(OUT, torch.ones(3), features=(0, 1)), edits.function(OUT, lambda rows: rows[:1]),
    ],
)  # fmt: skip
def test_shapes_that_turn_out_not_to_fit_name_the_site(edit, llama: op.Model):
    with pytest.raises(WrongShape) as refused, llama.edited(edit):
        llama.read(["The cat", "a"], OUT)
    assert len(str(refused.value).splitlines()) == 1
    assert "layers.1" in str(refused.value) or "function" in str(refused.value)


def test_a_function_sees_rows_and_what_it_raises_comes_through(llama: op.Model):
    shapes = []
    for prompts in (["The cat"], ["The cat", "a"]):
        with llama.edited(edits.function(OUT, lambda rows: shapes.append(rows.shape) or rows)):
            llama.read(prompts, OUT)
    assert [len(shape) for shape in shapes] == [2, 2]

    def breaks(rows):
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"), llama.edited(edits.function(OUT, breaks)):
        llama.read("The cat", OUT)


def test_no_edit_and_no_such_kind(llama: op.Model):
    with pytest.raises(EditDidNothing, match="no edit was given"), llama.edited():
        pass

    class Adapter(edits.Edit):
        kind = "adapter"

    with pytest.raises(NotSupported, match="adapter"), llama.edited(Adapter()):
        pass


def test_positions_need_to_be_known(llama: op.Model):
    embedded = {"inputs_embeds": torch.randn(1, 4, 32)}
    with pytest.raises(NotSupported, match="bare tensors"), llama.edited(edits.add(OUT, V, "user")):
        llama.read(embedded, OUT)
    with llama.edited(edits.add(OUT, V)):
        llama.read(embedded, OUT)
    net = op.load(nn.Sequential(nn.Linear(2, 2)))
    with pytest.raises(NotSupported, match="token axis"), net.edited(edits.zero_ablate("module:0", "last_prompt")):
        net.read(torch.ones(1, 2), "module:0")


# Numbers that are none -----------------------------------------------------------------------------------------------


def test_infinity_is_an_error_that_names_the_site(llama: op.Model, make_model):
    with pytest.raises(NotFinite, match=OUT), llama.edited(edits.function(OUT, lambda rows: rows / 0)):
        last(llama)
    half = make_model("llama", torch.float16)
    with pytest.raises(NotFinite, match=OUT), half.edited(edits.add(OUT, 1e5 * V)):
        half.read("The cat", OUT)


def test_a_change_of_zero_is_no_infinity(llama: op.Model):
    """Something added to an activation that is exactly zero."""
    with llama.edited(edits.zero_ablate(OUT), edits.add(OUT, 1e3 * V)) as receipt:
        assert torch.equal(llama.read("The cat", OUT, positions="last_prompt")[OUT], 1e3 * V[None])
    assert receipt.sites[f"1: {OUT}"].relative_change == 1


def test_what_half_precision_rounds_away_is_not_counted_as_changed(make_model):
    model = make_model("llama", torch.bfloat16)
    with model.edited(edits.scale(OUT, 1 + 1e-5)) as receipt:
        model.read("The cat", OUT)
    assert receipt.sites[OUT].selected > 0 and receipt.changed == 0


# Prefix edits --------------------------------------------------------------------------------------------------------


def test_a_prefix_puts_its_tokens_in_front(llama: op.Model):
    edit = PrefixEdit("Be brief.", (("user", "2+2"), ("assistant", "4")))
    with llama.edited(edit) as receipt:
        text = llama.encode("The cat", system="In French.").texts[0]
        assert llama.encode([{"role": "system", "content": "Own."}, {"role": "user", "content": "x"}]).texts[0] == (
            "<|im_start|>system\nBe brief.\nOwn.<|im_end|>\n<|im_start|>user\n2+2<|im_end|>\n<|im_start|>assistant\n4"
            "<|im_end|>\n<|im_start|>user\nx<|im_end|>\n<|im_start|>assistant\n"
        )
    assert text == (
        "<|im_start|>system\nBe brief.\nIn French.<|im_end|>\n<|im_start|>user\n2+2<|im_end|>\n"
        "<|im_start|>assistant\n4<|im_end|>\n<|im_start|>user\nThe cat<|im_end|>\n<|im_start|>assistant\n"
    )
    assert receipt.calls == 2 and PREFIXES.get() == ()
    assert "Be brief" not in llama.encode("The cat").texts[0]


def test_prefixes_nest_and_reach_raw_prompts_with_their_role(llama: op.Model):
    with llama.edited(edits.prompt("One.")), llama.edited(edits.prompt("Two.")):
        chat, raw = llama.encode("a"), llama.encode("a", template="raw", system="Three.")
    assert chat.texts[0].startswith("<|im_start|>system\nTwo.\nOne.<|im_end|>")
    assert raw.texts[0] == "Two.\nOne.\nThree.\na"
    text = [llama.tokenizer.decode(raw.ids[0][raw.roles[0] == role]) for role in (2, 5)]
    assert "".join(text) == "Two.\nOne.\nThree.\na" and text[1].strip() == "a"


def test_a_prefix_that_cannot_be_put_in_front_is_refused_not_dropped(llama: op.Model):
    turns = PrefixEdit("", (("user", "2+2"), ("assistant", "4")))
    with pytest.raises(NotSupported, match="chat template"), llama.edited(turns):
        llama.encode("The cat", template="raw")
    with pytest.raises(EditDidNothing, match="no prompt was encoded"), llama.edited(edits.prompt("Be brief.")):
        pass
    from optrode.errors import BadInput

    with pytest.raises(BadInput, match="texts, not messages"), llama.edited(edits.prompt("Be brief.")):
        llama.encode([{"role": "user", "content": "x"}], template="raw")
