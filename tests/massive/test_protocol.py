from __future__ import annotations

import math
from statistics import median_low
from typing import Any

import numpy as np
import pytest
import torch
from planted import CHANNEL, HUGE, TEXTS

import optrode as op
from optrode.batches import Batch
from optrode.errors import BadInput, NotFinite, UnknownSite
from optrode.massive import protocol
from optrode.massive.protocol import MassiveMethod, Survey, nll_by_text, selected, survey
from optrode.stats import find_massive, largest_and_median


def literal(h: torch.Tensor, mask: torch.Tensor, absolute: float, relative: float) -> list[tuple]:
    """The definition of section 2.1 as loops over python numbers, all examples sharing one median."""
    sizes = [
        abs(value)
        for row, used in zip(h.tolist(), mask.tolist(), strict=True)
        for token, real in zip(row, used, strict=True)
        if real
        for value in token
    ]
    median = median_low(sizes)
    found = []
    for example, row in enumerate(h.tolist()):
        for column, token in enumerate(row):
            for channel, value in enumerate(token):
                if mask[example, column] and abs(value) > absolute and abs(value) >= relative * median:
                    found.append((example, column, channel, value, median))
    return sorted(found, key=lambda item: -abs(item[3]))


@pytest.mark.parametrize("seed", range(4))
def test_detection_is_the_loop(seed: int):
    generator = torch.Generator().manual_seed(seed)
    h = torch.randn(3, 7, 5, generator=generator) * 0.1
    mask = torch.rand(3, 7, generator=generator) < 0.7
    for _ in range(6):
        place = [int(torch.randint(size, (1,), generator=generator)) for size in h.shape]
        h[tuple(place)] = float(torch.randn(1, generator=generator)) * 300
    h[0, 0, 0], mask[0, 0] = 30.0, True
    found = find_massive(h, mask)
    assert found == literal(h, mask, 100, 1000) and found
    assert find_massive(h, mask, absolute=20, relative=10) == literal(h, mask, 20, 10)
    assert len(literal(h, mask, 20, 10)) > len(found)


def test_the_two_signs_of_the_definition():
    mask = torch.ones(1, 1, dtype=torch.bool)
    small = torch.tensor([[[0.01, 0.01, 0.01, 100.0, 100.5]]])
    assert [item[2] for item in find_massive(small, mask)] == [4]
    large = torch.tensor([[[1.0, 1.0, 1.0, 999.0, 1000.0]]])
    assert [item[2] for item in find_massive(large, mask)] == [4]


def test_padding_is_never_massive():
    h = torch.full((1, 2, 3), 0.01)
    h[0, 0, 1], h[0, 1, 2] = 5e4, -400.0
    assert find_massive(h, torch.tensor([[False, True]]))[0][:3] == (0, 1, 2)
    assert len(find_massive(h, torch.tensor([[False, True]]))) == 1


def test_largest_and_median_are_of_each_example():
    h, mask = torch.randn(3, 6, 4), torch.tensor([[1, 1, 1, 1, 1, 1], [0, 0, 1, 1, 1, 1], [0, 0, 0, 0, 0, 1]]).bool()
    largest, median = largest_and_median(h, mask)
    for example in range(3):
        sizes = [abs(value) for token in h[example][mask[example]].tolist() for value in token]
        assert largest[example].tolist() == pytest.approx(sorted(sizes)[::-1][:3])
        assert float(median[example]) == pytest.approx(median_low(sizes))


def blocks_output(model: op.Model, batch: Batch, forward: Any) -> list[torch.Tensor]:
    """What each block returns, by plain hooks."""
    seen: list[torch.Tensor] = []

    def keep(_: Any, __: Any, output: Any) -> None:
        seen.append(output[0] if isinstance(output, tuple) else output)

    handles = [block.register_forward_hook(keep) for block in model.module.transformer.h]
    forward(model, batch)
    for handle in handles:
        handle.remove()
    return seen


@pytest.mark.parametrize("at_once", [1, 60, 10_000])
def test_a_survey_is_each_text_alone(at_once: int, planted: op.Model, forward, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(protocol, "TOKENS_AT_ONCE", at_once)
    batch = planted.encode(TEXTS, template="raw")
    assert not bool(batch.mask.all()), "the texts must be padded"
    found = survey(planted, batch)
    wanted = []
    for example in range(len(TEXTS)):
        alone = batch.pick([example])
        for layer, h in enumerate(blocks_output(planted, alone, forward)):
            wanted += [(layer, example, *item[1:3]) for item in literal(h, alone.mask, 100, 1000)]
            sizes = h.abs().flatten().sort(descending=True).values
            assert torch.allclose(found.largest[layer, example], sizes[:3], rtol=1e-4)
            assert float(found.median[layer, example]) == pytest.approx(median_low(sizes.tolist()), rel=1e-3)
            assert float(found.norm[layer, example]) == pytest.approx(float(h[0].norm(dim=-1).median()), rel=1e-3)
    assert [(m.layer, m.example, m.position, m.channel) for m in found.found] == sorted(wanted)
    assert {(m.layer, m.position, m.channel) for m in found.found} == {(layer, 0, CHANNEL) for layer in range(3)}
    assert all(m.token == TEXTS[m.example][0] for m in found.found)


def test_some_layers_only(planted: op.Model):
    batch = planted.encode(TEXTS, template="raw")
    whole, part = survey(planted, batch), survey(planted, batch, [2, -1])
    assert part.layers == (2, 3)
    assert torch.allclose(part.largest, whole.largest[2:]) and torch.allclose(part.median, whole.median[2:])
    assert [item.layer for item in part.found] == [2] * len(TEXTS)
    with pytest.raises(UnknownSite, match="layers 0 to 3"):
        survey(planted, batch, [4])


def test_entries_are_counted_and_averaged(planted: op.Model, forward):
    method = MassiveMethod(positions=("first:1", "index:0,1"), share=0.5)
    batch = method.encode(planted, TEXTS)
    surveyed = method.survey(planted, batch)
    first, both = method.entries(planted, batch, surveyed)
    assert (first.layer, first.channel, first.positions, first.share) == (0, CHANNEL, "first:1", 1.0)
    # Half of the tokens that `index:0,1` selects have it, which is just enough; their mean takes in the other half.
    assert (both.layer, both.channel, both.positions, both.share) == (0, CHANNEL, "index:0,1", 0.5)
    h = blocks_output(planted, batch, forward)[0][..., CHANNEL].double()
    ordinal = batch.mask.long().cumsum(-1) * batch.mask
    for entry, chosen in ((first, ordinal == 1), (both, (ordinal == 1) | (ordinal == 2))):
        values = h[chosen].numpy()
        assert entry.mean == pytest.approx(values.mean(), rel=1e-5)
        assert entry.deviation == pytest.approx(values.std(), rel=1e-3, abs=1e-3)
    assert first.mean == pytest.approx(HUGE, rel=0.05)
    strict = MassiveMethod(positions=("index:0,1",), share=0.51)
    assert strict.entries(planted, batch, surveyed) == []


def test_the_first_layer_that_has_entries_is_taken(planted: op.Model):
    method = MassiveMethod()
    batch = method.encode(planted, TEXTS)
    later = method.survey(planted, batch, [1, 2, 3])
    assert [entry.layer for entry in method.entries(planted, batch, later)] == [1]
    nothing = Survey((0,), torch.zeros(1, 2, 3), torch.zeros(1, 2), torch.zeros(1, 2), ())
    assert method.entries(planted, batch, nothing) == []


def test_selected_counts_in_the_row_itself(planted: op.Model):
    batch = planted.encode(["qq", "zzzzz"], template="raw")
    assert selected(batch, "first:1") == {(0, 0), (1, 0)}
    assert selected(batch, "last_prompt") == {(0, 1), (1, 4)}
    with pytest.raises(BadInput, match="selected nothing"):
        selected(batch, "index:9")


def test_nll_by_text(gpt2: op.Model, prompts: list[str], forward):
    batch = gpt2.encode(prompts, template="raw")
    found = nll_by_text(gpt2, batch)
    assert found.dtype == np.float64
    for row in range(len(prompts)):
        alone = batch.pick([row])
        logits = forward(gpt2, alone).logits[0].double()
        terms = [
            math.log(float(logits[place - 1].exp().sum())) - float(logits[place - 1, alone.ids[0, place]])
            for place in range(1, alone.width)
        ]
        assert found[row] == pytest.approx(sum(terms) / len(terms), rel=1e-4)
    with pytest.raises(BadInput, match="text 1 has no token"):
        nll_by_text(gpt2, gpt2.encode(["The cat", "a"], template="raw"))


def test_overflow_is_said(make_model):
    model = make_model("gpt2")
    with torch.no_grad():
        model.module.transformer.h[1].mlp.c_proj.bias[3] = torch.inf
    with pytest.raises(NotFinite, match=r"layers\.1\.out .* float32"):
        survey(model, model.encode(["The cat"], template="raw"))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"share": 0.0}, "share 0"),
        ({"share": 1.5}, "share 1.5"),
        ({"positions": ()}, "no kind of position"),
        ({"positions": ("frist:1",)}, "not known"),
        ({"absolute": -1.0}, "thresholds"),
    ],
)
def test_settings_are_checked(settings: dict, said: str):
    with pytest.raises(BadInput, match=said):
        MassiveMethod(**settings)


def test_one_kind_of_position_may_be_a_text():
    assert MassiveMethod(positions="first:2").positions == ("first:2",)  # type: ignore[arg-type]
