"""The trait edit against its card, done by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import optrode as op
from optrode.data import Categorised
from optrode.data.traits import trait_prompts, trait_questions, traits
from optrode.edits import project_out
from optrode.errors import BadInput, UnknownName
from optrode.steering.personality import Personality

SITE, LAYER = "layers.1.out", 1
PROMPTS = ["How was the sea?", "Where does the Eiffel Tower stand, and what is the weather there?"]


def data(count: int = 4) -> Categorised:
    asked = trait_prompts("cheerful")
    return Categorised(target=asked.target[:count], others={}, neutral=asked.neutral[: count - 1])


def rows_by_hand(plain: Any, prompts: Any) -> np.ndarray:
    rows = []
    for system, user in prompts:
        text = f"<|im_start|>system\n{system['content']}<|im_end|>\n<|im_start|>user\n{user['content']}<|im_end|>\n"
        rows.append(plain.stream(plain.ids(text + "<|im_start|>assistant\n"), LAYER)[-1].double().numpy())
    return np.stack(rows)


def by_hand(plain: Any, given: Categorised) -> tuple[np.ndarray, float, float]:
    shown, neutral = rows_by_hand(plain, given.target), rows_by_hand(plain, given.neutral)
    r = shown.mean(0) - neutral.mean(0)
    u = r / np.sqrt((r**2).sum())
    return u, float(np.mean([row @ u for row in shown])), float(np.mean([row @ u for row in neutral]))


@pytest.mark.parity("personality")
@pytest.mark.parametrize("form", ["set", "affine"])
@pytest.mark.parametrize("alpha", [0.0, 1.3, -2.0])
def test_the_coordinate_is_set_and_the_rest_stays(model, twin, form, alpha):
    u, m, m0 = by_hand(twin(model), data())
    edit = Personality(site=SITE, form=form, alpha=alpha, positions="all").fit(model, data())
    batch = model.encode(PROMPTS)
    before = model.read(batch, SITE)[SITE]
    with model.edited(edit):
        after = model.read(batch, SITE)[SITE]
    goal = alpha * m if form == "set" else m0 + alpha * (m - m0)
    size = float(before.norm(dim=-1).max())
    for row in range(len(PROMPTS)):
        for a, b in zip(before[row][batch.mask[row]], after[row][batch.mask[row]], strict=True):
            a, b = a.double().numpy(), b.double().numpy()
            assert b @ u == pytest.approx(goal, abs=1e-5 * size)
            np.testing.assert_allclose(b - (b @ u) * u, a - (a @ u) * u, atol=2e-6 * size)


@pytest.mark.parity("personality")
def test_alpha_zero_is_directional_ablation(model, twin):
    u, _, _ = by_hand(twin(model), data())
    edit = Personality(site=SITE, alpha=0, positions="all").fit(model, data())
    batch = model.encode(PROMPTS)
    logits = []
    for one in (edit, project_out(SITE, torch.tensor(u).float(), "all")):
        with model.edited(one):
            logits.append(model.read(batch, "logits")["logits"][batch.mask])
    torch.testing.assert_close(*logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parity("personality")
def test_setting_the_coordinate_everywhere_equals_changed_weights(llama, twin):
    """The static form: every matrix that writes to the stream without u, and the level given once by the embedding."""
    import copy

    u, m, _ = by_hand(twin(llama), data())
    unit, level = torch.tensor(u).float(), 1.3 * m
    module: Any = copy.deepcopy(llama.module)
    off = torch.eye(32) - unit[:, None] * unit
    with torch.no_grad():
        table = module.model.embed_tokens.weight
        table.copy_(table @ off + level * unit)
        for block in module.model.layers:
            for part in (block.self_attn.o_proj, block.mlp.down_proj):
                part.weight.copy_(off @ part.weight)
    edit = op.edits.subspace("layers.0.in", unit, torch.zeros(1, 32), torch.tensor([level])) + sum_of_sites(unit, level)
    ids = llama.encode(PROMPTS[0]).ids
    with torch.no_grad():
        wanted = module(input_ids=ids).logits
    with llama.edited(edit):
        got = llama.read(PROMPTS[0], "logits")["logits"]
    torch.testing.assert_close(got[0], wanted[0], atol=1e-3, rtol=1e-3)


def sum_of_sites(unit: torch.Tensor, level: float) -> Any:
    """Behind attention and behind each block; taken one after the other."""
    edits = [
        op.edits.subspace(site, unit, torch.zeros(1, 32), torch.tensor([level]))
        for layer in range(3)
        for site in (f"layers.{layer}.mid", f"layers.{layer}.out")
    ]
    found = edits[0]
    for edit in edits[1:]:
        found = found + edit
    return found


def test_half_the_strength_goes_half_of_the_way(llama):
    edit = Personality(site=SITE, positions="all").fit(llama, data())
    batch = llama.encode(PROMPTS)
    base, found = llama.read(batch, SITE)[SITE], []
    for strength in (1.0, 0.5):
        with llama.edited(edit * strength):
            found.append(llama.read(batch, SITE)[SITE] - base)
    torch.testing.assert_close(found[1], found[0] / 2, atol=1e-5, rtol=1e-4)


def test_special_tokens_are_left_alone(llama):
    edit = Personality(site=SITE).fit(llama, data())
    batch = llama.encode(PROMPTS)
    base = llama.read(batch, SITE)[SITE]
    with llama.edited(edit):
        change = (llama.read(batch, SITE)[SITE] - base).norm(dim=-1)
    assert not bool(change[batch.special].any()) and bool((change > 0).any())


def test_the_map_of_traits_is_symmetric_with_ones_on_its_diagonal(llama, twin):
    given = {name: trait_prompts(name) for name in ("cheerful", "gloomy", "shy")}
    found = Personality(site=SITE).space(llama, given)
    units = [by_hand(twin(llama), one)[0] for one in given.values()]
    for row, one in enumerate(units):
        for column, other in enumerate(units):
            assert found.values[row, column] == pytest.approx(float(one @ other), abs=1e-4)
    assert found.labels["trait"] == ["cheerful", "gloomy", "shy"]


def test_traits_share_no_question_between_splits():
    splits = [set(trait_questions(name)) for name in ("fit", "tune", "test")]
    assert len(set().union(*splits)) == sum(map(len, splits)) == 40 and len(traits()) == 8


def test_wrong_data_is_one_line(llama):
    asked = trait_prompts("shy")
    for make, error in (
        (lambda: Personality(site=SITE, form="sett").fit(llama, data()), BadInput),
        (lambda: Personality(site=SITE).fit(llama, Categorised([], {}, asked.neutral)), BadInput),
        (lambda: Personality(site=SITE).fit(llama, Categorised(asked.neutral, {}, asked.neutral)), BadInput),
        (lambda: trait_prompts("shi"), UnknownName),
        (lambda: trait_questions("tset"), UnknownName),
    ):
        with pytest.raises(error) as caught:
            make()
        assert "\n" not in str(caught.value)
