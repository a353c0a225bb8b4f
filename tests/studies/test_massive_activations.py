from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

import optrode as op
from optrode.engine.progress import Steps
from optrode.massive.bench import Bench, Texts, random_entries, random_removal, texts_of, variation_ratio
from optrode.parts.study import Finding, overall
from optrode.studies import find_study
from optrode.studies import massive_activations as study
from optrode.studies.massive_activations import examine


def _planted() -> ModuleType:
    path = Path(__file__).parents[1] / "massive" / "planted.py"
    spec = importlib.util.spec_from_file_location("planted_network", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PLANTED = _planted()
TEXTS = Texts(tuple(PLANTED.TEXTS[::2]), tuple(PLANTED.TEXTS[1::2]), ("YYYYYYY", "UUUUUU", "OOOOOOOOO"))


def findings_of(module: Any, tokenizer: Any) -> dict[str, Finding]:
    """Findings by a few words of their claims."""
    with Steps("test") as steps:
        found = examine(op.load(module, tokenizer=tokenizer), TEXTS, (0, 1, 2), steps)
    words = {
        "Set to zero": "zero", "Set to their mean": "mean", "Their mean over": "other mean", "as many random": "random",
        "largest ordinary entries": "second", "not the size": "direction", "hardly depend": "independent",
        "One MLP": "mlp", "early": "early", "constant": "constant", "vanish": "vanish", "No later": "recreated",
        "chat template": "chat", "The same few": "channels", "largest ordinary channel": "beside",
    }  # fmt: skip
    return {name: finding for finding in found for word, name in words.items() if word in finding.claim}


@pytest.fixture(scope="module")
def network(tokenizer: Any) -> dict[str, Finding]:
    return findings_of(PLANTED.planted_module(tokenizer), tokenizer)


def test_all_claims_hold_where_they_were_planted(network: dict[str, Finding]):
    essential = {name: finding.verdict for name, finding in network.items() if finding.essential}
    assert essential == dict.fromkeys(essential, "reproduced") and len(essential) == 11
    assert overall(list(network.values())) == "reproduced"
    assert network["channels"].numbers["channels"] == [PLANTED.CHANNEL]
    assert network["chat"].verdict == network["recreated"].verdict == network["other mean"].verdict == "reproduced"


def test_a_harmless_value_is_told_from_a_needed_one(tokenizer: Any):
    found = findings_of(PLANTED.planted_module(tokenizer, needed=False), tokenizer)
    assert found["channels"].verdict == "reproduced"
    assert found["zero"].verdict == found["direction"].verdict == found["chat"].verdict == "not reproduced"
    assert overall(list(found.values())) == "not reproduced"


def test_a_network_without_any_is_a_negative_result(make_model):
    with Steps("test") as steps:
        found = examine(make_model("llama"), TEXTS, (0,), steps)
    assert [finding.verdict for finding in found] == ["not reproduced"]
    assert "largest magnitude" in found[0].measured and len(found[0].numbers["by_layer"]) == 3


def test_values_that_follow_the_text_are_not_called_independent(tokenizer: Any):
    """The size of the first letter's mark differs from text to text."""
    module = PLANTED.planted_module(tokenizer)
    letters = torch.tensor([tokenizer.encode(letter)[0] for letter in PLANTED.LETTERS])
    with torch.no_grad():
        module.lm_head.weight = torch.nn.Parameter(module.lm_head.weight.clone())
        module.transformer.wte.weight[letters, PLANTED.MARKER] = torch.linspace(-1.2, 6, len(letters))
        module.transformer.wpe.weight[1:, PLANTED.MARKER] = -20.0
    found = findings_of(module, tokenizer)
    assert found["channels"].verdict == "reproduced"
    assert found["independent"].verdict != "reproduced"


def test_late_lasting_and_growing_values_are_said_to_be_so(tokenizer: Any):
    """Written by block 2 of 4, and never taken away."""
    module = PLANTED.planted_module(tokenizer)
    blocks = module.transformer.h
    with torch.no_grad():
        for part in (blocks[0].mlp.c_proj.weight, blocks[3].mlp.c_proj.weight):
            part.zero_()
        blocks[1].attn.c_proj.weight.zero_()
        PLANTED._neuron(blocks[2].mlp, PLANTED.MARKER, over=3.0, writes=PLANTED.HUGE, at=6.2)
    found = findings_of(module, tokenizer)
    assert found["channels"].numbers["layer"] == 2
    assert found["early"].verdict == "not reproduced"
    assert found["vanish"].verdict == "not reproduced"
    assert found["mlp"].verdict == "reproduced"


def test_the_halves_share_nothing():
    texts = texts_of()
    assert not set(texts.fit) & set(texts.test) and len(texts.fit) == len(texts.test) == 46
    assert not set(texts.other) & {*texts.fit, *texts.test} and len(texts.other) >= 50


def test_controls_leave_the_entries_alone(tokenizer: Any):
    model = op.load(PLANTED.planted_module(tokenizer), tokenizer=tokenizer)
    bench, _ = study._look(model, TEXTS, "raw")
    assert isinstance(bench, Bench)
    drawn = {random_entries(bench, seed).features for seed in range(20)}
    assert len(drawn) > 5 and all(PLANTED.CHANNEL not in channels for channels in drawn)
    with model.edited(random_removal(bench, 3)):
        moved = model.read(bench.batch, bench.site, positions="first:1")[bench.site]
    change = moved - model.read(bench.batch, bench.site, positions="first:1")[bench.site]
    length = abs(bench.entries[0].mean)
    assert torch.allclose(change.norm(dim=-1), torch.tensor(length), rtol=1e-3)
    assert change[:, PLANTED.CHANNEL].abs().max() < 0.6 * length


def test_ratio_of_variations():
    above, below = np.array([1.0, 3.0, 1.0, 3.0] * 20), np.array([9.0, 11.0, 9.0, 11.0] * 20)
    found = variation_ratio(above, below)
    assert found.value == pytest.approx((1 / 2) / (1 / 10))
    assert found.low < found.value < found.high


def test_it_is_a_study_of_its_row():
    found = find_study("massive-activations")
    assert found is study.STUDY and found.id == "massive-activations" and len(found.seeds) >= 3
    assert "attention pattern" in found.shrunk
