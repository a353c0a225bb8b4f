from __future__ import annotations

import numpy as np
import pytest
import torch

import optrode as op
from optrode.activations import Activations
from optrode.errors import BadInput, NotSupported, UnknownSite

TEXTS = ["The cat sat on the mat and", "dog", "Answer in one", "The weather will be like tomorrow; the dog lay", "a b"]


@pytest.fixture(scope="module")
def acts(llama: op.Model) -> Activations:
    return llama.read(TEXTS, ["layers.{0,1}.out", "layers.1.attn.heads"])


def test_a_mapping_in_order_of_execution_with_named_axes(acts: Activations):
    assert list(acts) == ["layers.0.out", "layers.1.attn.heads", "layers.1.out"] and len(acts) == 3
    assert acts.axes["layers.0.out"] == ("example", "token", "feature")
    assert acts.axes["layers.1.attn.heads"] == ("example", "token", "head", "feature")
    assert acts["layers.1.attn.heads"].shape == (5, acts.batch.width, 4, 8)
    assert acts.nbytes == sum(value.numel() * 4 for value in acts.values())
    with pytest.raises(UnknownSite, match=r"did you mean layers.1.out"):
        acts["layers.2.out"]


def test_stack(acts: Activations):
    stacked = acts.stack("layers.*.out")
    assert stacked.shape == (2, *acts["layers.0.out"].shape)
    assert torch.equal(stacked[1], acts["layers.1.out"])
    with pytest.raises(BadInput, match="different shapes"):
        acts.stack("layers.1.{attn.heads,out}")
    with pytest.raises(UnknownSite):
        acts.stack("layers.*.mlp.out")


def test_rows_are_the_tokens_in_reading_order(acts: Activations):
    rows = acts.rows("layers.0.out")
    literal = [acts["layers.0.out"][e, t] for e in range(5) for t in range(acts.batch.width) if acts.batch.mask[e, t]]
    assert torch.equal(rows, torch.stack(literal))
    last = torch.zeros_like(acts.batch.mask)
    last[:, -1] = True
    assert torch.equal(acts.rows("layers.0.out", last), acts["layers.0.out"][:, -1])
    assert acts.rows("layers.1.attn.heads").shape == (len(rows), 32)
    assert torch.equal(acts.rows("layers.1.attn.heads", last), acts["layers.1.attn.heads"][:, -1].reshape(5, 32))


def test_numpy_keeps_numbers_and_widens_bfloat16(llama: op.Model, acts: Activations):
    for site, array in acts.numpy().items():
        assert array.dtype == np.float32 and np.array_equal(array, acts[site].numpy())
    half = llama.read("The cat", "layers.0.out", dtype=torch.bfloat16)
    assert half["layers.0.out"].dtype == torch.bfloat16 and half.numpy()["layers.0.out"].dtype == np.float32
    kept = llama.read("The cat", "layers.0.out", grad=True).numpy()
    assert isinstance(kept["layers.0.out"], np.ndarray), "a graph is no obstacle"


def test_pandas_has_a_row_per_token_with_its_text(llama: op.Model, acts: Activations):
    frame = acts.to_pandas("layers.1.out")
    assert frame.index.names == ["example", "token"] and frame.shape == (int(acts.batch.mask.sum()), 33)
    for example in range(len(TEXTS)):
        assert "".join(frame.loc[example, "text"]) == acts.batch.texts[example]
    (example, token), row = next(frame.iloc[20:].iterrows())
    assert np.array_equal(row[1:].to_numpy(np.float32), acts["layers.1.out"][example, token].numpy())
    at = llama.read(TEXTS, "layers.1.out", positions="after_instruction")
    frame = at.to_pandas("layers.1.out")
    assert len(frame) == len(at["layers.1.out"])
    assert "".join(frame.loc[3, "text"]) == "<|im_start|>assistant\n"
    assert np.array_equal(frame.loc[3].iloc[-1, 1:].to_numpy(np.float32), acts["layers.1.out"][3, -1].numpy())


def test_xarray_shares_examples_and_tokens(llama: op.Model, acts: Activations):
    dataset = acts.to_xarray()
    assert set(dataset.sizes) == {
        "example", "token", "layers.0.out.feature", "layers.1.out.feature", "layers.1.attn.heads.head",
        "layers.1.attn.heads.feature",
    }  # fmt: skip
    assert np.array_equal(dataset["layers.0.out"].values, acts["layers.0.out"].numpy())
    assert np.array_equal(dataset["token_id"].values, acts.batch.ids.numpy())
    assert np.array_equal(dataset["mask"].values, acts.batch.mask.numpy())
    last = llama.read(TEXTS, "layers.0.out", positions="last_prompt").to_xarray()
    assert last["layers.0.out"].dims == ("example", "layers.0.out.feature")


def test_tokens_are_the_texts_of_the_ids(acts: Activations):
    for row, text in zip(acts.tokens, acts.batch.texts, strict=True):
        assert "".join(row).replace("<|pad|>", "") == text


@pytest.mark.parametrize("tokens_per_forward", [1, 20, 60])
@pytest.mark.parametrize("positions", [None, "last_prompt", "user", "content", "index:0,-1", "first:2"])
def test_many_forwards_sorted_by_length_come_back_in_order(llama: op.Model, positions, tokens_per_forward: int):
    sites = ["layers.0.in", "layers.1.attn.heads", "layers.2.out", "logits"]
    together = llama.read(TEXTS, sites, positions=positions, tokens_per_forward=tokens_per_forward)
    for site in sites:
        alone = [llama.read(text, site, positions=positions).rows(site) for text in TEXTS]
        assert torch.allclose(together.rows(site), torch.cat(alone), atol=2e-5, rtol=1e-5), site
    if positions is None:
        return
    assert together.places[:, 0].tolist() == sorted(together.places[:, 0].tolist())
    assert together.axes["layers.2.out"][0] == ("example" if positions == "last_prompt" else "position")
    whole = llama.read(TEXTS, "layers.2.out")["layers.2.out"]
    picked = whole[together.places[:, 0], together.places[:, 1]]
    assert torch.allclose(together["layers.2.out"], picked, atol=2e-5, rtol=1e-5)


def test_an_example_without_any_position_is_absent_not_shifted(llama: op.Model):
    conversations = [
        "The cat",
        [{"role": "user", "content": "a"}, {"role": "assistant", "content": "Sure, here"}],
        "dog",
    ]
    for tokens in (1, 2048):
        acts = llama.read(conversations, "layers.1.out", positions="assistant", tokens_per_forward=tokens)
        assert set(acts.places[:, 0].tolist()) == {1} and len(acts["layers.1.out"]) == len(acts.places) > 1


def test_gradients_have_the_axes_of_what_was_read(llama: op.Model):
    for positions in (None, "last_prompt", "user"):
        acts = llama.read(TEXTS, ["layers.0.out", "layers.1.attn.heads", "logits"], positions=positions, grad=True)
        grads = acts.gradients(acts["logits"].square().sum())
        for site in acts:
            assert grads[site].shape == acts[site].shape and grads.axes[site] == acts.axes[site]
        assert torch.allclose(grads["logits"], 2 * acts["logits"]), "the gradient of a square"
        assert bool(grads["layers.0.out"].abs().sum() > 0)
    with pytest.raises(NotSupported, match="grad=True"):
        llama.read("a", "layers.0.out").gradients(torch.zeros(()))


def test_nothing_read_is_a_view_of_the_network(llama: op.Model):
    acts = llama.read(TEXTS, ["layers.0.out", "layers.1.in"])
    assert acts["layers.0.out"].data_ptr() != acts["layers.1.in"].data_ptr()
    assert not acts["layers.0.out"].requires_grad
    assert acts["layers.0.out"].untyped_storage().nbytes() == acts["layers.0.out"].nbytes
    at = llama.read(TEXTS, "layers.0.out", positions="last_prompt")["layers.0.out"]
    assert at.untyped_storage().nbytes() == at.nbytes, "a few positions do not keep the whole alive"


def test_the_picture_is_short(acts: Activations):
    text = repr(acts)
    assert repr(Activations({"embed": torch.ones(1, 2)}, {"embed": ("example", "feature")})).startswith(
        "Activations of 1 site, "
    )
    assert text.startswith("Activations of 3 sites") and "[example 5, token" in text and "head 4" in text


def test_the_layers_of_each_tower_are_stacked_by_themselves() -> None:
    sites = ["vision.layers.0.out", "vision.layers.1.out", "layers.0.out", "layers.4.out"]
    acts = Activations(
        {site: torch.full((1, 2, 3), float(number)) for number, site in enumerate(sites)},
        dict.fromkeys(sites, ("example", "token", "feature")),
    )
    assert acts.stack("vision.layers.*.out")[:, 0, 0, 0].tolist() == [0, 1]
    assert acts.stack("vision.layers.-1.out")[:, 0, 0, 0].tolist() == [1]
    assert acts.stack("layers.-1.out")[:, 0, 0, 0].tolist() == [3]
