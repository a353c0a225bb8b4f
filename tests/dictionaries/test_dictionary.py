"""Dictionaries against a literal twin, one row and one feature at a time, and what their edits do to a network."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import optrode as op
from optrode.dictionaries import Dictionary, Gate, Jump, Relu, TopK
from optrode.errors import BadInput, NotSupported, UnknownSite, WrongShape
from optrode.scores import Score

SITE, WIDTH, SIZE = "layers.1.out", 32, 12


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + 100 * sum(shape)))


def encodings() -> dict[str, Any]:
    return {
        "relu": Relu(random(SIZE)),
        "topk": TopK(random(SIZE), 3),
        "rescaled": TopK(random(SIZE), 3, random(SIZE, WIDTH).norm(dim=-1)),
        "jump": Jump(random(SIZE), random(SIZE, seed=1)),
        "gate": Gate(random(SIZE, seed=1), random(SIZE, seed=2).exp(), random(SIZE, seed=3)),
    }


def dictionary(kind: str = "relu", normalisation: str = "none", centred: bool = True) -> Dictionary:
    return Dictionary(
        SITE, random(WIDTH, SIZE), random(SIZE, WIDTH), random(WIDTH), encodings()[kind], centred, normalisation
    )


def twin(one: Dictionary, row: list[float]) -> tuple[list[float], list[float]]:
    """Features and reconstruction of one activation, in plain numbers."""
    mean, size = 0.0, 1.0
    if one.normalisation == "layer_norm":
        mean = sum(row) / len(row)
        size = math.sqrt(sum((x - mean) ** 2 for x in row) / (len(row) - 1))
        normal = [(x - mean) / (size + 1e-5) for x in row]
    elif one.normalisation == "constant_norm":
        size = math.sqrt(sum(x * x for x in row)) / math.sqrt(len(row))
        normal = [x / size for x in row]
    else:
        normal = list(row)
    bias = one.decoder_bias.tolist()
    given = [x - b for x, b in zip(normal, bias, strict=True)] if one.centred else normal
    columns = one.encoder.T.tolist()
    products = [sum(x * w for x, w in zip(given, column, strict=True)) for column in columns]
    features = by_hand(one.encoding, products)
    norms = one.encoding.norms.tolist() if isinstance(one.encoding, TopK) and one.encoding.norms is not None else None
    sizes = [f / n for f, n in zip(features, norms, strict=True)] if norms else features
    rows = one.decoder.tolist()
    made = [bias[i] + sum(f * row[i] for f, row in zip(sizes, rows, strict=True)) for i in range(len(row))]
    return features, [x * size + mean for x in made]


def by_hand(encoding: Any, products: list[float]) -> list[float]:
    numbers = {name: value.tolist() for name, value in encoding.tensors().items()}
    pre = [p + b for p, b in zip(products, numbers["bias"], strict=True)]
    if isinstance(encoding, Relu):
        return [max(x, 0.0) for x in pre]
    if isinstance(encoding, Jump):
        return [x if x > max(t, 0.0) else 0.0 for x, t in zip(pre, numbers["threshold"], strict=True)]
    if isinstance(encoding, TopK):
        scaled = [x * n for x, n in zip(pre, numbers["norms"], strict=True)] if "norms" in numbers else pre
        best = sorted(range(len(scaled)), key=lambda i: -scaled[i])[: encoding.k]
        return [max(x, 0.0) if i in best else 0.0 for i, x in enumerate(scaled)]
    return [
        max(s * p + b, 0.0) if p + g > 0 else 0.0
        for p, g, s, b in zip(products, numbers["gate"], numbers["scale"], numbers["bias"], strict=True)
    ]


@pytest.mark.parametrize("normalisation", ["none", "layer_norm", "constant_norm"])
@pytest.mark.parametrize("kind", list(encodings()))
def test_it_is_its_formula(kind: str, normalisation: str) -> None:
    one = dictionary(kind, normalisation, centred=kind != "jump")
    rows = random(5, WIDTH, seed=7)
    features, made = (torch.tensor(values) for values in zip(*(twin(one, row) for row in rows.tolist()), strict=True))
    torch.testing.assert_close(one.encode(rows), features, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(one.reconstruct(rows), made, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(one.decode(features, like=rows), made, atol=1e-4, rtol=1e-4)
    assert 0 < int((features > 0).sum()) < features.numel()


def test_it_reads_activations_as_a_score(llama: op.Model, prompts: list[str]) -> None:
    one = dictionary()
    assert isinstance(one, Score) and one.sites == (SITE,)
    acts = llama.read(prompts, list(one.sites))
    assert one(acts).shape == (*acts[SITE].shape[:2], SIZE)
    torch.testing.assert_close(one(acts)[0, 0], one.encode(acts[SITE][0, 0]))
    with pytest.raises(UnknownSite):
        one(llama.read(prompts, "layers.0.out"))
    with pytest.raises(WrongShape, match="width 32"):
        one.encode(torch.ones(2, 31))


def test_a_normalisation_needs_what_was_encoded() -> None:
    one = dictionary(normalisation="layer_norm")
    with pytest.raises(BadInput, match="like="):
        one.decode(torch.ones(SIZE))
    with pytest.raises(BadInput, match="normalisation"):
        dictionary(normalisation="batch_norm")


@pytest.mark.parametrize("normalisation", ["none", "layer_norm"])
def test_set_changes_features_and_leaves_the_rest(llama: op.Model, prompts: list[str], normalisation: str) -> None:
    one = dictionary("relu", normalisation)
    before = llama.read(prompts, SITE)
    with llama.edited(one.set({3: 0.0, 5: 2.5})):
        after = llama.read(prompts, SITE)
    mask = before.batch.mask
    features = one.encode(before[SITE])
    wanted = features.clone()
    wanted[..., 3], wanted[..., 5] = 0.0, 2.5
    change = one.decode(wanted, like=before[SITE]) - one.decode(features, like=before[SITE])
    torch.testing.assert_close(after[SITE][mask], (before[SITE] + change)[mask], atol=1e-4, rtol=1e-4)
    assert float(change[mask].abs().max()) > 0.1
    with llama.edited(one.set({}), op.edits.add(SITE, torch.zeros(WIDTH))):
        torch.testing.assert_close(llama.read(prompts, SITE)[SITE][mask], before[SITE][mask], atol=1e-5, rtol=1e-5)


def test_splice_puts_the_reconstruction_in_place(llama: op.Model, prompts: list[str]) -> None:
    one = dictionary("topk")
    before = llama.read(prompts, SITE)
    with llama.edited(one.splice()):
        after = llama.read(prompts, SITE)
    mask = before.batch.mask
    torch.testing.assert_close(after[SITE][mask], one.reconstruct(before[SITE])[mask], atol=1e-4, rtol=1e-4)


def test_steer_is_an_addition_that_can_be_saved(llama: op.Model, prompts: list[str], tmp_path: Any) -> None:
    one = dictionary("rescaled")
    edit = op.load_edit((one.steer(4) * 2).save(tmp_path / "feature.edit"))
    row = random(WIDTH, seed=9)
    raised = one.encode(row).clone()
    raised[4] += 2
    wanted = one.decode(raised) - one.decode(one.encode(row))
    torch.testing.assert_close(edit.strength * edit.operator.vector, wanted, atol=1e-4, rtol=1e-4)
    with llama.edited(edit) as receipt:
        llama.read(prompts, SITE)
    assert receipt.changed
    with pytest.raises(BadInput, match="0 to 11"):
        one.steer(12)
    with pytest.raises(NotSupported):
        one.set({1: 0.0}).save(tmp_path / "function.edit")


def test_heads_are_flattened_and_come_back(llama: op.Model, prompts: list[str]) -> None:
    site = "layers.1.attn.heads"
    one = Dictionary(site, random(32, SIZE), random(SIZE, 32), random(32), Relu(random(SIZE)), by_head=True)
    before = llama.read(prompts, site)
    assert before[site].shape[-2:] == (4, 8) and one.encode(before).shape[-1] == SIZE
    with llama.edited(one.splice()):
        after = llama.read(prompts, site)
    mask = before.batch.mask
    torch.testing.assert_close(after[site][mask], one.reconstruct(before)[mask], atol=1e-4, rtol=1e-4)
    with pytest.raises(NotSupported, match="heads"):
        one.steer(0)


def test_tensors_that_do_not_fit_are_refused() -> None:
    with pytest.raises(WrongShape, match="encoder"):
        Dictionary(SITE, random(WIDTH, 5), random(SIZE, WIDTH), random(WIDTH), Relu(random(SIZE)))
    with pytest.raises(WrongShape, match="bias of the encoding"):
        Dictionary(SITE, random(WIDTH, SIZE), random(SIZE, WIDTH), random(WIDTH), Relu(random(5)))
