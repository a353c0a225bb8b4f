"""Reading contrast pairs: which token, in which order, in which units, and what is refused."""

from __future__ import annotations

import pytest
import torch

from optrode.errors import BadInput, NotFinite
from optrode.parts.contrast import Contrast, median_norms, read_contrast
from optrode.parts.pairs import conversation
from optrode.stats import token_mask

SITES = ["layers.0.out", "layers.2.out"]
POSITIVE = [conversation(f"How was the {name}?", f"It was fine, the {name}") for name in ("cat", "dog", "tower")]
NEGATIVE = [conversation(f"How was the {name}?", f"Bad{'.' * n}") for n, name in enumerate(("cat", "dog", "tower"))]


def test_rows_are_those_of_the_last_token_pair_by_pair(model):
    contrast = read_contrast(model, POSITIVE, NEGATIVE, SITES, groups=["a", "b", "a"])
    for site in SITES:
        for side, talks in zip(contrast.at(site), (POSITIVE, NEGATIVE), strict=True):
            assert side.dtype == torch.float32 and side.shape == (3, 32)
            for row, talk in zip(side, talks, strict=True):
                # One at a time, so that neither padding nor the order of forwards can mix rows.
                alone = model.read([talk], site)[site][0, -1]
                torch.testing.assert_close(row, alone, atol=1e-4, rtol=1e-4)
    assert contrast.groups == ("a", "b", "a")


def test_the_norm_is_the_median_over_tokens_that_count(model):
    found = median_norms(model, POSITIVE, SITES)
    acts = model.read(POSITIVE, SITES)
    mask = token_mask(acts)
    for site in SITES:
        norms = sorted(float(acts[site][row, column].norm()) for row, column in mask.nonzero().tolist())
        # torch takes the lower of two middle values.
        assert found[site] == pytest.approx(norms[(len(norms) - 1) // 2], rel=1e-5)


def test_without_groups_each_pair_is_its_own(llama):
    assert read_contrast(llama, POSITIVE, NEGATIVE, "layers.0.out").groups == ("0", "1", "2")


def test_shuffling_swaps_whole_pairs_at_all_sites_alike():
    high = {site: torch.arange(40.0)[:, None] + offset for offset, site in enumerate(SITES)}
    low = {site: -value - 1 for site, value in high.items()}
    contrast = Contrast(high, low, {}, tuple(map(str, range(40))))
    swapped = []
    for site in SITES:
        one, other = contrast.shuffled(3).at(site)
        swapped.append((one < 0).flatten())
        assert torch.equal(torch.where(swapped[-1][:, None], other, one), high[site])
        assert torch.equal(torch.where(swapped[-1][:, None], one, other), low[site])
    assert torch.equal(*swapped) and 10 < int(swapped[0].sum()) < 30
    assert torch.equal(contrast.shuffled(3).positive[SITES[0]], contrast.shuffled(3).positive[SITES[0]])
    assert not torch.equal(contrast.shuffled(3).positive[SITES[0]], contrast.shuffled(4).positive[SITES[0]])


def test_an_empty_side_and_unequal_sides_are_refused(llama):
    with pytest.raises(BadInput, match="the positive class is empty"):
        read_contrast(llama, [], NEGATIVE, SITES)
    with pytest.raises(BadInput, match="the negative class is empty"):
        read_contrast(llama, POSITIVE, [], SITES)
    with pytest.raises(BadInput, match="3 positive and 2 negative"):
        read_contrast(llama, POSITIVE, NEGATIVE[:2], SITES)


def test_positions_that_give_several_tokens_are_refused(llama):
    with pytest.raises(BadInput, match="choose one each"):
        read_contrast(llama, POSITIVE, NEGATIVE, SITES, positions="user")


def test_activations_that_are_no_numbers_are_refused(make_model):
    model = make_model("llama")
    with torch.no_grad():
        model.module.model.layers[1].mlp.down_proj.weight[0, 0] = torch.inf
    read_contrast(model, POSITIVE, NEGATIVE, "layers.0.out")
    with pytest.raises(NotFinite, match=r"layers\.2\.out"):
        read_contrast(model, POSITIVE, NEGATIVE, SITES)
