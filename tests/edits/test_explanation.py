"""Explanations: every kind of edit in words, whose formula is what the edit really does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

import optrode as op
from optrode import edits
from optrode.edits import Provenance, words
from optrode.edits.operators import SAVEABLE
from optrode.positions import _PLAIN, Positions

S = "layers.1.out"
V = torch.arange(1.0, 33.0)
KNOWN = Provenance(
    fingerprint={"name": "tiny", "config": "abc", "tokenizer": "b", "weights": "c"},
    recipe={"method": "caa", "site": S, "pairs": 40}, equations={S: "mid + mlp.out"},
    stream_norm={S: 100.0}, start_token="chat: <|im_start|>",
)  # fmt: skip


def facts(edit: Any, part: int = 0, model: Any = None) -> dict[str, str]:
    told = edit.explain(model)
    return {**told.parts[part][1], **told.about}


def test_a_fitted_edit_says_all_that_matters():
    edit = edits.add(S, V, "after_instruction").with_provenance(KNOWN) * 4
    text = str(edit.explain())
    assert text.splitlines()[0] == f"adds a vector to {S}"
    told = facts(edit)
    assert told["formula"] == "h + 4 * vector"
    assert told["tokens"].startswith("after_instruction: what follows the last user turn")
    size = float(4 * V.norm())
    assert told["strength"].startswith("4,") and f"{size:.3g} long, {size / 100:.0%} of the stream" in told["strength"]
    assert told["vector"].startswith(f"[32] float32, norm {V.norm():.3g}, values 1 to 32")
    assert told["site"].startswith(f"{S} = mid + mlp.out")
    assert told["fitted"] == f"by caa: site {S}, pairs 40"
    assert "tiny (config abc" in told["model"] and "refused" in told["model"]
    assert "chat: <|im_start|>" in told["prompts"]
    assert told["needs"] == f"a model with {S} of width 32"
    assert repr(edit.explain()) == text and all(name in text and value in text for name, value in told.items())


@pytest.mark.parametrize("name", sorted({*SAVEABLE, "function"}))
def test_every_operator_has_words(name: str):
    assert name in words.OPERATORS


GENERATOR = torch.Generator().manual_seed(3)
H, WIDE, ROWS = (torch.randn(*shape, generator=GENERATOR) for shape in ((5, 4), (4,), (2, 4)))
MADE = {
    "add": edits.add(S, WIDE),
    "scale": edits.scale(S, WIDE),
    "affine": edits.affine(S, WIDE, WIDE.flip(0)),
    "low_rank": edits.low_rank(S, ROWS, ROWS.flip(1), torch.tensor([0.5, -1.0])),
    "subspace": edits.subspace(S, ROWS, ROWS.flip(1), torch.tensor([0.5, -1.0])),
    "gated": edits.gated(S, WIDE, WIDE.flip(0), 0.25),
    "replace": edits.replace(S, WIDE),
    "clamp": edits.clamp(S, -0.3, 0.4),
}


@pytest.mark.parametrize("strength", [1.0, -2.0, 0.5])
@pytest.mark.parametrize("name", MADE)
def test_the_formula_is_what_the_operator_computes(name: str, strength: float):
    """The text is evaluated as arithmetic, beside the edit itself."""
    made = MADE[name] * strength

    class Everywhere:
        def select(self, positions: Positions) -> Any:
            return None, torch.arange(len(H))

    change = made.at(S, lambda pattern, address: True)
    assert change is not None
    found = eval(
        _as_python(facts(made)["formula"]), {"__builtins__": {}},
        {
            **made.tensors(), "h": H, "sigmoid": lambda x: torch.sigmoid(x)[..., None],
            "min": torch.minimum, "max": torch.maximum,
            "times": lambda matrix: H @ matrix.mT, "dot": lambda gate: H @ gate,
        },
    )  # fmt: skip
    assert torch.allclose(change(H, Everywhere()), found.expand_as(H), atol=1e-5)


def _as_python(text: str) -> str:
    """Matrix products, which are written as in a book, as Python has them."""
    text = text.replace("gate . h", "dot(gate)").replace("sigmoid(dot(gate) + bias) vector",
                                                         "sigmoid(dot(gate) + bias) * vector")  # fmt: skip
    for matrix in ("down", "basis"):
        text = text.replace(f"{matrix} h", f"times({matrix})")
    if "basis" in text:
        text = text.replace("weight h", "times(weight)")
    return text.replace(") up", ") @ up").replace(") basis", ") @ basis")


@pytest.mark.parametrize("text", [*_PLAIN, "generated:3", "generated:0-3", "generated:2-", "first:5", "first:5@user",
                                  "index:0,-1", "span:the cat"])  # fmt: skip
def test_every_selection_has_words(text: str):
    said = words.positions(Positions(text))
    assert len(said) > len(text) + 5 and (said.startswith(f"{text}: ") or "'the cat'" in said)


def test_sums_chains_and_rows_name_their_parts():
    one, other = edits.add(S, V), edits.zero_ablate("layers.2.mlp.out")
    total = (one + other).explain()
    assert total.says.startswith("a sum") and [does for does, _ in total.parts] == [
        f"adds a vector to {S}", "puts fixed values in place of layers.2.mlp.out",
    ]  # fmt: skip
    chain = ((one >> other) * 0.5).explain()
    assert "a chain" in chain.says and "0.5 times" in chain.says
    assert all(told["within a chain of strength"] == "0.5" for _, told in chain.parts)
    assert "1. adds" in str(chain) and "2. puts" in str(chain)
    rows = edits.by_row([one, None, one, one, other]).explain()
    assert "5 prompts" in rows.says
    assert [does for does, _ in rows.parts] == [
        f"adds a vector to {S}, rows 0, 2-3", "puts fixed values in place of layers.2.mlp.out, row 4",
    ]  # fmt: skip


def test_what_all_parts_share_is_said_once():
    both = (edits.add(S, V) + edits.add("layers.2.out", V)).with_provenance(KNOWN)
    assert str(both.explain()).count("by caa") == 1
    other = edits.add("layers.2.out", V).with_provenance(replace(KNOWN, recipe={"method": "actadd"}))
    text = str((edits.add(S, V).with_provenance(KNOWN) + other).explain())
    assert text.count("by caa") == 1 and text.count("by actadd") == 1


def test_what_narrows_an_edit_is_said():
    told = facts(edits.zero_ablate("layers.1.attn.heads", heads=(0, 1, 3)))
    assert told["heads"] == "0-1, 3" and "divided by head" in told["needs"]
    assert facts(edits.add(S, V[:2], features=(4, 9)))["features"] == "4, 9"
    assert "width" not in facts(edits.add(S, V[:2], features=(4, 9)))["needs"]
    assert facts(edits.knockout("layers.1.attn.scores", "user"))["looked at"].startswith("user")
    assert facts(edits.function(S, torch.relu))["function"] == "relu"
    assert facts(edits.add(S, V) * 0)["formula"] == "h (strength 0: nothing is installed)"


def test_the_other_kinds():
    prompt = edits.prompt("Be brief.", (("user", "2+2"), ("assistant", "4"))).explain()
    does, told = prompt.parts[0]
    assert "puts a system prompt and 2 example turns in front" in does and told["system"] == "'Be brief.'"
    assert told["turn 1"] == "assistant: 4" and "chat template" in told["needs"]
    low = edits.weights({"a.b": (torch.ones(8, 2), torch.ones(2, 16)), "c": torch.ones(3)}) * 0.5
    (first, of_first), (second, _) = low.explain().parts
    assert first.endswith("the weight of a.b") and of_first["formula"] == "weight + 0.5 * (up @ down)"
    assert "[8, 16]" in of_first["needs"] and second == "changes the bias of c"
    many = edits.weights({f"m.{number}": torch.ones(2) for number in range(40)})
    assert len(str(many.explain()).splitlines()) < 80 and "28 more parts" in str(many.explain())
    policy = edits.backtrack(S, V, edit=edits.add(S, V)).explain()
    assert f"watches {S}" in policy.parts[0][0] and policy.parts[0][1]["tries"] == "1"
    assert policy.parts[1][0] == f"adds a vector to {S}, once it fires"
    trained = edits.add(S, V).trainable()
    assert edits.explain(trained).says == "being trained"


def test_with_a_model_it_says_whether_it_fits(llama: op.Model, gpt2: op.Model):
    own = edits.add("layers.*.out", V).with_provenance(Provenance({"name": "tiny", **llama.fingerprint}))
    assert facts(own, model=llama)["here"] == f"was fitted on {llama.name}, and acts at 3 sites"
    assert facts(own, model=gpt2)["here"] == f"does not fit {gpt2.name}: it was fitted on tiny"
    assert facts(edits.add(S, V), model=llama)["here"] == f"fits {llama.name}, and acts at 1 site"
    tuned = {**llama.fingerprint, "weights": "other"}
    assert "another weights" in facts(edits.add(S, V).with_provenance(Provenance(tuned)), model=llama)["here"]
    assert "did you mean" in facts(edits.add("layers.1.uot", V), model=llama)["here"]


def test_as_plain_values():
    import json

    told = (edits.add(S, V) + edits.scale(S, 2.0)).with_provenance(KNOWN).explain().as_dict()
    assert json.loads(json.dumps(told)) == told
    assert [part["does"] for part in told["parts"]] == [f"adds a vector to {S}", f"multiplies {S}"]


def test_texts_of_edits_and_operators_are_short_and_hold_no_numbers_of_tensors():
    edit = edits.add("layers.1.out", torch.ones(576))
    assert repr(edit * 4) == "<SiteEdit: add at layers.1.out, strength 4>"
    assert repr(edit.operator) == "Add(vector=[576])"
    assert repr(edit + edit).startswith("<Sum: add at layers.1.out") and len(repr((edit + edit) >> edit)) < 100


def test_an_edit_of_an_unknown_kind_has_a_text():
    class Own(edits.Edit):
        kind = "own"

    assert repr(Own()) == "<Own: own>"
