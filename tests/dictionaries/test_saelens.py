"""Folders of SAELens: what the package itself makes of them is kept; see tools/oracles."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import optrode as op
from optrode.dictionaries import Gate, Jump, Relu, TopK, load_saelens
from optrode.errors import BadFile, MissingFile, NotSupported, UnknownSite, WrongShape

KINDS = {
    "standard": Relu, "without_bias": Relu, "layer_norm": Relu, "constant_norm": Relu, "topk": TopK, "rescaled": TopK,
    "jumprelu": Jump, "gated": Gate, "heads": Relu,
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_features_and_reconstructions_are_those_of_saelens(kept: Any, saved: Any, kind: str) -> None:
    found = load_saelens(saved(kind))
    rows = kept[1]["rows"]
    given = rows.reshape(len(rows), 2, -1) if kind == "heads" else rows
    wanted, reconstruction = kept[1][f"{kind}.features"], kept[1][f"{kind}.reconstruction"]
    assert isinstance(found.encoding, KINDS[kind]) and 0 < int((wanted > 0).sum()) < wanted.numel()
    torch.testing.assert_close(found.encode(given), wanted, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.decode(wanted, like=given), reconstruction, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.reconstruct(given), reconstruction.reshape(given.shape), atol=1e-5, rtol=1e-5)
    assert found.site == ("layers.1.attn.heads" if kind == "heads" else "layers.1.out")
    assert (found.width, found.size) == (8, 24) and found.about["model_name"] == "tiny"


def test_it_was_made_by_the_release_that_is_named(kept: Any) -> None:
    assert json.loads(kept[0]["versions"])["sae-lens"] == "6.54.12"


def test_half_precision_is_computed_in_float32(saved: Any, kept: Any) -> None:
    found = load_saelens(saved("standard"))
    half = found.encode(kept[1]["rows"].bfloat16())
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, found.encode(kept[1]["rows"].bfloat16().float()))


# Older folders -------------------------------------------------------------------------------------------------------


def test_older_configs_say_the_same_elsewhere(folder: Callable[..., Path]) -> None:
    old = {
        "architecture": None, "hook_name": None, "hook_point": "blocks.2.hook_mlp_out", "activation_fn_str": "topk",
        "activation_fn_kwargs": {"k": 3}, "normalize_activations": False, "apply_b_dec_to_input": False,
    }  # fmt: skip
    path = folder(config=old, scaling_factor=torch.ones(40))
    config = json.loads((path / "cfg.json").read_text())
    del config["architecture"]
    (path / "cfg.json").write_text(json.dumps(config))
    found = load_saelens(path)
    assert found.site == "layers.2.mlp.out" and not found.centred
    assert isinstance(found.encoding, TopK) and found.encoding.k == 3
    features = found.encode(torch.randn(7, 32))
    assert int((features > 0).sum(-1).max()) <= 3


def test_thresholds_may_be_logarithms(folder: Callable[..., Path]) -> None:
    path = folder(config={"architecture": "jumprelu"}, log_threshold=torch.full((40,), -1.0))
    threshold = load_saelens(path).encoding.threshold  # type: ignore[attr-defined]
    torch.testing.assert_close(threshold, torch.full((40,), 0.36787945))


# Sites ---------------------------------------------------------------------------------------------------------------


def test_the_site_is_checked_with_a_model(folder: Callable[..., Path], llama: op.Model) -> None:
    assert load_saelens(folder(), model=llama).site == "layers.1.out"
    # Llama has a gate, which is what the name means there; without a model it stays as it is.
    path = folder(config={"hook_name": "blocks.0.mlp.hook_pre"})
    assert load_saelens(path).site == "blocks.0.mlp.hook_pre"
    assert load_saelens(path, model=llama).site == "layers.0.mlp.gate"
    assert load_saelens(path, site="layers.2.in").site == "layers.2.in"
    with pytest.raises(UnknownSite):
        load_saelens(folder(config={"hook_name": "blocks.9.hook_resid_post"}), model=llama)
    with pytest.raises(UnknownSite, match="hook_scale"):
        load_saelens(folder(config={"hook_name": "blocks.0.ln1.hook_scale"}))
    narrow: dict[str, Tensor] = {"W_enc": torch.ones(8, 40), "W_dec": torch.ones(40, 8), "b_dec": torch.ones(8)}
    with pytest.raises(WrongShape, match="width 8"):
        load_saelens(folder(config={"d_in": 8}, **narrow), model=llama)


# What is refused -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"architecture": "transcoder"}, "'transcoder'"),
        ({"architecture": ["standard"]}, "kind"),
        ({"activation_fn": "tanh-relu"}, "tanh-relu"),
        ({"normalize_activations": "expected_average_only_in"}, "fold it in SAELens"),
        ({"normalize_activations": True}, "fold it in SAELens"),
        ({"normalize_activations": "whitening"}, "whitening"),
        ({"reshape_activations": "hook_q"}, "hook_q"),
        ({"finetuning_scaling_factor": True}, "finetuning_scaling_factor"),
        ({"hook_head_index": 3}, "head 3"),
    ],
)
def test_what_would_compute_something_else_is_refused(folder: Any, config: dict[str, Any], message: str) -> None:
    with pytest.raises(NotSupported, match=message):
        load_saelens(folder(config=config))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"d_in": 2**40}, "d_in"),
        ({"d_sae": True}, "d_sae"),
        ({"d_in": 31}, "its config asks for"),
        ({"architecture": "topk"}, "keeps None features"),
        ({"architecture": "topk", "k": 41}, "keeps 41 features"),
        ({"architecture": "gated"}, "b_gate|b_enc"),
        ({"hook_name": None}, "give site="),
        ({"hook_name": "blocks.0.hook_" + "x" * 1000}, "no name of an activation"),
        ({"hook_name": "blocks.0.hook_\x1b[2J"}, "no name of an activation"),
    ],
)
def test_configs_that_do_not_fit_are_refused(folder: Any, config: dict[str, Any], message: str) -> None:
    with pytest.raises((BadFile, NotSupported), match=message):
        load_saelens(folder(config=config))


def test_damaged_folders_are_refused(folder: Any, tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match=r"cfg\.json"):
        load_saelens(tmp_path)
    for changes, message in (
        ({"b_enc": None}, "no tensor 'b_enc'"),
        ({"extra": torch.ones(2)}, "'extra'"),
        ({"b_enc": torch.ones(41)}, "'b_enc'"),
        ({"b_dec": torch.full((32,), float("nan"))}, "NaN"),
        ({"scaling_factor": torch.full((40,), 2.0)}, "scaling_factor"),
    ):
        with pytest.raises((BadFile, NotSupported), match=message):
            load_saelens(folder(**changes))
    path = folder()
    weights = (path / "sae_weights.safetensors").read_bytes()
    for length in (0, 4, 100, len(weights) - 1):
        (path / "sae_weights.safetensors").write_bytes(weights[:length])
        with pytest.raises(BadFile, match="damaged"):
            load_saelens(path)
    (path / "sae_weights.safetensors").unlink()
    with pytest.raises(MissingFile, match="sae_weights"):
        load_saelens(path)
    for text in ("", "[1]", "[" * 100_000, "{" + " " * 2**20 + "}"):
        (path / "cfg.json").write_text(text)
        with pytest.raises(BadFile, match=r"cfg\.json"):
            load_saelens(path)
