"""The list beside another package's numbers, which are kept; and what the page says of the differences."""

from __future__ import annotations

import json

import pytest
import scipy.stats
import torch

import optrode as op

page = pytest.importorskip("tools.torch_activation_page")
oracle = pytest.importorskip("tools.oracles.torch_activation")


def test_the_kept_numbers_are_those_of_the_table() -> None:
    texts = page.about(oracle.ORACLE.path)
    lines = oracle.lines()
    assert json.loads(texts["compared"]) == [line.name for line in lines]
    assert json.loads(texts["parameters"]) == [line.theirs for line in lines]
    assert {line.verdict for line in lines} == {"", "theirs", "ours", "open"}
    assert all(line.reason for line in lines if line.verdict)


@pytest.mark.parity("survey-400")
def test_equal_where_the_table_says_so_and_nowhere_else() -> None:
    found = page.compared()
    assert len(found) > 330
    for one in found:
        assert one.same == (one.line.verdict in ("", "ours")), (one.line.name, one.float64)
        if one.same:
            assert one.float32 < 1e-5, (one.line.name, one.float32)


def test_the_page_is_what_the_tool_writes() -> None:
    assert page.PAGE.read_text(encoding="utf-8") == page.page(), "run python -m tools.torch_activation_page"


def test_third_parties_side_with_the_list() -> None:
    x = torch.linspace(-6, 6, 41, dtype=torch.float64)
    # The inverse of the complementary log-log link is a distribution function.
    rising = torch.tensor(scipy.stats.gumbel_l.cdf(x.numpy()))
    torch.testing.assert_close(op.functions.get("cLogLog")(x), rising)
    # A leaky ReLU convolved with a normal density of deviation 1/b, by the sum over a fine grid.
    a, b = 0.15, 2.0
    t = torch.linspace(-5, 5, 20_001, dtype=torch.float64)
    density = torch.exp(-0.5 * (b * t) ** 2) * b / (2 * torch.pi) ** 0.5
    leaky = torch.nn.functional.leaky_relu(x[:, None] - t, a)
    smooth = torch.trapezoid(leaky * density, t)
    torch.testing.assert_close(op.functions.get("SAU")(x, a=a, b=b), smooth, rtol=1e-6, atol=1e-6)
    # ELU is the limit of its smoothed form, and PDELU with b near 1 is ELU.
    elu = torch.nn.functional.elu(x)
    torch.testing.assert_close(op.functions.get("ELUPlus")(x, e=1e-14), elu, rtol=0, atol=1e-6)
    near = op.functions.get("PDELU")(x, a=0.6, b=1 - 1e-7)
    torch.testing.assert_close(near, torch.nn.functional.elu(x, 0.6), rtol=0, atol=1e-5)


def test_numbers_for_parameters_keep_their_precision() -> None:
    x = torch.tensor([-3.0], dtype=torch.float64)
    assert op.functions.get("leaky relu")(x, a=0.1).item() == pytest.approx(-0.3, abs=1e-16)
