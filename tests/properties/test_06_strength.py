"""Property 6: strength in units of the stream, with a dose curve and the damage beside the effect."""

from __future__ import annotations

import pytest
import torch

import optrode as op
from optrode import edits
from optrode.errors import BadInput, NotSupported
from optrode.parts.strength import dose_curve, in_stream_units
from optrode.stats import stream_norms, token_mask

PAIRS = [("How was the cat?", "Sure, the cat sat.", "You are a dog."), ("Where?", "Paris is here.", "The door lay by.")]


@pytest.mark.parametrize("layer", [0, 2])
@pytest.mark.parametrize("strength", [0.1, 0.5, -0.5])
def test_a_strength_is_the_share_of_the_median_norm_that_is_added(llama: op.Model, layer: int, strength: float) -> None:
    edit = op.steering.CAA(form="replies").fit_layers(llama, _behaviour(), [layer])[layer]
    site = f"layers.{layer}.out"
    norm = edit.leaves()[0].provenance.stream_norm[site]
    before = llama.read("The cat sat on the mat", site)[site]
    with llama.edited(edit * strength):
        after = llama.read("The cat sat on the mat", site)[site]
    changed = (after - before).norm(dim=-1)
    added = changed[changed > 0]
    assert len(added) > 0
    torch.testing.assert_close(added, torch.full_like(added, abs(strength) * norm), rtol=1e-4, atol=0)


def test_the_norm_is_the_median_over_tokens_that_count(llama: op.Model) -> None:
    site = "layers.1.out"
    edit = op.steering.CAA(form="replies").fit_layers(llama, _behaviour(), [1])[1]
    talks = [
        [{"role": "user", "content": q}, {"role": "assistant", "content": a}]
        for q, good, bad in PAIRS
        for a in (good, bad)
    ]
    acts = llama.read(talks, site)
    by_hand = acts[site].norm(dim=-1)[token_mask(acts)].median()
    assert edit.leaves()[0].provenance.stream_norm[site] == pytest.approx(float(by_hand), rel=1e-5)
    assert stream_norms(acts[site], token_mask(acts))["median"] == pytest.approx(float(by_hand), rel=1e-6)


def test_every_method_of_a_layer_has_the_same_length(llama: op.Model) -> None:
    methods = [op.steering.CAA(form="replies"), op.steering.ControlVector(), op.steering.ProbeDirection()]
    lengths = [m.fit_layers(llama, _behaviour(), [1])[1].leaves()[0].operator.vector.norm() for m in methods]
    torch.testing.assert_close(torch.stack(lengths), lengths[0].expand(3), rtol=1e-5, atol=0)


def test_what_has_no_length_is_refused() -> None:
    with pytest.raises(NotSupported, match="no length"):
        in_stream_units(edits.scale("layers.0.out", 2.0), 1.0)
    with pytest.raises(BadInput, match="zero"):
        in_stream_units(edits.add("layers.0.out", torch.zeros(4)), 1.0)


def test_a_dose_curve_has_effect_and_damage_at_each_strength() -> None:
    edit = edits.add("layers.0.out", torch.ones(4))

    def effect(given: object) -> torch.Tensor:
        return torch.tensor([given.strength if given is not None else 1.0])  # type: ignore[attr-defined]

    curve = dose_curve(edit, [0.5, 2.0], effect, lambda given: effect(given) ** 2)
    assert [dose.strength for dose in curve] == [0.5, 2.0]
    assert [float(dose.effect) for dose in curve] == [-0.5, 1.0]
    assert [float(dose.damage) for dose in curve] == [-0.75, 3.0]


def _behaviour() -> object:
    from dataclasses import replace

    from optrode.data import Pair

    return replace(op.data.behaviour("sentiment"), fit=tuple(Pair(*pair, group=str(n)) for n, pair in enumerate(PAIRS)))
