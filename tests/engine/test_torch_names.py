"""The canary for private names of torch: fails when a release moves one of them."""

from __future__ import annotations

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from optrode.engine.torch_names import backward_number, regions, runs_again

X = torch.ones(2, 3)


@pytest.mark.parametrize("reentrant", [False, True])
def test_regions_are_found_in_their_first_pass_and_can_be_wrapped(reentrant: bool):
    seen, wrapped = [], []

    def inside(h):
        found = list(regions())
        seen.append((len(found), runs_again(), backward_number() >= 0))
        for region in found:
            assert region.reentrant == reentrant and region.needs_grad and not region.marked
            assert region.arguments[0].shape == X.shape

            def wrapper(function):
                def again(*args, **kwargs):
                    wrapped.append(args[0].shape)
                    return function(*args, **kwargs)

                return again

            region.wrap(wrapper)
            assert [other.marked for other in regions()] == [True] and region.key == next(regions()).key
        return (h * h).exp()

    assert not list(regions()) and not runs_again() and backward_number() == -1
    x = X.clone().requires_grad_(True)
    checkpoint(inside, x, use_reentrant=reentrant).sum().backward()
    assert seen == [(1, False, False), (0, True, True)] and wrapped == [X.shape]
    assert torch.allclose(x.grad, 2 * X * X.square().exp())


def test_a_reentrant_region_says_whether_gradients_will_come_back():
    def inside(h, ask):
        assert [region.needs_grad for region in regions()] == [ask]
        return h * 2

    with pytest.warns(UserWarning, match="requires_grad"):
        checkpoint(inside, X, False, use_reentrant=True)
    checkpoint(inside, X.clone().requires_grad_(True), True, use_reentrant=True)


def test_regions_in_regions_are_found_from_the_inside_out():
    def inner(h):
        assert [region.reentrant for region in regions()] == [True, False]
        return h.exp()

    x = X.clone().requires_grad_(True)
    checkpoint(lambda h: checkpoint(inner, h * 2, use_reentrant=True), x, use_reentrant=False)


def test_without_gradients_a_region_is_no_region_that_runs_again():
    with torch.no_grad():
        checkpoint(lambda h: h * len([r for r in regions() if r.reentrant]), X, use_reentrant=False)


def test_the_active_modes_are_where_we_look():
    from torch.overrides import TorchFunctionMode

    from optrode.engine.torch_names import function_modes

    one, two = TorchFunctionMode(), TorchFunctionMode()
    assert function_modes() == []
    with one, two:
        assert function_modes() == [one, two]
    assert function_modes() == []
