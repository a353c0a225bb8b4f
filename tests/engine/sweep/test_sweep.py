"""Sweeps of text models: cells, axes, pairs of prompts, ablations, and what is refused."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import torch
from naive import naive

import optrode as op
from optrode import edits
from optrode.engine.hooks import ACTIVE
from optrode.engine.sweep import way
from optrode.errors import BadInput, NotSupported, UnknownSite, WrongShape
from optrode.metrics import Custom, Distance, KLDivergence, LogitDifference, Loss, Probability

# Of equal length, different from the fourth token on.
BASE, DONOR = "The cat sat on the mat and the", "The cat lay on the dog and the"
PAIR = LogitDifference(" cat", " dog")
RAW = {"template": "raw"}


def lengths(model: op.Model) -> tuple[int, int]:
    """Number of tokens of the pair, and the first that differs."""
    base, donor = (model.encode(text, **RAW).ids[0] for text in (BASE, DONOR))
    return len(base), int((base != donor).int().argmax())


def one_by_one(
    model: op.Model, base: Any, value: torch.Tensor, site: str, selection: tuple, metric: Any = PAIR
) -> float:
    """The metric of the last token of a hand-patched forward."""
    logits = naive(model, base, value, site, selection, "logits")[-1:].float()
    return float(metric.bound(model.tokenizer, 0)(logits[None], None))


@pytest.fixture
def metric() -> LogitDifference:
    """Two tokens of the tiny tokenizer."""
    return LogitDifference(40, 50)


# Cells ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["in", "out", "mid", "mlp.out", "mlp.hidden", "attn.v"])
def test_every_position_of_every_layer(part: str, model: op.Model, metric: LogitDifference):
    width, first = lengths(model)
    sites = [f"layers.{layer}.{part}" for layer in range(3)]
    found = op.sweep(model, BASE, DONOR, sites, metric=metric, each="position", **RAW)
    values = model.read(model.encode(DONOR, **RAW), sites)
    base = model.encode(BASE, **RAW)
    assert found.values.shape == (3, width) and list(found.labels) == ["layer", "position"]
    for layer, site in enumerate(sites):
        for position in range(width):
            if position < first:
                assert found.values[layer, position] == found.base
            else:
                wanted = one_by_one(model, base, values[site][0], site, (position,), metric)
                assert found.values[layer, position] == pytest.approx(wanted, abs=2e-4), (site, position)
    # The first block reads the same at the same tokens, whatever came before them.
    same = int((base.ids == model.encode(DONOR, **RAW).ids)[0, first:].sum()) if part in ("in", "attn.v") else 0
    assert found.notes["computed"] == 3 * (width - first) - same and found.notes["skipped"] == 3 * first + same
    assert found.notes["way"] == "columns" and found.notes["why"] == ""


@pytest.mark.parametrize("part", ["attn.heads", "attn.q", "attn.k_rotated", "attn.pattern", "attn.scores"])
def test_heads_at_all_positions_and_at_each(part: str, model: op.Model, metric: LogitDifference):
    width, first = lengths(model)
    site = f"layers.1.{part}"
    value = model.read(model.encode(DONOR, **RAW), site)[site][0]
    base = model.encode(BASE, **RAW)
    whole = op.sweep(model, BASE, DONOR, site, metric=metric, **RAW)
    both = op.sweep(model, BASE, DONOR, site, metric=metric, each=("head", "position"), **RAW)
    heads = value.shape[1]
    assert whole.values.shape == (1, heads) and both.values.shape == (1, heads, width)
    for head in range(heads):
        wanted = one_by_one(model, base, value, site, (slice(None), head), metric)
        assert whole.values[0, head] == pytest.approx(wanted, abs=2e-4)
        for position in (0, first, width - 1):
            wanted = one_by_one(model, base, value, site, (position, head), metric)
            assert both.values[0, head, position] == pytest.approx(wanted, abs=2e-4)


def test_neurons(llama: op.Model, metric: LogitDifference):
    site = "layers.1.mlp.hidden"
    found = op.sweep(llama, BASE, DONOR, site, metric=metric, each="feature", positions="last_prompt", **RAW)
    value = llama.read(llama.encode(DONOR, **RAW), site)[site][0]
    base = llama.encode(BASE, **RAW)
    assert found.values.shape == (1, 48) and found.notes["computed"] == 48
    for neuron in (0, 7, 47):
        wanted = one_by_one(llama, base, value, site, (-1, neuron), metric)
        assert found.values[0, neuron] == pytest.approx(wanted, abs=2e-4)


def test_several_sites_have_an_axis_and_what_is_missing_is_no_number(llama: op.Model, metric: LogitDifference):
    found = op.sweep(llama, BASE, DONOR, ["layers.*.attn.out", "layers.{0,2}.mlp.out"], metric=metric, each=(), **RAW)
    assert found.labels == {"site": ["attn.out", "mlp.out"], "layer": [0, 1, 2]}
    assert np.isnan(found.values).tolist() == [[False] * 3, [False, True, False]]
    alone = op.sweep(llama, BASE, DONOR, "layers.2.mlp.out", metric=metric, each=(), **RAW)
    assert found.values[1, 2] == pytest.approx(float(alone.values[0]), abs=1e-5)
    assert found.notes["cells"] == 5


def test_positions_are_patched_together_or_apart(llama: op.Model, metric: LogitDifference):
    width, first = lengths(llama)
    site = "layers.1.out"
    value = llama.read(llama.encode(DONOR, **RAW), site)[site][0]
    base = llama.encode(BASE, **RAW)
    some = f"index:{first},{width - 1}"
    together = op.sweep(llama, BASE, DONOR, site, metric=metric, each=(), positions=some, **RAW)
    wanted = one_by_one(llama, base, value, site, (torch.tensor([first, width - 1]),), metric)
    assert together.values.tolist() == [pytest.approx(wanted, abs=2e-4)]
    apart = op.sweep(llama, BASE, DONOR, site, metric=metric, each="position", positions=some, **RAW)
    assert apart.values.shape == (1, 2) and [label.split()[0] for label in apart.labels["position"]] == [
        str(first),
        str(width - 1),
    ]


def test_labels_name_the_tokens_of_both(llama: op.Model, metric: LogitDifference):
    found = op.sweep(llama, BASE, DONOR, metric=metric, **RAW)
    _, first = lengths(llama)
    assert "|" in found.labels["position"][first] and "|" not in found.labels["position"][0]
    assert "".join(found.notes["base_tokens"]) == BASE and "".join(found.notes["donor_tokens"]) == DONOR


# Pairs ----------------------------------------------------------------------------------------------------------------


def test_padded_rows_give_what_single_prompts_give(model: op.Model, metric: LogitDifference):
    bases, donors = [BASE, "a cat"], [DONOR, "a dog"]
    one_length = all(
        model.encode(base, **RAW).width == model.encode(donor, **RAW).width
        for base, donor in zip(bases, donors, strict=True)
    )
    assert one_length, "the tiny tokenizer has other tokens now"
    batches = model.encode(bases, **RAW), model.encode(donors, **RAW)
    assert not bool(batches[0].mask.all())
    found = op.sweep(model, *batches, metric=metric, each=("example",))
    for row, (base, donor) in enumerate(zip(bases, donors, strict=True)):
        alone = op.sweep(model, base, donor, metric=metric, each=(), **RAW)
        assert np.allclose(found.values[row], alone.values, atol=2e-4)
        assert found.base[row, 0] == pytest.approx(float(alone.base), abs=2e-4)
    # By hand, in the padded batch itself.
    value = model.read(batches[1], "layers.1.out")["layers.1.out"]
    with model.edited(edits.function("layers.1.out", lambda rows: value[batches[1].mask])):
        logits = model.read(batches[0], "logits", positions="last_prompt")["logits"]
    assert np.allclose(found.values[:, 1], (logits[:, 40] - logits[:, 50]).numpy(), atol=2e-4)


def test_examples_are_averaged_unless_they_are_an_axis(llama: op.Model, metric: LogitDifference):
    pairs = [BASE, DONOR], [DONOR, BASE]
    apart = op.sweep(llama, *pairs, metric=metric, each=("example", "position"), **RAW)
    mean = op.sweep(llama, *pairs, metric=metric, each="position", **RAW)
    assert list(apart.labels) == ["example", "layer", "position"]
    assert np.allclose(apart.values.mean(0), mean.values) and mean.base == pytest.approx(apart.base.mean())
    _, first = lengths(llama)
    assert mean.labels["position"][first] == str(first), "its token is not the same in both"


def test_each_example_has_its_own_answer(llama: op.Model):
    metric = LogitDifference([40, 50], [50, 40])
    both = op.sweep(llama, [BASE, BASE], [DONOR, DONOR], metric=metric, each="example", **RAW)
    assert np.allclose(both.values[0], -both.values[1], atol=1e-4)
    with pytest.raises(BadInput, match="one for each"):
        op.sweep(llama, [BASE] * 3, [DONOR] * 3, metric=metric, **RAW)


def test_a_chat_model_wraps_the_prompts_in_its_template(llama: op.Model, metric: LogitDifference):
    found = op.sweep(llama, BASE, DONOR, metric=metric)
    assert len(found.labels["position"]) > lengths(llama)[0]


# Donors ---------------------------------------------------------------------------------------------------------------


def test_ablations(llama: op.Model, metric: LogitDifference):
    site = "layers.1.attn.heads"
    base = llama.encode(BASE, **RAW)
    own = llama.read(base, site)[site][0]
    mean = own.mean(0).expand_as(own)
    vector = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    donors = {
        "zero": ("zero", torch.zeros_like(own)),
        "mean": ("mean", mean),
        "number": (0.5, torch.full_like(own, 0.5)),
        "vector": (edits.Replace(vector), vector.expand_as(own)),
        "by site": ({site: vector}, vector.expand_as(own)),
        "operator": (edits.Scale(torch.tensor(2.0)), 2 * own),
    }
    for name, (donor, value) in donors.items():
        found = op.sweep(llama, BASE, donor, site, metric=metric, **RAW)
        assert found.donor is None
        for head in range(4):
            wanted = one_by_one(llama, base, value, site, (slice(None), head), metric)
            assert found.values[0, head] == pytest.approx(wanted, abs=2e-4), (name, head)


def test_an_ablation_equals_the_public_edit(llama: op.Model, metric: LogitDifference):
    found = op.sweep(llama, BASE, "zero", "layers.*.mlp.out", metric=metric, each="position", **RAW)
    with llama.edited(edits.zero_ablate("layers.1.mlp.out", "index:2")):
        logits = llama.read(llama.encode(BASE, **RAW), "logits", positions="last_prompt")["logits"][0]
    assert found.values[1, 2] == pytest.approx(float(logits[40] - logits[50]), abs=2e-4)


# Metrics --------------------------------------------------------------------------------------------------------------


def test_metrics_agree_with_their_definitions(llama: op.Model):
    base, donor = (llama.encode(text, **RAW) for text in (BASE, DONOR))
    plain = llama.read(base, "logits")["logits"][0]
    site = "layers.1.out"
    value = llama.read(donor, site)[site][0]
    patched = naive(llama, base, value, site, (-1,), "logits")
    p, q = plain.log_softmax(-1), patched.log_softmax(-1)
    following = base.ids[0, 1:]
    final = [
        llama.read(base, "final")["final"][0], naive(llama, base, value, site, (-1,), "final")
    ]  # fmt: skip
    wanted = {
        Probability(40): q[-1, 40].exp(),
        KLDivergence(): (p[-1].exp() * (p[-1] - q[-1])).sum(),
        Loss(): -q[:-1].gather(-1, following[:, None]).mean(),
        Distance(): (final[1][-1] - final[0][-1]).norm(),
        Custom(lambda logits: logits[:, 0].max(-1).values): patched[-1].max(),
    }
    for metric, number in wanted.items():
        found = op.sweep(llama, base, donor, site, metric=metric, each="position")
        assert found.values[0, -1] == pytest.approx(float(number), rel=1e-3, abs=1e-5), metric
    assert op.sweep(llama, base, donor, site, metric=lambda logits: logits[:, 0].max(-1).values).unit
    assert found.notes["way"] == "columns"


def test_a_metric_in_the_middle_of_the_network_is_measured_by_whole_forwards(llama: op.Model):
    found = op.sweep(llama, BASE, DONOR, "layers.0.out", metric=Distance(site="layers.1.mlp.out"), **RAW)
    assert found.notes["way"] == "forwards" and "before the end" in found.notes["why"]
    base, donor = (llama.encode(text, **RAW) for text in (BASE, DONOR))
    value = llama.read(donor, "layers.0.out")["layers.0.out"][0]
    new = naive(llama, base, value, "layers.0.out", (-1,), "layers.1.mlp.out")
    own = llama.read(base, "layers.1.mlp.out")["layers.1.mlp.out"][0]
    assert found.values[0, -1] == pytest.approx(float((new[-1] - own[-1]).norm()), rel=1e-3)


# Ways -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tokens", [1, 30, 2048])
def test_any_budget_gives_the_same(tokens: int, llama: op.Model, metric: LogitDifference):
    for sites, each in (("layers.*.out", "position"), ("layers.*.attn.heads", ("head", "position"))):
        wanted = op.sweep(llama, BASE, DONOR, sites, metric=metric, each=each, **RAW)
        got = op.sweep(llama, BASE, DONOR, sites, metric=metric, each=each, tokens_per_forward=tokens, **RAW)
        assert np.allclose(got.values, wanted.values, atol=2e-4)


def test_all_ways_agree(make_model: Any, metric: LogitDifference, monkeypatch: pytest.MonkeyPatch):
    found = {}
    for name in (way.COLUMNS, way.LAYERS, way.FORWARDS):
        model = make_model("llama")
        monkeypatch.setattr(way, "_measured", lambda *_, name=name: (name, True))
        got = op.sweep(model, BASE, DONOR, ["layers.*.out", "layers.*.mid"], metric=metric, each="position", **RAW)
        assert got.notes["way"] == name
        found[name] = got.values
    assert np.allclose(found[way.COLUMNS], found[way.FORWARDS], atol=2e-4)
    assert np.allclose(found[way.LAYERS], found[way.FORWARDS], atol=2e-4)


def test_a_network_that_cannot_be_resumed_runs_whole_forwards(make_model: Any, metric: LogitDifference, block: Any):
    """A block that carries something past the stream; the map says so, and is right."""
    model, past = make_model("llama"), {}
    block(model, 0).mlp.register_forward_pre_hook(lambda _, args: past.update(sum=args[0].sum(-1, keepdim=True)))
    block(model, 2).mlp.register_forward_hook(lambda _, __, out: out + past.pop("sum", 100.0))
    found = op.sweep(model, BASE, DONOR, "layers.1.mid", metric=metric, **RAW)
    assert found.notes["way"] == "forwards" and "resuming" in found.notes["why"]
    value = model.read(model.encode(DONOR, **RAW), "layers.1.mid")["layers.1.mid"][0]
    wanted = one_by_one(model, model.encode(BASE, **RAW), value, "layers.1.mid", (-1,), metric)
    assert found.values[0, -1] == pytest.approx(wanted, abs=2e-4)


def test_under_an_edit_every_run_is_edited(llama: op.Model, metric: LogitDifference):
    edit = edits.add("layers.1.mid", torch.linspace(-1, 1, 32))
    plain = op.sweep(llama, BASE, DONOR, metric=metric, **RAW)
    with llama.edited(edit):
        found = op.sweep(llama, BASE, DONOR, metric=metric, **RAW)
        value = llama.read(llama.encode(DONOR, **RAW), "layers.0.out")["layers.0.out"][0]
        wanted = one_by_one(llama, llama.encode(BASE, **RAW), value, "layers.0.out", (-1,), metric)
    assert found.notes["way"] == "forwards" and found.notes["why"] == "edits are active"
    assert found.values[0, -1] == pytest.approx(wanted, abs=2e-4) and found.base != plain.base


def test_sites_outside_of_the_blocks(llama: op.Model, metric: LogitDifference):
    found = op.sweep(llama, BASE, DONOR, "embed", metric=metric, each="position", **RAW)
    first = op.sweep(llama, BASE, DONOR, "layers.0.in", metric=metric, each="position", **RAW)
    assert list(found.labels)[-1] == "position" and found.notes["way"] == "forwards"
    assert np.allclose(found.values.reshape(-1), first.values.reshape(-1), atol=2e-4)


def test_an_encoder_and_decoder_as_a_whole():
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(0)
    config = T5Config(d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, vocab_size=99, decoder_start_token_id=0)
    model = op.load(T5ForConditionalGeneration(config).eval())
    base = {"input_ids": torch.tensor([[5, 6, 7, 8]]), "decoder_input_ids": torch.tensor([[0, 9, 10]])}
    donor = {"input_ids": torch.tensor([[5, 6, 17, 8]]), "decoder_input_ids": torch.tensor([[0, 9, 11]])}
    sizes = {"encoder.layers.*.out": 4, "decoder.layers.*.out": 3, "decoder.layers.*.cross.heads": 4}
    for sites, size in sizes.items():
        found = op.sweep(model, base, donor, sites, metric=LogitDifference(40, 50))
        assert found.values.shape == (2, size) and "own blocks" in found.notes["why"]
        site = sites.replace("*", "1")
        value = model.read(donor, site)[site][0]
        selection = (slice(None), 2) if "heads" in site else (2,)
        logits = naive(model, base, value, site, selection, "logits")[-1]
        assert found.values[1, 2] == pytest.approx(float(logits[40] - logits[50]), abs=1e-5), sites


def test_nothing_is_left_behind_and_threads_do_not_meet(llama: op.Model, metric: LogitDifference):
    batch = llama.encode(BASE, **RAW)
    own = llama.read(batch, "logits")["logits"]
    wanted = op.sweep(llama, BASE, DONOR, metric=metric, **RAW).values
    got: list[Any] = []
    threads = [
        threading.Thread(target=lambda: got.append(op.sweep(llama, BASE, DONOR, metric=metric, **RAW).values))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    seen = llama.read(batch, "logits")["logits"]
    for thread in threads:
        thread.join(60)
    assert len(got) == 2 and all(np.allclose(values, wanted, atol=1e-4) for values in got)
    assert torch.equal(seen, own) and ACTIVE.get() == ()
    for module in llama.module.modules():
        assert "forward" not in module.__dict__ and not module._forward_hooks and not module._forward_pre_hooks


def test_an_error_in_the_middle_leaves_nothing(llama: op.Model):
    def broken(logits: torch.Tensor) -> torch.Tensor:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        op.sweep(llama, BASE, DONOR, metric=broken, **RAW)
    assert ACTIVE.get() == () and not any("forward" in module.__dict__ for module in llama.module.modules())


# Refusals -------------------------------------------------------------------------------------------------------------


def test_what_is_refused(llama: op.Model, metric: LogitDifference):
    def sweep(*given: Any, **options: Any) -> Any:
        return op.sweep(llama, *given, **{"metric": metric, **RAW, **options})

    with pytest.raises(BadInput, match=r"pair 0: the base has \d+ tokens and the donor \d+"):
        sweep(BASE, BASE + " cat")
    with pytest.raises(BadInput, match="1 base and 2 donor"):
        sweep(BASE, [DONOR, DONOR])
    with pytest.raises(BadInput, match=r"no axis 'head'.*did you mean"):
        sweep(BASE, DONOR, "layers.*.out", each="head")
    with pytest.raises(BadInput, match="'layer' out"):
        sweep(BASE, DONOR, each="layer")
    with pytest.raises(BadInput, match="differ along 'head'"):
        sweep(BASE, DONOR, ["layers.*.attn.q", "layers.*.attn.k"])
    with pytest.raises(BadInput, match="prompts of one length"):
        sweep([BASE, "a cat"], [DONOR, "a dog"], each="position")
    with pytest.raises(UnknownSite):
        sweep(BASE, DONOR, "layers.9.out")
    with pytest.raises(WrongShape, match="does not fit"):
        sweep(BASE, {f"layers.{layer}.out": torch.ones(5) for layer in range(3)})
    with pytest.raises(BadInput, match=r"no value for layers\.1\.out"):
        sweep(BASE, {"layers.0.out": torch.ones(32)})
    with pytest.raises(BadInput, match="does not contain"):
        sweep(BASE, DONOR, positions="span:giraffe")
    with pytest.raises(BadInput, match="one number for each"):
        sweep(BASE, DONOR, metric=lambda logits: logits.sum())
    with pytest.raises(BadInput, match="tokens"):
        sweep(BASE, DONOR, metric=Probability(" helpful weather"))


def test_a_network_without_head_says_what_to_measure():
    from transformers import BertConfig, BertModel

    config = BertConfig(hidden_size=16, intermediate_size=16, num_attention_heads=2, num_hidden_layers=2, vocab_size=50)
    model = op.load(BertModel(config).eval())
    ids = torch.tensor([[5, 6, 7]]), torch.tensor([[5, 8, 7]])
    with pytest.raises(NotSupported, match="Distance"):
        op.sweep(model, *ids, metric=Probability(3))
    found = op.sweep(model, *ids, metric=Distance(site="layers.1.out"))
    assert found.values.shape == (2, 3) and found.base == 0 and float(found.values[1, 2]) > 0
