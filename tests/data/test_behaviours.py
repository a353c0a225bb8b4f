"""Properties that every behaviour of the package must have, and the stricter ones that sentiment promises."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from importlib import import_module
from pathlib import Path

import pytest

from optrode.data import behaviour, behaviours, pairs
from optrode.data.behaviours import sentiment
from optrode.errors import UnknownName

SPLITS = ("fit", "tune", "test", "judge")
# Behaviours whose choices are the right and a wrong answer to each prompt, not a vocabulary.
BY_VALUE = ("truthfulness", "paraphrase-consistency")
CONTINUATIONS = Path(__file__).parent / "single_tokens.txt"


def prompts(name, split):
    return {item.prompt for item in getattr(behaviour(name), split) if hasattr(item, "prompt")}


def replies(name, split):
    """Every text that the assistant says in a split; for choices each opening with each continuation."""
    texts = []
    for item in getattr(behaviour(name), split):
        if split == "fit":
            texts += [item.positive, item.negative]
        elif split == "judge":
            texts.append(item.text)
        else:
            texts += [item.opening + word for word in item.positive + item.negative]
    return texts


def offered(name, split):
    return {word.strip() for item in getattr(behaviour(name), split) for word in item.positive + item.negative}


def words_of(texts):
    return {word for text in texts for word in re.findall(r"[a-z'-]+", text.lower())}


def test_behaviours_are_found_by_file():
    folder = Path(sentiment.__file__).parent
    files = (file.stem for file in folder.glob("*.py"))
    assert behaviours() == sorted(name.replace("_", "-") for name in files if not name.startswith("_"))
    assert {
        "sentiment", "formality", "truthfulness", "topic-ocean", "topic-music", "language", "conciseness",
        "decline-birds", "extraversion", "myopia", "paraphrase-consistency",
    } <= set(behaviours())  # fmt: skip
    assert behaviour("decline_birds") is not None and behaviour("decline_birds").name == "decline-birds"


def test_a_misspelt_behaviour_names_the_nearest():
    with pytest.raises(UnknownName, match="did you mean sentiment"):
        behaviour("sentimnt")


def test_pairs_are_the_fit_split():
    assert pairs("sentiment") is behaviour("sentiment").fit


def test_reading_data_imports_no_heavy_library():
    code = (
        "import sys; from optrode.data import behaviour, neutral_texts; behaviour('sentiment'); neutral_texts();"
        "assert not {'torch', 'numpy', 'pandas', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


@pytest.mark.parametrize("name", behaviours())
def test_a_build_repeats_itself(name):
    build = import_module(f"optrode.data.behaviours.{name.replace('-', '_')}").build
    assert build() == build() == behaviour(name)


@pytest.mark.parametrize("name", behaviours())
class TestEveryBehaviour:
    def test_is_named_like_its_file(self, name):
        assert behaviour(name).name == name

    def test_contrast_words_are_short(self, name):
        """They are added to the first tokens of a prompt, which must have as many."""
        assert all(0 < len(word.split()) <= 2 and len(word) <= 12 for word in behaviour(name).words)

    def test_is_large_enough(self, name):
        found = behaviour(name)
        assert len(found.fit) >= 200 and len(found.tune) >= 60 and len(found.test) >= 120 and len(found.judge) >= 400

    def test_judge_is_balanced_in_every_group(self, name):
        judge = behaviour(name).judge
        for group in {item.group for item in judge}:
            labels = [item.label for item in judge if item.group == group]
            assert set(labels) == {0, 1} and sum(labels) * 2 == len(labels)

    def test_choices_have_as_many_words_on_either_side(self, name):
        for choice in behaviour(name).tune + behaviour(name).test:
            assert len(choice.positive) == len(choice.negative) == len(set(choice.positive + choice.negative)) / 2
            assert len(choice.positive) == 1 if name in BY_VALUE else 6 <= len(choice.positive) <= 10
            wanted = r" \w[\w .'-]*" if name in BY_VALUE else r" [A-Za-z]+"
            assert all(re.fullmatch(wanted, word) for word in choice.positive + choice.negative)
            assert choice.opening and choice.opening == choice.opening.strip()

    def test_splits_share_no_subject_prompt_or_reply(self, name):
        for index, one in enumerate(SPLITS):
            for other in SPLITS[index + 1 :]:
                groups = [{item.group for item in getattr(behaviour(name), split)} for split in (one, other)]
                assert not groups[0] & groups[1]
                assert not prompts(name, one) & prompts(name, other)
                assert not set(replies(name, one)) & set(replies(name, other))

    def test_nothing_is_said_twice_within_a_split(self, name):
        for split in ("tune", "test"):
            keys = [(item.prompt, item.opening) for item in getattr(behaviour(name), split)]
            assert len(set(keys)) == len(keys)
        for split in ("fit", "judge"):
            texts = replies(name, split)
            if name == "paraphrase-consistency":  # the same answer to different messages
                texts = [
                    (item.prompt, getattr(item, "positive", "") or item.text)
                    for item in getattr(behaviour(name), split)
                ]
            assert len(set(texts)) > 0.95 * len(texts)

    def test_tune_and_test_offer_different_words(self, name):
        assert not offered(name, "tune") & offered(name, "test")

    def test_replies_do_not_all_start_alike(self, name):
        for split in ("fit", "judge"):
            starts = [" ".join(text.split()[:2]) for text in replies(name, split)]
            assert max(map(starts.count, set(starts))) < 0.1 * len(starts)

    def test_no_slot_is_left_and_sentences_are_whole(self, name):
        for split in ("fit", "judge"):
            for text in replies(name, split):
                assert not re.search(r"[{}]|\s\s|\.\.|\s[.,;:!?]|,\.", text), text
                assert text[0] == text[0].upper() and re.search(r"([.!?]|lol\.)$", text), text
        for split in ("fit", "tune", "test"):
            assert not any(re.search(r"[{}]|\s\s", text) for text in prompts(name, split))

    def test_articles_and_verbs_agree(self, name):
        texts = [text for split in SPLITS for text in replies(name, split)]
        texts += [text for split in SPLITS for text in prompts(name, split)]
        vowel_after_a = re.compile(r"\ba (?!one\b|uni|use|eu)[aeiou]\w+", re.IGNORECASE)
        n_before_consonant = re.compile(r"\ban (?!hour|hon[eo]|heir)[bcdfghjklmnpqrstvwxyz]\w*", re.IGNORECASE)
        plural = "shoes|headphones|boots|sandwiches|curtains|lost keys"
        wrong_verb = re.compile(
            rf"(?<!about )(?<!quality of )\bthe ({plural}) (was|is|has)\b|\bwas the ({plural})\b|\b(it|she|he) were\b"
        )
        for text in texts:
            for pattern in (vowel_after_a, n_before_consonant, wrong_verb):
                assert not pattern.search(text), text

    def test_no_side_wins_by_a_value_alone(self, name):
        """Where the right answer changes with the prompt, each value is right about as often as it is wrong."""
        if name not in BY_VALUE:
            return
        for split in ("tune", "test"):
            choices = getattr(behaviour(name), split)
            right, wrong = (Counter(getattr(item, side)[0] for item in choices) for side in ("positive", "negative"))
            assert set(right) == set(wrong)
            assert all(abs(right[value] - wrong[value]) <= 3 for value in right), (right, wrong)

    def test_questions_are_of_the_test_split_and_matched_ones_of_none(self, name):
        found = behaviour(name)
        assert len(found.questions) >= 60
        assert {item.group for item in found.questions} <= {item.group for item in found.test}
        groups = {item.group for split in SPLITS for item in getattr(found, split)}
        assert not groups & {item.group for item in found.matched}

    def test_continuations_are_listed_as_single_tokens(self, name):
        if name == "truthfulness":
            return
        known = set(CONTINUATIONS.read_text(encoding="utf-8").split())
        assert offered(name, "tune") | offered(name, "test") <= known


def test_no_word_of_a_sentiment_choice_occurs_in_the_replies_fitted_on():
    said = words_of(replies("sentiment", "fit"))
    assert not said & (offered("sentiment", "tune") | offered("sentiment", "test"))


def test_sentiment_judge_has_words_of_its_own():
    said = words_of(replies("sentiment", "judge"))
    choices = offered("sentiment", "tune") | offered("sentiment", "test")
    free = [text for text in replies("sentiment", "judge") if not words_of([text]) & choices]
    assert len(said - words_of(replies("sentiment", "fit")) - choices) > 300
    assert len(free) > 400  # subtle texts: no adjective of the choices at all


@pytest.mark.slow
def test_continuations_are_single_tokens_of_the_reference_tokenizer():
    """Run where the SmolLM2 tokenizer lies in a folder or GGUF file that OPTRODE_TEST_TOKENIZER names."""
    import os

    source = os.environ.get("OPTRODE_TEST_TOKENIZER")
    if not source:
        pytest.skip("set OPTRODE_TEST_TOKENIZER to a tokenizer folder or a GGUF file")
    from transformers import AutoTokenizer

    path = Path(source)
    if path.suffix == ".gguf":
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    else:
        tokenizer = AutoTokenizer.from_pretrained(path)
    for word in CONTINUATIONS.read_text(encoding="utf-8").split():
        assert len(tokenizer.encode(f" {word}", add_special_tokens=False)) == 1, word
