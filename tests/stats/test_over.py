"""`op.stats`: of a model, a store and activations alike, equal to computing on the whole arrays."""

from __future__ import annotations

import importlib
import random
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import optrode as op
from optrode.activations import Activations
from optrode.edits.prefix import PrefixEdit
from optrode.errors import BadFile, BadInput, NotSupported, UnknownName, UnknownSite
from optrode.stats import CrossMoments, Extremes, Histogram, Moments, Norms, Top, sink_mask

TEXTS = [f"Text number {number}. " + "The cat sat on the mat. " * (number % 4) for number in range(11)]
EVERYTHING = (
    "mean", "variance", "skewness", "kurtosis", "covariance", "extremes", "top", "histogram", "magnitudes", "norms",
    "signs", "quantiles", "count",
)  # fmt: skip
SITES = ["layers.0.mlp.hidden", "layers.2.out", "layers.1.attn.heads"]


def states(statistics: op.Statistics) -> dict[str, bytes]:
    """The state of every accumulator, to compare to the last bit."""
    return {
        f"{site} {kind} {name}": tensor.numpy().tobytes()
        for site, found in statistics.items()
        for kind, one in found.accumulators.items()
        for name, tensor in one.state_dict().items()
    }


@pytest.fixture(scope="module")
def alone(llama: op.Model) -> dict[str, Tensor]:
    """Rows of the last site, each text read by itself."""
    reads = [llama.read([text], "layers.2.out", template="raw") for text in TEXTS]
    return {"values": torch.cat([acts.rows("layers.2.out") for acts in reads])}


def test_of_a_model_as_of_the_whole_array(llama: op.Model, alone: dict[str, Tensor]) -> None:
    found = op.stats(llama, TEXTS, SITES, collect=EVERYTHING, tokens_per_forward=100)
    site, true = found["layers.2.out"], alone["values"].double().numpy()
    assert list(found) == ["layers.0.mlp.hidden", "layers.1.attn.heads", "layers.2.out"]
    assert site.count == found.count == len(true) and site.skipped == 0
    np.testing.assert_allclose(site["mean"], true.mean(0), atol=1e-5)
    np.testing.assert_allclose(site["variance"], true.var(0), rtol=1e-4)
    np.testing.assert_allclose(site["covariance"], np.cov(true.T, bias=True), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(site["highest"], true.max(0), rtol=1e-4)
    np.testing.assert_allclose(site["top"], np.sort(true, 0)[:-11:-1], rtol=1e-3, atol=1e-4)
    assert float(site["norm_mean"]) == pytest.approx(np.linalg.norm(true, axis=1).mean(), rel=1e-5)
    assert site["zero"].eq(0).all() and found["layers.1.attn.heads"]["mean"].shape == (4, 8)


def test_examples_lead_back_to_the_token(llama: op.Model) -> None:
    found = op.stats(llama, TEXTS, "layers.2.out", collect=("top", "extremes"), tokens_per_forward=100)
    frame = found.examples("layers.2.out", 5)
    assert len(frame) == 10 and frame["value"].is_monotonic_decreasing
    for line in frame.itertuples():
        acts = llama.read([TEXTS[line.document]], "layers.2.out", template="raw")
        assert float(acts["layers.2.out"][0, line.position, 5]) == pytest.approx(line.value, rel=1e-4)
        assert acts.tokens is not None and acts.tokens[0][line.position] == line.text
    with pytest.raises(BadInput, match="no unit 99"):
        found.examples("layers.2.out", 99)


def test_neither_shards_nor_merging_show_in_a_store(llama: op.Model, tmp_path: Path) -> None:
    collect = tuple(name for name in EVERYTHING if name not in ("covariance", "quantiles"))
    store = op.harvest(llama, TEXTS, SITES, to=tmp_path / "s", shard_rows=64, tokens_per_forward=100)
    assert len(store.shards) > 2
    whole = op.stats(store, collect=collect)
    assert states(op.stats(tmp_path / "s", collect=collect)) == states(whole)
    pieces = []
    for shard in store.shards:
        one = op.stats(store, collect=collect, tokens=1).merge()
        for site, found in one.items():
            values = shard.values(site)
            frame = shard.metadata()
            where = frame[["document", "example", "position", "token_id"]].to_numpy(np.int64)
            for kind in found.accumulators:
                fresh = type(found.accumulators[kind])(**{"shape": found.shape, **_settings(found.accumulators[kind])})
                fresh.update(values, where=where)
                found.accumulators[kind] = fresh
        pieces.append(one)
    assert states(pieces[1].merge(pieces[0], *reversed(pieces[2:]))) == states(whole)


def _settings(accumulator: Any) -> dict[str, Any]:
    return {name: getattr(accumulator, name) for name in accumulator.settings}


def test_a_store_and_the_model_it_is_of_agree(llama: op.Model, tmp_path: Path) -> None:
    store = op.harvest(llama, TEXTS, "layers.2.out", to=tmp_path / "s", tokens_per_forward=100)
    ours, theirs = op.stats(store), op.stats(llama, TEXTS, "layers.2.out", tokens_per_forward=100)
    assert states(ours) == states(theirs)
    assert ours.tokens == theirs.tokens and ours.info["weights"] == theirs.info["weights"]
    assert op.stats(store, tokens=37).count == 37
    # Other rows beside them in a forward change the last bits of what a network computes.
    few = op.stats(llama, TEXTS, "layers.2.out", tokens=37)["layers.2.out"]
    torch.testing.assert_close(few["mean"], op.stats(store, tokens=37)["layers.2.out"]["mean"], rtol=0, atol=1e-5)


def test_the_usual_mask_of_a_store_is_its_own(llama: op.Model, tmp_path: Path) -> None:
    conversations = [[{"role": "user", "content": text}] for text in TEXTS]
    store = op.harvest(llama, conversations, "layers.2.out", to=tmp_path / "s")
    mask = torch.from_numpy(store.metadata()["mask"].to_numpy().copy())
    assert 0 < int(mask.sum()) < len(store)
    found = op.stats(store, mask="usual")["layers.2.out"]
    assert found.count == int(mask.sum())
    np.testing.assert_allclose(found["mean"], store["layers.2.out"][:][mask].double().mean(0), rtol=1e-12)


def test_the_usual_mask_of_a_model_leaves_out_special_tokens_and_sinks(smollm2: op.Model) -> None:
    texts = ["The film was great.", "In winter the lake by the village freezes over, and children skate on it."]
    sites = ["layers.5.out", "layers.20.out"]
    found = op.stats(smollm2, texts, sites, mask="usual")
    everything = op.stats(smollm2, texts, sites)
    keep = []
    for text in texts:
        acts = smollm2.read([text], sites, template="raw")
        assert acts.batch is not None
        left_out = sink_mask(acts[sites[0]], acts.batch.mask) | sink_mask(acts[sites[1]], acts.batch.mask)
        keep.append(acts[sites[1]][acts.batch.mask & ~left_out & ~acts.batch.special])
    rows = torch.cat(keep).double()
    assert found[sites[0]].count == found[sites[1]].count == len(rows) < everything.count
    np.testing.assert_allclose(found[sites[1]]["mean"], rows.mean(0), rtol=1e-3, atol=1e-3)
    assert float(everything[sites[1]]["norm_max"]) > 5000 > float(found[sites[1]]["norm_max"])
    one_by_one = op.stats(smollm2, texts, sites, mask="usual", tokens_per_forward=1)
    assert one_by_one.count == found.count


def test_positions_and_pieces(llama: op.Model) -> None:
    first = op.stats(llama, TEXTS, "layers.2.out", positions="first:2")
    assert first.count == 2 * len(TEXTS)
    assert int(first["layers.2.out"]["highest_where"][:, 2].max()) == 1
    cut = op.stats(llama, TEXTS, "layers.2.out", context=8, collect="top")
    assert cut.count == op.stats(llama, TEXTS, "layers.2.out").count
    assert int(cut["layers.2.out"]["top_where"][..., 2].max()) <= 7


def test_of_activations(llama: op.Model, alone: dict[str, Tensor]) -> None:
    acts = llama.read(TEXTS, "layers.2.out", template="raw")
    found = op.stats(acts)
    np.testing.assert_allclose(found["layers.2.out"]["mean"], alone["values"].double().mean(0), atol=1e-5)
    assert op.stats(acts, positions="first:1").count == len(TEXTS)
    selected = op.stats(llama.read(TEXTS, "layers.2.out", positions="last_prompt", template="raw"))
    assert selected.count == len(TEXTS) and set(selected["layers.2.out"]["highest_where"][:, 0].tolist()) <= set(
        range(11)
    )
    with pytest.raises(NotSupported, match="without a token axis"):
        op.stats(llama.read(TEXTS, "layers.2.out", positions="last_prompt"), mask="usual")


def test_pairs_of_sites(llama: op.Model) -> None:
    pair = ("layers.0.out", "layers.2.out")
    found = op.stats(llama, TEXTS, "layers.{0,2}.out", cross=[pair], collect="mean", tokens_per_forward=100)
    values = [torch.cat([llama.read([text], site, template="raw").rows(site) for text in TEXTS]) for site in pair]
    expected = CrossMoments(32, 32)
    expected.update(*values)
    torch.testing.assert_close(
        found.cross[pair].result()["correlation"], expected.result()["correlation"], rtol=1e-3, atol=1e-4
    )
    with pytest.raises(UnknownSite, match="cross="):
        op.stats(llama, TEXTS, "layers.0.out", cross=[pair])


def test_edits_are_seen_and_prefixes_refused(llama: op.Model) -> None:
    plain = op.stats(llama, TEXTS, "layers.1.out", collect="mean")["layers.1.out"]["mean"]
    edit = op.edits.add("layers.1.out", torch.full((32,), 3.0))
    with llama.edited(edit):
        steered = op.stats(llama, TEXTS, "layers.1.out", collect="mean")["layers.1.out"]["mean"]
    torch.testing.assert_close(steered, plain + 3.0, rtol=0, atol=1e-5)
    with pytest.raises(NotSupported, match="in front of prompts"), llama.edited(PrefixEdit(system="Be brief.")):
        op.stats(llama, TEXTS)


def test_nothing_is_kept(llama: op.Model) -> None:
    seen = []

    class Watching(Histogram):
        def _add(self, rows: Any) -> None:
            seen.append(weakref.ref(rows.values))
            super()._add(rows)

    found = op.stats(llama, TEXTS, collect=[lambda shape: Watching(shape, [0.0, 1.0])], tokens_per_forward=50)
    assert len(seen) > 10 and all(reference() is None for reference in seen) and found.count


def test_saved_loaded_and_merged(llama: op.Model, tmp_path: Path) -> None:
    pair = ("layers.0.out", "layers.2.out")
    halves = [
        op.stats(llama, part, "layers.*.out", collect=EVERYTHING, cross=[pair]) for part in (TEXTS[:5], TEXTS[5:])
    ]
    loaded = [op.Statistics.load(half.save(tmp_path / f"{n}.stats")) for n, half in enumerate(halves)]
    for half, again in zip(halves, loaded, strict=True):
        assert states(half) == states(again) and half.info == again.info and half.tokens == again.tokens
        assert torch.equal(half.cross[pair].result()["covariance"], again.cross[pair].result()["covariance"])
        assert list(half["layers.0.out"]) == list(again["layers.0.out"])
    both = loaded[0].merge(loaded[1])
    whole = op.stats(llama, TEXTS, "layers.*.out")
    assert both.count == whole.count
    torch.testing.assert_close(both["layers.2.out"]["mean"], whole["layers.2.out"]["mean"], rtol=0, atol=1e-5)
    assert both.cross[pair].count == whole.count
    path = tmp_path / "0.stats"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(BadFile):
        op.Statistics.load(path)
    with pytest.raises(BadFile, match="format None"):
        op.Statistics.load(halves[0]["layers.0.out"].accumulators["moments"].save(tmp_path / "one"))


def test_any_changed_byte_of_a_file_is_found(llama: op.Model, tmp_path: Path) -> None:
    path = op.stats(llama, TEXTS, "layers.0.out", collect=("mean", "extremes", "norms")).save(tmp_path / "a.stats")
    whole = path.read_bytes()
    for place in {0, 8, len(whole) - 1, *random.Random(0).sample(range(len(whole)), 60)}:
        content = bytearray(whole)
        content[place] ^= 1 << (place % 8)
        path.write_bytes(content)
        with pytest.raises(BadFile, match=r"'a\.stats' "):
            op.Statistics.load(path)
    assert list(tmp_path.iterdir()) == [path]


_PART = """
import sys, torch
from optrode.stats import Extremes, Moments, Norms, Top
values, where = torch.load(sys.argv[1], weights_only=True)
for make in (Extremes, lambda n: Moments(n, order=4), Norms, Top):
    one = make(values.shape[1])
    for rows, places in zip(values.split(37), where.split(37)):
        one.update(rows, where=places)
    one.save(f"{sys.argv[1]}.{one.kind}")
"""


def test_processes_merged_are_one_pass_to_the_last_bit(tmp_path: Path) -> None:
    values = torch.randn(500, 6, generator=torch.Generator().manual_seed(20)) * 1e3 + 7e4
    number = torch.arange(500)
    where = torch.stack([number // 9, number // 9, number % 9, number], 1)
    names = [str(tmp_path / f"part{n}.pt") for n in range(2)]
    for name, rows in zip(names, (number[number % 3 == 0].flip(0), number[number % 3 != 0]), strict=True):
        torch.save((values[rows], where[rows]), name)
    processes = [subprocess.Popen([sys.executable, "-c", _PART, name]) for name in names]
    assert [process.wait() for process in processes] == [0, 0]
    for whole in (Extremes(6), Moments(6, order=4), Norms(6), Top(6)):
        whole.update(values, where=where)
        first, second = (type(whole).load(f"{name}.{whole.kind}") for name in names)
        merged, expected = second.merge(first).state_dict(), whole.state_dict()
        assert {name: tensor.numpy().tobytes() for name, tensor in merged.items()} == {
            name: tensor.numpy().tobytes() for name, tensor in expected.items()
        }


def test_each_place_of_a_picture_is_a_row(tmp_path: Path) -> None:
    values = torch.randn(4, 3, 5, 8, generator=torch.Generator().manual_seed(21))
    values[2, 1, 4, 6] = 99.0
    axes = {"a": ("example", "row", "column", "channel"), "b": ("example", "patch", "feature"), "c": ("example", "f")}
    acts = Activations({"a": values, "b": values[:, 0], "c": values[:, 0, 0]}, axes, None)
    found = op.stats(acts, sites="a", collect=("variance", "extremes"))
    site, flat = found["a"], values.view(-1, 8).double()
    assert (site.shape, site.axes, site.count, found.info["unit"]) == ((8,), ("channel",), 60, "pixel")
    np.testing.assert_allclose(site["variance"], flat.var(0, correction=0), rtol=1e-12)
    assert site["highest_where"][6].tolist() == [2, 2, 1 * 5 + 4, -1]
    assert op.stats(acts, sites="b").info["unit"] == "patch" and op.stats(acts).info["unit"] == "row"
    assert [one.count for one in op.stats(acts).values()] == [60, 20, 4]
    with pytest.raises(BadInput, match="same rows"):
        op.stats(acts, cross=[("a", "b")])


def test_a_store_of_pictures_in_parts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Large rows are read few at a time, and nothing of that shows."""

    class Sees(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.filters = torch.nn.Conv2d(3, 4, 3)

        def forward(self, pixel_values: Tensor) -> Tensor:
            return self.filters(pixel_values).relu().mean((2, 3))

    model = op.load(Sees().eval(), processor=_Pixels())
    (tmp_path / "pictures").mkdir()
    chance = np.random.default_rng(0)
    for number in range(6):
        picture = Image.fromarray(chance.integers(0, 255, (6, 7, 3), dtype=np.uint8))
        picture.save(tmp_path / "pictures" / f"{number}.png")
    store = op.harvest(model, tmp_path / "pictures", "module:filters", to=tmp_path / "s")
    collect = ("mean", "extremes", "signs")
    whole = op.stats(store, collect=collect)
    monkeypatch.setattr(importlib.import_module("optrode.stats.over_store"), "_VALUES", 100)
    assert states(op.stats(store, collect=collect)) == states(whole)
    assert states(op.stats(model, tmp_path / "pictures", "module:filters", collect=collect)) == states(whole)


class _Pixels:
    def __call__(self, images: Any, return_tensors: str = "pt") -> dict[str, Tensor]:
        arrays = [torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1) / 255 for image in images]
        return {"pixel_values": torch.stack(arrays)}


def test_what_is_no_such_thing_is_told(llama: op.Model, gpt2: op.Model, tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="did you mean variance"):
        op.stats(llama, TEXTS, collect="varience")
    with pytest.raises(BadInput, match="nothing was asked for"):
        op.stats(llama, TEXTS, collect=())
    with pytest.raises(BadInput, match="need data"):
        op.stats(llama)
    with pytest.raises(BadInput, match="mask='none'"):
        op.stats(llama, TEXTS, mask="none")
    with pytest.raises(BadInput, match="at least 1"):
        op.stats(llama, TEXTS, tokens=0)
    one = op.stats(llama, TEXTS[:2], "layers.0.out")
    for other in (
        op.stats(gpt2, TEXTS[:2], "layers.0.out"),
        op.stats(llama, TEXTS[:2], "layers.1.out"),
        op.stats(llama, TEXTS[:2], "layers.0.out", collect="mean"),
        op.stats(llama, TEXTS[:2], "layers.0.out", positions="first:1"),
    ):
        with pytest.raises(BadInput, match="cannot be merged"):
            one.merge(other)
    with pytest.raises(UnknownName, match="was not collected"):
        one["layers.0.out"]["kurtosis"]
    with pytest.raises(UnknownSite, match="did you mean"):
        one["layers.0.uot"]
    store = op.harvest(llama, TEXTS[:2], "layers.0.out", to=tmp_path / "s")
    with pytest.raises(NotSupported, match="when a store is harvested"):
        op.stats(store, positions="first:1")
    with pytest.raises(BadInput, match="goes with a model"):
        op.stats(store, TEXTS)
    with pytest.raises(BadInput, match="at least 1"):
        op.stats(store, tokens=0)
    acts = llama.read(TEXTS[:2], "layers.0.out")
    for source, setting in ((store, {"context": 9}), (store, {"system": "Be brief."}), (acts, {"tokens": 3})):
        with pytest.raises(BadInput, match="says how data is read"):
            op.stats(source, **setting)


def test_numbers_of_experts_are_no_measurements(mixture: op.Model) -> None:
    sites = [site for site in mixture.table if site.endswith(".chosen")]
    with pytest.raises(NotSupported, match="no measurements"):
        op.stats(mixture, TEXTS[:2], sites[:1])


def test_tables(llama: op.Model) -> None:
    found = op.stats(llama, TEXTS, SITES, collect=EVERYTHING)
    table = found.to_pandas()
    assert list(table.index) == list(found) and (table["rows"] == found.count).all()
    largest = table.loc["layers.2.out"]
    site = found["layers.2.out"]
    assert abs(largest["largest_value"]) == max(float(site["highest"].max()), -float(site["lowest"].min()))
    units = found.to_pandas("layers.1.attn.heads")
    assert units.index.names == list(found["layers.1.attn.heads"].axes) and len(units) == 32
    assert float(units.loc[(3, 2), "mean"]) == float(found["layers.1.attn.heads"]["mean"][3, 2])
    labelled = found.to_xarray("layers.2.out")
    assert labelled["mean"].dims == ("site", "feature") and labelled["top_where"].dims == (
        "site",
        "rank",
        "feature",
        "place",
    )
    assert labelled["covariance"].sizes == {"site": 1, "feature_of_second": 32, "feature": 32}
    with pytest.raises(BadInput, match="different shapes"):
        found.to_xarray()
    assert f"{found.count:,} tokens at 3 sites" in repr(found)
