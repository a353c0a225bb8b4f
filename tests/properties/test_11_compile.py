"""Property 11: edits survive torch.compile. A baked edit is part of the graph, and all ways to run it agree."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import optrode as op
from optrode import edits
from optrode.engine.editing.edited import bind
from optrode.engine.run import running
from optrode.errors import NotSupported

RANDOM = torch.Generator().manual_seed(11)
V, W = torch.randn(32, generator=RANDOM), torch.randn(32, generator=RANDOM)
OUT = "layers.1.out"
needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None and shutil.which("clang++") is None, reason="inductor needs a C++ compiler on the CPU"
)


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    """One process may compile a function only a few times; each test starts the count anew."""
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def everywhere(model: op.Model) -> edits.Edit:
    """What one edit can hold: a bias, modules before and after parts, a sum, a chain, heads, and inside attention."""
    edit: Any = edits.add("layers.0.out", V) + edits.scale("layers.1.attn.heads", 0.5, heads=(1,))
    edit = edit + (edits.project_out(OUT, torch.stack([V, W])) >> edits.clamp(OUT, -4.0, 4.0)) * 0.7
    edit = edit + edits.affine("layers.2.mlp.hidden", 1.5, -0.1)
    if model.table["layers.1.mid"].adds_to:
        edit = edit + edits.scale("layers.1.mid", 1.2)
    if "layers.1.attn.pattern" in model.table:
        edit = edit + edits.scale("layers.1.attn.{q_rotated,pattern}", 0.8)
    return edit


AT_POSITIONS = edits.add(OUT, 6 * V, "last_prompt") + edits.scale("layers.0.mid", 0.5, "generated")
AFTER = edits.add(OUT, 6 * V, "after_instruction") + edits.clamp("layers.2.attn.q", -0.5, 0.5, "first:2")


def answer(network: Any, inputs: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        output = network(**inputs)
    return output.logits if getattr(output, "logits", None) is not None else output.last_hidden_state


def live(model: op.Model, edit: edits.Edit, inputs: dict[str, Tensor]) -> Tensor:
    with torch.no_grad(), bind(model, edit).active():
        return answer(model.module, inputs)


def error(got: Tensor, wanted: Tensor) -> float:
    return float((got.double() - wanted.double()).abs().max() / wanted.double().abs().max())


def encoded(model: op.Model, prompts: Any) -> tuple[Any, dict[str, Tensor]]:
    batch = model.encode(prompts)
    arguments = {"input_ids": batch.ids, "attention_mask": batch.mask.long(), "position_ids": batch.position_ids}
    return batch, {**arguments, "use_cache": False}


def written(network: Any, batch: Any) -> list[list[int]]:
    arguments = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False, "disable_compile": True}
    ids = network.generate(input_ids=batch.ids, attention_mask=batch.mask.long(), **arguments)
    return ids[:, batch.width :].tolist()


# One graph ------------------------------------------------------------------------------------------------------------


def test_the_whole_graph_is_one_and_agrees(model: op.Model, prompts: list[str]) -> None:
    for edit in (everywhere(model), AT_POSITIONS, AFTER):
        torch.compiler.reset()
        batch, inputs = encoded(model, prompts)
        network = edit.bake(model)
        got = answer(torch.compile(network, fullgraph=True, backend="aot_eager"), inputs)[batch.mask]
        with running(model, batch):
            wanted = live(model, edit, inputs)[batch.mask]
        assert error(got, answer(network, inputs)[batch.mask]) < 1e-6
        assert error(got, wanted) < 3e-6
        assert error(answer(model.module, inputs)[batch.mask], wanted) > 1e-3


def test_nothing_breaks_the_graph(llama: op.Model, prompts: list[str]) -> None:
    _, inputs = encoded(llama, prompts)
    for edit in (everywhere(llama), AT_POSITIONS):
        found = torch._dynamo.explain(edit.bake(llama))(**inputs)
        assert (found.graph_count, found.graph_break_count) == (1, 0)


@needs_compiler
def test_inductor_agrees(llama: op.Model, prompts: list[str]) -> None:
    batch, inputs = encoded(llama, prompts)
    edit = everywhere(llama)
    got = answer(torch.compile(edit.bake(llama), fullgraph=True), inputs)[batch.mask]
    assert error(got, live(llama, edit, inputs)[batch.mask]) < 1e-5


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("name", ["gpt2", "qwen3"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_inductor_agrees_on_others(
    name: str, dtype: torch.dtype, make_model: Callable[..., op.Model], prompts: list[str]
) -> None:
    model = make_model(name, dtype)
    batch, inputs = encoded(model, prompts)
    for edit in (everywhere(model), AT_POSITIONS):
        got = answer(torch.compile(edit.bake(model), fullgraph=True), inputs)[batch.mask]
        with running(model, batch):
            wanted = live(model, edit, inputs)[batch.mask]
        assert error(got, wanted) < (1e-5 if dtype == torch.float32 else 0.1)


@pytest.mark.parametrize("strict", [False, True])
def test_a_baked_network_exports(strict: bool, llama: op.Model) -> None:
    _, inputs = encoded(llama, "The cat sat")
    edit = everywhere(llama)
    network = edit.bake(llama)
    exported = torch.export.export(network, (), inputs, strict=strict)
    assert error(answer(exported.module(), inputs), live(llama, edit, inputs)) < 3e-6
    assert any("optrode" in name for name in exported.state_dict)


# Many architectures ---------------------------------------------------------------------------------------------------

LAYOUTS = Path(__file__).parents[1] / "layouts"
ARCHITECTURES = {
    "gemma3": "TestGemma3", "bert": "TestBert", "vit": "TestViT", "olmo2": "TestOlmo2", "gpt_neox": "TestGPTNeoX",
    "granite": "TestGranite", "opt": "TestOPT", "modernbert": "TestModernBert", "t5_encoder": "TestT5Encoder",
    "clip_vision": "TestClipVision", "phi3": "TestPhi3", "distilbert": "TestDistilBert", "bloom": "TestBloom",
    "falcon": "TestFalcon7B", "gemma2": "TestGemma2", "dinov2": "TestDinov2",
}  # fmt: skip
QUICK = ("gemma3", "bert", "vit")


def of_layout(name: str, monkeypatch: pytest.MonkeyPatch) -> tuple[op.Model, dict[str, Tensor]]:
    """The tiny random network that the test of a layout has, and its inputs."""
    monkeypatch.syspath_prepend(str(LAYOUTS))
    spec = importlib.util.spec_from_file_location(f"layout_{name}", LAYOUTS / f"test_{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    checks = getattr(module, ARCHITECTURES[name])()
    return op.load(checks.network(), example=checks.example()), checks.inputs()


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in ARCHITECTURES]
)
def test_other_architectures(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = of_layout(name, monkeypatch)
    width = model.read(inputs, OUT)[OUT].shape[-1]
    vector = torch.randn(width, generator=RANDOM)
    edit = edits.add("layers.0.out", vector) + edits.project_out(OUT, vector) + edits.scale("layers.2.attn.out", 0.5)
    if "layers.1.mid" in model.table:
        edit = edit + edits.add("layers.1.mid", vector)
    network = edit.bake(model)
    wanted = live(model, edit, inputs)
    assert error(answer(network, inputs), wanted) < 1e-5
    assert error(answer(torch.compile(network, fullgraph=True, backend="aot_eager"), inputs), wanted) < 1e-5
    assert error(answer(model.module, inputs), wanted) > 1e-3


# Writing --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["everywhere", "at positions", "after the instruction"])
@pytest.mark.parametrize("name", ["llama", *(pytest.param(name, marks=pytest.mark.slow) for name in ("gpt2", "qwen3"))])
def test_a_compiled_network_writes_the_same_tokens(
    name: str, kind: str, make_model: Callable[..., op.Model], prompts: list[str]
) -> None:
    model = make_model(name)
    edit = {"everywhere": everywhere(model), "at positions": AT_POSITIONS, "after the instruction": AFTER}[kind]
    batch = model.encode(prompts)
    with model.edited(edit):
        wanted = [list(row.ids) for row in model.completions(batch, max_new_tokens=5, min_new_tokens=5)]
    network: Any = edit.bake(model)
    assert written(network, batch) == wanted
    network.compile(fullgraph=True, backend="eager", dynamic=True)
    assert written(network, batch) == wanted


def test_a_part_that_is_compiled_alone(llama: op.Model, prompts: list[str]) -> None:
    """Block by block works for edits that need no positions; the others say why not."""
    batch, inputs = encoded(llama, prompts)
    edit = everywhere(llama)
    network: Any = edit.bake(llama)
    for block in network.model.layers:
        block.compile(fullgraph=True, backend="eager")
    assert error(answer(network, inputs)[batch.mask], live(llama, edit, inputs)[batch.mask]) < 3e-6
    network = edits.add(OUT, V, "last_prompt").bake(llama)
    network.model.layers[1].compile(fullgraph=True, backend="eager")
    with pytest.raises(Exception, match="compile the whole network"):
        answer(network, inputs)


# Compiled hosts -------------------------------------------------------------------------------------------------------


def wrapped(network: nn.Module) -> nn.Module:
    return torch.compile(network, backend="eager")  # type: ignore[return-value]


def in_place(network: nn.Module) -> nn.Module:
    network.compile(backend="eager")
    return network


def block_by_block(network: Any) -> nn.Module:
    for number, block in enumerate(network.model.layers):
        network.model.layers[number] = torch.compile(block, backend="eager")
    return network


def one_part(network: Any) -> nn.Module:
    network.model.layers[1].mlp.compile(backend="eager")
    return network


@pytest.mark.parametrize("compiled", [wrapped, in_place, block_by_block, one_part])
def test_a_compiled_host_refuses_live_edits_and_is_read_as_it_was(
    compiled: Callable[[nn.Module], nn.Module], make_model: Callable[..., op.Model], tokenizer: Any, prompts: list[str]
) -> None:
    plain = make_model("llama")
    model = op.load(compiled(make_model("llama").module), tokenizer=tokenizer)
    assert not model.unmapped and model.measured is not None and model.measured.checks
    assert list(model.table) == list(plain.table)
    edit = everywhere(plain)
    with pytest.raises(NotSupported, match=r"is compiled.*edit\.bake\(model\)"), model.edited(edit):
        pass
    sites = ["layers.*.out", "layers.1.attn.{heads,pattern}", "logits"]
    got, wanted = model.read(prompts, sites), plain.read(prompts, sites)
    assert all(torch.equal(got[site], wanted[site]) for site in wanted)
    gradient = model.read(prompts, ["layers.0.out", "logits"], grad=True)
    assert bool(gradient.gradients(gradient["logits"][..., 5].sum())["layers.0.out"].abs().sum() > 0)
    _, inputs = encoded(plain, prompts)
    network: Any = edit.bake(model)
    assert torch.equal(answer(network, inputs), answer(edit.bake(plain), inputs))
    # The owner's network is as compiled as before, and holds the same weights.
    own = {parameter.data_ptr() for parameter in model.module.parameters()}
    assert len(own & {parameter.data_ptr() for parameter in network.parameters()}) >= len(own) - 1
    assert torch.allclose(answer(model.module, inputs), answer(plain.module, inputs), atol=1e-5)


def test_a_network_that_is_compiled_later_is_refused_from_then_on(make_model: Callable[..., op.Model]) -> None:
    model = make_model("llama")
    with model.edited(edits.add(OUT, V)):
        model.read("The cat", "logits")
    model.module.compile(backend="eager")
    with pytest.raises(NotSupported, match=r"before torch\.compile"), model.edited(edits.add(OUT, V)):
        pass
    assert model.read("The cat", OUT)[OUT].shape[-1] == 32
