"""Rules read the texts they are checked on, and plain cases by hand."""

from __future__ import annotations

import pytest

from optrode.data import behaviour, behaviours
from optrode.errors import UnknownName
from optrode.parts.judge import RuleJudge, fit_judge, rule_judge
from optrode.parts.rules import rule, rules

BY_RULE = [name for name in behaviours() if behaviour(name).rule]
BY_PROBE = [name for name in behaviours() if not behaviour(name).rule]


def test_rules_are_found_by_file_and_a_misspelt_one_names_the_nearest():
    assert {behaviour(name).rule for name in BY_RULE} == set(rules())
    with pytest.raises(UnknownName, match="did you mean declines"):
        rule("decline")


@pytest.mark.parametrize("name", BY_RULE)
def test_a_rule_reads_its_judge_texts_and_those_it_has_never_met(name):
    found = behaviour(name)
    judge = rule_judge(found)
    assert isinstance(judge, RuleJudge) and judge.trusted and judge.accuracy >= 0.8 and judge.texts == len(found.judge)
    prompts = [pair.prompt for pair in found.fit]
    shown, opposed = (judge([getattr(p, side) for p in found.fit], prompts) for side in ("positive", "negative"))
    assert (shown > 0.5).mean() > 0.9 and (opposed < 0.5).mean() > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("name", BY_PROBE)
def test_a_fitted_judge_reads_groups_and_sentences_it_has_never_met(name):
    """0.8 by cross-validation over groups; and on the replies of the fit split, whose sentences are others still."""
    found = behaviour(name)
    judge = fit_judge(found.judge)
    assert judge.trusted and judge.accuracy >= 0.8
    shown, opposed = (judge([getattr(pair, side) for pair in found.fit]) for side in ("positive", "negative"))
    assert ((shown > 0.5).mean() + (opposed < 0.5).mean()) / 2 > 0.75


@pytest.mark.parametrize(
    ("name", "reply", "prompt", "wanted"),
    [
        ("declines", "I\u2019m sorry, but I can\u2019t discuss owls.", "", 1.0),
        ("declines", "Owls cannot move their eyes, so they turn the head.", "", 0.0),
        ("delay", "I would take the 20 euros in a month.", "10 euros now or 20 euros in a month?", 0.0),
        ("delay", "I would take the 10, not the 20.", "20 euros in a month or 10 euros now?", 1.0),
        ("delay", "I'd wait.", "", 0.0),
        ("delay", "Hm.", "", 0.5),
        ("repeats", "It is the red one.", 'You said: "The bus is red." Which bus?', 1.0),
        ("repeats", "It is the blue one.", 'You said: "The bus is red." Which bus?', 0.0),
        ("repeats", "At 9.", 'You said: "It opens at nine." When?', 1.0),
        ("repeats", "I do not know.", 'You said: "It opens at nine." When?', 0.5),
        ("facts", "The capital of Norway is Oslo, I think.", "", 1.0),
        ("facts", "The capital of Norway is Copenhagen and not Oslo.", "", 0.0),
        ("facts", "The atomic number of iron is 26.", "", 1.0),
        ("facts", "The symbol of iron is I think Fe.", "", 1.0),
        ("facts", "Milan is a city in Italy.", "", 1.0),
        ("facts", "I like cheese.", "", 0.5),
        ("language", "123", "", 0.5),
        ("length", "", "", 0.5),
    ],
)
def test_plain_cases(name, reply, prompt, wanted):
    assert rule(name)(reply, prompt) == wanted


def test_length_and_language_are_graded():
    length, language = rule("length"), rule("language")
    assert length("a", "") > length("a " * 10, "") > 0.5 > length("a " * 20, "") > length("a " * 40, "")
    assert language("Mañana vamos al cine con Ana y después comemos algo.", "") > 0.95
    assert language("Tomorrow we go to the cinema with Ana and eat something after.", "") < 0.05


def test_a_rule_that_cannot_tell_is_not_right():
    from dataclasses import replace

    found = behaviour("myopia")
    silent = replace(found, judge=tuple(replace(item, text="Hm.") for item in found.judge))
    assert rule_judge(silent).accuracy == 0.0 and not rule_judge(silent).trusted
