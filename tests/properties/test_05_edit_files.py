"""Property 5: an edit file refuses to be misused.

Same weights: quiet. Same architecture with other weights or tokenizer: a warning. Another model: refused. Whatever is
unknown in a file is refused too, and loading runs no code. (Damage of every kind is in tests/edits/test_file.py.)
"""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

import optrode as op
from optrode import edits
from optrode.edits import Provenance
from optrode.errors import BadFile, WrongModel

V = torch.randn(32, generator=torch.Generator().manual_seed(5))
OUT = "layers.1.out"


def fitted_on(model: op.Model, folder: Path) -> op.Edit:
    """An edit as a method would leave it, through a file."""
    known = Provenance(fingerprint={**model.fingerprint, "name": model.name}, recipe={"method": "test"})
    edit = (edits.add(OUT, V) + edits.scale("layers.0.out", 1.5)).with_provenance(known)
    return op.load_edit(edit.save(folder / "one.edit"))


def use(model: op.Model, edit: op.Edit) -> torch.Tensor:
    with model.edited(edit):
        return model.read("The cat", "logits")["logits"]


def quietly(model: op.Model, edit: op.Edit) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return use(model, edit)


def test_the_same_weights_are_quiet(model: op.Model, make_model, tmp_path: Path):
    edit = fitted_on(model, tmp_path)
    wanted = quietly(model, edit)
    again = make_model(model.layout.name, torch.float32)
    assert torch.equal(quietly(again, edit), wanted)
    quietly(make_model(model.layout.name, torch.bfloat16), edit)


def test_a_copy_through_a_folder_is_the_same_model(llama: op.Model, tmp_path: Path):
    llama.module.save_pretrained(tmp_path / "copy")
    llama.tokenizer.save_pretrained(tmp_path / "copy")
    copy = op.load(tmp_path / "copy")
    assert copy.fingerprint == llama.fingerprint
    quietly(copy, fitted_on(llama, tmp_path))


def test_other_weights_of_the_same_architecture_warn(model: op.Model, make_model, tmp_path: Path):
    edit = fitted_on(model, tmp_path)
    with pytest.warns(UserWarning, match="another weights") as caught:
        use(make_model(model.layout.name, torch.float32, seed=1), edit)
    assert caught[0].filename == __file__, "it points at the line that used the edit"


def test_one_changed_matrix_is_other_weights(make_model, tmp_path: Path):
    model, changed = make_model("llama"), make_model("llama")
    with torch.no_grad():
        changed.module.model.layers[1].mlp.up_proj.weight.mul_(1.01)
    with pytest.warns(UserWarning, match="weights"):
        use(changed, fitted_on(model, tmp_path))


def test_another_tokenizer_warns(llama: op.Model, tmp_path: Path):
    import copy

    other = copy.deepcopy(llama.tokenizer)
    other.chat_template = "{{ messages[0]['content'] }}"
    with pytest.warns(UserWarning, match="another tokenizer"):
        use(op.load(llama.module, tokenizer=other), fitted_on(llama, tmp_path))


def test_another_model_is_refused_in_one_line(llama: op.Model, gpt2: op.Model, qwen3: op.Model, tmp_path: Path):
    edit = fitted_on(llama, tmp_path)
    for other in (gpt2, qwen3, op.load(nn.Linear(2, 2))):
        with pytest.raises(WrongModel, match="was fitted on LlamaForCausalLM") as refused, other.edited(edit):
            pytest.fail("it was entered")
        assert len(str(refused.value).splitlines()) == 1
    with pytest.raises(WrongModel), gpt2.edited(edits.scale("layers.0.out", 2.0) + edit):
        pytest.fail("one foreign part is enough")


def test_an_edit_of_unknown_origin_is_used_as_it_is(gpt2: op.Model, tmp_path: Path):
    quietly(gpt2, op.load_edit(edits.add(OUT, V).save(tmp_path / "a.edit")))


def test_the_fingerprint_is_short_stable_and_says_what_differs(llama: op.Model, gpt2: op.Model, make_model):
    own, again, other = llama.fingerprint, make_model("llama").fingerprint, make_model("llama", seed=1).fingerprint
    assert own == again and set(own) == {"config", "tokenizer", "weights"}
    assert all(len(value) == 16 for value in own.values())
    assert own["config"] == other["config"] and own["weights"] != other["weights"]
    assert own["config"] != gpt2.fingerprint["config"] and own["tokenizer"] == gpt2.fingerprint["tokenizer"]
    assert op.load(llama.module).fingerprint["tokenizer"] == "none"


class Trap:
    """Unpickling this creates a file."""

    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self):
        return (Path.touch, (self.target,))


@pytest.mark.parametrize("write", [pickle.dumps, lambda trap: pickle.dumps({"vector": trap}, protocol=0)])
def test_loading_runs_no_code(write, tmp_path: Path):
    target = tmp_path / "it ran"
    path = tmp_path / "trap.edit"
    path.write_bytes(write(Trap(target)))
    with pytest.raises(BadFile):
        op.load_edit(path)
    assert not target.exists()
    pickle.loads(path.read_bytes())
    assert target.exists(), "the trap was a real one"


def test_a_torch_file_is_refused(tmp_path: Path):
    target = tmp_path / "it ran"
    torch.save({"vector": Trap(target)}, tmp_path / "trap.edit")
    with pytest.raises(BadFile):
        op.load_edit(tmp_path / "trap.edit")
    assert not target.exists()


def test_saving_and_loading_gives_the_same_numbers(model: op.Model, tmp_path: Path):
    known = (edits.add(OUT, V, "user") >> edits.project_out("layers.2.mid", V)) * 0.7 + edits.clamp(OUT, high=1.0)
    assert torch.equal(use(model, op.load_edit(known.save(tmp_path / "a.edit"))), use(model, known))
