from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from planted import CHANNEL, HUGE, MARKER, TEXTS, _neuron, planted_module

import optrode as op
from optrode.errors import BadInput, NotSupported, UnknownSite
from optrode.massive import MassiveActivations
from optrode.massive.protocol import nll_by_text

FIT, TEST = TEXTS[::2], TEXTS[1::2]


def logits(model: op.Model, texts: Any) -> torch.Tensor:
    batch = model.encode(texts, template="raw")
    return model.read(batch, "logits")["logits"][batch.mask]


@pytest.mark.parity("massive-activations")
@pytest.mark.parametrize("treatment", ["zero", "mean"])
def test_the_edit_is_a_hand_written_hook(treatment: str, planted: op.Model, rewritten, block, forward):
    edit = MassiveActivations(treatment=treatment).fit(planted, FIT)
    batch = planted.encode(TEST, template="raw")
    first = (batch.mask.long().cumsum(-1) == 1) & batch.mask
    assert not bool(first[0, 0]), "the shortest text must be padded on the left"
    values = [planted.read(text, "layers.0.out", template="raw")["layers.0.out"][0, 0, CHANNEL] for text in FIT]
    mean = torch.stack(values).mean() if treatment == "mean" else torch.tensor(0.0)

    def change(h: torch.Tensor) -> torch.Tensor:
        h = h.clone()
        for row, column in first.nonzero().tolist():
            h[row, column, CHANNEL] = mean
        return h

    with rewritten(block(planted, 0), change):
        wanted = forward(planted, batch).logits[batch.mask]
    with planted.edited(edit) as receipt:
        found = logits(planted, TEST)
    assert torch.allclose(found, wanted, atol=1e-3)
    assert receipt.sites["layers.0.out"].selected == len(TEST)


def test_zero_ruins_and_the_mean_of_own_data_changes_nothing(planted: op.Model):
    batch = planted.encode(TEST, template="raw")
    base = nll_by_text(planted, batch)
    with planted.edited(MassiveActivations(treatment="mean").fit(planted, batch)):
        mean = nll_by_text(planted, batch)
    with planted.edited(MassiveActivations().fit(planted, batch)):
        zero = nll_by_text(planted, batch)
    assert np.exp((mean - base).mean()) == pytest.approx(1, abs=0.005)
    assert np.exp((zero - base).mean()) > 1e3


def test_what_the_edit_holds(planted: op.Model):
    edit = MassiveActivations(treatment="mean").fit(planted, FIT)
    [leaf] = edit.leaves()
    assert (leaf.site, leaf.features, leaf.positions.text) == ("layers.0.out", (CHANNEL,), "first:1")
    assert leaf.operator.value.tolist() == pytest.approx([HUGE], rel=0.05)
    known = leaf.provenance
    assert known.start_token == "raw: none"
    assert known.fingerprint["weights"] == planted.fingerprint["weights"]
    assert known.recipe["method"] == "massive-activations" and known.recipe["texts"] == len(FIT)
    [entry] = known.recipe["entries"]
    assert (entry["layer"], entry["channel"], entry["share"]) == (0, CHANNEL, 1.0)
    assert 0 < known.stream_norm["layers.0.out"] < 100
    chat = MassiveActivations(template="chat").fit(planted, FIT)
    assert chat.leaves()[0].provenance.start_token == "chat: <|im_start|>"


def test_batched_and_alone_are_the_same_edit(planted: op.Model):
    edit = MassiveActivations().fit(planted, FIT)
    with planted.edited(edit):
        together = logits(planted, TEST)
        apart = torch.cat([logits(planted, text) for text in TEST])
    assert torch.allclose(together, apart, atol=1e-3)


def test_two_kinds_on_one_token_empty_it_once(planted: op.Model):
    edit = MassiveActivations(positions=("first:1", "index:0")).fit(planted, FIT)
    assert [leaf.positions.text for leaf in edit.leaves()] == ["first:1", "index:0"]
    with planted.edited(edit):
        h = planted.read(TEST, "layers.0.out", template="raw", positions="first:1")["layers.0.out"]
    assert h[:, CHANNEL].abs().max() == 0


def test_kinds_have_means_of_their_own(tokenizer: Any):
    """Two positions with marks of different size: two massive values that must not be pooled."""
    module = planted_module(tokenizer)
    with torch.no_grad():
        module.transformer.wpe.weight[3, MARKER] = 4.0
    model = op.load(module, tokenizer=tokenizer)
    edit = MassiveActivations(positions=("first:1", "index:3"), treatment="mean").fit(model, FIT)
    acts = model.read(FIT, "layers.0.out", template="raw", positions="first:4")["layers.0.out"]
    values = acts.reshape(len(FIT), 4, -1)[..., CHANNEL].mean(0)
    first, fourth = edit.leaves()
    assert float(first.operator.value) == pytest.approx(float(values[0]), rel=1e-4)
    assert float(fourth.operator.value) == pytest.approx(float(values[3]), rel=1e-4)
    assert abs(float(values[0] - values[3])) > 100


@pytest.mark.parametrize("treatment", ["zero", "mean"])
def test_save_and_load(treatment: str, planted: op.Model, tmp_path: Path):
    edit = MassiveActivations(positions=("first:1", "index:0"), treatment=treatment).fit(planted, FIT)
    again = op.load_edit(edit.save(tmp_path / "massive.edit"))
    for old, new in zip(edit.leaves(), again.leaves(), strict=True):
        assert (new.site, new.features, new.positions) == (old.site, old.features, old.positions)
        assert torch.equal(new.operator.value, old.operator.value)
        assert new.provenance.recipe["entries"] == old.provenance.recipe["entries"]
    with planted.edited(edit):
        wanted = logits(planted, TEST)
    with planted.edited(again):
        assert torch.equal(logits(planted, TEST), wanted)


def test_strength(planted: op.Model):
    edit, plain = MassiveActivations().fit(planted, FIT), logits(planted, TEST)
    with planted.edited(edit * 0):
        assert torch.equal(logits(planted, TEST), plain)
    site = "layers.0.out"
    whole = planted.read(TEST, site, template="raw", positions="first:1")[site]
    with planted.edited(edit * 0.5):
        half = planted.read(TEST, site, template="raw", positions="first:1")[site]
    assert torch.allclose(half[:, CHANNEL], whole[:, CHANNEL] / 2)


def test_find(planted: op.Model):
    found = MassiveActivations().find(planted, TEXTS)
    assert found.to_xarray().dims == ("layer", "statistic")
    assert found.labels["statistic"] == ["top 1", "top 2", "top 3", "median"]
    alone = [MassiveActivations().find(planted, text).values for text in TEXTS]
    assert np.allclose(found.values, np.mean(alone, axis=0), rtol=1e-4)
    assert found.values[:3, 0] == pytest.approx([HUGE] * 3, rel=0.05)
    assert found.values[3, 0] < 100 and found.values[0, 3] < 1
    assert found.notes["first_layer"] == 0 and found.notes["start_token"] == "raw: none"
    assert [(m["layer"], m["channel"], m["tokens"], m["place"]) for m in found.notes["massive"]] == [
        (layer, CHANNEL, len(TEXTS), 0) for layer in range(3)
    ]


def test_find_where_there_is_nothing(model: op.Model, prompts: list[str]):
    found = MassiveActivations().find(model, prompts)
    assert found.notes["first_layer"] is None and found.notes["massive"] == []


def test_what_a_later_layer_writes_again_is_reported(tokenizer: Any, planted: op.Model):
    method = MassiveActivations()
    assert method.recreated(planted, method.fit(planted, FIT), TEST) == []
    module = planted_module(tokenizer)
    with torch.no_grad():
        # Where block 1 has been led astray, the normalised marker is down to about 4.
        _neuron(module.transformer.h[2].mlp, MARKER, over=3.0, writes=HUGE, at=4.0)
    model = op.load(module, tokenizer=tokenizer)
    back = method.recreated(model, method.fit(model, FIT), TEST)
    assert {(item.channel, item.position) for item in back} == {(CHANNEL, 0)}
    assert {item.example for item in back if item.layer == 2} == set(range(len(TEST)))
    assert {item.layer for item in back} <= {2, 3}
    with pytest.raises(BadInput, match="leaves a value"):
        method.recreated(model, MassiveActivations(treatment="mean").fit(model, FIT), TEST)


def test_nothing_massive_is_one_clear_line(model: op.Model, prompts: list[str]):
    with pytest.raises(BadInput, match=r"has no massive activation in these texts: the largest .*layer") as caught:
        MassiveActivations().fit(model, prompts)
    assert "\n" not in str(caught.value)


def test_massive_elsewhere_says_where(planted: op.Model):
    with pytest.raises(BadInput, match=r"none at positions index:2 .* channel 0 at place 0 .* layer 0"):
        MassiveActivations(positions=("index:2",)).fit(planted, FIT)


def test_a_given_layer(planted: op.Model):
    assert MassiveActivations(layer=2).fit(planted, FIT).patterns() == ["layers.2.out"]
    with pytest.raises(BadInput, match="no massive activation in layer 3"):
        MassiveActivations(layer=3).fit(planted, FIT)
    with pytest.raises(UnknownSite, match="layers 0 to 3"):
        MassiveActivations(layer=9).fit(planted, FIT)


def test_other_mistakes(planted: op.Model):
    with pytest.raises(BadInput, match="zero"):
        MassiveActivations(treatment="zreo")
    with pytest.raises(BadInput, match="no prompt"):
        MassiveActivations().fit(planted, [])
    network = op.load(torch.nn.Sequential(torch.nn.Linear(4, 4)))
    with pytest.raises(NotSupported, match="tokenizer"):
        MassiveActivations().fit(network, ["The cat"])


def test_the_family_lists_it():
    assert "MassiveActivations" in dir(op.massive)
    assert op.massive.MassiveActivations is MassiveActivations
    assert MassiveActivations().recipe() == {
        "method": "massive-activations", "absolute": 100.0, "relative": 1000.0, "positions": ["first:1"], "share": 0.5,
        "template": "raw", "treatment": "zero", "layer": None,
    }  # fmt: skip


@pytest.mark.slow
def test_pinned_on_smollm2(smollm2: op.Model):
    """Layer 11 writes 2.2e4 into channel 507 of a first "The"; no other token has anything massive."""
    texts = ["The cat sat on the mat, and the dog lay by the door.", "The rain had stopped."]
    [leaf] = MassiveActivations(treatment="mean").fit(smollm2, texts).leaves()
    assert leaf.site == "layers.11.out" and 507 in (leaf.features or ())
    entries = {entry["channel"]: entry for entry in leaf.provenance.recipe["entries"]}
    assert entries[507]["mean"] == pytest.approx(22552, rel=0.01) and entries[507]["deviation"] < 1
    found = MassiveActivations().find(smollm2, texts).notes["massive"]
    assert {item["place"] for item in found} == {0} and min(item["layer"] for item in found) == 11
