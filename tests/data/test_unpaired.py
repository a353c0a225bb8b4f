"""Two sets of texts without partners, from a file of the user's."""

from __future__ import annotations

import json

import pytest

from optrode.data import read_behaviour
from optrode.data.unpaired import REQUEST
from optrode.errors import BadInput


def rows(positive=45, negative=45, groups=0):
    made = [(f"Good text {n}.", "positive", n) for n in range(positive)]
    made += [(f"Bad text {n}.", "negative", n) for n in range(negative)]
    found = [{"text": text, "label": label, "group": f"g{n % groups}" if groups else ""} for text, label, n in made]
    return found if groups else [{key: row[key] for key in ("text", "label")} for row in found]


def write(path, items):
    if path.suffix == ".csv":
        lines = [",".join(items[0]), *(",".join(str(value) for value in item.values()) for item in items)]
        path.write_text("\n".join(lines))
    else:
        path.write_text("\n".join(json.dumps(item) for item in items))
    return path


def groups_of(found):
    return [{item.group for item in split} for split in (found.fit, found.tune, found.test, found.judge)]


def test_csv_and_jsonl_give_the_same_behaviour(tmp_path):
    one, other = (read_behaviour(write(tmp_path / f"tone.{kind}", rows())) for kind in ("csv", "jsonl"))
    assert (one.fit, one.tune, one.test, one.judge) == (other.fit, other.tune, other.test, other.judge)
    assert one.name == "tone" and "45 positive and 45 negative texts of tone.csv" in one.description


def test_each_side_is_split_by_the_same_shares(tmp_path):
    found = read_behaviour(write(tmp_path / "a.jsonl", rows()))
    assert (len(found.fit), len(found.tune), len(found.test)) == (15, 5, 10)
    assert [sum(item.label == label for item in found.judge) for label in (1, 0)] == [15, 15]
    assert {pair.prompt for pair in found.fit} == {REQUEST}
    assert all(pair.positive.startswith("Good") and pair.negative.startswith("Bad") for pair in found.fit)


def test_no_text_is_in_two_splits_and_groups_stay_together(tmp_path):
    found = read_behaviour(write(tmp_path / "a.jsonl", rows(groups=9)))
    sides = [
        [text for pair in found.fit for text in (pair.positive, pair.negative)],
        [text for item in found.tune for text in item.positive + item.negative],
        [text for item in found.test for text in item.positive + item.negative],
        [item.text for item in found.judge],
    ]
    flat = [text for side in sides for text in side]
    assert len(flat) == len(set(flat)) == 90
    groups = groups_of(found)
    assert sum(map(len, groups)) == len(set().union(*groups)) == 9


def test_sides_of_unequal_length_are_cut_to_the_shorter(tmp_path):
    found = read_behaviour(write(tmp_path / "a.jsonl", rows(90, 45)))
    assert len(found.fit) == 15 and len(found.test) == 10
    assert [sum(item.label == label for item in found.judge) for label in (1, 0)] == [30, 15]


@pytest.mark.parametrize(("yes", "no"), [(1, 0), ("1", "0"), ("Yes", "No"), (True, False)])
def test_labels_may_be_written_in_several_ways(tmp_path, yes, no):
    items = [row | {"label": yes if row["label"] == "positive" else no} for row in rows()]
    assert len(read_behaviour(write(tmp_path / "a.jsonl", items)).fit) == 15


def test_what_is_wrong_is_told_with_its_line(tmp_path):
    items = rows()
    items[3]["label"] = "positiv"
    with pytest.raises(BadInput, match="line 4: label 'positiv' is not known; did you mean positive"):
        read_behaviour(write(tmp_path / "a.jsonl", items))
    items = rows()
    items[6]["text"] = " "
    with pytest.raises(BadInput, match="line 7 has no text"):
        read_behaviour(write(tmp_path / "a.jsonl", items))
    with pytest.raises(BadInput, match="29 negative texts; at least 30 of either label"):
        read_behaviour(write(tmp_path / "a.jsonl", rows(40, 29)))
    with pytest.raises(BadInput, match="too few groups"):
        read_behaviour(write(tmp_path / "a.jsonl", rows(groups=3)))


def test_a_file_of_pairs_with_a_label_is_still_one_of_pairs(tmp_path):
    items = [
        {"prompt": f"Ask {n}?", "positive": f"Yes {n}.", "negative": f"No {n}.", "label": "x", "text": "y"}
        for n in range(36)
    ]
    assert read_behaviour(write(tmp_path / "a.jsonl", items)).fit[0].prompt.startswith("Ask")
