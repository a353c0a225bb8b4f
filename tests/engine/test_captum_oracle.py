"""Activations, gradients and ablations against captum, whose results on a tiny network are kept; see tools/oracles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import optrode as op

FILE = Path(__file__).parent / "oracles" / "captum.safetensors"
SITES = [f"layers.{layer}.{name}" for layer in range(3) for name in ("mlp.out", "out")]


@pytest.fixture(scope="module")
def network(network: op.Model) -> op.Model:
    """Without a chat template: captum was given the prompt as it stands."""
    assert network.tokenizer is not None
    network.tokenizer.chat_template = None
    return network


def test_activations_are_the_same_bits(kept: Any, network: op.Model) -> None:
    acts = network.read([kept[0]["prompt"]], SITES)
    assert torch.equal(acts.batch.ids, kept[1]["ids"])
    for site in SITES:
        assert torch.equal(acts[site][0], kept[1][f"activation.{site}"]), site


def test_gradients_agree(kept: Any, network: op.Model) -> None:
    about, tensors = kept
    acts = network.read([about["prompt"]], [*SITES, "logits"], grad=True)
    gradients = acts.gradients(acts["logits"][0, -1, int(about["target"])])
    for site in SITES:
        wanted = tensors[f"gradient.{site}"]
        torch.testing.assert_close(gradients[site][0], wanted, atol=1e-5, rtol=1e-4)
        product = (gradients[site] * acts[site].detach())[0]
        torch.testing.assert_close(product, tensors[f"product.{site}"], atol=1e-5, rtol=1e-4)
        assert float(wanted.abs().max()) > 1e-3, site


@pytest.mark.parametrize("name", ["mlp.out", "out"])
def test_a_sweep_of_zeros_is_their_ablation(kept: Any, network: op.Model, name: str) -> None:
    about, tensors = kept
    metric = op.metrics.Logit(int(about["target"]))
    found = op.sweep(network, about["prompt"], "zero", f"layers.*.{name}", metric=metric, each="position")
    for layer in range(3):
        # Theirs is what is lost.
        wanted = tensors["logit"] - tensors[f"ablation.layers.{layer}.{name}"]
        values = torch.as_tensor(found.values[layer]).float().flatten()
        torch.testing.assert_close(values, wanted, atol=1e-4, rtol=1e-4)
