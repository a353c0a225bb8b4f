"""The canary for accelerate: fails when a release moves a name that `optrode/offloaded.py` stands on."""

from __future__ import annotations

from pathlib import Path

import accelerate
import pytest
import torch
from torch import nn

from optrode.offloaded import alignment_hooks, execution_device, put_away, stored_tensors


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Sequential(nn.Linear(3, 2), nn.Tanh())).eval()


def test_a_plain_network_has_none_of_it() -> None:
    plain = network()
    assert execution_device(plain) is None and not any(map(alignment_hooks, plain.modules()))
    stored = dict(stored_tensors(plain))
    assert list(stored) == sorted(plain.state_dict())
    assert all(stored[name] is not None for name in stored)


@pytest.mark.parametrize("buffers", [False, True])
@pytest.mark.parametrize("where", ["memory", "disk", "chain"])
def test_weights_are_fetched_from_where_they_are_kept(where: str, buffers: bool, tmp_path: Path) -> None:
    plain, moved, cpu = network(), network(), torch.device("cpu")
    if where == "disk":
        accelerate.disk_offload(moved, str(tmp_path), execution_device=cpu, offload_buffers=buffers)
    else:
        accelerate.cpu_offload(moved, execution_device=cpu, offload_buffers=buffers)
    if where == "chain":
        accelerate.hooks.add_hook_to_module(moved[0], accelerate.hooks.ModelHook(), append=True)
    assert moved[0].weight.device.type == "meta" and execution_device(moved) == cpu
    for name, tensor in stored_tensors(moved):
        assert tensor is not None and torch.equal(tensor, plain.state_dict()[name]), name
    x = torch.ones(2, 4)
    assert torch.equal(moved(x), plain(x))


def test_what_was_left_in_the_middle_is_put_away() -> None:
    moved = accelerate.cpu_offload(network(), execution_device=torch.device("cpu"))
    moved[0]._hf_hook.pre_forward(moved[0], torch.ones(2, 4))
    assert moved[0].weight.device.type == "cpu"
    put_away(moved)
    assert all(parameter.device.type == "meta" for parameter in moved.parameters())
    put_away(moved)
    assert moved(torch.ones(2, 4)).shape == (2, 2)


def test_placeholders_that_nobody_can_fill_are_none() -> None:
    with torch.device("meta"):
        empty = nn.Linear(2, 2)
    assert dict(stored_tensors(empty)) == {"weight": None, "bias": None}
