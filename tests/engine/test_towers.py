"""Networks of several towers: addresses that span them, in one forward of the whole or of one tower alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import optrode as op
from optrode import edits
from optrode.errors import BadInput, EditDidNothing, NotSupported, UnknownName, UnknownSite, WrongShape

SIZES = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
IMAGE = {**SIZES, "image_size": 32, "patch_size": 8}
TEXT = {
    **SIZES,
    "vocab_size": 99,
    "max_position_embeddings": 16,
    "bos_token_id": 97,
    "eos_token_id": 98,
    "pad_token_id": 1,
}
VECTOR = torch.randn(32, generator=torch.Generator().manual_seed(2))
TOWERS = [("vision", "vision_model", "pixel_values"), ("text", "text_model", "input_ids")]


def clip() -> Any:
    from transformers import CLIPConfig, CLIPModel

    return CLIPModel(CLIPConfig(text_config=TEXT, vision_config=IMAGE, projection_dim=16))


def siglip() -> Any:
    from transformers import SiglipConfig, SiglipModel

    return SiglipModel(SiglipConfig(text_config=TEXT, vision_config=IMAGE))


@pytest.fixture(params=[clip, siglip], ids=["clip", "siglip"])
def model(request: pytest.FixtureRequest) -> op.Model:
    torch.manual_seed(0)
    network = request.param().eval()
    for parameter in network.parameters():
        # Larger than they come, so that every part of the network matters.
        if parameter.dim() > 1:
            nn.init.normal_(parameter, 0, 0.2)
    return op.load(network)


def inputs() -> dict[str, Tensor]:
    """Texts that end as CLIP's do: it is the last token whose vector is compared."""
    torch.manual_seed(1)
    ids = torch.randint(2, 90, (2, 7))
    ids[:, -1] = TEXT["eos_token_id"]
    return {"input_ids": ids, "pixel_values": torch.randn(2, 3, 32, 32)}


def similarity(model: op.Model) -> Tensor:
    with torch.no_grad():
        return model.module(**inputs()).logits_per_image


@contextmanager
def hooked(module: nn.Module, change: Callable[[Tensor], Tensor]) -> Iterator[list[Tensor]]:
    """A plain torch hook on a block: what it gave, and what is made of it."""
    seen: list[Tensor] = []

    def after(_: nn.Module, __: tuple, output: Any) -> Any:
        h = output[0] if isinstance(output, tuple) else output
        seen.append(h.detach().clone())
        return (change(h), *output[1:]) if isinstance(output, tuple) else change(h)

    handle = module.register_forward_hook(after)
    try:
        yield seen
    finally:
        handle.remove()


# Addresses -----------------------------------------------------------------------------------------------------------


def test_the_whole_has_the_sites_of_both_towers(model: op.Model) -> None:
    assert model.layout is None and model.layers == 0 and not model.unmapped
    assert model.layers_by_tower == {"vision": 3, "text": 3, "": 0}
    for prefix, module, _ in TOWERS:
        tower = model.tower(module)
        assert [site.address for site in model.table.values() if site.tower == prefix] == [
            f"{prefix}.{address}" for address in tower.table
        ]
    assert len(model.sites) == len(model.table) and "vision.layers.2.attn.pattern" in model.sites
    assert model.sites.match("*.layers.-1.out") == ["vision.layers.2.out", "text.layers.2.out"]
    assert model.sites.match("text.layers.1-.mid") == ["text.layers.1.mid", "text.layers.2.mid"]


def test_the_equations_of_both_towers_are_measured(model: op.Model) -> None:
    assert model.measured is not None and len(model.measured.checks) == 12
    assert {check.tower for check in model.measured.checks} == {"vision", "text"}
    assert all(check.holds for check in model.measured.checks)
    for prefix in ("vision", "text"):
        text = model.sites.explain(f"{prefix}.layers.1.mid")
        assert "measured on load" in text and f"written by adding the change to {prefix}.layers.1.attn.out" in text


def test_the_tree_has_a_branch_for_each_tower(model: op.Model) -> None:
    text = str(model.sites)
    assert "vision.layers.0 to vision.layers.2" in text and "text.layers.0 to text.layers.2" in text
    assert "in  example, patch, feature" in text and "in  example, token, feature" in text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("vision.layers.3.out", "vision has layers 0 to 2"),
        ("text.layers.1.attn.pattrn", "did you mean text.layers.1.attn.pattern"),
        ("vison.layers.1.out", "did you mean vision.layers.1.out"),
        ("layers.1.out", "vision.layers.1.out"),
        ("text.pooled_", "did you mean"),
    ],
)
def test_a_misspelt_address_names_the_nearest(model: op.Model, text: str, says: str) -> None:
    with pytest.raises(UnknownSite) as caught:
        model.match(text)
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_module_paths_alone_where_that_was_asked_for(model: op.Model) -> None:
    plain = op.load(model.module, layout=None)
    assert not plain.table and not op.load(model.module, layout=None, measure=False).table
    with pytest.raises(UnknownSite, match="has no layout"):
        plain.match("vision.layers.1.out")


def test_a_layout_that_does_not_hold_leaves_its_tower_unmapped(monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from optrode import host

    right = host.find

    def wrong(module: Any) -> Any:
        found = right(module)
        if found is None or found.name != "clip_vision":
            return found
        ports = {**found.ports, "attn.out": found.ports["mlp.out"], "mlp.out": found.ports["attn.out"]}
        return replace(found, ports=ports)

    monkeypatch.setattr(host, "find", wrong)
    model = op.load(clip().eval())
    assert model.layers_by_tower == {"vision": 0, "text": 3, "": 0}
    with pytest.raises(UnknownSite, match=r"does not describe.*module:vision_model"):
        model.match("vision.layers.1.out")
    assert model.match("text.layers.1.out")


# Reading -------------------------------------------------------------------------------------------------------------


def test_one_forward_of_the_whole_reads_both_towers(model: op.Model) -> None:
    sites = ["vision.embed", "vision.layers.1.out", "text.layers.2.attn.heads", "text.layers.1.out"]
    blocks = [model.tower_hosts[prefix].blocks[1] for prefix in ("vision", "text")]
    with hooked(blocks[0], lambda h: h) as vision, hooked(blocks[1], lambda h: h) as text:
        similarity(model)
        wanted = [vision[0], text[0]]
        vision.clear(), text.clear()
        acts = model.read(inputs(), sites)
        assert len(vision) == len(text) == 1, "one forward"
    assert list(acts) == model.sites.match(sites)
    assert torch.equal(acts["vision.layers.1.out"], wanted[0]) and torch.equal(acts["text.layers.1.out"], wanted[1])
    assert acts.axes["vision.embed"] == ("example", "patch", "feature")
    assert acts.axes["text.layers.2.attn.heads"] == ("example", "token", "head", "feature")
    # SigLIP's towers run in the same order; the last one is left after its last block.
    assert (acts.layers_run, acts.layers_skipped) == (6, 0)
    assert acts.stack("vision.layers.*.out").shape[0] == 1


@pytest.mark.parametrize(("prefix", "module", "given"), TOWERS)
def test_sites_of_one_tower_run_that_tower_alone(model: op.Model, prefix: str, module: str, given: str) -> None:
    """On what it needs, and to the same bits as in the whole."""
    other = model.tower_hosts["text" if prefix == "vision" else "vision"]
    alone = model.read({given: inputs()[given]}, f"{prefix}.layers.*.mlp.hidden")
    with hooked(other.blocks[0], lambda h: h) as seen:
        acts = model.read(inputs(), f"{prefix}.layers.*.mlp.hidden")
    assert not seen
    whole = model.read(inputs(), [f"{prefix}.layers.*.mlp.hidden", "*.layers.0.in"])
    by_tower = model.tower(module).read({given: inputs()[given]}, "layers.*.mlp.hidden")
    for site in acts:
        assert torch.equal(acts[site], whole[site]) and torch.equal(acts[site], alone[site])
        assert torch.equal(acts[site], by_tower[site.removeprefix(f"{prefix}.")])
    early = model.read(inputs(), f"{prefix}.layers.0.out")
    assert (early.layers_run, early.layers_skipped) == (1, 5)


@pytest.mark.parametrize(("prefix", "module", "given"), TOWERS)
def test_every_site_of_a_tower_is_that_of_the_tower(model: op.Model, prefix: str, module: str, given: str) -> None:
    tower = model.tower(module)
    acts = model.read(inputs(), list(model.table))
    wanted = tower.read({given: inputs()[given]}, list(tower.table))
    for address, value in wanted.items():
        assert torch.equal(acts[f"{prefix}.{address}"], value), address
        assert acts.axes[f"{prefix}.{address}"] == wanted.axes[address]


def test_a_tower_without_its_input_is_named(model: op.Model) -> None:
    with pytest.raises(BadInput, match=r"the tower vision of .* needs pixel_values"):
        model.read({"input_ids": inputs()["input_ids"]}, "vision.layers.1.out")
    with pytest.raises(BadInput, match=r"the tower text of .* needs input_ids"):
        model.read({"pixel_values": inputs()["pixel_values"]}, "*.layers.1.out")


def test_prompts_are_read_by_role(tokenizer: Any, prompts: list[str]) -> None:
    """The text tower takes prompts and positions; CLIP is padded on the right, as it was trained."""
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(0)
    text = {**TEXT, "vocab_size": len(tokenizer), "max_position_embeddings": 64, "eos_token_id": 2}
    model = op.load(CLIPModel(CLIPConfig(text_config=text, vision_config=IMAGE)).eval(), tokenizer=tokenizer)
    batch = model.encode(prompts, template="raw")
    assert bool(batch.mask[:, 0].all()) and not bool(batch.mask[:, -1].all())
    acts = model.read(prompts, "text.layers.1.out", positions="last_prompt", template="raw")
    assert acts.axes["text.layers.1.out"] == ("example", "feature")
    for row, prompt in enumerate(prompts):
        one = model.read(prompt, "text.layers.1.out", template="raw")["text.layers.1.out"][0, -1]
        torch.testing.assert_close(acts["text.layers.1.out"][row], one, rtol=1e-4, atol=1e-5)
    with model.edited(edits.add("text.layers.0.out", VECTOR, "last_prompt")) as receipt:
        changed = model.read(prompts, "text.layers.0.out", template="raw")["text.layers.0.out"]
    plain = model.read(prompts, "text.layers.0.out", template="raw")["text.layers.0.out"]
    assert receipt.changed == len(prompts) == int((changed != plain).any(-1).sum())


# Editing -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["vision", "text"])
def test_an_edit_is_the_one_made_by_hand(model: op.Model, prefix: str) -> None:
    plain = similarity(model)
    with model.edited(edits.add(f"{prefix}.layers.1.out", VECTOR)) as receipt:
        edited = similarity(model)
    with hooked(model.tower_hosts[prefix].blocks[1], lambda h: h + VECTOR):
        by_hand = similarity(model)
    assert receipt.sites[f"{prefix}.layers.1.out"].calls == 1 and receipt.forwards == 1
    assert torch.equal(edited, by_hand) and not torch.equal(edited, plain)
    assert torch.equal(similarity(model), plain)


@pytest.mark.parametrize("name", ["mid", "attn.heads", "attn.q_rotated", "attn.scores", "attn.pattern", "mlp.hidden"])
@pytest.mark.parametrize(("prefix", "module", "_given"), TOWERS)
def test_an_edit_through_the_whole_is_the_edit_of_the_tower(
    model: op.Model, prefix: str, module: str, _given: str, name: str
) -> None:
    plain, found = similarity(model), []
    for one, site in ((model, f"{prefix}.layers.1.{name}"), (model.tower(module), f"layers.1.{name}")):
        for edit in (edits.scale(site, torch.tensor(1.5)), edits.scale(site, torch.tensor(1.5)) * 0):
            with one.edited(edit):
                found.append(similarity(model))
    assert torch.equal(found[0], found[2]) and not torch.equal(found[0], plain)
    assert torch.equal(found[1], plain) and torch.equal(found[3], plain), "strength 0 changes no bit"


def test_an_edit_of_both_towers_is_saved_and_baked(model: op.Model, tmp_path: Path) -> None:
    edit = edits.add("vision.layers.1.out", VECTOR) + edits.zero_ablate("text.layers.0.attn.heads", heads=(1,))
    edit.save(tmp_path / "both.edit")
    found = []
    for one in (edit, op.load_edit(tmp_path / "both.edit")):
        with model.edited(one):
            found.append(similarity(model))
    assert torch.equal(found[0], found[1])
    with torch.no_grad():
        baked = edit.bake(model)(**inputs()).logits_per_image
    torch.testing.assert_close(baked, found[0], rtol=1e-5, atol=1e-5)


def test_gradients_reach_both_towers(model: op.Model) -> None:
    sites = ["vision.layers.1.out", "text.layers.1.attn.heads"]
    acts = model.read(inputs(), [*sites, "vision.layers.2.out", "text.layers.2.out"], grad=True)
    objective = acts["vision.layers.2.out"].pow(2).sum() + acts["text.layers.2.out"].pow(2).sum()
    found = acts.gradients(objective)
    for site in sites:
        assert found[site].shape == acts[site].shape and bool(found[site].abs().sum() > 0)


def test_edits_of_the_whole_and_of_a_tower_act_once_each(model: op.Model) -> None:
    """Both are hooks on the same block."""
    tower = model.tower("vision")
    with model.edited(edits.add("vision.layers.1.out", VECTOR)), tower.edited(edits.add("layers.1.out", VECTOR)):
        got = similarity(model)
    with hooked(model.tower_hosts["vision"].blocks[1], lambda h: h + VECTOR + VECTOR):
        assert torch.equal(got, similarity(model))


def test_patches_have_no_positions_and_widths_are_those_of_the_tower(model: op.Model) -> None:
    at_last = edits.add("vision.layers.1.out", VECTOR, "last_prompt")
    with pytest.raises(NotSupported, match="without a token axis"), model.edited(at_last):
        similarity(model)
    narrow = edits.add("vision.layers.1.out", torch.ones(9))
    with pytest.raises(WrongShape, match=r"vision.layers.1.out of .* has 32"), model.edited(narrow):
        similarity(model)


def test_an_edit_of_a_tower_that_does_not_run_says_so(model: op.Model) -> None:
    with pytest.raises(EditDidNothing), model.edited(edits.add("text.layers.1.out", VECTOR)):
        model.read({"pixel_values": inputs()["pixel_values"]}, "vision.layers.1.out")


# One tower as a model ------------------------------------------------------------------------------------------------


def test_the_whole_says_which_towers_it_has(model: op.Model) -> None:
    assert model.towers == ["vision_model", "text_model"]
    assert model.tower("vision").module is model.tower("vision_model").module
    with pytest.raises(UnknownName, match="did you mean vision_model"):
        model.tower("vison_model")


@pytest.mark.parametrize(("prefix", "name", "given"), TOWERS)
def test_a_tower_reads_what_the_whole_computes(model: op.Model, prefix: str, name: str, given: str) -> None:
    tower = model.tower(name)
    assert tower.layers == 3 and tower.measured is not None and not tower.unmapped
    assert tower.module is getattr(model.module, name)
    with hooked(tower.blocks[1], lambda h: h) as seen:
        similarity(model)
    acts = tower.read({given: inputs()[given]}, "layers.1.out")
    assert torch.equal(acts["layers.1.out"], seen[0])


def test_a_network_of_one_stack_has_no_towers(llama: op.Model) -> None:
    assert llama.towers == [] and llama.layers_by_tower == {"": 3}
    assert all(not site.tower for site in llama.table.values())
