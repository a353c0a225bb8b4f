"""Two contexts with two edits on one network each see their own, in the middle of each other's forwards too."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor

import optrode as op
from optrode import edits
from optrode.engine.editing.receipt import Receipt
from optrode.engine.generating.generate import Sampling
from optrode.engine.hooks import ACTIVE, HOOKS
from optrode.engine.reading.read import residuals
from optrode.errors import EditDidNothing, NotSupported

OUT = "layers.1.out"
V = 3 * torch.randn(32, generator=torch.Generator().manual_seed(5))
WAIT = 60


def direction(number: int) -> Tensor:
    return 3 * torch.randn(32, generator=torch.Generator().manual_seed(100 + number))


def together(*works: Callable[[], Any]) -> list[Any]:
    """Run works at the same time, one thread each, and give what they return; the first error is raised."""
    barrier = threading.Barrier(len(works))

    def started(work: Callable[[], Any]) -> Any:
        barrier.wait(WAIT)
        return work()

    with ThreadPoolExecutor(len(works)) as pool:
        return [future.result(WAIT) for future in [pool.submit(started, work) for work in works]]


@pytest.fixture(autouse=True)
def nothing_is_left():
    yield
    assert len(HOOKS) == 0 and ACTIVE.get() == ()


@pytest.fixture
def often_switched():
    """Threads that take turns a thousand times as often as usual."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    yield
    sys.setswitchinterval(before)


def read(model: op.Model, prompts: Any, edit: Any) -> Tensor:
    with model.edited(edit):
        return model.read(prompts, "logits", positions="last_prompt")["logits"]


def meeting(barrier: threading.Barrier) -> Callable[[Tensor], Tensor]:
    """A function for an edit that waits, in the middle of the forward, until all threads are there."""

    def meet(rows: Tensor) -> Tensor:
        barrier.wait(WAIT)
        return rows

    return meet


def test_forwards_that_meet_in_the_middle(model: op.Model, prompts: list[str]):
    """Every thread has another batch, another edit and another kind of site, and waits for the others in two layers."""
    barrier = threading.Barrier(4)
    wait = edits.function("layers.{0,2}.attn.out", meeting(barrier))
    own = [
        edits.add(OUT, V, "last_prompt"),
        edits.add("layers.1.mid", 2 * V, "user"),
        edits.scale("layers.1.attn.pattern", 0.5, "after_instruction"),
        edits.zero_ablate("layers.1.attn.heads", heads=(1,)),
    ]
    batches = [prompts, prompts[:1], prompts[1:], prompts[::-1]]
    wanted = [read(model, batch, edit) for batch, edit in zip(batches, own, strict=True)]
    found = together(
        *(lambda b=batch, e=edit: read(model, b, wait >> e) for batch, edit in zip(batches, own, strict=True))
    )
    for one, other in zip(found, wanted, strict=True):
        assert torch.equal(one, other)


def test_many_threads_that_come_and_go(llama: op.Model, prompts: list[str], often_switched):
    """Hooks are put on and taken off by some threads in the middle of the forwards of others, edited and not."""
    batch = llama.encode(prompts)
    count, rounds = 8, 12
    plain = read(llama, batch, edits.add(OUT, V) * 0)
    own = [edits.add(f"layers.{number % 3}.out", direction(number)) for number in range(count)]
    wanted = [read(llama, batch, edit) for edit in own]

    def edited(number: int) -> Callable[[], None]:
        def work() -> None:
            for _ in range(rounds):
                assert torch.equal(read(llama, batch, own[number]), wanted[number])

        return work

    def unedited() -> None:
        for _ in range(rounds):
            assert ACTIVE.get() == ()
            assert torch.equal(llama.read(batch, "logits", positions="last_prompt")["logits"], plain)

    def bare() -> None:
        for _ in range(rounds):
            with torch.no_grad():
                llama.module(input_ids=batch.ids, attention_mask=batch.mask.long(), use_cache=False)

    together(*map(edited, range(count)), unedited, bare, bare)


def test_threads_write_at_the_same_time(model: op.Model, prompts: list[str], often_switched):
    own = [edits.add(OUT, direction(number), where) for number, where in enumerate(["all", "generated", "user"])]
    long = {"max_new_tokens": 6, "min_new_tokens": 6}

    def write(edit: Any) -> list[tuple[int, ...]]:
        with model.edited(edit) as receipt:
            found = [completion.ids for completion in model.completions(prompts, rows_per_batch=2, **long)]
        assert receipt.forwards == 12 and receipt.sites[OUT].decode_calls == 10
        return found

    wanted = [write(edit) for edit in own]
    assert together(*(lambda e=edit: write(e) for edit in own)) == wanted
    assert len({tuple(ids) for ids in wanted}) == len(own)


def test_threads_draw_each_by_its_own_seed(llama: op.Model, often_switched):
    def draw(seed: int) -> Any:
        warm = Sampling(temperature=1.5, seed=seed)
        return llama.completions("The cat", max_new_tokens=12, min_new_tokens=12, sampling=warm)[0].ids

    state = torch.random.get_rng_state()
    wanted = [draw(seed) for seed in range(4)]
    assert together(*(lambda s=seed: draw(s) for seed in range(4))) == wanted and len(set(wanted)) == 4
    assert torch.equal(torch.random.get_rng_state(), state)


def test_drawing_is_that_of_the_process_with_the_same_seed(llama: op.Model):
    batch = llama.encode("The cat")
    given = {"max_new_tokens": 12, "min_new_tokens": 12, "temperature": 1.5, "top_k": 0, "top_p": 1.0}
    with torch.random.fork_rng():
        torch.manual_seed(3)
        own = llama.module.generate(batch.ids, attention_mask=batch.mask.long(), do_sample=True, **given)
    sampling = Sampling(temperature=1.5, seed=3)
    found = llama.completions("The cat", max_new_tokens=12, min_new_tokens=12, sampling=sampling)[0].ids
    assert found == tuple(own[0, batch.width :].tolist())


def test_nested_edits_of_one_thread_stay_out_of_the_others(llama: op.Model, prompts: list[str]):
    outer, inner, other = (edits.add(f"layers.{layer}.out", direction(layer)) for layer in range(3))
    barrier = threading.Barrier(2)

    def nested() -> list[Tensor]:
        found = []
        with llama.edited(outer):
            barrier.wait(WAIT)
            found.append(llama.read(prompts, "logits", positions="last_prompt")["logits"])
            with llama.edited(inner):
                barrier.wait(WAIT)
                found.append(llama.read(prompts, "logits", positions="last_prompt")["logits"])
            barrier.wait(WAIT)
            found.append(llama.read(prompts, "logits", positions="last_prompt")["logits"])
        return found

    def alone() -> list[Tensor]:
        found = []
        with llama.edited(other):
            for _ in range(3):
                barrier.wait(WAIT)
                found.append(llama.read(prompts, "logits", positions="last_prompt")["logits"])
        return found

    first, second = together(nested, alone)
    one, two, three = read(llama, prompts, outer), read(llama, prompts, outer >> inner), read(llama, prompts, other)
    assert torch.equal(first[0], one) and torch.allclose(first[1], two, atol=1e-5) and torch.equal(first[2], one)
    assert all(torch.equal(found, three) for found in second)


def test_a_resumed_forward_beside_a_full_one(model: op.Model, prompts: list[str]):
    """Blocks that answer from a cache in one thread run in the other."""
    batch = model.encode(prompts)
    kept = residuals(model, batch, [1, 2])
    barrier = threading.Barrier(2)
    wait = edits.function("layers.2.attn.out", meeting(barrier))
    full, late = edits.add("layers.0.out", V), edits.add("layers.2.out", V)

    def resumed() -> Tensor:
        with model.edited(wait >> late) as receipt:
            found = model.read(kept, "logits", positions="last_prompt")["logits"]
        assert receipt.layers_skipped == 2
        return found

    wanted = [read(model, batch, full), read(model, kept, late)]
    found = together(lambda: read(model, batch, wait >> full), resumed)
    assert torch.equal(found[0], wanted[0]) and torch.allclose(found[1], wanted[1], atol=1e-5)


def test_a_tower_and_its_network_are_hooked_once(make_model, prompts: list[str]):
    """A network and a part of it that was loaded by itself share modules: an edit of one must not act twice."""
    whole = make_model("llama")
    part = op.load(whole.module.model, tokenizer=whole.tokenizer)
    h = whole.read(prompts[0], "layers.0.out")["layers.0.out"]
    with part.edited(edits.add("layers.0.out", V)):
        assert torch.equal(whole.read(prompts[0], "layers.0.out")["layers.0.out"], h + V)


# Carried into threads ------------------------------------------------------------------------------------------------


def test_a_bound_function_runs_under_the_block(llama: op.Model, prompts: list[str], often_switched):
    outer, inner = edits.add("layers.0.out", V), edits.add(OUT, V, "last_prompt")

    def work(prompt: str) -> Tensor:
        return llama.read(prompt, "logits", positions="last_prompt")["logits"]

    with llama.edited(outer), llama.edited(inner):
        wanted = [work(prompt) for prompt in prompts]
    many = prompts * 8
    with llama.edited(outer) as around, llama.edited(inner) as receipt, ThreadPoolExecutor(6) as pool:
        found = list(pool.map(receipt.bind(work), many))
        first = pool.submit(around.bind(work), prompts[0]).result(WAIT)
    assert all(torch.equal(one, wanted[number % len(prompts)]) for number, one in enumerate(found))
    assert receipt.forwards == len(many) and receipt.sites[OUT].calls == len(many)
    assert receipt.sites[OUT].selected == receipt.sites[OUT].changed == len(many), "no count is lost between threads"
    assert around.forwards == len(many) + 1
    assert torch.equal(first, read(llama, prompts[0], outer)), "each receipt binds its own block"


def test_a_bound_call_runs_under_its_block_whatever_is_active_where_it_is_called(llama: op.Model):
    def work() -> Tensor:
        return llama.read("The cat", "logits", positions="last_prompt")["logits"]

    with llama.edited(edits.add(OUT, V)) as receipt:
        bound = receipt.bind(work)
        with llama.edited(edits.add("layers.0.out", V)) as idle:
            found = bound()
            assert not torch.equal(work(), found)
        assert idle.forwards == 1
    assert torch.equal(found, read(llama, "The cat", edits.add(OUT, V)))


def test_two_edits_in_one_block_and_a_prompt_are_bound_together(llama: op.Model):
    both = (edits.prompt("You are a cat."), edits.add(OUT, V))
    with llama.edited(*both):
        wanted = llama.generate("Hello", max_new_tokens=5)
    with llama.edited(*both) as receipt, ThreadPoolExecutor(1) as pool:
        assert pool.submit(receipt.bind(llama.generate), "Hello", max_new_tokens=5).result(WAIT) == wanted
    assert receipt.sites["0: prefix"].calls == 1 and receipt.sites[f"1: {OUT}"].calls > 0


def test_strength_zero_binds_too(llama: op.Model):
    with llama.edited(edits.add(OUT, V) * 0) as receipt:
        assert receipt.bind(llama.generate)("Hello", max_new_tokens=3) == llama.generate("Hello", max_new_tokens=3)


def test_a_thread_that_was_given_nothing_sees_the_plain_network(llama: op.Model):
    def work() -> Tensor:
        return llama.read("The cat", "logits", positions="last_prompt")["logits"]

    plain = work()
    with pytest.raises(EditDidNothing), llama.edited(edits.add(OUT, V)):
        (found,) = together(work)
    assert torch.equal(found, plain)


def test_a_call_after_the_block_is_refused(llama: op.Model):
    with llama.edited(edits.add(OUT, V)) as receipt:
        bound = receipt.bind(llama.generate)
        bound("The cat", max_new_tokens=1)
    with pytest.raises(NotSupported, match="block of the edit ended"):
        bound("The cat")


@pytest.mark.parametrize("how", ["bound", "with the context"])
def test_a_call_that_is_still_running_when_the_block_ends_is_an_error(how: str, llama: op.Model):
    """It would have been edited in its first half only."""
    import contextvars

    inside, go_on, here = threading.Event(), threading.Event(), threading.current_thread()

    def wait(rows: Tensor) -> Tensor:
        if threading.current_thread() is not here:
            inside.set()
            assert go_on.wait(WAIT)
        return rows

    edit = edits.add(OUT, V) + edits.function("layers.0.out", wait, "last_prompt")
    with ThreadPoolExecutor(1) as pool:
        with llama.edited(edit) as receipt:
            call = receipt.bind(llama.generate) if how == "bound" else contextvars.copy_context().run
            given = ("The cat",) if how == "bound" else (llama.generate, "The cat")
            future = pool.submit(call, *given, max_new_tokens=4)
            llama.read("The cat", OUT)
            assert inside.wait(WAIT)
        go_on.set()
        with pytest.raises(NotSupported, match="block of the edit ended"):
            raise future.exception(WAIT) or AssertionError("nothing was raised")


def test_what_cannot_be_bound_is_refused(llama: op.Model):
    async def later() -> None: ...

    def each():
        yield 1

    with llama.edited(edits.add(OUT, V)) as receipt:
        llama.read("The cat", OUT)
        for function in (later, each):
            with pytest.raises(NotSupported, match="does not run when it is called"):
                receipt.bind(function)
    with pytest.raises(NotSupported, match="belongs to no block"):
        Receipt().bind(print)


def test_an_error_in_a_bound_call_is_the_callers(llama: op.Model):
    class Mine(Exception):
        pass

    def work() -> None:
        llama.read("The cat", "logits")
        raise Mine

    with llama.edited(edits.add(OUT, V)) as receipt, ThreadPoolExecutor(1) as pool:
        with pytest.raises(Mine):
            pool.submit(receipt.bind(work)).result(WAIT)
        assert receipt.forwards == 1


# Tasks ---------------------------------------------------------------------------------------------------------------


def test_tasks_have_an_edit_each_and_take_it_into_threads(llama: op.Model, prompts: list[str]):
    own = [edits.add(f"layers.{number}.out", direction(number)) for number in range(3)]
    wanted = [read(llama, prompts, edit) for edit in own]

    async def work(edit: Any) -> list[Tensor]:
        def last() -> Tensor:
            return llama.read(prompts, "logits", positions="last_prompt")["logits"]

        found = []
        with llama.edited(edit):
            for _ in range(3):
                await asyncio.sleep(0)
                found.append(last())
                # The task's context, and the very same session, in another thread.
                found.append(await asyncio.to_thread(last))
                found += await asyncio.gather(asyncio.to_thread(last), asyncio.to_thread(last))
        return found

    async def all_of_them() -> list[list[Tensor]]:
        return await asyncio.gather(*(work(edit) for edit in own))

    for found, one in zip(asyncio.run(all_of_them()), wanted, strict=True):
        assert len(found) == 12 and all(torch.equal(each, one) for each in found)


def test_tasks_that_are_made_inside_a_block_have_its_edit(llama: op.Model):
    async def last() -> Tensor:
        await asyncio.sleep(0)
        return llama.read("The cat", "logits", positions="last_prompt")["logits"]

    async def work() -> list[Tensor]:
        with llama.edited(edits.add(OUT, V)):
            return await asyncio.gather(last(), last())

    wanted = read(llama, "The cat", edits.add(OUT, V))
    assert all(torch.equal(found, wanted) for found in asyncio.run(work()))
