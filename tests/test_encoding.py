from __future__ import annotations

import pytest
import torch
from torch import nn

import optrode as op
from optrode.batches import Role
from optrode.encoding import as_prompts, encode, start_token_policy
from optrode.errors import BadInput, NotSupported

CONVERSATION = [
    {"role": "system", "content": "You are a helpful assistant."},
    {"role": "user", "content": "Answer in one word: user"},
    {"role": "assistant", "content": "Sure, here"},
]
T, S, U, A = "TEMPLATE", "SYSTEM", "USER", "ASSISTANT"
# The rendered conversation in pieces, with the role of each.
PIECES = [
    ("<|im_start|>system\n", T), ("You are a helpful assistant.", S), ("<|im_end|>\n<|im_start|>user\n", T),
    ("Answer in one word: user", U), ("<|im_end|>\n<|im_start|>assistant\n", T), ("Sure, here", A),
]  # fmt: skip


def pieces(model: op.Model, batch, row: int) -> list[tuple[str, str]]:
    """Tokens of a row joined to runs of equal role, pads left out."""
    runs: list[tuple[str, str]] = []
    for token, role, kept in zip(batch.ids[row], batch.roles[row], batch.mask[row], strict=True):
        if not kept:
            assert role == Role.PAD and token == model.tokenizer.pad_token_id
            continue
        text, name = model.tokenizer.decode([int(token)]), Role(int(role)).name
        if runs and runs[-1][1] == name:
            runs[-1] = (runs[-1][0] + text, name)
        else:
            runs.append((text, name))
    return runs


class Encoder(nn.Module):
    """As far as encoding goes, an encoder is what pads on the right."""


@pytest.fixture
def encoder(llama: op.Model, monkeypatch: pytest.MonkeyPatch) -> op.Model:
    model = op.load(Encoder(), tokenizer=llama.tokenizer)
    monkeypatch.setattr(type(model), "causal", False)
    return model


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_role_of_every_token_of_a_conversation(side: str, llama: op.Model, request: pytest.FixtureRequest):
    model = llama if side == "left" else request.getfixturevalue("encoder")
    batch = encode(model, [CONVERSATION, "The cat"])
    short = "<|im_start|>user\nThe cat<|im_end|>\n<|im_start|>assistant\n"
    assert batch.texts == ("".join(text for text, _ in PIECES), short)
    assert pieces(model, batch, 0) == PIECES
    assert pieces(model, batch, 1) == [
        ("<|im_start|>user\n", T), ("The cat", U), ("<|im_end|>\n<|im_start|>assistant\n", T)
    ]  # fmt: skip
    assert bool(batch.mask[1, -1]) == (side == "left")
    for row, after in enumerate(["<|im_start|>assistant\nSure, here", "<|im_start|>assistant\n"]):
        rest = batch.ids[row, int(batch.instruction_end[row]) :][batch.mask[row, int(batch.instruction_end[row]) :]]
        assert model.tokenizer.decode(rest) == after
    specials = [model.tokenizer.decode([int(token)]) for token in batch.ids[batch.special]]
    assert specials == ["<|im_start|>", "<|im_end|>"] * 2 + ["<|im_start|>"] + [
        "<|im_start|>",
        "<|im_end|>",
        "<|im_start|>",
    ]
    for row, text in enumerate(batch.texts):
        for place in batch.mask[row].nonzero().flatten():
            start, end = batch.offsets[row, place].tolist()
            assert text[start:end] == model.tokenizer.decode([int(batch.ids[row, place])])


@pytest.mark.parametrize("content", ["user", "u", "im_start", "system", "\n", "assistant", "<", "a user\nuser"])
def test_a_prompt_that_also_stands_in_the_template_keeps_its_place(content: str, llama: op.Model):
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": content}]
    found = pieces(llama, encode(llama, [messages]), 0)
    assert (content, U) in found and ("s", S) in found
    assert [name for _, name in found] == [T, S, T, U, T]


def test_templates_that_trim_and_templates_that_rewrite(llama: op.Model, tokenizer, monkeypatch: pytest.MonkeyPatch):
    trims = "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] | trim }} {% endfor %}[assistant]"
    monkeypatch.setattr(tokenizer, "chat_template", trims)
    batch = encode(llama, ["  user  "])
    assert batch.texts == ("[user] user [assistant]",)
    assert [text for text, name in pieces(llama, batch, 0) if name == U] in (["user"], [" user"])
    drops = "{% for m in messages %}{{ m['role'] }}:{{ m['content'] | replace('x', '') }};{% endfor %}"
    monkeypatch.setattr(tokenizer, "chat_template", drops)
    found = pieces(llama, encode(llama, [[{"role": "user", "content": "cat"}, {"role": "user", "content": "dxg"}]]), 0)
    assert ("cat", U) in found, "what can be found is"


def test_the_templates_own_system_prompt_is_template(llama: op.Model, tokenizer, monkeypatch: pytest.MonkeyPatch):
    own = "<|im_start|>system\nThe cat sat.<|im_end|>\n" + tokenizer.chat_template
    monkeypatch.setattr(tokenizer, "chat_template", own)
    found = pieces(llama, encode(llama, ["The cat"]), 0)
    assert found[0] == ("<|im_start|>system\nThe cat sat.<|im_end|>\n<|im_start|>user\n", T)
    assert found[1] == ("The cat", U)


def test_a_system_prompt_is_put_in_front_and_one_that_is_there_is_kept(llama: op.Model):
    text = encode(llama, [CONVERSATION], system="Be brief.").texts[0]
    assert text.startswith("<|im_start|>system\nBe brief.\nYou are a helpful assistant.<|im_end|>")
    assert text.count("<|im_start|>system") == 1
    assert encode(llama, ["Hi"], system="Be brief.").texts[0].startswith("<|im_start|>system\nBe brief.<|im_end|>")


def test_raw_leaves_the_template_out(llama: op.Model):
    batch = encode(llama, ["The cat", "a"], template="raw")
    assert batch.texts == ("The cat", "a")
    assert pieces(llama, batch, 0) == [("The cat", "TEXT")] and pieces(llama, batch, 1) == [("a", "TEXT")]
    assert batch.instruction_end.tolist() == [batch.width] * 2
    with_system = encode(llama, ["cat"], template="raw", system="The dog")
    assert pieces(llama, with_system, 0)[0][1] == "SYSTEM" and pieces(llama, with_system, 0)[-1] == ("cat", "TEXT")
    with pytest.raises(BadInput, match="texts, not messages"):
        encode(llama, [CONVERSATION], template="raw")


def with_start_token():
    """A word tokenizer that adds a start token by itself, and whose template writes it too."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = ["<unk>", "<s>", "</s>", "the", "cat", "user"]
    core = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    made = PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    made.chat_template = "{{ bos_token }}{% for m in messages %}{{ m['role'] }} {{ m['content'] }} {% endfor %}"
    return made


def test_the_start_token_comes_once_whoever_adds_it():
    model = op.load(nn.Linear(2, 2), tokenizer=with_start_token())
    for template in ("chat", "raw"):
        ids = encode(model, ["the cat"], template=template).ids[0].tolist()
        assert ids[0] == 1 and ids.count(1) == 1
        assert start_token_policy(model, template) == f"{template}: <s>"
    assert encode(model, ["the cat", "cat"], template="raw").ids[1, 0] == 2, "pads with the end token"
    assert not bool(encode(model, ["the cat", "cat"], template="raw").special[1, 0]), "a pad is no special token"


def test_the_start_token_policy_says_what_stands_first(llama: op.Model):
    assert start_token_policy(llama) == "chat: <|im_start|>"
    assert start_token_policy(llama, "raw") == "raw: none"


@pytest.mark.parametrize(
    "prompts",
    [
        [], (), 5, None, {"role": "user", "content": "x"}, [5], [None], [[]], [["a"]], b"bytes",
        [{"role": "user"}], [{"content": "x"}], [{"role": "user", "content": None}], [{"role": "user", "content": 3}],
        ["a", [{"role": "user"}]],
    ],
)  # fmt: skip
def test_what_is_no_prompt_is_refused(prompts, llama: op.Model):
    with pytest.raises(BadInput) as refused:
        encode(llama, prompts)
    assert len(str(refused.value).splitlines()) == 1


def test_empty_texts_are_refused_by_their_number(llama: op.Model):
    with pytest.raises(BadInput, match="prompt 1 is empty"):
        encode(llama, ["a", ""], template="raw")
    with pytest.raises(BadInput, match="'talk' is not known"):
        encode(llama, ["a"], template="talk")
    with pytest.raises(NotSupported, match="no chat template"):
        bare = with_start_token()
        bare.chat_template = None
        encode(op.load(nn.Linear(2, 2), tokenizer=bare), ["the"], template="chat")
    with pytest.raises(NotSupported, match="no tokenizer"):
        encode(op.load(nn.Linear(2, 2)), ["a"])


def test_one_and_many():
    assert as_prompts("a") == ["a"]
    assert as_prompts(CONVERSATION) == [CONVERSATION]
    assert as_prompts([CONVERSATION, "a"]) == [CONVERSATION, "a"]
    assert as_prompts(text for text in "ab") == ["a", "b"]


def test_picked_rows_are_the_same_rows(llama: op.Model, prompts: list[str]):
    batch = encode(llama, prompts)
    for rows in ([0], [2, 0], [1, 1]):
        part = batch.pick(rows)
        alone = encode(llama, [prompts[row] for row in rows])
        for name in ("ids", "mask", "roles", "special", "instruction_end", "offsets", "position_ids"):
            assert torch.equal(getattr(part, name), getattr(alone, name)), name
        assert part.texts == alone.texts
