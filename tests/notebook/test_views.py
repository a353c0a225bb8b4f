"""What objects show in a notebook: their facts, foreign texts as texts, broken parts left out, nothing costly."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import optrode as op
from optrode.compare import Comparison
from optrode.edits.base import Provenance
from optrode.engine.editing.receipt import SiteReceipt
from optrode.stats.covariance import Covariance

Read = Callable[[str], Any]
TEXTS = ["one two three", "four five", "six seven eight nine ten"]


def _file(name: str) -> Any:
    """A file of the reports' tests."""
    path = Path(__file__).parents[1] / "report" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"of_reports_{name}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def acts(llama: op.Model, prompts: list[str]) -> op.Activations:
    return llama.read(prompts, "layers.*.{attn.heads,out}")


@pytest.fixture
def receipt(llama: op.Model, prompts: list[str]) -> Any:
    with llama.edited(op.edits.add("layers.1.out", torch.ones(32))) as found:
        llama.read(prompts, "layers.1.out")
    return found


@pytest.fixture
def found() -> op.Map:
    values = np.arange(6.0).reshape(2, 3)
    labels = {"layer": [0, 1], "position": ["0 The", "1 cat|dog", "2 sat"]}
    return op.Map(values, labels, "logit difference", {"way": "columns"}, base=1.0, donor=3.0)


# Facts --------------------------------------------------------------------------------------------------------------


def test_a_model_says_what_it_is_and_folds_its_sites(llama: op.Model, read_page: Read):
    page = read_page(llama._repr_html_())
    for said in ("LlamaForCausalLM", "3 layers", "4, 2 of keys and values", "float32 on cpu", "layers.0-2"):
        assert said in page.text
    assert page.tags["details"] == 2


def test_sites_are_shown_once_for_blocks_that_have_the_same(llama: op.Model, read_page: Read):
    page = read_page(llama.sites._repr_html_())
    names = {site.name for site in llama.table.values() if site.layer == 0}
    assert f"3 layers × {len(names)} sites" in page.text and f"{len(llama.sites)} sites" in page.text
    assert all(page.texts.count(name) == 1 for name in names)
    assert page.texts.count("embed") == 1 and page.texts.count("logits") == 1


def test_a_network_without_layout_shows_its_modules(read_page: Read):
    model = op.load(nn.Sequential(nn.Linear(4, 3), nn.ReLU()))
    for shown in (model, model.sites):
        assert "module:1" in read_page(shown._repr_html_()).text


def test_towers_have_folds_of_their_own(tmp_path: Path, read_page: Read):
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(0)
    config = T5Config(vocab_size=40, d_model=16, d_kv=4, d_ff=24, num_layers=2, num_decoder_layers=3, num_heads=4)
    model = op.load(T5ForConditionalGeneration(config).eval())
    page = read_page(model.sites._repr_html_())
    assert {"encoder", "decoder"} <= set(page.texts) and "encoder.layers.0-1" in page.texts


def test_activations_show_axes_bytes_and_norms_of_each_kind(acts: op.Activations, read_page: Read):
    page = read_page(acts._repr_html_())
    assert "layers.0-2.out" in page.texts and "layers.0-2.attn.heads" in page.texts
    example, token, head, feature = acts["layers.0.attn.heads"].shape
    assert f"example {example} × token {token} × head {head} × feature {feature}" in page.texts
    assert "The cat" in page.text and "3 examples" in page.text and page.tags["svg"] == 2


def test_the_norm_is_that_of_tokens_and_never_of_padding(llama: op.Model, read_page: Read):
    acts = llama.read(["a", "a b c d e f g h"], "layers.0.out")
    acts.values_by_site["layers.0.out"] = torch.where(acts.batch.mask[..., None], 3.0, 1e6).expand(-1, -1, 16).clone()
    assert "12" in read_page(acts._repr_html_()).texts, "3 times the root of 16"


def test_single_sites_that_differ_have_lines_of_their_own(acts: op.Activations, read_page: Read):
    acts.values_by_site["layers.1.out"] = acts["layers.1.out"].half()
    page = read_page(acts._repr_html_())
    assert {"layers.0.out", "layers.1.out", "float16"} <= set(page.texts) and "layers.0-2.attn.heads" in page.texts


def test_closed_activations_say_so(acts: op.Activations, read_page: Read):
    acts.close()
    assert "closed" in read_page(acts._repr_html_()).text


def test_looking_at_a_gigabyte_touches_little_of_it(read_page: Read):
    class Touched(TorchDispatchMode):
        numbers = 0

        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = function(*args, **(kwargs or {}))
            # Views are made of what is there; everything else was computed.
            views = isinstance(out, torch.Tensor) and any(
                isinstance(one, torch.Tensor) and one.untyped_storage()._cdata == out.untyped_storage()._cdata
                for one in args
            )
            self.numbers += out.numel() if isinstance(out, torch.Tensor) and not views else 0
            return out

    large = torch.ones(1, 1, 1).expand(800, 600, 576)
    acts = op.Activations({f"layers.{n}.out": large for n in range(4)}, dict.fromkeys(
        [f"layers.{n}.out" for n in range(4)], ("example", "token", "feature")))  # fmt: skip
    assert acts.nbytes > 4e9
    with Touched() as touched:
        page = read_page(acts._repr_html_())
    assert "24" in page.text and 0 < touched.numbers < 1e6


def test_an_edit_is_told_in_words(read_page: Read):
    added = op.edits.add("layers.3.out", torch.ones(8), "last_prompt")
    page = read_page((added * 2)._repr_html_())
    assert "adds a vector to layers.3.out" in page.text and "h + 2 * vector" in page.text and "site edit" in page.text
    both = added + op.edits.zero_ablate("layers.1.mlp.out")
    assert read_page(both._repr_html_()).tags["details"] == 2
    assert read_page(both.explain()._repr_html_()).tags["details"] == 2


def test_a_large_edit_is_not_gone_through(monkeypatch: pytest.MonkeyPatch, read_page: Read):
    edit = op.edits.add("layers.3.out", torch.ones(8))
    monkeypatch.setattr("optrode.notebook.edits.MOST_BYTES", 16)
    monkeypatch.setattr("optrode.edits.explanation.explain", lambda *_: 1 / 0)
    assert "[8]" in read_page(edit._repr_html_()).text


def test_a_receipt_draws_the_layers_that_ran(receipt: Any, read_page: Read):
    page = read_page(receipt._repr_html_())
    layers = [one for one in page.texts if one.startswith("layer ")]
    assert layers == ["layer 0: run", "layer 1: edited", "layer 2: skipped"]
    assert f"{receipt.changed} positions changed" in page.text and "2 layers run, 1 skipped" in page.text


def test_a_receipt_of_a_resumed_forward_begins_where_that_began(llama: op.Model, prompts: list[str], read_page: Read):
    with llama.edited(op.edits.add("layers.2.out", torch.ones(32))) as receipt:
        llama.read(prompts, "layers.2.out")
    receipt.first_layer, receipt.layers_run, receipt.layers_skipped = 2, 1, 2
    page = read_page(receipt._repr_html_())
    assert [one for one in page.texts if one.startswith("layer ")] == [
        "layer 0: skipped", "layer 1: skipped", "layer 2: edited"]  # fmt: skip


def test_a_receipt_names_sites_that_never_ran(receipt: Any, read_page: Read):
    receipt.sites["layers.2.out"] = SiteReceipt("layers.2.out")
    page = read_page(receipt._repr_html_())
    assert "sites that never ran" in page.text and "1 of 2 sites ran" in page.text


def test_a_map_shows_every_cell_with_its_value(found: op.Map, read_page: Read):
    page = read_page(found._repr_html_())
    assert "layer 1, position 1 cat|dog: 4 (change 3)" in page.texts and "layer 2 × position 3" in page.text
    assert sum(text.startswith("layer ") and ": " in text for text in page.texts) == 6
    assert "base 1" in page.text and "donor 3" in page.text


def test_maps_of_one_axis_and_of_three(read_page: Read):
    line = op.Map(np.array([1.0, -2.0]), {"strength": [-1, 1]}, "nats")
    assert {"strength -1: 1", "strength 1: −2"} <= set(read_page(line._repr_html_()).texts)
    panels = op.Map(np.ones((9, 2, 2)), {"site": [f"s{n}" for n in range(9)], "layer": [0, 1], "head": [0, 1]})
    page = read_page(panels._repr_html_())
    assert "site s0" in page.texts and "site s8" not in page.texts and "6 of 9 panels" in page.text


def test_a_wide_map_is_cut_to_its_largest_and_what_is_no_number_left_out(read_page: Read):
    values = np.zeros((2, 500))
    values[1, 333], values[0, :] = 9.0, np.nan
    text = op.Map(values, {"layer": [0, 1], "neuron": list(range(500))})._repr_html_()
    page = read_page(text)
    assert "the 60 of 500 neurons" in page.text and "layer 1, neuron 333: 9" in page.texts
    assert not [one for one in page.texts if one.startswith("layer 0,")] and len(text) < 100_000


def test_a_large_map_stays_small_on_the_page(read_page: Read):
    labels = {"layer": list(range(8)), "head": list(range(40)), "neuron": list(range(300))}
    text = op.Map(np.random.default_rng(0).normal(size=(8, 40, 300)), labels, "nats")._repr_html_()
    assert "2 of 8 panels" in read_page(text).text and len(text) < 600_000
    assert not [one for one in read_page(text).texts if one.startswith("head 0, neuron")]


@pytest.mark.parametrize(
    "values", [np.zeros((0, 3)), np.full((2, 3), np.nan), np.zeros((2, 3)), np.full((2, 3), np.inf)]
)
def test_maps_without_anything_to_see(values: np.ndarray, read_page: Read):
    labels = {"layer": list(range(len(values))), "head": [0, 1, 2]}
    assert "Map" in read_page(op.Map(values, labels)._repr_html_()).texts


def test_plans_show_what_they_print(llama: op.Model, prompts: list[str], read_page: Read):
    read = op.plan(llama, prompts, "layers.*.{attn.heads,out}")
    page = read_page(read._repr_html_())
    assert all(value in page.text for _, value in read.rows()) and "layers.0-2.attn.heads" in page.texts
    ids = torch.tensor([[3, 1, 4]]), torch.tensor([[3, 2, 4]])
    sweep = op.plan_sweep(llama, *ids, "layers.*.out", metric=op.metrics.Logit(3))
    harvest = op.plan_harvest(llama, TEXTS, "layers.0.out")
    for plan in (sweep, harvest):
        assert all(value in read_page(plan._repr_html_()).text for _, value in plan.lines())


def test_a_plan_that_does_not_fit_is_marked(llama: op.Model, prompts: list[str], tmp_path: Path, read_page: Read):
    refused = replace(op.plan(llama, prompts, "layers.0.out", budget="1GB"), verdict="refused", why="too large")
    assert ("class", "ot-warn") in read_page(refused._repr_html_()).attributes
    full = replace(op.plan_harvest(llama, TEXTS, "layers.0.out"), free=1)
    assert ("class", "ot-warn") in read_page(full._repr_html_()).attributes


def test_statistics_say_what_stands_out(llama: op.Model, read_page: Read):
    collect = ("mean", "variance", "norms", "extremes", "magnitudes", "signs")
    found = op.stats(llama, TEXTS, "layers.*.out", collect=collect)
    page = read_page(found._repr_html_())
    assert f"{found.count} tokens" in page.text and "layers.0-2.out" in page.texts and page.tags["svg"] == 1


def test_statistics_that_are_slow_to_sum_up_are_only_named(
    llama: op.Model, monkeypatch: pytest.MonkeyPatch, read_page: Read
):
    found = op.stats(llama, TEXTS, "layers.*.out", collect=("mean", "covariance"))
    monkeypatch.setattr(Covariance, "result", lambda _: 1 / 0)
    page = read_page(found._repr_html_())
    assert "covariance" in page.text and "layers.0-2.out" in page.texts


def test_a_store_says_how_much_it_holds(llama: op.Model, tmp_path: Path, read_page: Read):
    store = op.harvest(llama, TEXTS, "layers.*.out", to=tmp_path / "s", dtype="bfloat16")
    page = read_page(store._repr_html_())
    assert f"{len(store)} tokens" in page.text and "bfloat16" in page.text and "layers.2.out" in page.texts
    store.shards.pop()
    assert "not complete" in read_page(store._repr_html_()).text


def test_a_comparison_ranks_methods_with_their_intervals(read_page: Read):
    result = _file("fake").fake_result()
    page = read_page(Comparison(result)._repr_html_())
    names = [row["method"] for row in result["rows"]]
    places = [page.text.index(name) for name in names]
    assert places and page.tags["circle"] == sum(isinstance(row["shift"], dict) for row in result["rows"])
    assert result["headline"] in page.text


# Foreign texts ------------------------------------------------------------------------------------------------------


def test_hostile_texts_stay_texts(
    llama: op.Model, acts: op.Activations, receipt: Any, found: op.Map, hostile: str, tmp_path: Path, read_page: Read,
    monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    monkeypatch.setattr(llama, "name", hostile)
    monkeypatch.setattr(llama, "unmapped", hostile)
    texts = replace(acts.batch, texts=(hostile,) * 3)
    foreign = op.Activations({hostile: torch.ones(3, 2)}, {hostile: (hostile, "feature")}, texts)
    edit = op.edits.add(hostile, torch.ones(4)).with_provenance(Provenance({"name": hostile}, {"method": hostile}))
    receipt.sites[hostile] = SiteReceipt(hostile, calls=1)
    receipt.note(hostile)
    labels = {"layer": [hostile, 1], hostile: [hostile] * 3}
    map_ = op.Map(found.values, labels, hostile, {hostile: hostile}, base=0.0)
    statistics = op.stats(llama, TEXTS, "layers.*.out", collect=("norms", "extremes", "magnitudes", "variance", "mean"))
    statistics.tokens.update(dict.fromkeys(statistics.tokens, hostile))
    store = op.harvest(llama, TEXTS, "layers.0.out", to=tmp_path / "s")
    store.origin["data"] = hostile
    comparison = Comparison(_file("hostile").everywhere(_file("fake").fake_result()))
    plan = replace(op.plan(llama, TEXTS, "layers.0.out"), basis=hostile)
    for shown in (llama, llama.sites, foreign, edit, receipt, map_, statistics, store, comparison, plan):
        page = read_page(shown._repr_html_())
        assert "<script" in page.text, f"{type(shown).__name__} shows it as a text"
    for line in (op.Map(found.values[0], {hostile: [hostile] * 3}, hostile), op.Map(found.values, labels, hostile)):
        read_page(line._repr_html_())


# What is broken -----------------------------------------------------------------------------------------------------


def test_a_broken_tensor_hides_no_other(acts: op.Activations, read_page: Read):
    acts.values_by_site["layers.1.out"] = object()  # type: ignore[assignment]
    del acts.axes["layers.2.out"]
    acts.batch = None
    page = read_page(acts._repr_html_())
    assert {"layers.0.out", "layers.1.out", "layers.2.out"} <= set(page.texts) and "?" in page.texts


def test_a_released_tensor_and_one_without_values_are_shown(read_page: Read):
    gone = torch.ones(2, 3)
    gone.untyped_storage().resize_(0)
    values = {
        "a": torch.empty(2, 3, device="meta"),
        "b": torch.empty(0, 3),
        "c": torch.full((2, 3), torch.nan),
        "d": gone,
    }
    acts = op.Activations(values, dict.fromkeys(values, ("example", "feature")))
    values.pop("d")
    page = read_page(op.Activations(values, acts.axes)._repr_html_())
    assert {"a", "b", "c"} <= set(page.texts) and "float32 on meta" in page.texts


@pytest.mark.parametrize("kind", ["activations", "edit", "receipt", "map", "store", "comparison", "statistics"])
def test_nothing_raises_whatever_is_missing(
    kind: str, acts: op.Activations, receipt: Any, found: op.Map, read_page: Read
):
    """Each attribute of an object in turn is something else altogether."""
    made: dict[str, Any] = {
        "activations": acts, "receipt": receipt, "map": found, "edit": op.edits.add("layers.0.out", torch.ones(3)),
        "comparison": Comparison({"schema": "optrode.comparison/1"}),
        "store": op.Store.__new__(op.Store), "statistics": op.Statistics({}, {}),
    }  # fmt: skip
    shown = made[kind]
    read_page(shown._repr_html_())
    for name in list(vars(shown)):
        kept = getattr(shown, name)
        for other in (None, object(), "x", [1]):
            object.__setattr__(shown, name, other)
            read_page(shown._repr_html_())
        object.__setattr__(shown, name, kept)


def test_texts_stay_as_they_were(acts: op.Activations, found: op.Map, llama: op.Model):
    assert repr(acts).startswith("Activations of 6 sites") and repr(llama).startswith("Model(")
    assert "<" not in repr(acts) and str(llama.sites).count("layers.0 to layers.2") == 1
