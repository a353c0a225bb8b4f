from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from optrode.batches import Batch, Role
from optrode.errors import BadInput
from optrode.positions import Positions

P, T, S, U, A = (int(role) for role in (Role.PAD, Role.TEMPLATE, Role.SYSTEM, Role.USER, Role.ASSISTANT))
# Two conversations; the second has a forced opening and no system prompt.
ROLES = [[T, S, S, T, U, U, U, T, T], [T, U, U, T, T, A]]
SPECIAL = [[1, 0, 0, 1, 0, 0, 0, 1, 0], [1, 0, 0, 1, 0, 0]]
ENDS = [8, 4]
TEXTS = ("<sysys><ababa><h", "<uu><hA")
STARTS = [[0, 1, 3, 5, 7, 8, 10, 12, 14], [0, 1, 2, 3, 5, 6]]
STOPS = [[1, 3, 5, 7, 8, 10, 12, 14, 16], [1, 2, 3, 5, 6, 7]]


def batch(side: str) -> Batch:
    width = 9
    before = [width - len(row) if side == "left" else 0 for row in ROLES]

    def laid(rows: list[list[int]]) -> torch.Tensor:
        return torch.tensor(
            [[0] * left + row + [0] * (width - left - len(row)) for left, row in zip(before, rows, strict=True)]
        )

    roles = laid(ROLES)
    return Batch(
        ids=roles + 10,
        mask=roles != P,
        roles=roles.to(torch.int8),
        special=laid(SPECIAL).bool(),
        instruction_end=torch.tensor(ENDS) + torch.tensor(before),
        texts=TEXTS,
        offsets=torch.stack([laid(STARTS), laid(STOPS)], -1),
    )


# The places of each row, counted in its own tokens.
WANTED = {
    "all": (range(9), range(6)),
    "prompt": (range(9), range(6)),
    "generated": ((), ()),
    "generated:0-3": ((), ()),
    "last_prompt": ([8], [5]),
    "after_instruction": ([8], [4, 5]),
    "template": ([0, 3, 7, 8], [0, 3, 4]),
    "system": ([1, 2], ()),
    "user": ([4, 5, 6], [1, 2]),
    "assistant": ((), [5]),
    "text": ((), ()),
    "content": ([1, 2, 4, 5, 6], [1, 2, 5]),
    "dialogue": ([4, 5, 6], [1, 2, 5]),
    "first:3": ([0, 1, 2], [0, 1, 2]),
    "first:2@user": ([4, 5], [1, 2]),
    "index:0,2,-1": ([0, 2, 8], [0, 2, 5]),
    "index:-7": ([2], ()),
    "index:6": ([6], ()),
}


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("text", WANTED)
def test_every_selection_by_hand(text: str, side: str):
    given_batch = batch(side)
    found = Positions(text).in_prompt(given_batch)
    assert found.dtype == torch.bool and not bool((found & ~given_batch.mask).any())
    for row, wanted in enumerate(WANTED[text]):
        own = given_batch.mask[row].long().cumsum(0) - 1
        assert own[found[row]].tolist() == list(wanted)


@pytest.mark.parametrize("side", ["left", "right"])
def test_span_takes_every_token_that_overlaps_it(side: str):
    one = batch(side).pick([0])
    # "ab" stands at 8 and 10 of the text: tokens [8, 10) and [10, 12); "aba" overlaps itself.
    assert Positions("span:ab").in_prompt(one)[0].nonzero().flatten().tolist() == [5, 6]
    assert Positions("span:sy").in_prompt(one)[0].nonzero().flatten().tolist() == [1, 2]
    assert Positions("span:aba").in_prompt(one)[0].nonzero().flatten().tolist() == [5, 6, 7]
    with pytest.raises(BadInput, match="prompt 1 does not contain"):
        Positions("span:ab").in_prompt(batch(side))


def test_too_few_tokens_are_refused_with_their_number():
    with pytest.raises(BadInput, match="need 3 tokens, but prompt 1 has 2"):
        Positions("first:3@user").in_prompt(batch("left"))


@given(st.integers(0, 6), st.one_of(st.none(), st.just(""), st.integers(0, 8)), st.integers(0, 9), st.integers(1, 4))
def test_written_tokens_one_by_one(first: int, last: int | str | None, start: int, count: int):
    positions = Positions(f"generated:{first}" + ("" if last is None else f"-{last}"))
    stop = first if last is None else (10**6 if last == "" else last)
    flags = [first <= step <= stop for step in range(start + count)]
    assert positions.in_generated(start, count) == flags[start:]
    assert positions.written_before(start) == sum(flags[:start])


@pytest.mark.parametrize("text", WANTED)
def test_which_selections_hold_written_tokens(text: str):
    written = text in ("all", "generated", "after_instruction", "content", "dialogue")
    assert Positions(text).in_generated(7, 2) == [written] * 2
    assert Positions(text).written_before(3) == (3 if written or text == "generated:0-3" else 0)


@given(st.text(max_size=20))
def test_any_text_is_a_selection_or_refused_in_one_line(text: str):
    try:
        positions = Positions(text)
        assert str(positions) == text
        positions.in_generated(0, 2)
    except BadInput as refused:
        assert len(str(refused).splitlines()) == 1


@pytest.mark.parametrize(
    "text", ["last", "first:0", "first:2@nobody", "index:", "generated:", "span:", "", "Last_prompt"]
)
def test_unknown_selections(text: str):
    with pytest.raises(BadInput, match="did you mean"):
        Positions(text)
    with pytest.raises(BadInput):
        Positions("generated:" + "9" * 5000)
