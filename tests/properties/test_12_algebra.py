"""Property 12, for edits: the algebra against a slow second implementation.

The twin runs one prompt at a time without padding, in float64, through plain hooks of torch, and computes every new
activation position by position in plain python. It knows nothing of sums, chains, masks or strengths of the library.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

import optrode as op
from optrode import edits

WIDTH = 32
CLOSE = {"atol": 1e-9, "rtol": 1e-9}
Row = list[float]


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


V, W, Q = random(WIDTH, seed=1), random(WIDTH, seed=2), random(WIDTH, seed=3)
UNIT = (Q / Q.norm()).tolist()


@dataclass(frozen=True)
class Case:
    """An operator twice: as the library makes it, and as a function of one vector of python numbers."""

    make: Callable[[str, str], op.Edit]
    plain: Callable[[Row], Row]


CASES = {
    "add": Case(lambda s, p: edits.add(s, V, p), lambda h: [x + v for x, v in zip(h, V.tolist(), strict=True)]),
    "scale": Case(lambda s, p: edits.scale(s, 1.7, p), lambda h: [x * float(torch.tensor(1.7)) for x in h]),
    "affine": Case(
        lambda s, p: edits.affine(s, V, W, p),
        lambda h: [v * x + w for x, v, w in zip(h, V.tolist(), W.tolist(), strict=True)],
    ),
    "clamp": Case(lambda s, p: edits.clamp(s, -0.5, 0.5, p), lambda h: [min(max(x, -0.5), 0.5) for x in h]),
    "replace": Case(lambda s, p: edits.replace(s, W, p), lambda h: W.tolist()),
    "project": Case(
        lambda s, p: edits.project_out(s, Q, p),
        lambda h: [x - sum(a * b for a, b in zip(h, UNIT, strict=True)) * u for x, u in zip(h, UNIT, strict=True)],
    ),
    "function": Case(lambda s, p: edits.function(s, torch.square, p), lambda h: [x * x for x in h]),
}
SITES = ["layers.0.out", "layers.1.in", "layers.1.attn.out", "layers.1.mlp.out", "layers.2.out"]
PATHS = {"out": "", "in": "", "attn.out": "self_attn", "mlp.out": "mlp"}
ROLES = ["all", "user", "last_prompt", "template"]
cases, sites, roles = st.sampled_from(list(CASES)), st.sampled_from(SITES), st.sampled_from(ROLES)
strengths = st.sampled_from([-2.0, -1.0, 0.3, 1.0, 2.5])
slow = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def double(make_model) -> op.Model:
    return make_model("llama", torch.float64)


def library(model: op.Model, prompts: list[str], edit: op.Edit | None) -> list[Tensor]:
    """Logits of every prompt from one padded batch, padding cut off."""
    batch = model.encode(prompts)
    with ExitStack() as stack:
        if edit is not None:
            stack.enter_context(model.edited(edit))
        logits = model.read(batch, "logits")["logits"]
    return [logits[row][batch.mask[row]] for row in range(len(batch))]


def chosen(model: op.Model, text: str, prompt: str, positions: str) -> list[bool]:
    """Which tokens of one rendered prompt a role means, by cutting its text in three."""
    before = "<|im_start|>user\n"
    sizes = [len(model.tokenizer(part)["input_ids"]) for part in (before, prompt, text[len(before + prompt) :])]
    roles = ["template"] * sizes[0] + ["user"] * sizes[1] + ["template"] * sizes[2]
    last = len(roles) - 1
    return [positions in ("all", role) or (positions == "last_prompt" and n == last) for n, role in enumerate(roles)]


def twin(
    model: op.Model, prompts: list[str], change: Callable[[str, Row, dict[str, bool]], Row], at: set[str]
) -> list[Tensor]:
    """Logits with `change(site, vector, {positions: whether this token is of them})` at every token of some sites."""
    found = []
    for prompt in prompts:
        text = f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"
        ids = torch.tensor([model.tokenizer(text)["input_ids"]])
        flags = {positions: chosen(model, text, prompt, positions) for positions in ROLES}
        handles = []
        for site in at:
            _, layer, name = site.split(".", 2)
            module = model.module.model.layers[int(layer)].get_submodule(PATHS[name])

            def new(h: Tensor, site: str = site, flags: dict = flags) -> Tensor:
                rows = [
                    change(site, vector, {positions: flags[positions][n] for positions in ROLES})
                    for n, vector in enumerate(h[0].tolist())
                ]
                return torch.tensor([rows], dtype=torch.float64)

            def after(_, args, output, new=new):
                return (new(output[0]), *output[1:]) if isinstance(output, tuple) else new(output)

            def before(_, args, new=new):
                return (new(args[0]), *args[1:])

            handles.append(
                module.register_forward_pre_hook(before) if name == "in" else module.register_forward_hook(after)
            )
        with torch.no_grad():
            found.append(model.module(input_ids=ids, use_cache=False).logits[0])
        for handle in handles:
            handle.remove()
    return found


def scaled(h: Row, new: Row, strength: float) -> Row:
    return [x + strength * (y - x) for x, y in zip(h, new, strict=True)]


def same(first: list[Tensor], second: list[Tensor]) -> bool:
    return all(torch.allclose(a, b, **CLOSE) for a, b in zip(first, second, strict=True))


@slow
@given(name=cases, site=sites, positions=roles, strength=strengths)
def test_a_strength_interpolates_linearly(name, site, positions, strength, double, prompts):
    def change(_: str, h: Row, of: dict[str, bool]) -> Row:
        return scaled(h, CASES[name].plain(h), strength) if of[positions] else h

    got = library(double, prompts, CASES[name].make(site, positions) * strength)
    assert same(got, twin(double, prompts, change, {site}))


@slow
@given(
    first=cases,
    second=cases,
    places=st.tuples(sites, sites),
    at=st.tuples(roles, roles),
    s=st.tuples(strengths, strengths),
)
def test_a_sum_takes_both_changes_from_the_same_activation(first, second, places, at, s, double, prompts):
    parts = [(CASES[first], places[0], at[0], s[0]), (CASES[second], places[1], at[1], s[1])]

    def change(site: str, h: Row, of: dict[str, bool]) -> Row:
        new = h
        for case, own, positions, strength in parts:
            if site == own and of[positions]:
                moved = scaled(h, case.plain(h), strength)
                new = [x + m - y for x, m, y in zip(new, moved, h, strict=True)]
        return new

    one, two = (case.make(site, positions) * strength for case, site, positions, strength in parts)
    wanted = twin(double, prompts, change, set(places))
    assert same(library(double, prompts, one + two), wanted)
    assert same(library(double, prompts, two + one), wanted), "in either order"


@slow
@given(first=cases, second=cases, site=sites, at=st.tuples(roles, roles), s=st.tuples(strengths, strengths, strengths))
def test_a_chain_goes_one_after_the_other(first, second, site, at, s, double, prompts):
    def change(_: str, h: Row, of: dict[str, bool]) -> Row:
        new = h
        for name, positions, strength in zip((first, second), at, s, strict=False):
            if of[positions]:
                new = scaled(new, CASES[name].plain(new), strength)
        return scaled(h, new, s[2])

    one, two = (
        CASES[name].make(site, positions) * strength
        for name, positions, strength in zip((first, second), at, s, strict=False)
    )
    assert same(library(double, prompts, (one >> two) * s[2]), twin(double, prompts, change, {site}))


@slow
@given(first=cases, second=cases, site=sites, positions=roles)
def test_strength_zero_is_the_host_bit_for_bit(first, second, site, positions, double, prompts):
    base = library(double, prompts, None)
    one, two = CASES[first].make(site, positions), CASES[second].make(site, positions)
    for nothing in (one * 0, (one + two) * 0, (one >> two) * 0, one * 0 + two * 0):
        assert all(torch.equal(a, b) for a, b in zip(library(double, prompts, nothing), base, strict=True))


@slow
@given(name=cases, site=sites, positions=roles, strength=strengths)
def test_taken_from_itself_and_sign_flips(name, site, positions, strength, double, prompts):
    edit, base = CASES[name].make(site, positions), library(double, prompts, None)
    assert same(library(double, prompts, edit - edit), base)
    assert same(library(double, prompts, edit * strength + edit * -strength), base)
    assert same(library(double, prompts, -edit), library(double, prompts, edit * -1))
    assert same(library(double, prompts, edit + edit), library(double, prompts, edit * 2))
    batch = double.encode(prompts)
    h = double.read(batch, site)[site]
    with double.edited(edit):
        plus = double.read(batch, site)[site] - h
    with double.edited(-edit):
        minus = double.read(batch, site)[site] - h
    assert torch.allclose(plus[batch.mask], -minus[batch.mask], **CLOSE), "the change itself turns around"


@slow
@given(first=cases, second=cases, site=sites, positions=roles, strength=strengths)
def test_a_saved_edit_gives_the_same_numbers(
    first, second, site, positions, strength, double, prompts, tmp_path_factory
):
    names = [name for name in (first, second) if name != "function"] or ["add"]
    parts = [CASES[name].make(site, positions) for name in names]
    edit = (parts[0] >> parts[-1]) * strength + parts[0] * 0.5
    loaded = op.load_edit(edit.save(tmp_path_factory.mktemp("edits") / "one.edit"))
    assert all(
        torch.equal(a, b) for a, b in zip(library(double, prompts, loaded), library(double, prompts, edit), strict=True)
    )


@slow
@given(
    features=st.lists(st.integers(0, 7), min_size=1, max_size=4, unique=True),
    heads=st.lists(st.integers(0, 3), min_size=1, max_size=4, unique=True),
    strength=strengths,
    narrow=st.sampled_from(["heads", "features", "both"]),
)
def test_narrowing_to_heads_and_features(features, heads, strength, narrow, double, prompts):
    site = "layers.1.attn.heads"
    plain = double.read(prompts, site)
    options = {"heads": tuple(heads), "features": tuple(features)}
    used = options if narrow == "both" else {narrow: options[narrow]}
    with double.edited(edits.affine(site, 2.0, -0.5, **used) * strength):
        got = double.read(prompts, site)[site]
    for row, token in plain.batch.mask.nonzero().tolist():
        for head in range(4):
            for feature in range(8):
                h = float(plain[site][row, token, head, feature])
                touched = (narrow == "features" or head in heads) and (narrow == "heads" or feature in features)
                wanted = h + strength * (2 * h - 0.5 - h) if touched else h
                assert float(got[row, token, head, feature]) == pytest.approx(wanted, rel=1e-12, abs=1e-12)


def test_a_vector_per_head_and_one_for_some_heads(double: op.Model, prompts: list[str]):
    site, per_head = "layers.1.attn.heads", random(4, 8, seed=4)
    plain = double.read(prompts, site)
    mask = plain.batch.mask
    for edit, wanted in (
        (edits.add(site, per_head), plain[site] + per_head),
        (
            edits.add(site, per_head[:2], heads=(3, 0)),
            plain[site] + torch.stack([per_head[1], 0 * V[:8], 0 * V[:8], per_head[0]]),
        ),
    ):
        with double.edited(edit):
            assert torch.allclose(double.read(prompts, site)[site][mask], wanted[mask], **CLOSE)


def test_the_twin_can_fail(double: op.Model, prompts: list[str]):
    base = library(double, prompts, None)
    assert same(base, twin(double, prompts, lambda site, h, of: h, set()))
    for name, case in CASES.items():
        for positions in ROLES:
            other = library(double, prompts, case.make("layers.1.out", positions))
            assert not same(other, base), (name, positions)
