"""CAA against the package steering-vectors, whose results on a tiny network are kept; see tools/oracles."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from optrode.data import Pair
from optrode.steering.caa import CAA

FILE = Path(__file__).parent / "oracles" / "steering_vectors.safetensors"


def test_it_was_made_by_the_release_that_the_card_names(kept):
    assert json.loads(kept[0]["versions"])["steering-vectors"] == "0.12.2"


@pytest.mark.parity("caa")
@pytest.mark.parametrize("layer", [0, 1])
def test_vectors_and_steered_logits_agree(kept, network, layer):
    about, tensors = kept
    pairs = [Pair(*texts, group="") for texts in json.loads(about["pairs"])]
    edit = CAA(site=f"layers.{layer}.out").fit(network, pairs)
    wanted = tensors[f"vector.{layer}"]
    assert float((edit.operator.vector - wanted).abs().max()) < 1e-5 * float(wanted.norm())
    with network.edited(edit * float(about["multiplier"])):
        logits = network.read([about["prompt"]], "logits")["logits"][0]
    torch.testing.assert_close(logits, tensors[f"logits.{layer}"], atol=1e-4, rtol=1e-4)
    plain = network.read([about["prompt"]], "logits")["logits"][0]
    assert float((plain - logits).abs().max()) > 1e-2


def test_the_texts_are_the_ones_that_were_used(kept, network):
    pairs = [Pair(*texts, group="") for texts in json.loads(kept[0]["pairs"])]
    for side, talks in enumerate(CAA().conversations(pairs)):
        rendered = [text + ")" for text in network.encode(talks).texts]
        assert rendered == [both[side] for both in json.loads(kept[0]["texts"])]
