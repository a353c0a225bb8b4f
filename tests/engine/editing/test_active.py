"""The list of active edits: those that really act here, in this thread or task, and no other."""

from __future__ import annotations

import asyncio
import threading

import pytest
import torch

import optrode as op
from optrode import edits
from optrode.errors import EditDidNothing

S = "layers.1.out"
V = 3 * torch.randn(32, generator=torch.Generator().manual_seed(5))
ADD = edits.add(S, V)


def test_outermost_first_and_gone_with_the_block(llama: op.Model):
    assert op.active() == () and repr(op.active()) == "no edit is active in this thread or task"
    prompt = edits.prompt("You are a cat.")
    with llama.edited(prompt, ADD * 2) as receipt:
        with llama.edited(ADD):
            assert op.active()[0].edit is prompt and len(llama.active) == 3
            llama.generate("Hello", max_new_tokens=2)
        assert [type(one.edit).__name__ for one in llama.active] == ["PrefixEdit", "SiteEdit"]
        text = repr(llama.active)
    assert text.splitlines() == [
        f"1. prompt, 'You are a cat.' (on {llama.name}, 1 call so far)",
        f"2. add at {S}, strength 2 (on {llama.name}, {receipt.forwards} forwards so far)",
    ]
    assert op.active() == () and llama.active == ()


def test_the_receipt_is_the_blocks_own(llama: op.Model):
    with llama.edited(ADD) as receipt:
        assert llama.active[0].receipt is receipt and "not used so far" in repr(llama.active)
        llama.read("Hello", S)
        assert "1 forward so far" in repr(llama.active)


def test_other_models_are_left_out(llama: op.Model, gpt2: op.Model):
    with llama.edited(ADD), gpt2.edited(ADD * 2):
        assert [one.host for one in op.active()] == [llama, gpt2]
        assert [one.edit.strength for one in gpt2.active] == [2]
        for model in (llama, gpt2):
            model.read("Hello", S)


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_gone_whatever_ends_the_block(error: type[BaseException], llama: op.Model):
    with pytest.raises(error), llama.edited(ADD):
        raise error
    with pytest.raises(EditDidNothing), llama.edited(ADD):
        assert len(op.active()) == 1
    assert op.active() == ()


def test_a_plain_thread_has_none_and_a_bound_one_those_of_its_block(llama: op.Model):
    found = []

    def look() -> None:
        found.append([one.edit for one in op.active()])

    with llama.edited(ADD) as receipt:
        llama.read("Hello", S)
        with llama.edited(ADD * 2):
            llama.read("Hello", S)
            for target in (look, receipt.bind(look)):
                thread = threading.Thread(target=target)
                thread.start()
                thread.join()
    assert found == [[], [ADD]]


def test_a_task_that_outlives_the_block_has_none(llama: op.Model):
    async def run() -> tuple[int, int]:
        ended = asyncio.Event()
        counts = []

        async def task() -> None:
            counts.append(len(op.active()))
            await ended.wait()
            counts.append(len(op.active()))

        with llama.edited(ADD):
            llama.read("Hello", S)
            waiting = asyncio.create_task(task())
            await asyncio.sleep(0)
        ended.set()
        await waiting
        return counts[0], counts[1]

    assert asyncio.run(run()) == (1, 0)


def test_what_is_trained_and_what_is_off_is_said(llama: op.Model):
    with llama.edited(ADD.trainable(), ADD * 0):
        llama.read("Hello", S)
        assert "(being trained)" in repr(llama.active[0]) and "strength 0" in repr(llama.active[1])
