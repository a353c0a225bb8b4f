"""Property 13: huge activations are seen and handled once, by one mask that every mean, probe and collector uses."""

from __future__ import annotations

import ast
from pathlib import Path

import optrode as op
from optrode.stats import SINK_FACTOR, massive_by_layer, token_mask

PACKAGE = Path(op.__file__).parent
TEXTS = [
    "Rain fills the reservoir in winter.",
    "A longer passage about cotton, which is picked as white bolls.",
    "Iron rusts.",
]


def test_smollm2_sinks_are_found_and_left_out(smollm2: op.Model) -> None:
    acts = smollm2.read(TEXTS, "layers.15.out", template="raw")
    assert acts.batch is not None
    keep = token_mask(acts)
    first = acts.batch.mask.int().argmax(-1)
    norms = acts["layers.15.out"].norm(dim=-1)
    for row, column in enumerate(first.tolist()):
        assert norms[row, column] > 100 * norms[keep].median()
        assert not keep[row, column]
    # Nothing but the first tokens is a sink here: all others are kept.
    assert int(keep.sum()) == int(acts.batch.mask.sum()) - len(TEXTS)
    assert norms[keep].max() < SINK_FACTOR * norms[acts.batch.mask].median()


def test_the_mask_leaves_out_padding_and_special_tokens(smollm2: op.Model) -> None:
    acts = smollm2.read(TEXTS, "layers.2.out")
    assert acts.batch is not None
    keep = token_mask(acts)
    assert not bool((keep & ~acts.batch.mask).any())
    assert not bool((keep & acts.batch.special).any())
    assert bool(acts.batch.special.any())


def test_smollm2_massive_activations_are_reported(smollm2: op.Model) -> None:
    acts = smollm2.read(TEXTS, "layers.*.out", template="raw")
    found = massive_by_layer(acts, per_layer=1)
    layers = {item.layer for item in found}
    assert set(range(13, 28)) <= layers
    assert all(item.position == 0 and abs(item.value) > 1e4 for item in found if 13 <= item.layer <= 27)
    assert len({item.channel for item in found if 13 <= item.layer <= 27}) == 1


def test_norms_and_sinks_are_computed_in_one_place() -> None:
    """No second copy: whoever needs the mask imports it; the rule's number stands in one file."""
    users = {"parts/contrast.py": "token_mask", "massive/massive_activations.py": "stats"}
    for path, name in users.items():
        imported = {
            alias.name if isinstance(node, ast.Import) else f"{node.module}.{alias.name}"
            for node in ast.walk(ast.parse((PACKAGE / path).read_text()))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        }
        assert any(name in item for item in imported), f"{path} does not use optrode.stats"
    owners = [path for path in PACKAGE.rglob("*.py") if "SINK_FACTOR =" in path.read_text()]
    assert [path.name for path in owners] == ["token_mask.py"]
