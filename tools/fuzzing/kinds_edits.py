"""Edit files, and folders that PEFT saved."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from .kinds import kind
from .tensors import parts_of, whole
from .trees import Tree

WIDTH = 8


def _use(edit: Any) -> None:
    """What can be asked of an edit without a network."""
    repr(edit.kind), edit.tensors(), repr(edit)
    for leaf in edit.leaves() if hasattr(edit, "leaves") else ():
        str(leaf.positions), leaf.operator.settings()
    edit * 0.5
    if edit.kind == "part":
        str(edit.explain()), str([module for _, module in edit.parts])
    edit + edit


def read_edit(folder: Path) -> None:
    import optrode as op
    from optrode.errors import NotSupported

    edit = op.load_edit(folder / "input.edit")
    try:
        _use(edit)
    except NotSupported:
        # Prefixes have no strength.
        return


def seal_edit(tree: Tree, before: Tree) -> Tree:
    """Recipes hashed again, so that a changed one is read."""
    from optrode.edits.checked import recipe_hash

    def visit(node: Any) -> None:
        if isinstance(node, dict):
            origin = node.get("provenance")
            if isinstance(origin, dict) and isinstance(origin.get("recipe"), dict) and "recipe_hash" in node:
                node["recipe_hash"] = recipe_hash(origin["recipe"]) if origin["recipe"] else None
            for part in node.values():
                visit(part)
        elif isinstance(node, list):
            for part in node:
                visit(part)

    parts = parts_of(tree["input.edit"])  # type: ignore[arg-type]
    described = json.loads(parts.metadata["optrode"])
    visit(described)
    parts.metadata["optrode"] = json.dumps(described)
    return {**tree, "input.edit": whole(parts)}


@kind(share=28, read=read_edit, seal=seal_edit)
def edit(box: Path) -> None:
    """One file of every kind of edit and operator."""
    import torch

    from optrode import edits
    from optrode.edits import PrefixEdit, Provenance

    torch.manual_seed(0)
    v, m, site = torch.randn(WIDTH), torch.randn(2, WIDTH), "layers.1.out"
    known = Provenance(
        fingerprint={"config": "a", "tokenizer": "b", "weights": "c", "name": "tiny"},
        recipe={"method": "caa", "pairs": 12, "layers": [1, 2], "options": {"normalise": True, "rate": 0.1}},
        equations={site: "mid + mlp.out"}, stream_norm={site: 12.5}, start_token="raw: none",
    )  # fmt: skip
    adapter = edits.weights({"model.layers.0.mlp.up_proj": (torch.randn(12, 2), torch.randn(2, 8)), "a": m, "b": v})
    made = {
        "add": edits.add(site, v, "last_prompt", features=(0, 2, -1)),
        "half": edits.add(site, v.bfloat16()),
        "position": edits.add_by_position(site, m, "first:2@user"),
        "project": edits.project_out("layers.*.{in,out}", m, "span:two\nlines é"),
        "affine": edits.affine(site, v, -v) * 0.3,
        "low-rank": edits.low_rank(site, m, -m, torch.tensor([0.5, 2.0]), "generated"),
        "subspace": edits.subspace(site, m, bias=torch.tensor([0.5, 2.0])),
        "gated": edits.gated(site, v, -v, 0.25),
        "heads": edits.replace("layers.1.attn.heads", torch.randn(2, 4), heads=(0, 1)),
        "clamp": edits.clamp(site, low=-1.0),
        "knockout": edits.knockout("layers.1.attn.scores", "user", "last_prompt", heads=(1,)),
        "experts": edits.scale("layers.1.moe.out", 0.5, experts=(0, 3)),
        "stream": replace(edits.add(site, v) * -7, unit="stream", provenance=known),
        "sum": edits.add(site, v) + edits.scale("layers.0.out", v) * 3 + edits.add(site, v, "generated:3-"),
        "chain": ((edits.add(site, v) >> edits.zero_ablate(site)) * 0.5).with_provenance(known),
        "nested": (edits.add(site, v) >> (edits.add(site, -v) + edits.clamp(site, high=2.0))) + edits.add(site, 2 * v),
        "rows": edits.by_row([edits.add(site, v), None, edits.add(site, v) * 2 + edits.zero_ablate("layers.0.out")]),
        "prompt": edits.prompt("Be brief."),
        "turns": PrefixEdit("", (("user", "2+2"), ("assistant", "4")), known),
        "adapter": adapter.with_provenance(known),
        "policy": edits.backtrack(site, v, 0.1, edit=edits.add(site, v)).with_provenance(known),
    }
    made |= _swaps(known)
    for name, one in made.items():
        (box / name).mkdir(parents=True)
        one.save(box / name / "input.edit")


def _swaps(known: Any) -> dict[str, Any]:
    """Functions in the place of modules: of the list, of a formula, mixed by neuron, with an adapter beside them."""
    import torch

    from optrode import edits
    from optrode.edits.part import PartEdit
    from optrode.functions import Mixed, from_formula, get

    own = from_formula("x>=0: x; a*(exp(b*x)-1) where c=2", parameters={"a": 0.5, "b": 1.5}, name="mine")
    modules = {
        "listed": get("golu").module(), "own": own.module(WIDTH, per="channel"), "gate": get("WiG").module(WIDTH),
        "frame": get("TAAF").of("mish").module(), "statistics": get("MIN").module(4),
        "mixed": Mixed({"prelu": [0, 3], "gelu": [1], own: [5, 7]}, WIDTH, per="neuron"),
    }  # fmt: skip
    path = "model.layers.0.mlp.act_fn"
    made: dict[str, Any] = {f"swap-{name}": PartEdit(((path, module),)) for name, module in modules.items()}
    several = PartEdit(tuple((f"{path}.{name}", module) for name, module in modules.items())) * 0.5
    made["swap-several"] = several.with_provenance(known)
    adapter = edits.weights({"model.layers.0.mlp.up_proj": torch.ones(WIDTH)})
    made["together"] = edits.together(several, adapter, edits.prompt("Be brief."))
    return made


def _read_peft(folder: Path) -> None:
    from optrode import edits

    edit = edits.adapter(folder)
    repr(edit.modules), edit.tensors(), edit * 0.5, edit + edit


@kind(share=12, read=_read_peft)
def peft(box: Path) -> None:
    """Folders in the form of PEFT: weights of linear modules, of embeddings, with a bias, with ranks by module."""
    import torch
    from safetensors.torch import save_file

    config = {
        "peft_type": "LORA", "r": 2, "lora_alpha": 4, "lora_dropout": 0.0, "bias": "none", "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "tiny", "target_modules": ["q_proj", "v_proj"], "use_rslora": False,
        "init_lora_weights": True, "fan_in_fan_out": False, "inference_mode": True, "rank_pattern": {},
        "alpha_pattern": {}, "peft_version": "0.17.0", "use_dora": False, "modules_to_save": None, "revision": None,
    }  # fmt: skip
    prefix = "base_model.model.model."
    seeds = {
        "linear": ({}, {f"layers.{n}.self_attn.{name}_proj" for n in range(2) for name in "qv"}),
        "stabilised": (
            {"use_rslora": True, "alpha_pattern": {"layers.0.self_attn.q_proj": 8}}, {"layers.0.self_attn.q_proj"},
        ),
        "bias": ({"lora_bias": True}, {"layers.0.mlp.up_proj"}),
        "embedding": ({}, {"embed_tokens"}),
    }  # fmt: skip
    torch.manual_seed(0)
    for seed, (own, modules) in seeds.items():
        tensors = {}
        for module in sorted(modules):
            embedded = module == "embed_tokens"
            ends = ("lora_embedding_A", "lora_embedding_B") if embedded else ("lora_A.weight", "lora_B.weight")
            tensors[f"{prefix}{module}.{ends[0]}"] = torch.randn(2, WIDTH)
            tensors[f"{prefix}{module}.{ends[1]}"] = torch.randn(WIDTH, 2)
            if seed == "bias":
                tensors[f"{prefix}{module}.lora_B.bias"] = torch.randn(WIDTH)
        folder = box / seed
        folder.mkdir(parents=True)
        (folder / "adapter_config.json").write_text(json.dumps(config | own))
        save_file(tensors, folder / "adapter_model.safetensors")
