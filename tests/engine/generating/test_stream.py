"""Streams: the text of `generate`, piece by piece, from a thread under the caller's edits that can be stopped."""

from __future__ import annotations

import _thread
import gc
import signal
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import optrode as op
from optrode import edits
from optrode.engine.generating.channel import Channel
from optrode.engine.generating.generate import Sampling
from optrode.engine.generating.pieces import Pieces
from optrode.engine.generating.stream import Token
from optrode.engine.hooks import ACTIVE, HOOKS
from optrode.errors import BadInput, EditDidNothing, NotSupported

OUT = "layers.1.out"
V = 3 * torch.randn(32, generator=torch.Generator().manual_seed(5))
LONG = {"max_new_tokens": 30, "min_new_tokens": 30}
ENDLESS = {"max_new_tokens": 200, "min_new_tokens": 200}


def writers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "optrode-stream"]


def gone() -> bool:
    """Whether all writing threads end within a minute."""
    for thread in writers():
        thread.join(60)
    return not writers()


@pytest.fixture(autouse=True)
def nothing_is_left():
    yield
    assert gone() and len(HOOKS) == 0 and ACTIVE.get() == ()


@pytest.fixture
def steps(llama: op.Model) -> Any:
    """How many forwards the network has begun."""
    count = [0]
    handle = llama.base.register_forward_pre_hook(lambda *_: count.__setitem__(0, count[0] + 1))
    yield count
    handle.remove()


# The text ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampling", [None, Sampling(temperature=1.5, seed=3), Sampling(temperature=3.0, seed=4)])
def test_the_pieces_are_the_text_that_generate_gives(sampling: Sampling | None, model: op.Model):
    """Random networks write bytes that are no whole characters, and characters of several tokens."""
    wanted = model.completions("The cat", sampling=sampling, **LONG)[0]
    with model.stream("The cat", sampling=sampling, **LONG) as stream:
        pieces = list(stream)
    assert "".join(pieces) == wanted.text and all(pieces)
    assert stream.completion == wanted


def test_tokens_have_ids_places_and_logprobs(llama: op.Model, forward):
    wanted = llama.completions("The cat", **LONG)[0]
    with llama.stream("The cat", logprobs=True, **LONG) as stream:
        tokens = list(stream.tokens())
    assert tuple(token.id for token in tokens) == wanted.ids
    assert [token.position for token in tokens] == list(range(30))
    assert "".join(map(str, tokens)) == wanted.text
    batch = llama.encode("The cat")
    ids = torch.cat([batch.ids, torch.tensor([wanted.ids])], 1)
    with torch.no_grad():
        logits = llama.module(ids).logits[0, batch.width - 1 : -1]
    by_hand = torch.log_softmax(logits, -1)[range(30), list(wanted.ids)]
    assert torch.allclose(torch.tensor([token.logprob for token in tokens]), by_hand, atol=1e-4)
    with llama.stream("The cat", max_new_tokens=1) as stream:
        assert [token.logprob for token in stream.tokens()] == [None]


def test_logprobs_are_those_of_the_edited_network_before_the_temperature(llama: op.Model):
    bias = torch.zeros(375)
    bias[7] = 50.0
    with llama.edited(edits.add("logits", bias)):
        tokens = list(llama.stream("a", logprobs=True, max_new_tokens=3, sampling=Sampling(temperature=0.5)).tokens())
    assert all(token.id == 7 and token.logprob == pytest.approx(0, abs=1e-3) for token in tokens)


def test_writing_stops_at_the_end_token(llama: op.Model):
    end = llama.tokenizer.eos_token_id
    always = torch.full((375,), -1e4)
    always[end] = 0
    with llama.edited(edits.replace("logits", always, "generated:1-")):
        wanted = llama.completions("The cat", max_new_tokens=8)[0]
        stream = llama.stream("The cat", max_new_tokens=8)
        assert "".join(stream) == wanted.text and stream.completion == wanted


def test_the_owners_stopping_criteria_hold_too(llama: op.Model):
    def enough(ids: Tensor, scores: Any, **_: Any) -> Tensor:
        return torch.full((len(ids),), ids.shape[1] >= width + 4)

    width = llama.encode("The cat").width
    for sampling in (None, Sampling(temperature=1.0)):
        options = {"stopping_criteria": [enough], "sampling": sampling}
        assert len(list(llama.stream("The cat", **options).tokens())) == 4
        assert len(llama.completions("The cat", **options)[0].ids) == 4


@pytest.mark.parametrize("prompt", ["The cat", [{"role": "user", "content": "The cat"}]], ids=["text", "messages"])
def test_one_prompt_of_any_kind(prompt: Any, llama: op.Model):
    wanted = llama.generate("The cat", max_new_tokens=5)
    assert "".join(llama.stream(prompt, max_new_tokens=5)) == wanted
    assert "".join(llama.stream(llama.encode(prompt), max_new_tokens=5)) == wanted
    raw = llama.generate("The cat", template="raw", system="Hm", max_new_tokens=5)
    assert "".join(llama.stream("The cat", template="raw", system="Hm", max_new_tokens=5)) == raw


def test_what_a_stream_cannot_write_is_refused(llama: op.Model):
    for many in (["The cat"], ["The cat", "dog"], [[{"role": "user", "content": "a"}]]):
        with pytest.raises(BadInput, match="one prompt, not a list"):
            llama.stream(many)
    with pytest.raises(BadInput, match="2 rows"):
        llama.stream(llama.encode(["The cat", "dog"]))
    with pytest.raises(BadInput, match="at least 1"):
        llama.stream("The cat", max_new_tokens=0)
    with pytest.raises(BadInput, match="ahead is 0"):
        llama.stream("The cat", ahead=0)
    with pytest.raises(NotSupported, match="beam search"):
        llama.stream("The cat", num_beams=2)
    with pytest.raises(NotSupported, match="one completion"):
        llama.stream("The cat", num_return_sequences=2)
    assert not writers()


class Bytes:
    """A tokenizer of byte tokens that decodes a run of them as a whole, as those of SentencePiece do."""

    clean_up_tokenization_spaces = False

    def convert_ids_to_tokens(self, token: int) -> str:
        return f"<0x{token:02X}>" if token < 256 else f"word{token}"

    def decode(self, ids: list[int], skip_special_tokens: bool) -> str:
        text, run = "", b""
        for token in [*ids, None]:
            if token is not None and token < 256:
                run += bytes([token])
                continue
            try:
                text += run.decode()
            except UnicodeDecodeError:
                text += "\ufffd" * len(run)
            run = b""
            text += "" if token is None else f" w{token}"
        return text


def fed(pieces: Pieces, ids: list[int], decode: Callable[[list[int]], str]) -> str:
    found = [pieces.add(token) or "" for token in ids]
    return "".join(found) + pieces.rest(decode(ids))


@pytest.mark.parametrize("text", ["naïve 🙂 漢字 \ufffd end", "🏳️‍🌈🏳️‍🌈", "", "\ufffd"])
def test_characters_of_several_tokens(text: str, tokenizer: Any):
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    decode = lambda some: tokenizer.decode(some, skip_special_tokens=True)  # noqa: E731
    for cut in range(len(ids) + 1):
        assert fed(Pieces(tokenizer), ids[:cut], decode) == decode(ids[:cut])


@pytest.mark.parametrize("seed", range(20))
def test_pieces_of_any_tokens_are_the_whole(seed: int, tokenizer: Any):
    draw = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 375, (40,), generator=draw).tolist()
    whole = tokenizer.decode(ids, skip_special_tokens=True)
    assert fed(Pieces(tokenizer), ids, lambda some: tokenizer.decode(some, skip_special_tokens=True)) == whole
    runs = torch.randint(150, 300, (30,), generator=draw).tolist() + list("é🙂".encode())
    assert fed(Pieces(Bytes()), runs, lambda some: Bytes().decode(some, True)) == Bytes().decode(runs, True)


def test_byte_tokens_wait_for_each_other():
    pieces = Pieces(Bytes())
    given = [pieces.add(token) for token in [300, *"é".encode(), 301, 302]]
    assert given == [" w300", None, None, "é w301", " w302"]


def test_a_tokenizer_that_tidies_spaces():
    class Tidy(Bytes):
        clean_up_tokenization_spaces = True

        def decode(self, ids: list[int], skip_special_tokens: bool) -> str:
            return " ".join({1: "do", 2: "n't", 3: ".", 4: "stop"}[token] for token in ids).replace(
                " n't", "n't"
            ).replace(" .", ".")  # fmt: skip

        def convert_ids_to_tokens(self, token: int) -> str:
            return str(token)

    for ids in ([1, 2, 4, 3], [4, 1, 2, 3, 4], [1]):
        assert fed(Pieces(Tidy()), ids, lambda some: Tidy().decode(some, True)) == Tidy().decode(ids, True)


class Counting:
    """A tokenizer that notes how many tokens it decoded at once."""

    def __init__(self, inner: Any):
        self.inner, self.most = inner, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def decode(self, ids: list[int], skip_special_tokens: bool) -> str:
        self.most = max(self.most, len(ids))
        return self.inner.decode(ids, skip_special_tokens=skip_special_tokens)


def sentencepiece_like() -> Any:
    """A tokenizer whose blanks stand before words, whose decoder takes one away at the beginning, with byte tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<s>", "<unk>", "▁", *(f"<0x{byte:02X}>" for byte in range(256)), "▁the", "▁a", "cat", "▁cat", "s", ",",
             "▁▁", "\n", "é", "漢"]  # fmt: skip
    core = Tokenizer(models.BPE({word: number for number, word in enumerate(words)}, [], unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    core.decoder = decoders.Sequence(parts)
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", unk_token="<unk>")


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("kind", ["byte-level", "leading blanks"])
def test_long_texts_are_decoded_a_few_tokens_at_a_time(kind: str, seed: int, tokenizer: Any):
    """Whole tokens, blanks at their beginnings, special ones, and bytes that may or may not make characters."""
    counting = Counting(tokenizer if kind == "byte-level" else sentencepiece_like())
    draw = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, len(counting.inner), (600,), generator=draw).tolist()
    if kind == "leading blanks":
        # Mostly words: bytes are a tenth, in runs that are decoded as a whole.
        words = torch.randint(259, len(counting.inner), (600,), generator=draw).tolist()
        common = (torch.rand(600, generator=draw) < 0.9).tolist()
        ids = [word if chosen else token for word, chosen, token in zip(words, common, ids, strict=True)]
        ids[40:40] = list(range(3 + 0xF0, 3 + 0xF1)) + [3 + byte for byte in "🙂".encode()[1:]]
    pieces = Pieces(counting)
    found = "".join(pieces.add(token) or "" for token in ids)
    whole = counting.inner.decode(ids, skip_special_tokens=True)
    assert found + pieces.rest(whole) == whole and len(found) > 0.9 * len(whole)
    assert counting.most < 80, "what is decoded does not grow with the text"


# Edits ---------------------------------------------------------------------------------------------------------------


def test_the_callers_edits_act_and_are_counted(model: op.Model):
    both = (edits.prompt("You are a cat."), edits.add(OUT, V, "after_instruction"))
    with model.edited(*both) as wanted:
        text = model.generate("The cat", **LONG)
    with model.edited(*both) as receipt:
        assert "".join(model.stream("The cat", logprobs=True, **LONG)) == text
    site = f"1: {OUT}"
    assert receipt.sites[site].selected == wanted.sites[site].selected and receipt.sites["0: prefix"].calls == 1
    assert receipt.sites[site].decode_calls == 29
    assert text != model.generate("The cat", **LONG)


def test_an_edit_by_row_has_one_row(llama: op.Model):
    edit = edits.add(OUT, V)
    with llama.edited(edit):
        wanted = llama.generate("The cat", **LONG)
    with llama.edited(edits.by_row([edit])) as receipt:
        assert "".join(llama.stream("The cat", **LONG)) == wanted
    assert receipt.by_row[0].changed > 0


def test_streams_side_by_side_have_their_own_edits(llama: op.Model):
    own = [edits.add(OUT, V * factor) for factor in (1, -1, 2)]
    warm = [Sampling(temperature=1.0, seed=seed) for seed in range(3)]
    wanted = []
    for edit, sampling in zip(own, warm, strict=True):
        with llama.edited(edit):
            wanted.append(llama.generate("The cat", sampling=sampling, **LONG))
    blocks = [llama.edited(edit) for edit in own]
    streams, texts = [], ["", "", ""]
    for block, sampling in zip(blocks, warm, strict=True):
        # Each stream is made under one edit only; blocks may overlap in any way.
        block.__enter__()
        streams.append(llama.stream("The cat", sampling=sampling, ahead=1, **LONG))
        active = ACTIVE.get()
        ACTIVE.set(())
    for _ in range(30):
        for number, stream in enumerate(streams):
            texts[number] += next(stream, "")
    for number, stream in enumerate(streams):
        texts[number] += "".join(stream)
    assert texts == wanted and len(active) == 1
    for block in blocks:
        block.__exit__(None, None, None)


def test_other_work_of_the_caller_is_not_edited_by_the_stream_nor_the_other_way(llama: op.Model):
    batch = llama.encode("The dog")
    own = llama.read(batch, "logits")["logits"]
    stream = llama.stream("The cat", ahead=1, **LONG)
    next(stream)
    with llama.edited(edits.add(OUT, V)):
        assert not torch.equal(llama.read(batch, "logits")["logits"], own)
        next(stream)
    assert torch.equal(llama.read(batch, "logits")["logits"], own)
    rest = list(stream)
    assert rest and stream.completion == llama.completions("The cat", **LONG)[0]


@pytest.mark.parametrize("edit", [edits.add(OUT, V), edits.prompt("You are a cat.")], ids=["site", "prefix"])
def test_a_stream_ends_with_the_block_it_was_made_in(edit: Any, llama: op.Model):
    with llama.edited(edit):
        stream = llama.stream("The cat", ahead=2, **ENDLESS)
        first = next(stream)
    assert not writers() and len(HOOKS) == 0, "the thread is gone before the block has ended"
    with pytest.raises(NotSupported, match="block of the edit ended"):
        for _ in range(10):
            next(stream)
    assert first and list(stream) == []
    with pytest.raises(NotSupported, match="not read to its end"):
        _ = stream.completion


def test_a_stream_that_was_written_to_its_end_may_be_read_after_the_block(llama: op.Model):
    with llama.edited(edits.add(OUT, V)):
        wanted = llama.generate("The cat", max_new_tokens=5, min_new_tokens=5)
        stream = llama.stream("The cat", ahead=50, max_new_tokens=5, min_new_tokens=5)
        assert gone()
    assert "".join(stream) == wanted


def test_a_stream_that_was_never_read_is_an_edit_that_may_have_done_nothing(llama: op.Model):
    with pytest.raises(EditDidNothing), llama.edited(edits.add(OUT, V, "generated")):
        llama.stream("The cat", max_new_tokens=1).close()


# Stopping ------------------------------------------------------------------------------------------------------------


def test_closing_stops_the_thread(llama: op.Model, steps: list[int]):
    stream = llama.stream("The cat", ahead=3, **ENDLESS)
    next(stream)
    stream.close()
    assert not writers()
    begun = steps[0]
    assert begun < 50, "it was not written to its end"
    assert list(stream) == [] and next(stream, None) is None
    stream.close()
    assert steps[0] == begun
    with pytest.raises(NotSupported, match="not read to its end"):
        _ = stream.completion


def test_the_thread_keeps_few_tokens_ahead(llama: op.Model, steps: list[int]):
    with llama.stream("The cat", ahead=4, **ENDLESS) as stream:
        tokens = stream.tokens()
        taken = [next(tokens) for _ in range(3)]
        deadline = time.monotonic() + 30
        while steps[0] < 8 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.05)
        # Taken, in the queue, waiting for room, and one character that is not whole.
        assert len(taken) + 4 <= steps[0] <= 3 + 4 + 1 + 4


def test_leaving_the_with_block_and_breaking_out(llama: op.Model):
    with llama.stream("The cat", **ENDLESS) as stream:
        for _ in stream:
            break
        assert next(stream), "breaking out of a loop leaves the stream as it is"
    assert not writers()
    with pytest.raises(ZeroDivisionError), llama.stream("The cat", **ENDLESS) as stream:
        for _ in stream:
            raise ZeroDivisionError
    assert not writers()


def test_a_stream_that_nobody_holds_ends(llama: op.Model, steps: list[int]):
    stream = llama.stream("The cat", ahead=1, **ENDLESS)
    next(stream)
    ref = weakref.ref(stream)
    del stream
    gc.collect()
    assert ref() is None and gone() and steps[0] < 50


def test_an_abandoned_iterator_does_not_end_the_stream(llama: op.Model):
    wanted = llama.completions("The cat", **LONG)[0]
    with llama.stream("The cat", **LONG) as stream:
        tokens = stream.tokens()
        first = next(tokens)
        del tokens
        rest = list(stream.tokens())
    assert first.id == wanted.ids[0] and tuple(token.id for token in [first, *rest]) == wanted.ids


# Errors --------------------------------------------------------------------------------------------------------------


class Mine(Exception):
    pass


@pytest.mark.parametrize("error", [Mine, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_what_goes_wrong_in_the_thread_is_raised_in_the_caller(error: type[BaseException], llama: op.Model):
    calls = []

    def broken(rows: Tensor) -> Tensor:
        calls.append(1)
        if len(calls) == 5:
            raise error("here")
        return rows

    with pytest.raises(error, match="here"), llama.edited(edits.function(OUT, broken)):
        stream = llama.stream("The cat", **LONG)
        for _ in stream:
            pass
    assert not writers() and list(stream) == []


def test_a_stop_iteration_is_no_silent_end(llama: op.Model):
    def broken(rows: Tensor) -> Tensor:
        raise StopIteration

    with pytest.raises(RuntimeError, match="StopIteration"), llama.edited(edits.function(OUT, broken)):
        list(llama.stream("The cat"))


def test_tokens_before_an_error_are_given(llama: op.Model):
    calls = []

    def broken(rows: Tensor) -> Tensor:
        calls.append(1)
        if len(calls) == 4:
            raise Mine
        return rows

    seen = []
    with pytest.raises(Mine), llama.edited(edits.function(OUT, broken)):
        for token in llama.stream("The cat", **LONG).tokens():
            seen.append(token)
    assert 1 <= len(seen) <= 3


@pytest.mark.skipif(threading.current_thread() is not threading.main_thread(), reason="signals reach the main thread")
def test_an_interrupt_while_waiting_leaves_nothing(llama: op.Model):
    """The fourth forward comes after the caller has read a token, since only one is kept ahead."""
    calls, stopped = [], threading.Event()

    def interrupts(rows: Tensor) -> Tensor:
        calls.append(1)
        if len(calls) == 4:
            _thread.interrupt_main()
            stopped.wait(0.5)
        return rows

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), llama.edited(edits.function(OUT, interrupts)):
            stream = llama.stream("The cat", ahead=1, **ENDLESS)
            for _ in stream.tokens():
                pass
    finally:
        signal.signal(signal.SIGINT, before)
    assert not writers() and list(stream) == [] and len(calls) < 20


# The queue -----------------------------------------------------------------------------------------------------------


def test_items_come_in_order_through_a_small_queue():
    channel = Channel(2)

    def work() -> str:
        for number in range(200):
            channel.put(number)
        return "done"

    channel.start(work)
    assert [channel.get() for _ in range(201)] == [*range(200), None] and channel.result == "done"


def test_a_stopped_queue_lets_its_thread_go():
    channel = Channel(1)
    ends = threading.Event()

    def work() -> None:
        while not channel.stopped:
            channel.put(0)
        ends.set()

    channel.start(work)
    assert channel.get() == 0
    channel.close()
    assert ends.is_set() and channel.get() is None


def test_a_token_prints_as_its_text():
    assert f"{Token('é', 7, 0)}" == "é" and Token("é", 7, 0).logprob is None
