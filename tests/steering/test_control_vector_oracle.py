"""Control vectors against repeng, whose results on a tiny network are kept; see tools/oracles."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import optrode as op
from optrode.data import Pair
from optrode.steering import ControlVector

FILE = Path(__file__).parent / "oracles" / "repeng.safetensors"
# Its ways of a principal component, and what they are called here.
FORMS = {"pca_diff": "centred_difference", "pca_center": "pair_centred"}


# repeng measures at the output of the block that it names, and adds there. Of the last block it measures what the final
# norm makes of the output, since that is what transformers calls the last hidden state.
@pytest.mark.parametrize(("layer", "site"), [(0, "layers.0.out"), (1, "layers.1.out"), (2, "final")])
@pytest.mark.parametrize("method", FORMS)
def test_directions_and_their_signs_agree(kept: Any, network: op.Model, method: str, layer: int, site: str) -> None:
    about, tensors = kept
    pairs = [Pair(*texts, group="") for texts in json.loads(about["pairs"])]
    edit = ControlVector(site=site, form=FORMS[method]).fit(network, pairs)
    wanted = tensors[f"{method}.{layer}"]
    assert float(wanted.norm()) == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(edit.operator.vector, wanted, atol=1e-5, rtol=0)


def test_the_texts_are_the_ones_that_were_used(kept: Any, network: op.Model) -> None:
    pairs = [Pair(*texts, group="") for texts in json.loads(kept[0]["pairs"])]
    for side, talks in enumerate(ControlVector().conversations(pairs)):
        assert list(network.encode(talks).texts) == [both[side] for both in json.loads(kept[0]["texts"])]


def test_its_file_steers_as_it_does(kept: Any, network: op.Model, tmp_path: Path) -> None:
    about, tensors = kept
    path = tmp_path / "vector.gguf"
    path.write_bytes(bytes(tensors["gguf"].tolist()))
    edit = op.edits.control_vector(path, network)
    # By default it leaves block 0 out.
    assert edit.patterns() == ["layers.1.out", "layers.2.out"]
    for leaf, layer in zip(edit.leaves(), (1, 2), strict=True):
        assert torch.equal(leaf.operator.tensors()["vector"], tensors[f"usual.{layer}"])
        assert leaf.provenance.recipe["model_hint"] == "llama"
    with network.edited(edit * float(about["strength"])):
        logits = network.read([about["prompt"]], "logits")["logits"][0]
    torch.testing.assert_close(logits, tensors["logits"], atol=1e-4, rtol=1e-4)
    plain = network.read([about["prompt"]], "logits")["logits"][0]
    assert float((plain - logits).abs().max()) > 1e-2


def test_what_is_exported_is_what_it_wrote(kept: Any, network: op.Model, tmp_path: Path) -> None:
    (tmp_path / "theirs.gguf").write_bytes(bytes(kept[1]["gguf"].tolist()))
    edit = op.edits.control_vector(tmp_path / "theirs.gguf")
    ours = edit.export(tmp_path / "ours.gguf", network)
    again = op.edits.control_vector(ours)
    assert again.patterns() == edit.patterns()
    for one, other in zip(again.leaves(), edit.leaves(), strict=True):
        assert torch.equal(one.operator.tensors()["vector"], other.operator.tensors()["vector"])
