"""Policy edits: a loop of one's own writes what `generate` writes; cropped and forked caches are as if never grown."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

import optrode as op
from optrode import edits
from optrode.edits import PolicyEdit
from optrode.engine.generating.generate import Sampling
from optrode.engine.generating.policies import POLICY
from optrode.engine.hooks import ACTIVE, HOOKS
from optrode.errors import BadFile, BadInput, EditDidNothing, NotSupported, UnknownSite, WrongShape

V = torch.randn(32, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
OUT = "layers.1.out"


@dataclass(frozen=True, eq=False)
class Plain(PolicyEdit):
    """What `generate` does by itself."""

    def step(self, state):
        return state.choose()


@dataclass(frozen=True, eq=False)
class Hesitant(PolicyEdit):
    """Takes back what it wrote every few tokens and writes it again, following several branches in between."""

    every: int = 3
    seen: list = field(default_factory=list)

    def step(self, state):
        count = state.written.shape[1]
        if count and count % self.every == 0 and count not in state.memory:
            state.memory[count] = True
            state.fork(3)
            assert state.ids.shape[0] == 3 and state.logits.shape[0] == 3
            state.keep([2])
            state.crop(min(count, 2))
        self.seen.append(state.written.shape[1])
        return state.choose()


@dataclass(frozen=True, eq=False)
class Best(PolicyEdit):
    """Best of several branches by the score of their newest token, at every step."""

    copies: int = 4
    weight: Tensor = field(default_factory=lambda: V)
    scores: list = field(default_factory=list)

    @property
    def sites(self):
        return (OUT,)

    def step(self, state):
        if len(state.ids) > 1:
            values = state.activations[OUT] @ self.weight
            self.scores.append((values, state.ids.clone()))
            state.keep(values.argmax())
        top = state.logits[0].topk(self.copies).indices
        state.fork(self.copies)
        return top


@pytest.fixture(scope="module")
def double(make_model) -> op.Model:
    return make_model("llama", torch.float64)


WAYS = {
    "greedy": None,
    "sampled": Sampling(temperature=1.0, top_k=20, seed=3),
    "penalty": Sampling(repetition_penalty=1.5),
}


@pytest.mark.parametrize("name", ["llama", "gpt2", "qwen3"])
@pytest.mark.parametrize("sampling", WAYS.values(), ids=WAYS)
def test_a_plain_loop_writes_what_generate_writes(make_model, prompts, name, sampling):
    model = make_model(name, torch.float64)
    wanted = [model.generate(prompt, max_new_tokens=9, sampling=sampling) for prompt in prompts]
    with model.edited(Plain()) as receipt:
        assert model.generate(prompts, max_new_tokens=9, sampling=sampling) == wanted
    assert receipt.calls == receipt.sites["policy"].decode_calls <= 27 and receipt.forwards <= 27 and not receipt.notes
    assert POLICY.get() is None and len(HOOKS) == 0


@pytest.mark.parametrize("edit", [None, edits.add(OUT, V * 0.3), edits.add(OUT, V, "generated:1-4")])
def test_taking_back_and_writing_again_changes_nothing(double, prompts, edit):
    """With edits too: their positions are counted in what stands, not in what was taken back."""
    entered = [edit] if edit is not None else []

    def write():
        return [completion.ids for completion in double.completions(prompts, max_new_tokens=8)]

    if edit is not None:
        with double.edited(edit):
            wanted = write()
    else:
        wanted = write()
    policy = Hesitant()
    with double.edited(policy, *entered) as receipt:
        assert write() == wanted
    assert sorted(policy.seen) != policy.seen, "it did take back"
    assert any("taken back" in note for note in receipt.notes)


def test_logits_after_a_crop_are_those_of_a_fresh_forward(double):
    @dataclass(frozen=True, eq=False)
    class Checks(PolicyEdit):
        sites = (OUT, "layers.0.attn.heads")
        done: list = field(default_factory=list)

        def step(self, state):
            if state.written.shape[1] in (2, 4):
                state.fork(2)
                state.crop(1 + state.written.shape[1] // 4)
                ids = state.ids
                with torch.no_grad():
                    wanted = double.module(input_ids=ids, use_cache=False).logits[:, -1]
                    acts = double.read(ids, list(state.activations))
                assert torch.allclose(state.logits.double(), wanted, atol=1e-5)
                for site, value in state.activations.items():
                    assert torch.allclose(value, acts[site][:, -1], atol=1e-9)
                state.keep([1])
                self.done.append(ids.shape[1])
                return state.choose(banned=torch.tensor([0, 1, 2]))
            return state.choose()

    policy = Checks()
    with pytest.raises(NotSupported, match="takes back what it writes"), double.edited(policy):
        double.completions("The cat", max_new_tokens=6)
    assert len(policy.done) > 3
    assert ACTIVE.get() == () and POLICY.get() is None and len(HOOKS) == 0


def test_best_of_several_by_score(double):
    policy = Best()
    with double.edited(policy):
        completion = double.completions("The cat", max_new_tokens=5)[0]
    assert len(policy.scores) == 4
    for values, ids in policy.scores:
        acts = double.read(ids, OUT)[OUT][:, -1]
        assert torch.allclose(values, acts @ V, atol=1e-9)
        chosen = ids[values.argmax(), -len(completion.ids) :]
        assert len(chosen)
    # The best branch of each step is a prefix of what was written.
    for step, (values, ids) in enumerate(policy.scores):
        written = ids[values.argmax()].tolist()[-(step + 1) :]
        assert written == list(completion.ids[: step + 1])


def test_the_answer_is_the_branch_that_the_policy_names(double):
    @dataclass(frozen=True, eq=False)
    class Last(PolicyEdit):
        def step(self, state):
            if len(state.ids) == 1:
                state.fork(2)
                return state.logits[0].topk(2).indices
            return state.choose()

        def best(self, state):
            return 1

    plain = double.completions("The cat", max_new_tokens=3)[0].ids
    with double.edited(Last()):
        other = double.completions("The cat", max_new_tokens=3)[0].ids
    assert other[0] != plain[0]


# Backtracking ---------------------------------------------------------------------------------------------------------


def written_scores(model: op.Model, count: int = 8) -> tuple[tuple[int, ...], Tensor]:
    """A completion and the score of each written token but the last."""
    batch = model.encode("The cat")
    ids = model.completions(batch, max_new_tokens=count)[0].ids
    whole = torch.tensor([[*batch.ids[0].tolist(), *ids]])
    return ids, model.read(whole, OUT)[OUT][0, batch.width :] @ V


def test_backtracking_writes_again_under_an_edit(double):
    plain, scores = written_scores(double)
    assert len(plain) > 5
    first = int(scores[:-1].argmax())
    bias, steer = -float(scores[first]) + 1e-6, edits.add("layers.0.out", V)
    fires = next(step for step, value in enumerate(scores[:-1]) if value + bias > 0)
    back = min(2, fires + 1)
    policy = edits.backtrack(OUT, V, bias, tokens=2, edit=steer)
    with double.edited(policy) as receipt:
        got = double.completions("The cat", max_new_tokens=8)[0].ids
    assert got[: fires + 1 - back] == plain[: fires + 1 - back] and got != plain
    assert receipt.notes[0] == f"the score fired: {back} tokens taken back at written token {fires + 1 - back}"
    assert len(HOOKS) == 0
    # By hand: the kept tokens unedited, then every step with the edit at the columns that are run again.
    batch = double.encode("The cat")
    ids = torch.tensor([[*batch.ids[0].tolist(), *got[: fires + 1 - back]]])
    kept = ids.shape[1] - 1
    block = double.base.layers[0]

    def change(module, args, output):
        return torch.cat([output[:, :kept], output[:, kept:] + V], 1)

    handle = block.register_forward_hook(change)
    with torch.no_grad():
        while ids.shape[1] < batch.width + len(got):
            ids = torch.cat([ids, double.module(input_ids=ids, use_cache=False).logits[:, -1:].argmax(-1)], 1)
    handle.remove()
    assert tuple(ids[0, batch.width :].tolist()) == got


def test_backtracking_without_an_edit_chooses_another_token(double):
    plain, scores = written_scores(double)
    bias = -float(scores[:-1].max()) + 1e-6
    fires = int(scores[:-1].argmax())
    with double.edited(edits.backtrack(OUT, V, bias, tokens=1)) as receipt:
        got = double.completions("The cat", max_new_tokens=8)[0].ids
    assert got[:fires] == plain[:fires] and got[fires] != plain[fires] and "8 tokens written in 9 steps" in str(receipt)
    with double.edited(edits.backtrack(OUT, V, -1e9)) as receipt:
        assert double.completions("The cat", max_new_tokens=8)[0].ids == plain
    assert receipt.notes == []


def test_backtracking_always_ends(double):
    with double.edited(edits.backtrack(OUT, V, 1e9, tries=5, tokens=3)) as receipt:
        assert len(double.completions(["The cat", "Answer"], max_new_tokens=6)) == 2
    assert receipt.calls <= 2 * (6 + 5 * 3)


def test_a_stream_gives_what_was_kept(double):
    _, scores = written_scores(double)
    policy = edits.backtrack(OUT, V, -float(scores[:-1].max()) + 1e-6, tokens=1)
    with double.edited(policy):
        wanted = double.completions("The cat", max_new_tokens=8)[0]
        with double.stream("The cat", max_new_tokens=8) as stream:
            assert "".join(stream) == wanted.text and stream.completion == wanted
        with pytest.raises(NotSupported, match="log-probabilities"):
            double.stream("The cat", logprobs=True)
    assert len(HOOKS) == 0


# Files ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steer", [None, edits.add(OUT, V.float()) * 2 + edits.clamp(OUT, high=3.0)])
def test_what_is_saved_comes_back(tmp_path, steer):
    policy = edits.backtrack(OUT, V.float(), 0.5, threshold=-1.0, tokens=3, tries=2, edit=steer)
    loaded = op.load_edit(policy.save(tmp_path / "a.edit"))
    assert isinstance(loaded, edits.Backtrack) and torch.equal(loaded.weight, policy.weight)
    assert (loaded.site, loaded.bias, loaded.threshold, loaded.tokens, loaded.tries) == (OUT, 0.5, -1.0, 3, 2)
    assert loaded.save(tmp_path / "b.edit").read_bytes() == (tmp_path / "a.edit").read_bytes()
    assert (loaded.edit is None) == (steer is None)


def test_a_policy_of_ones_own_is_code_and_no_file_holds_it(tmp_path):
    with pytest.raises(NotSupported, match="cannot be saved"):
        Plain().save(tmp_path / "a.edit")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("change", [
    {"policy": "Plain"}, {"settings": {}}, {"settings": {"bias": 0.0, "threshold": 0.0, "tokens": 1.5, "tries": 1}},
    {"settings": {"bias": 0.0, "threshold": 0.0, "tokens": 0, "tries": 1}}, {"edit": 3}, {"site": 3}, {"extra": 1},
    {"edit": {"node": "prefix", "system": "x", "turns": [], "provenance": {}}},
])  # fmt: skip
def test_a_file_that_was_tampered_with_is_refused(tmp_path, change):
    import json

    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    path = edits.backtrack(OUT, V.float()).save(tmp_path / "a.edit")
    with safe_open(path, framework="pt") as file:
        described = json.loads(file.metadata()["optrode"])
    described["edit"] |= change
    save_file(load_file(path), path, metadata={"optrode": json.dumps(described)})
    with pytest.raises(BadFile, match="damaged"):
        op.load_edit(path)


# Refusals -------------------------------------------------------------------------------------------------------------


def test_what_a_policy_cannot_do_is_refused(double, prompts):
    with double.edited(Plain()):
        double.generate("The cat", max_new_tokens=2)
        with pytest.raises(NotSupported, match="a read has none"):
            double.read(prompts, OUT)
        for options in ({"num_beams": 2}, {"prompt_lookup_num_tokens": 2}, {"cache_implementation": "static"},
                        {"use_cache": False}, {"custom_generate": "x/y"}):  # fmt: skip
            with pytest.raises(NotSupported, match="policy edit"):
                double.generate("The cat", max_new_tokens=2, **options)
        with pytest.raises(NotSupported, match="only one"), double.edited(Plain()):
            pass
    with pytest.raises(EditDidNothing, match="never ran"), double.edited(Plain()):
        pass
    with pytest.raises(UnknownSite), double.edited(edits.backtrack("layers.9.out", V)):
        pass
    with pytest.raises(NotSupported, match="strength"):
        Plain() * 2
    for wrong in ({"tokens": 0}, {"tries": 0}):
        with pytest.raises(BadInput):
            edits.backtrack(OUT, V, **wrong)
    with pytest.raises(BadInput):
        edits.backtrack(OUT, V[None])


@pytest.mark.parametrize(("act", "error"), [
    (lambda state: state.crop(1), BadInput), (lambda state: state.fork(0), BadInput),
    (lambda state: state.keep([]), BadInput), (lambda state: state.keep([1]), BadInput),
    (lambda state: state.keep([-1]), BadInput),
])  # fmt: skip
def test_what_a_step_cannot_do_is_refused_and_leaves_nothing(double, act, error):
    @dataclass(frozen=True, eq=False)
    class Wrong(PolicyEdit):
        def step(self, state):
            state.apply(edits.add(OUT, V))
            act(state)
            return state.choose()

    with pytest.raises(error), double.edited(Wrong()):
        double.generate("The cat")
    assert len(HOOKS) == 0 and ACTIVE.get() == () and POLICY.get() is None


def test_a_step_that_gives_the_wrong_number_of_tokens(double):
    @dataclass(frozen=True, eq=False)
    class Wrong(PolicyEdit):
        def step(self, state):
            return state.logits.argmax(-1, keepdim=True)

    with pytest.raises(WrongShape, match="step gave tokens"), double.edited(Wrong()):
        double.generate("The cat")


def test_a_network_without_a_cache_has_no_policy():
    model = op.load(torch.nn.Sequential(torch.nn.Linear(3, 3)))
    with pytest.raises(NotSupported), model.edited(Plain()):
        pass
