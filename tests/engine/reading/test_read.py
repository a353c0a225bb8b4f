from __future__ import annotations

import pytest
import torch
from torch import nn

import optrode as op
from optrode import edits
from optrode.errors import BadInput, NotSupported, UnknownSite

# Site -> path in the block and side, for each network, written down without looking at the layouts.
LLAMA = {
    "in": ("", "in"), "attn.in": ("input_layernorm", "out"), "attn.v": ("self_attn.v_proj", "out"),
    "attn.heads": ("self_attn.o_proj", "in"), "attn.out": ("self_attn", "out"),
    "mid": ("post_attention_layernorm", "in"), "mlp.gate": ("mlp.gate_proj", "out"),
    "mlp.hidden": ("mlp.down_proj", "in"), "mlp.out": ("mlp", "out"), "out": ("", "out"),
}  # fmt: skip
GPT2 = {
    "in": ("", "in"), "attn.in": ("ln_1", "out"), "attn.heads": ("attn.c_proj", "in"), "attn.out": ("attn", "out"),
    "mid": ("ln_2", "in"), "mlp.up": ("mlp.c_fc", "out"), "mlp.hidden": ("mlp.c_proj", "in"), "out": ("", "out"),
}  # fmt: skip
BY_HAND = {"llama": LLAMA, "qwen3": LLAMA, "gpt2": GPT2}


def recorded(model: op.Model, batch, modules: dict[str, tuple[nn.Module, str]], forward) -> dict[str, torch.Tensor]:
    """What plain hooks of torch see at these modules."""
    seen, handles = {}, []
    for name, (module, side) in modules.items():
        if side == "out":
            note = lambda _, __, out, name=name: seen.update({name: out[0] if isinstance(out, tuple) else out})  # noqa: E731
            handles.append(module.register_forward_hook(note))
        else:
            note = lambda _, args, name=name: seen.update({name: args[0]})  # noqa: E731
            handles.append(module.register_forward_pre_hook(note))
    seen["logits"] = forward(model, batch).logits
    for handle in handles:
        handle.remove()
    return {name: value.clone() for name, value in seen.items()}


@pytest.mark.parametrize("name", BY_HAND)
def test_what_is_read_is_what_plain_hooks_see(name: str, prompts, block, forward, request: pytest.FixtureRequest):
    model = request.getfixturevalue(name)
    batch = model.encode(prompts)
    modules = {
        f"layers.{layer}.{site}": (block(model, layer).get_submodule(path), side)
        for layer in range(3)
        for site, (path, side) in BY_HAND[name].items()
    }
    seen = recorded(model, batch, modules, forward)
    acts = model.read(batch, list(seen))
    assert list(acts) == [address for address in model.sites if address in seen], "in order of execution"
    for site, value in acts.items():
        if site.endswith("attn.heads"):
            assert value.shape[-2:] == (4, 8)
        assert torch.equal(value.flatten(2), seen[site].flatten(2)), site
    # All at once or one at a time, whole or with an early stop: the same bits.
    for site in list(acts)[::4]:
        assert torch.equal(model.read(batch, site)[site], acts[site])


def test_a_single_prompt_a_list_and_a_batch(llama: op.Model):
    one = llama.read("The cat", "layers.1.out")["layers.1.out"]
    assert one.shape[0] == 1
    assert torch.equal(one, llama.read(["The cat"], "layers.1.out")["layers.1.out"])
    assert torch.equal(one, llama.read(llama.encode("The cat"), "layers.1.out")["layers.1.out"])
    talk = [{"role": "user", "content": "The cat"}]
    assert torch.equal(one, llama.read(talk, "layers.1.out")["layers.1.out"])
    assert torch.equal(one, op.read(llama, talk, "layers.1.out")["layers.1.out"])
    raw = llama.read("The cat", "layers.1.out", template="raw")
    assert raw.batch.width < one.shape[1]


def test_tensors_and_dictionaries(llama: op.Model):
    batch = llama.encode("The cat sat")
    wanted = llama.read(batch, ["layers.1.out", "logits"])
    for inputs in (batch.ids, {"input_ids": batch.ids}, {"input_ids": batch.ids, "attention_mask": batch.mask.long()}):
        acts = llama.read(inputs, ["layers.1.out", "logits"])
        for site in wanted:
            assert torch.equal(acts[site], wanted[site])
    with pytest.raises(NotSupported, match="roles"):
        llama.read(batch.ids, "layers.1.out", positions="user")
    with pytest.raises(BadInput):
        llama.read(3, "layers.1.out")


def test_kept_where_and_how_it_was_asked(llama: op.Model, make_model):
    acts = llama.read("The cat", "layers.*.out", dtype=torch.float16, device="cpu")
    assert {value.dtype for value in acts.values()} == {torch.float16}
    half = make_model("llama", torch.bfloat16)
    assert half.read("The cat", "layers.1.out")["layers.1.out"].dtype == torch.bfloat16
    assert half.read("The cat", "layers.1.out", dtype=torch.float32)["layers.1.out"].dtype == torch.float32


def test_the_graph_is_kept_on_request_only(llama: op.Model):
    with torch.no_grad():
        acts = llama.read(["The cat", "dog"], ["layers.0.out", "layers.2.out"], grad=True)
    target = acts["layers.2.out"][0, -1, 3]
    grads = acts.gradients(target)
    assert grads["layers.2.out"].count_nonzero() == 1 and grads["layers.0.out"][0].abs().sum() > 0
    assert grads["layers.0.out"][1].abs().sum() == 0, "another row cannot matter"
    # The directional derivative, measured by moving the stream itself.
    step, direction = 1e-3, torch.randn(32, generator=torch.Generator().manual_seed(0))
    ends = []
    for sign in (1, -1):
        with llama.edited(edits.add("layers.0.out", sign * step * direction, "last_prompt")):
            ends.append(llama.read(["The cat", "dog"], "layers.2.out")["layers.2.out"][0, -1, 3])
    measured = float(ends[0] - ends[1]) / (2 * step)
    assert measured == pytest.approx(float(grads["layers.0.out"][0, -1] @ direction), rel=2e-2)
    assert all(parameter.grad is None for parameter in llama.module.parameters())


def test_networks_without_layout_are_read_by_module_path():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Sequential(nn.Linear(3, 2)))
    model = op.load(net)
    x = torch.randn(5, 4)
    acts = model.read(x, ["module:0", "module:2.0:in", "module:2.0"])
    with torch.no_grad():
        assert torch.equal(acts["module:0"], net[0](x)) and torch.equal(acts["module:2.0:in"], net[:2](x))
        assert torch.equal(acts["module:2.0"], net(x))
    assert acts.axes["module:0"] == ("example", "axis1")
    assert list(model.read(x, ["module:0", "module:*"])) == ["module:0", "module:1", "module:2", "module:2.0"]
    with model.edited(edits.zero_ablate("module:1")):
        assert torch.equal(model.read(x, "module:2")["module:2"], net[2](torch.zeros(5, 3)).detach())
    with pytest.raises(UnknownSite, match=r"did you mean module:"):
        model.read(x, "layers.0.out")
    with pytest.raises(UnknownSite, match=r"no module '7'.*did you mean"):
        model.read(x, "module:7")
    with pytest.raises(UnknownSite, match=":in"):
        model.read(x, "module:0:out")
    with pytest.raises(UnknownSite, match="there are none"):
        op.load(nn.Linear(4, 3)).read(x, "layers.0.out")


def test_raw_sites_inside_a_network_with_layout(llama: op.Model):
    acts = llama.read("The cat", ["module:model.layers.1", "layers.1.out", "module:model.layers.1.mlp:in"])
    assert torch.equal(acts["module:model.layers.1"], acts["layers.1.out"])
    assert acts.layers_run == 2
    mlp_in = llama.read("The cat", "layers.1.mlp.in")["layers.1.mlp.in"]
    assert torch.equal(acts["module:model.layers.1.mlp:in"], mlp_in)
    head = llama.read("The cat", "module:lm_head")["module:lm_head"]
    assert torch.equal(head, llama.read("The cat", "logits")["logits"])


def test_a_module_that_runs_twice_or_never_is_refused():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.unused = nn.Linear(2, 2), nn.ReLU(), nn.ReLU()

        def forward(self, x):
            return self.b(self.a(self.b(x)))

    model = op.load(Twice())
    with pytest.raises(NotSupported, match="module:b ran 2 times"):
        model.read(torch.ones(1, 2), "module:b")
    with pytest.raises(NotSupported, match="module:unused did not run"):
        model.read(torch.ones(1, 2), "module:unused")
    assert model.read(torch.ones(1, 2), "module:a")["module:a"].shape == (1, 2), "and nothing is left behind"


def test_logits_are_computed_only_where_they_are_wanted(llama: op.Model, prompts: list[str]):
    sizes = []
    handle = llama.module.lm_head.register_forward_pre_hook(lambda _, args: sizes.append(args[0].shape[1]))
    try:
        full = llama.read(prompts, "logits")
        for positions, columns in (("last_prompt", 1), ("index:-1,-2", 2)):
            at = llama.read(prompts, "logits", positions=positions)
            assert sizes[-1] == columns < sizes[0]
            picked = full["logits"][at.places[:, 0], at.places[:, 1]]
            assert torch.allclose(at["logits"], picked, atol=1e-5)
    finally:
        handle.remove()


def test_unknown_sites_name_near_ones(model: op.Model):
    with pytest.raises(UnknownSite, match=r"did you mean layers.1.mlp.out"):
        model.read("a", "layers.1.mpl.out")
    with pytest.raises(UnknownSite, match="layers 0 to 2"):
        model.read("a", "layers.7.out")
    with pytest.raises(BadInput, match="did you mean last_prompt"):
        model.read("a", "layers.1.out", positions="last_promt")


def test_a_read_inside_an_edit_sees_it_from_its_site_on(llama: op.Model):
    plain = llama.read("The cat", "layers.*.out")
    vector = torch.ones(32)
    with llama.edited(edits.add("layers.1.out", vector)):
        inside = llama.read("The cat", "layers.*.out")
    assert torch.equal(inside["layers.0.out"], plain["layers.0.out"])
    assert torch.equal(inside["layers.1.out"], plain["layers.1.out"] + 1)
    assert not torch.allclose(inside["layers.2.out"], plain["layers.2.out"])
