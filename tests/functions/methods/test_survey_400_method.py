"""Every row of the list as a method is the function of that name."""

from __future__ import annotations

import pytest
import torch

import optrode as op
from optrode.errors import UnknownName


@pytest.mark.parametrize("name", ["softsign", "leaky relu", "prelu", "softmax"])
def test_it_is_the_function_of_its_name(name: str):
    x = torch.randn(3, 8)
    method = op.functions.ListedFunction(name)
    assert torch.equal(method.module(8)(x), op.functions.get(name)(x)) and method.label == op.functions.get(name).name
    assert method.recipe() == {"method": "survey-400", "function": name, "per": "layer"}


def test_parameters_by_channel_and_wrong_names():
    assert op.functions.ListedFunction("prelu", per="channel").module(8).a.shape == (8,)
    with pytest.raises(UnknownName, match="did you mean"):
        op.functions.ListedFunction("softsgin").module(8)
