"""Edited models in lm-eval: scores without an edit are those of the harness's own model, and edits are live in them."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import optrode as op
from optrode import edits
from optrode.errors import BadInput, EditDidNothing, NotSupported, WrongModel

pytest.importorskip("lm_eval", reason="lm-eval comes with pip install 'optrode[lm-eval]'")

OUT = "layers.1.out"
V = 3 * torch.randn(32, generator=torch.Generator().manual_seed(7))
# Contexts of many lengths, an empty one, blanks at the seam, characters of several tokens, continuations of 1 to 40.
PAIRS = [
    ("The cat", " sat"), ("The cat ", "sat on the mat"), ("", "Paris"), ("Where is the Eiffel Tower? ", " In Paris."),
    ("naïve 漢字", " 🙂"), ("a" * 90, " dog" * 10), ("The cat\n\n", "lay by the door; the dog too."), ("x", "y"),
]  # fmt: skip
TEXTS = ["The cat sat on the mat and the dog lay by the door.", "x", "Paris is the capital of France. " * 30]
QUESTIONS = [
    ("The cat sat on the", ("mat", "moon", "dog"), 0), ("Paris is the capital of", ("cats", "France"), 1),
    ("The Eiffel Tower stands in", ("Paris", "the door"), 0), ("The dog lay by the", ("door", "cat"), 0),
]  # fmt: skip


def requests(arguments: list[tuple]) -> list[Any]:
    return [SimpleNamespace(args=one) for one in arguments]


@pytest.fixture(scope="module")
def theirs(llama: op.Model) -> Any:
    """The harness's own model, on the same network."""
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=llama.module, tokenizer=llama.tokenizer, batch_size=3, device="cpu")


@pytest.fixture
def ours(llama: op.Model) -> Any:
    return op.lm_eval.Harness(llama)


def close(first: list, second: list) -> bool:
    return all(math.isclose(a, b, abs_tol=1e-4, rel_tol=1e-6) for a, b in zip(first, second, strict=True))


# As the harness's own ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [None, 1, "3"])
def test_continuations_score_as_with_the_harnesss_own_model(batch_size: Any, llama: op.Model, theirs: Any):
    ours = op.lm_eval.Harness(llama, batch_size=batch_size)
    found, wanted = (lm.loglikelihood(requests(PAIRS), disable_tqdm=True) for lm in (ours, theirs))
    assert close([score for score, _ in found], [score for score, _ in wanted])
    assert [greedy for _, greedy in found] == [greedy for _, greedy in wanted]
    likeliest = [(context, ours.generate_until(requests([(context, {"max_gen_toks": 3})]))[0]) for context, _ in PAIRS]
    sure = [(context, text) for context, text in likeliest if context and text and "\ufffd" not in text]
    assert sure and all(
        greedy == expected
        for (_, greedy), (_, expected) in zip(
            ours.loglikelihood(requests(sure)), theirs.loglikelihood(requests(sure), disable_tqdm=True), strict=True
        )
    )


@pytest.mark.parametrize("length", [256, 24])
def test_whole_texts_and_what_is_too_long(length: int, llama: op.Model):
    from lm_eval.models.huggingface import HFLM

    theirs = HFLM(pretrained=llama.module, tokenizer=llama.tokenizer, batch_size=2, max_length=length, device="cpu")
    ours = op.lm_eval.Harness(llama, max_length=length)
    whole = [(text,) for text in TEXTS]
    assert close(
        ours.loglikelihood_rolling(requests(whole)), theirs.loglikelihood_rolling(requests(whole), disable_tqdm=True)
    )
    found, wanted = (lm.loglikelihood(requests(PAIRS), disable_tqdm=True) for lm in (ours, theirs))
    assert close([score for score, _ in found], [score for score, _ in wanted])


def test_what_is_written_is_the_same(llama: op.Model, ours: Any, theirs: Any):
    settings = [{"max_gen_toks": 9, "until": ["\n"]}, {"max_gen_toks": 12, "until": ["e", "zz"], "do_sample": False}]
    asked = [(context, one) for context, _ in PAIRS if context for one in settings]
    found, wanted = (lm.generate_until(requests(asked), disable_tqdm=True) for lm in (ours, theirs))
    assert found == wanted and len({*found}) > 4 and not any("e" in text for text in found[1::2])


def test_writing_stops_at_the_stop_text(llama: op.Model, ours: Any):
    whole = ours.generate_until(requests([("The cat", {"max_gen_toks": 40})]))[0]
    letter = next(letter for letter in whole[2:] if letter.isalpha())
    count = [0]
    handle = llama.base.register_forward_pre_hook(lambda *_: count.__setitem__(0, count[0] + 1))
    try:
        cut = ours.generate_until(requests([("The cat", {"max_gen_toks": 40, "until": letter})]))[0]
    finally:
        handle.remove()
    assert cut == whole.split(letter)[0] and count[0] < 40


def task(**settings: Any) -> Any:
    """A task of our own data, in memory."""
    from datasets import Dataset
    from lm_eval.api.task import ConfigurableTask

    rows = [{"question": ask, "choices": list(choices), "answer": right} for ask, choices, right in QUESTIONS]
    config = {
        "task": "completions", "custom_dataset": lambda **_: {"test": Dataset.from_list(rows)}, "test_split": "test",
        "output_type": "multiple_choice", "doc_to_text": "{{question}}", "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{answer}}", "num_fewshot": 0, "metric_list": [{"metric": "acc"}], **settings,
    }  # fmt: skip
    return ConfigurableTask(config=config)


def evaluated(lm: Any, **options: Any) -> dict[str, Any]:
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    # The index of the harness's own tasks takes half a minute to make.
    own = TaskManager(include_defaults=False)
    return simple_evaluate(model=lm, tasks=[task()], task_manager=own, bootstrap_iters=0, **options)


def scores(found: dict[str, Any]) -> list[float]:
    return [score for sample in found["samples"]["completions"] for (score, _) in _answers(sample)]


def _answers(sample: dict[str, Any]) -> list[tuple[float, bool]]:
    return [(float(answer[0]), bool(answer[1])) for answer in sample["filtered_resps"]]


@pytest.mark.parametrize("chat", [False, True])
def test_a_task_of_our_own(chat: bool, llama: op.Model, theirs: Any):
    found, wanted = (evaluated(lm, apply_chat_template=chat) for lm in (op.lm_eval.Harness(llama), theirs))
    assert len(scores(wanted)) == 9 and close(scores(found), scores(wanted))
    assert found["results"]["completions"]["acc,none"] == wanted["results"]["completions"]["acc,none"]
    ours = op.lm_eval.Harness(llama, edits.add(OUT, V, "after_instruction" if chat else "all"))
    changed = evaluated(ours, apply_chat_template=chat)
    assert not close(scores(changed), scores(wanted)) and ours.receipt.changed > 0
    assert len(op.active()) == 0


# Edits ---------------------------------------------------------------------------------------------------------------


def test_the_edit_is_what_the_network_gets(llama: op.Model):
    edit = edits.add(OUT, V) * 0.5
    ours = op.lm_eval.Harness(llama, edit)
    ((score, _),) = ours.loglikelihood(requests([("The cat", " sat on")]))
    ids = torch.tensor([llama.tokenizer("The cat sat on")["input_ids"]])
    before = len(llama.tokenizer("The cat")["input_ids"])
    with torch.no_grad(), llama.edited(edit):
        logprobs = torch.log_softmax(llama.module(ids).logits[0], -1)
    by_hand = sum(logprobs[place - 1, ids[0, place]] for place in range(before, ids.shape[1]))
    assert score == pytest.approx(float(by_hand), abs=1e-4)
    with llama.edited(edit):
        wanted = llama.generate("The cat", template="raw", max_new_tokens=5)
    assert ours.generate_until(requests([("The cat", {"max_gen_toks": 5})])) == [wanted]
    assert ours.loglikelihood_rolling(requests([(TEXTS[0],)])) != op.lm_eval.Harness(llama).loglikelihood_rolling(
        requests([(TEXTS[0],)])
    )


def test_strength_files_and_several_edits(llama: op.Model, tmp_path: Path):
    file = edits.add(OUT, V).save(tmp_path / "x.edit")
    both = op.lm_eval.Harness(llama, [file, edits.scale("layers.2.out", 1.5)], strength=0.5)
    by_hand = op.lm_eval.Harness(llama, edits.add(OUT, V) * 0.5 >> edits.scale("layers.2.out", 1.5) * 0.5)
    one, other = (lm.loglikelihood(requests(PAIRS)) for lm in (both, by_hand))
    assert close([score for score, _ in one], [score for score, _ in other])
    off = op.lm_eval.Harness(llama, str(file), strength=0)
    plain = op.lm_eval.Harness(llama).loglikelihood(requests(PAIRS))
    assert off.loglikelihood(requests(PAIRS)) == plain != one
    assert both.get_model_info()["edits"][0] == f"add at {OUT}, strength 0.5"


def test_what_is_predicted_is_what_the_assistant_says(llama: op.Model):
    """Without a template an edit after the instruction touches the continuation alone, but for its last token."""
    ours = op.lm_eval.Harness(llama, edits.add(OUT, V, "after_instruction"))
    texts = [("The cat", " sat on the mat"), ("Where is Paris?", " There it is")]
    ours.loglikelihood(requests(texts))
    length = lambda text: len(llama.tokenizer(text)["input_ids"])  # noqa: E731
    touched = sum(length(context + text) - length(context) - 1 for context, text in texts)
    assert ours.receipt.sites[OUT].selected == touched
    with pytest.raises(EditDidNothing):
        ours.loglikelihood(requests([("a", "b")]))


def test_the_templates_roles_are_known_again(llama: op.Model):
    messages = [{"role": "system", "content": "Hm."}, {"role": "user", "content": "Where does the cat sit?"}]
    for positions in ("user", "system", "after_instruction", "span:cat"):
        ours = op.lm_eval.Harness(llama, edits.add(OUT, V, positions))
        context = ours.apply_chat_template(messages)
        ours.loglikelihood(requests([(context, "On the mat.")]))
        whole = [*messages, {"role": "assistant", "content": "On the mat."}]
        chosen = op.Positions(positions).in_prompt(llama.encode([whole]))
        # The last token only tells whether it was predicted.
        assert ours.receipt.sites[OUT].selected == int(chosen.sum()) - (positions == "after_instruction")
        count = llama.encode([messages]).mask.sum()
        ours.generate_until(requests([(context, {"max_gen_toks": 1})]))
        asked = op.Positions(positions).in_prompt(llama.encode([messages]))
        assert ours.receipt.sites[OUT].selected == int(asked.sum()) and count > 0


def test_prompts_as_edits_stand_in_front(llama: op.Model):
    prompt = edits.prompt("You are a cat.", (("user", "Hi"), ("assistant", "Meow")))
    ours = op.lm_eval.Harness(llama, prompt)
    messages = [{"role": "user", "content": "Hello"}]
    text, whole = ours.apply_chat_template(messages), prompt.messages(messages)
    assert text == llama.tokenizer.apply_chat_template(whole, tokenize=False, add_generation_prompt=True)
    plain = op.lm_eval.Harness(llama)
    assert ours.loglikelihood(requests([(text, "Yes")])) == plain.loglikelihood(requests([(text, "Yes")]))
    with pytest.raises(NotSupported, match="example turns"):
        ours.loglikelihood(requests([("Hello", "Yes")]))
    system = op.lm_eval.Harness(llama, edits.prompt("You are a cat."))
    front = [("You are a cat.\nHello", " you")]
    assert system.loglikelihood(requests([("Hello", " you")])) == plain.loglikelihood(requests(front))
    with pytest.raises(NotSupported, match="no place"):
        system.loglikelihood_rolling(requests([("Hello",)]))
    assert system.tokenizer_name != plain.tokenizer_name


def test_what_cannot_be_measured_is_refused(llama: op.Model, gpt2: op.Model, make_model: Any):
    with pytest.raises(NotSupported, match="by row"):
        op.lm_eval.Harness(llama, edits.by_row([edits.add(OUT, V)]))
    with pytest.raises(NotSupported, match="owns the loop"):
        op.lm_eval.Harness(llama, edits.backtrack(OUT, V)).loglikelihood(requests(PAIRS))
    fitted = edits.add(OUT, V).with_provenance(edits.Provenance({"name": "other", **gpt2.fingerprint}))
    with pytest.raises(WrongModel):
        op.lm_eval.Harness(llama, fitted).loglikelihood(requests(PAIRS))
    with pytest.raises(BadInput, match="no token of its own"):
        op.lm_eval.Harness(llama).loglikelihood(requests([("The cat", "")]))
    with pytest.raises(BadInput, match="takes 256"):
        op.lm_eval.Harness(llama).generate_until(requests([("a", {"max_gen_toks": 256})]))
    assert op.lm_eval.Harness(llama).loglikelihood([]) == []


def test_a_policy_writes(llama: op.Model):
    policy = edits.backtrack(OUT, V, threshold=-1e9, tokens=2, tries=1)
    with llama.edited(policy):
        wanted = llama.generate("The cat", template="raw", max_new_tokens=6)
    found = op.lm_eval.Harness(llama, policy).generate_until(requests([("The cat", {"max_gen_toks": 6})] * 2))
    assert found == [wanted] * 2


def test_the_harnesss_own_command_line_knows_it(llama: op.Model, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    from lm_eval.api.registry import get_model

    file = edits.add(OUT, V).save(tmp_path / "x.edit")
    monkeypatch.setattr("optrode.lm_eval.harness.load", lambda where, **options: llama)
    made = get_model("optrode").create_from_arg_string(f"model=tiny,edit={file},strength=2", {"batch_size": 4})
    assert type(made) is op.lm_eval.Harness and made.edits[0].strength == 2


@pytest.mark.slow
def test_smollm2_scores_as_with_the_harnesss_own_model():
    from lm_eval.models.huggingface import HFLM

    model = op.load("smollm2-135m")
    theirs = HFLM(pretrained=model.module, tokenizer=model.tokenizer, batch_size=4, device="cpu")
    ours = op.lm_eval.Harness(model)
    # Apart: the harness's own model takes logits of one request for another where all tokens but the last are the same,
    # also where it should not ("The cat" + " sat on the mat" for "The cat sat on the" + " mat").
    for pairs in ([(ask, f" {choice}") for ask, choices, _ in QUESTIONS for choice in choices], PAIRS[:-1]):
        found, wanted = (lm.loglikelihood(requests(pairs), disable_tqdm=True) for lm in (ours, theirs))
        assert close([score for score, _ in found], [score for score, _ in wanted])
        assert [greedy for _, greedy in found] == [greedy for _, greedy in wanted]
    whole = [(text,) for text in TEXTS]
    assert close(ours.loglikelihood_rolling(requests(whole)), theirs.loglikelihood_rolling(requests(whole)))
    asked = [(ask, {"max_gen_toks": 12, "until": ["\n\n"]}) for ask, _, _ in QUESTIONS]
    assert ours.generate_until(requests(asked)) == theirs.generate_until(requests(asked), disable_tqdm=True)
