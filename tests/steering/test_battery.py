"""What every steering method owes, for every method and variant that is found: a new file is under test at once."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import optrode as op
from optrode.edits import ConditionalEdit
from optrode.errors import BadInput, NotFinite, UnknownSite
from optrode.parts.discovery import find_method, methods_of
from optrode.steering.fitting import FULL
from optrode.steering.protocol import DirectionMethod, SteeringMethod

FOLDER = Path(op.steering.__file__).parent
FOUND = {
    found.id: find_method("optrode.steering", found.id)
    for found in methods_of("optrode.steering", str(FOLDER)).values()
}
VARIANTS = {
    f"{name}{number or ''}": variant for name, kind in FOUND.items() for number, variant in enumerate(kind.variants())
}
OF_SITES = {name: method for name, method in VARIANTS.items() if hasattr(method, "site")}
IN_STREAM_UNITS = {name: method for name, method in OF_SITES.items() if method.strength_unit == "stream"}
IN_OWN_UNITS = {name: method for name, method in OF_SITES.items() if method.strength_unit == "operator"}
PROMPTS = ["How was the sea?", "Where does the Eiffel Tower stand, and what is the weather there?"]


def at(method: SteeringMethod, layer: int = 1) -> Any:
    """The method at a site of a small model."""
    return replace(method, site=method.layer_site.format(layer=layer)) if hasattr(method, "site") else method


def logits(model: op.Model, edit: op.Edit) -> torch.Tensor:
    with model.edited(edit):
        return model.read(PROMPTS, "logits")["logits"]


@pytest.fixture(params=VARIANTS.values(), ids=VARIANTS)
def method(request: pytest.FixtureRequest) -> SteeringMethod:
    return request.param


@pytest.fixture(params=OF_SITES.values(), ids=OF_SITES)
def site_method(request: pytest.FixtureRequest) -> SteeringMethod:
    return request.param


@pytest.fixture(params=IN_STREAM_UNITS.values(), ids=IN_STREAM_UNITS)
def stream_method(request: pytest.FixtureRequest) -> SteeringMethod:
    return request.param


@pytest.fixture(params=IN_OWN_UNITS.values(), ids=IN_OWN_UNITS)
def own_method(request: pytest.FixtureRequest) -> SteeringMethod:
    return request.param


def unconditional(edit: op.Edit) -> Any:
    """What an edit does where its condition, if it has one, is met."""
    return edit.edit if isinstance(edit, ConditionalEdit) else edit


def test_the_methods_of_the_family_are_found():
    assert {"actadd", "caa", "control-vector", "probe-direction", "prompting", "random-direction"} <= set(FOUND)
    assert {kind.__name__ for kind in FOUND.values()} == set(dir(op.steering))


def test_settings_are_stored_unchanged_and_frozen(method):
    kind = type(method)
    for field in dataclasses.fields(method):
        # CAA alone looks at a setting before it is used.
        value: Any = "replies" if (method.id, field.name) == ("caa", "form") else object()
        assert getattr(kind(**{field.name: value}), field.name) is value
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(method, field.name, value)
    assert kind() == kind() and hash(kind()) == hash(kind())


def test_it_says_what_it_is(method):
    assert method.id and method.title and method.label and type(method).__doc__
    assert method.role in ("method", "baseline", "control")
    assert method.role != "method" or method.paper or method.id == "probe-direction"
    assert "{layer}" in method.layer_site and method.strength_scale > 0


def test_the_recipe_is_plain(method):
    recipe = method.recipe()
    assert json.loads(json.dumps(recipe)) == recipe and recipe["method"] == method.id
    assert set(recipe) == {"method", *(field.name for field in dataclasses.fields(method))}


def hooks(module: torch.nn.Module) -> list[Any]:
    return [
        (name, list(part._forward_hooks.values()), list(part._forward_pre_hooks.values()), "forward" in part.__dict__)
        for name, part in module.named_modules()
    ]


def test_fitting_changes_no_weight_and_leaves_no_hook(make_model, small, method):
    model = make_model("llama")
    weights = {name: value.clone() for name, value in model.module.state_dict().items()}
    config, before, text = model.config.to_dict(), hooks(model.module), model.read(PROMPTS, "logits")["logits"]
    at(method).fit(model, small)
    if isinstance(method, DirectionMethod) or hasattr(method, "site"):
        method.fit_layers(model, small, [0, 1])
    assert hooks(model.module) == before and model.config.to_dict() == config
    assert all(torch.equal(value, weights[name]) for name, value in model.module.state_dict().items())
    assert not model.module.training and all(p.grad is None for p in model.module.parameters())
    assert torch.equal(model.read(PROMPTS, "logits")["logits"], text)


def test_fitting_twice_gives_the_same_bits(model, small, method):
    once, again = (logits(model, at(method).fit(model, small)) for _ in range(2))
    assert torch.equal(once, again)


def test_the_global_random_state_is_neither_used_nor_moved(llama, small, method):
    torch.manual_seed(1)
    state = torch.get_rng_state()
    once = logits(llama, at(method).fit(llama, small))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(logits(llama, at(method).fit(llama, small)), once)


def test_a_saved_edit_gives_the_same_logits(model, small, method, tmp_path):
    edit = at(method).fit(model, small)
    back = op.load_edit(edit.save(tmp_path / "a.edit"))
    assert torch.equal(logits(model, back), logits(model, edit))
    assert not torch.equal(logits(model, edit), model.read(PROMPTS, "logits")["logits"])


def test_the_edit_knows_where_it_comes_from(llama, small, site_method):
    edit = at(site_method).fit(llama, small)
    for leaf in edit.leaves():
        known = leaf.provenance
        assert known.fingerprint["weights"] == llama.fingerprint["weights"]
        assert known.recipe["method"] == site_method.id and known.equations[leaf.site]
        assert known.stream_norm[leaf.site] > 0 and known.start_token


@pytest.mark.parametrize("strength", [0.05, 0.5, -2.0])
def test_fit_layers_changes_the_stream_by_the_stated_share_of_its_norm(model, small, stream_method, strength):
    for layer, found in stream_method.fit_layers(model, small, [0, 2]).items():
        site, edit = stream_method.layer_site.format(layer=layer), unconditional(found)
        norm = edit.provenance.stream_norm[site]
        batch = model.encode(PROMPTS)
        base = model.read(batch, site)[site]
        with model.edited(edit * strength):
            change = (model.read(batch, site)[site] - base).norm(dim=-1)
        assert edit.unit == "stream"
        # A vector per position has its longest row at that length.
        assert float(change[batch.mask].max()) == pytest.approx(abs(strength) * norm, rel=1e-3)
        chosen = edit.positions.in_prompt(batch)
        assert not bool(change[~chosen].any()) and bool((change[chosen] > 0).all())


@pytest.mark.parametrize("strength", [0.25, 0.5, 1.0])
def test_fit_layers_goes_the_stated_share_of_the_whole_change(model, small, own_method, strength):
    """Where the method itself says how far each token goes, a strength is a share of that; the largest tried is 1."""
    assert own_method.strength_scale * max(FULL.strengths) == 1
    batch = model.encode(PROMPTS)
    for sign in (1, -1):
        for layer, found in own_method.facing(sign).fit_layers(model, small, [0, 2]).items():
            site, edit = own_method.layer_site.format(layer=layer), unconditional(found)
            base, changes = model.read(batch, site)[site], []
            for share in (1.0, strength):
                with model.edited(edit * share):
                    changes.append(model.read(batch, site)[site] - base)
            assert all(leaf.unit == "operator" for leaf in edit.leaves()) and float(changes[0].abs().max()) > 0
            torch.testing.assert_close(changes[1], strength * changes[0], atol=2e-5, rtol=1e-4)


def test_facing_away_turns_what_strength_does_not(llama, small, own_method):
    """The change towards and that away are not along each other at the tokens that both touch."""
    batch, site = llama.encode(PROMPTS), own_method.layer_site.format(layer=1)
    base, changes = llama.read(batch, site)[site], []
    for sign in (1, -1):
        with llama.edited(unconditional(own_method.facing(sign).fit_layers(llama, small, [1])[1])):
            changes.append((llama.read(batch, site)[site] - base)[batch.mask])
    assert not torch.allclose(*changes)
    both = (changes[0].norm(dim=-1) > 0) & (changes[1].norm(dim=-1) > 0)
    if bool(both.any()):
        assert float(torch.cosine_similarity(changes[0][both], changes[1][both], dim=-1).mean()) < 0.5


def test_the_norm_of_the_stream_is_that_of_ordinary_tokens(model, small, site_method):
    """Median over tokens that are no template, padding or sink; each method may take it over its own texts."""
    for layer, edit in site_method.fit_layers(model, small, [2]).items():
        site, edit = site_method.layer_site.format(layer=layer), edit.leaves()[0]
        acts = model.read(PROMPTS, site)
        norms = acts[site].norm(dim=-1)[acts.batch.mask & ~acts.batch.special]
        assert 0.5 < edit.provenance.stream_norm[site] / float(norms.median()) < 2


def test_a_wrong_site_is_one_line_with_near_names(llama, small, site_method):
    with pytest.raises(UnknownSite) as caught:
        replace(site_method, site="layers.1.uot").fit(llama, small)
    assert "\n" not in str(caught.value) and "layers.1.out" in str(caught.value)
    with pytest.raises(UnknownSite, match="it has layers 0 to 2"):
        replace(site_method, site="layers.9.out").fit(llama, small)


@pytest.mark.parametrize("data", [(), None, "sentiment", 7, [("prompt", "one reply")], [("a", "b", 3)]])
def test_data_that_is_none_is_refused_in_one_line(llama, method, data):
    with pytest.raises(BadInput) as caught:
        at(method).fit(llama, data)
    assert "\n" not in str(caught.value)


def test_activations_that_are_no_numbers_are_refused(make_model, small, site_method):
    model = make_model("llama")
    with torch.no_grad():
        model.module.model.layers[0].mlp.down_proj.weight[0, 0] = torch.nan
    with pytest.raises(NotFinite) as caught:
        at(site_method, 1).fit(model, small)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["actadd", "caa1", "probe-direction"])
def test_two_equal_sides_are_refused_in_stream_units(llama, small, name):
    same = tuple(replace(pair, negative=pair.positive) for pair in small.fit)
    with pytest.raises(BadInput, match="the fitted vector is zero") as caught:
        VARIANTS[name].fit_layers(llama, replace(small, fit=same, words=("Sure", "Sure")), [1])
    assert "\n" not in str(caught.value)
