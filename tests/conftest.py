"""Tiny models of the real transformers classes, a real small tokenizer made on the spot, and SmolLM2 for few tests."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import optrode as op

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CORPUS = [
    "The cat sat on the mat and the dog lay by the door.",
    "Paris is the capital of France; the Eiffel Tower stands there.",
    "You are a helpful assistant. Answer in one word: user, system, assistant.",
    "Sure, here is what the weather will be like tomorrow.",
]
# One short, one long, one in between: every batch of them is padded.
PROMPTS = ["The cat", "Where does the Eiffel Tower stand, and what is the weather there?", "Answer in one word."]
NAMES = ("llama", "gpt2", "qwen3")


def pytest_configure(config: pytest.Config) -> None:
    torch.set_num_threads(min(2, torch.get_num_threads()))


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    return make_tokenizer()


def make_tokenizer() -> Any:
    """Byte-level BPE of 400 tokens with ChatML; pads with a token of its own, ends with <|im_end|>, adds no start."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<|pad|>", "<|im_start|>", "<|im_end|>"]
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    core.train_from_iterator(CORPUS, trainer)
    made = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<|pad|>", eos_token="<|im_end|>", additional_special_tokens=["<|im_start|>"]
    )
    made.chat_template = CHATML
    return made


def tiny_module(name: str, tokenizer: Any, dtype: torch.dtype, seed: int) -> nn.Module:
    """Three blocks of width 32 with weights large enough that every part of the network matters."""
    from transformers import (
        GPT2Config,
        GPT2LMHeadModel,
        LlamaConfig,
        LlamaForCausalLM,
        Qwen3Config,
        Qwen3ForCausalLM,
    )

    ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id, "bos_token_id": None}
    common = {"vocab_size": len(tokenizer), "initializer_range": 0.2, **ids}
    rotary = common | {
        "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 256,
    }  # fmt: skip
    torch.manual_seed(seed)
    if name == "llama":
        module: nn.Module = LlamaForCausalLM(LlamaConfig(**rotary))
    elif name == "qwen3":
        module = Qwen3ForCausalLM(Qwen3Config(**rotary, head_dim=8))
    else:
        module = GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=3, n_head=4, n_positions=256, **common))
    return module.to(dtype).eval()


@pytest.fixture(scope="session")
def make_model(tokenizer: Any) -> Callable[..., op.Model]:
    """A fresh model: `make_model("gpt2", torch.float64, seed=1)`."""

    def make(name: str, dtype: torch.dtype = torch.float32, seed: int = 0) -> op.Model:
        return op.load(tiny_module(name, tokenizer, dtype, seed), tokenizer=tokenizer)

    return make


@pytest.fixture(scope="session")
def llama(make_model: Callable[..., op.Model]) -> op.Model:
    return make_model("llama")


@pytest.fixture(scope="session")
def gpt2(make_model: Callable[..., op.Model]) -> op.Model:
    return make_model("gpt2")


@pytest.fixture(scope="session")
def qwen3(make_model: Callable[..., op.Model]) -> op.Model:
    return make_model("qwen3")


@pytest.fixture(scope="session")
def make_mixture(tokenizer: Any) -> Callable[..., op.Model]:
    """A fresh mixture of experts: `make_mixture("mixtral", torch.bfloat16)`."""
    import importlib.util
    from pathlib import Path

    spec = importlib.util.spec_from_file_location("mixtures", Path(__file__).parent / "mixtures.py")
    assert spec is not None and spec.loader is not None
    mixtures = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(mixtures)

    def make(kind: str, dtype: torch.dtype = torch.float32, seed: int = 0) -> op.Model:
        return op.load(mixtures.mixture(kind, tokenizer, dtype, seed), tokenizer=tokenizer)

    return make


@pytest.fixture(scope="session", params=["mixtral", "qwen3_moe", "gpt_oss", "deepseek_v3"])
def mixture(request: pytest.FixtureRequest, make_mixture: Callable[..., op.Model]) -> op.Model:
    """Each kind of mixture of experts in turn: three blocks, eight experts, two of them for each token."""
    return make_mixture(request.param)


@pytest.fixture(params=NAMES)
def model(request: pytest.FixtureRequest) -> op.Model:
    """Each of the three in turn."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session")
def smollm2() -> op.Model:
    """The real one, fetched by itself the first time. A forward of one prompt takes a third of a second."""
    return op.load("smollm2-135m")


@pytest.fixture(scope="session")
def prompts() -> list[str]:
    return list(PROMPTS)


@pytest.fixture(scope="session")
def forward() -> Callable[..., Any]:
    """The network run by its owner, with no optrode in between: `forward(model, batch)` gives its output."""

    def run(model: op.Model, batch: Any, **options: Any) -> Any:
        with torch.no_grad():
            return model.module(
                input_ids=batch.ids, attention_mask=batch.mask.long(), position_ids=batch.position_ids,
                use_cache=False, **options,
            )  # fmt: skip

    return run


@pytest.fixture(scope="session")
def rewritten() -> Callable[..., Any]:
    """A hand-written edit with a plain torch hook: `with rewritten(module, change, side="out"):`."""

    @contextmanager
    def hooked(module: nn.Module, change: Callable[[Tensor], Tensor], side: str = "out") -> Iterator[None]:
        def after(_: nn.Module, args: tuple, output: Any) -> Any:
            return (change(output[0]), *output[1:]) if isinstance(output, tuple) else change(output)

        def before(_: nn.Module, args: tuple) -> tuple:
            return (change(args[0]), *args[1:])

        handle = module.register_forward_hook(after) if side == "out" else module.register_forward_pre_hook(before)
        try:
            yield
        finally:
            handle.remove()

    return hooked


@pytest.fixture
def block() -> Callable[[op.Model, int], nn.Module]:
    """A block of a tiny model by its own name in transformers, not through the layout that is under test."""

    def find(model: op.Model, layer: int) -> nn.Module:
        module: Any = model.module
        return module.transformer.h[layer] if hasattr(module, "transformer") else module.model.layers[layer]

    return find


@pytest.fixture(autouse=True)
def no_gradients_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Models are shared by many tests: gradients that one of them left would be seen by the next."""
    yield
    for value in request.node.funcargs.values() if hasattr(request.node, "funcargs") else ():
        if isinstance(value, op.Model):
            value.module.zero_grad(set_to_none=True)


# Results of other packages that are kept in files, see tools/oracles -------------------------------------------------


@pytest.fixture(scope="module")
def kept(request: pytest.FixtureRequest) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    """What the test module's `FILE` holds: its texts, and its tensors by name."""
    from safetensors import safe_open

    with safe_open(request.module.FILE, "pt") as file:
        return file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


@pytest.fixture(scope="module")
def network(kept: tuple[dict[str, str], dict[str, torch.Tensor]]) -> op.Model:
    """The tiny network that the other package had run, with its tokenizer where it had one."""
    from tokenizers import Tokenizer
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    about, tensors = kept
    module = LlamaForCausalLM(LlamaConfig(**json.loads(about["config"]))).eval()
    module.load_state_dict({n.removeprefix("network."): v for n, v in tensors.items() if n.startswith("network.")})
    if "tokenizer" not in about:
        return op.load(module)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(about["tokenizer"]), pad_token="<pad>", eos_token="<end>"
    )
    tokenizer.chat_template = about.get("template")
    return op.load(module, tokenizer=tokenizer)
