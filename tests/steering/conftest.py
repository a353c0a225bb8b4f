"""Tiny contrast data, and the twin: networks run by plain torch, one unpadded row at a time, hooks written by hand."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import optrode as op
from optrode.data import Behaviour, Choice, Labelled, Pair

Change = Callable[[Tensor], Tensor]
NAMES = ("cat", "dog", "mat", "door", "tower", "word")


@pytest.fixture(scope="session")
def pairs() -> tuple[Pair, ...]:
    return tuple(
        Pair(f"How was the {name}?", f"The {name} was lovely{'.' * (n % 3)}", f"It was bad, the {name}", name)
        for n, name in enumerate(NAMES)
    )


@pytest.fixture(scope="session")
def small(pairs: tuple[Pair, ...]) -> Behaviour:
    """A behaviour of a few texts, enough to fit every method on."""
    choices = tuple(Choice(f"The {name}?", "It", (" is",), (" was",), name) for name in ("sun", "sea"))
    judged = tuple(Labelled(text, label, name) for name in ("sky", "sand") for text, label in (("a", 1), ("b", 0)))
    return Behaviour("small", "", ("Sure", "The capital"), ("Be kind.", "Be bad."), pairs, choices, choices, judged)


class Twin:
    """What a method's card says, done slowly: texts rendered by hand, one row in each forward, no padding, no cache."""

    def __init__(self, model: op.Model):
        self.module: Any = model.module
        self.tokenizer = model.tokenizer
        gpt2 = hasattr(self.module, "transformer")
        self.blocks = self.module.transformer.h if gpt2 else self.module.model.layers

    def ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def asked(self, prompt: str) -> list[int]:
        """A user's turn: everything up to and with its closing mark."""
        return self.ids(f"<|im_start|>user\n{prompt}<|im_end|>\n")

    def answered(self, prompt: str, reply: str = "") -> list[int]:
        """A user's turn and the beginning of the answer."""
        return self.ids(f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n{reply}")

    def stream(self, ids: Sequence[int], layer: int, side: str = "out") -> Tensor:
        """The stream at one side of a block, [token, width]."""
        kept: list[Tensor] = []
        self._run(ids, layer, side, lambda h: (kept.append(h.clone()), h)[1])
        return kept[0][0]

    def logits(self, ids: Sequence[int], layer: int = 0, side: str = "out", change: Change | None = None) -> Tensor:
        """Logits of one row, [token, vocabulary], with one side of a block changed."""
        return self._run(ids, layer, side, change or (lambda h: h))

    def written(self, ids: Sequence[int], count: int, layer: int, side: str, change: Change) -> list[int]:
        """The greedy continuation that does not end, the whole row anew for every token."""
        row = list(ids)
        for _ in range(count):
            last = self.logits(row, layer, side, change)[-1]
            last[self.tokenizer.eos_token_id] = -torch.inf
            row.append(int(last.argmax()))
        return row[len(ids) :]

    @torch.no_grad()
    def _run(self, ids: Sequence[int], layer: int, side: str, change: Change) -> Tensor:
        def after(_: nn.Module, args: tuple, output: Any) -> Any:
            return (change(output[0]), *output[1:]) if isinstance(output, tuple) else change(output)

        def before(_: nn.Module, args: tuple) -> tuple:
            return (change(args[0]), *args[1:])

        block = self.blocks[layer]
        hook = block.register_forward_hook(after) if side == "out" else block.register_forward_pre_hook(before)
        try:
            return self.module(input_ids=torch.tensor([list(ids)]), use_cache=False).logits[0]
        finally:
            hook.remove()


@pytest.fixture(scope="session")
def twin() -> type[Twin]:
    return Twin


@pytest.fixture(scope="session")
def plain_text(tokenizer: Any, make_model: Callable[..., op.Model]) -> op.Model:
    """A model without chat template whose tokenizer puts a start token in front of every text."""
    from tokenizers.processors import TemplateProcessing

    own: Any = copy.deepcopy(tokenizer)
    own.chat_template = None
    own.bos_token = "<|im_start|>"
    own.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", own.bos_token_id)]
    )
    return op.load(make_model("llama").module, tokenizer=own)


@pytest.fixture(scope="session")
def close() -> Callable[[Tensor, Tensor], None]:
    """Equal to 1e-5 of the largest value, as the cards ask of fitted vectors."""

    def check(got: Tensor, wanted: Tensor) -> None:
        assert got.shape == wanted.shape
        assert float((got - wanted).abs().max()) <= 1e-5 * float(wanted.abs().max())

    return check


@pytest.fixture(scope="session")
def library_logits() -> Callable[..., list[Tensor]]:
    """Logits of several rows from one padded batch, the padding cut off."""

    def run(model: op.Model, prompts: Sequence[Any], *edits: op.Edit) -> list[Tensor]:
        batch = model.encode(list(prompts))
        if not edits:
            logits = model.read(batch, "logits")["logits"]
        else:
            with model.edited(*edits):
                logits = model.read(batch, "logits")["logits"]
        return [logits[row][batch.mask[row]] for row in range(len(batch))]

    return run


# A model that declines ------------------------------------------------------------------------------------------------


class Decliner:
    """A network whose blocks do nothing and whose first coordinate alone decides between the tokens `n` and `y`.

    Every embedding has 3 there, so that it always says `n`: its refusal. `logprobs` are those of plain numpy.
    """

    def __init__(self, model: op.Model, no: int, yes: int):
        self.model, self.no, self.yes = model, no, yes

    def judge(self, replies: Sequence[str]) -> Any:
        import numpy as np

        return np.array([float(reply.startswith("n")) for reply in replies])

    def logprobs(self, ids: Sequence[int], shift: Any, mask: Sequence[bool]) -> Any:
        """[token, vocabulary] with `shift` added to the stream where `mask` says so."""
        import numpy as np

        module: Any = self.model.module
        h = module.model.embed_tokens.weight.detach().double().numpy()[list(ids)]
        h = h + np.where(np.array(mask)[:, None], np.asarray(shift, float), 0.0)
        h = h / np.sqrt((h**2).mean(-1, keepdims=True) + module.config.rms_norm_eps)
        logits = h @ module.lm_head.weight.detach().double().numpy().T
        return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


@pytest.fixture(scope="session")
def decliner(tokenizer: Any) -> Decliner:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=8, num_hidden_layers=3, num_attention_heads=4,
        max_position_embeddings=512, tie_word_embeddings=False, bos_token_id=None, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    module = LlamaForCausalLM(config).eval()
    no, yes = (tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in "ny")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        rows = torch.randn(len(tokenizer), 64, generator=generator)
        rows[:, 0] = 3.0
        module.model.embed_tokens.weight.copy_(rows)
        head = 0.05 * torch.randn(len(tokenizer), 64, generator=generator)
        head[no], head[yes] = torch.zeros(64), torch.zeros(64)
        head[no, 0], head[yes, 0] = 4.0, -4.0
        module.lm_head.weight.copy_(head)
        for block in module.model.layers:
            block.self_attn.o_proj.weight.zero_()
            block.mlp.down_proj.weight.zero_()
    return Decliner(op.load(module, tokenizer=tokenizer), no, yes)
