from __future__ import annotations

import csv
import json
from collections import Counter

import pytest

from optrode.data import read_behaviour
from optrode.errors import BadFile, BadInput, MissingFile


def rows(count=45, groups=9):
    return [
        {
            "prompt": f"Ask {n}?",
            "positive": f"Yes, gladly {n}.",
            "negative": f"No, never {n}.",
            "group": f"g{n % groups}",
        }
        for n in range(count)
    ]


def jsonl(path, items):
    path.write_text("\n".join(json.dumps(item) for item in items), encoding="utf-8")
    return path


def table(path, items):
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(items[0]))
        writer.writeheader()
        writer.writerows(items)
    return path


def everything(found):
    return [found.fit, found.tune, found.test, found.judge]


def test_csv_and_jsonl_give_the_same_behaviour(tmp_path):
    one = read_behaviour(table(tmp_path / "help.csv", rows()))
    other = read_behaviour(jsonl(tmp_path / "help.jsonl", rows()))
    assert everything(one) == everything(other) and one.name == other.name == "help"


def test_every_pair_lands_in_exactly_one_split_and_groups_stay_together(tmp_path):
    found = read_behaviour(jsonl(tmp_path / "a.jsonl", rows()))
    groups = [{item.group for item in split} for split in everything(found)]
    assert sum(map(len, groups)) == len(set().union(*groups)) == 9
    assert (len(found.fit), len(found.judge) // 2, len(found.test), len(found.tune)) == (15, 15, 10, 5)
    said = [pair.positive for pair in found.fit] + [choice.positive[0] for choice in found.tune + found.test]
    said += [item.text for item in found.judge if item.label == 1]
    assert Counter(said) == Counter(row["positive"] for row in rows())


def test_a_split_does_not_depend_on_the_order_of_rows(tmp_path):
    one = read_behaviour(jsonl(tmp_path / "a.jsonl", rows()))
    other = read_behaviour(jsonl(tmp_path / "b.jsonl", rows()[::-1]))
    assert {pair.group for pair in one.fit} == {pair.group for pair in other.fit}


def test_one_large_group_leaves_no_split_empty(tmp_path):
    items = [row | {"group": "big"} for row in rows(40)] + [row | {"group": f"s{n}"} for n, row in enumerate(rows(3))]
    assert all(everything(read_behaviour(jsonl(tmp_path / "a.jsonl", items))))


def test_without_groups_a_prompt_is_its_group(tmp_path):
    items = [{key: row[key] for key in ("prompt", "positive", "negative")} for row in rows(36)]
    for row in items[1::2]:
        row["prompt"] = items[0]["prompt"]
    found = read_behaviour(table(tmp_path / "a.csv", items))
    holds = [any(item.group == items[0]["prompt"] for item in split) for split in everything(found)]
    assert sum(holds) == 1


def test_choices_hold_the_whole_reply(tmp_path):
    choice = read_behaviour(jsonl(tmp_path / "a.jsonl", rows())).test[0]
    assert choice.opening == "" and len(choice.positive) == len(choice.negative) == 1
    assert choice.positive[0].startswith("Yes, gladly")


def test_quoted_line_breaks_and_a_byte_order_mark_are_read(tmp_path):
    path = table(tmp_path / "a.csv", [row | {"positive": f"Yes,\nline two\u2028 {n}"} for n, row in enumerate(rows())])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert "\nline two\u2028" in read_behaviour(path).fit[0].positive


def test_missing_file_names_its_neighbour(tmp_path):
    jsonl(tmp_path / "polite.jsonl", rows())
    with pytest.raises(MissingFile, match=r"did you mean polite\.jsonl"):
        read_behaviour(tmp_path / "polit.jsonl")
    with pytest.raises(MissingFile, match="is a folder"):
        read_behaviour(tmp_path)


def test_missing_column_names_the_nearest(tmp_path):
    items = [{("postive" if key == "positive" else key): value for key, value in row.items()} for row in rows()]
    for path in (table(tmp_path / "a.csv", items), jsonl(tmp_path / "a.jsonl", items)):
        with pytest.raises(BadInput, match="no column 'positive'; rename 'postive'"):
            read_behaviour(path)


@pytest.mark.parametrize("text", ["", "\n\n", "prompt,positive,negative\n"])
def test_empty_file(tmp_path, text):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(BadInput, match="holds no pairs"):
        read_behaviour(tmp_path / "a.csv")


def test_one_side_empty(tmp_path):
    with pytest.raises(BadInput, match="'negative' is empty in every row"):
        read_behaviour(jsonl(tmp_path / "a.jsonl", [row | {"negative": " "} for row in rows()]))


def test_unequal_lengths(tmp_path):
    items = rows()
    del items[6]["negative"]
    with pytest.raises(BadInput, match=r"line 7 has no negative.*45 positive, 44 negative"):
        read_behaviour(jsonl(tmp_path / "a.jsonl", items))


def test_too_few_pairs_or_groups(tmp_path):
    with pytest.raises(BadInput, match="29 pairs; at least 30"):
        read_behaviour(jsonl(tmp_path / "a.jsonl", rows(29)))
    with pytest.raises(BadInput, match="3 groups; at least 4"):
        read_behaviour(jsonl(tmp_path / "a.jsonl", rows(45, groups=3)))


def test_equal_replies_and_values_that_are_not_text(tmp_path):
    items = rows()
    items[4]["negative"] = items[4]["positive"]
    with pytest.raises(BadInput, match="line 5: positive and negative are the same"):
        read_behaviour(jsonl(tmp_path / "a.jsonl", items))
    with pytest.raises(BadInput, match="'prompt' must be text, not int"):
        read_behaviour(jsonl(tmp_path / "a.jsonl", [row | {"prompt": 3} for row in rows()]))


def test_damaged_files(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"prompt": "x"')
    with pytest.raises(BadFile, match="line 1 is not valid JSON"):
        read_behaviour(tmp_path / "a.jsonl")
    (tmp_path / "b.jsonl").write_text('["x"]')
    with pytest.raises(BadFile, match="not a JSON object"):
        read_behaviour(tmp_path / "b.jsonl")
    (tmp_path / "c.csv").write_bytes("prompt,positive,negative\ncafé,a,b".encode("latin-1"))
    with pytest.raises(BadFile, match="not UTF-8"):
        read_behaviour(tmp_path / "c.csv")
    (tmp_path / "d.xlsx").write_text("x")
    with pytest.raises(BadFile, match=r"neither \.csv nor \.jsonl"):
        read_behaviour(tmp_path / "d.xlsx")
    (tmp_path / "e.csv").write_text("prompt,positive,negative\nwhy, really,a,b\n")
    with pytest.raises(BadInput, match="line 2 does not have the 3 cells"):
        read_behaviour(tmp_path / "e.csv")
