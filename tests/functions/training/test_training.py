"""The trainer of small networks: paired runs, rates chosen on the tune part, runs that blow up, hooks of methods."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from optrode.errors import BadInput, MissingFile, UnknownName
from optrode.functions.methods.protocol import ActivationMethod, NamedFunction
from optrode.functions.training import comparing, networks, tasks, train
from optrode.functions.training.health import measure_health

BUILD = networks.mlp(64, (16,), 10)
SHORT = train.Budget(seeds=(0, 1), rates=(1e-3, 1e-2), steps=60)


@dataclass(frozen=True)
class Zero(ActivationMethod):
    """A function that lets nothing through."""

    title = "zero"

    def module(self, width: int, *, axis: int = -1) -> nn.Module:
        class Nothing(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return x * 0

        return Nothing()


@pytest.mark.parametrize("task", [tasks.digits(), tasks.digits(picture=True), tasks.inr(), tasks.text(20_000)])
def test_parts_share_no_example_and_depend_on_the_seed(task: tasks.Task) -> None:
    split = task.split(0)
    kept = [{tuple(row.flatten().tolist()) for row in part.inputs} for part in (split.fit, split.tune, split.test)]
    # A few windows of text may be equal by chance; digits and pixels are not.
    assert all(len(a & b) <= (2 if task.name == "text" else 0) for a in kept for b in kept if a is not b)
    assert all(part.inputs.shape[1:] == task.inputs for part in (split.fit, split.tune, split.test))
    again, other = task.split(0), task.split(1)
    assert torch.equal(again.fit.inputs, split.fit.inputs)
    assert task.name == "text" or not torch.equal(other.fit.inputs, split.fit.inputs)


@pytest.mark.parametrize("task", [tasks.digits(), tasks.inr(), tasks.text(20_000)], ids=lambda task: task.name)
def test_a_perfect_answer_has_the_best_score(task: tasks.Task) -> None:
    targets = task.split(0).test.targets
    perfect = targets if task.name == "inr" else 50 * nn.functional.one_hot(targets, task.outputs).float()
    found, other = task.score(perfect, targets), task.score(torch.randn(perfect.shape), targets)
    assert task.better(found) > task.better(other) and task.better(other) > task.better(task.worst) - 1e9
    assert found == {"digits": 1.0, "inr": float("inf"), "text": pytest.approx(0, abs=1e-6)}[task.name]


def test_first_weights_do_not_depend_on_the_method() -> None:
    first, second = (BUILD(NamedFunction(name, per="channel").module, 3) for name in ("relu", "prelu"))
    assert torch.equal(first[0].weight, second[0].weight) and torch.equal(first[2].weight, second[2].weight)
    assert not torch.equal(BUILD(NamedFunction().module, 4)[0].weight, first[0].weight)


@pytest.mark.parametrize("name", ["relu", "rrelu"])
def test_the_same_again(name: str) -> None:
    task = tasks.digits()
    one, two = (train.train(task, NamedFunction(name), BUILD, SHORT) for _ in range(2))
    assert one.scores == two.scores and one.rate == two.rate
    assert [run.curve for run in one.runs] == [run.curve for run in two.runs]


def test_the_random_numbers_of_the_caller_stay() -> None:
    task, state = tasks.digits(), torch.get_rng_state()
    train.run_once(task, NamedFunction("rrelu"), BUILD, replace(SHORT, steps=2), 0, 1e-2, task.split(0))
    assert torch.equal(torch.get_rng_state(), state)


def test_what_lets_nothing_through_loses() -> None:
    task = tasks.digits()
    found = train.train_all(task, [NamedFunction("relu"), Zero()], BUILD, SHORT)
    assert found[0].scores[0] > 0.8 and found[1].scores[0] < 0.3
    assert comparing.gain(found[0], found[1]).low > 0
    assert comparing.first(found) == {"relu": 1.0, "zero": 0.0}
    assert found[1].health["dead"] == 1 and found[1].health["sparsity"] == 1 and found[0].health["dead"] < 0.5


def test_the_rate_is_chosen_on_the_tune_part_alone() -> None:
    task = tasks.digits()

    def turned(seed: int) -> tasks.Split:
        """Test targets are all wrong, which must not change the choice."""
        split = task.split(seed)
        return replace(split, test=tasks.Part(split.test.inputs, (split.test.targets + 1) % 10))

    plain = train.train(task, NamedFunction(), BUILD, SHORT)
    other = train.train(replace(task, split=turned), NamedFunction(), BUILD, SHORT)
    assert plain.rate == other.rate == max(plain.tuning, key=lambda rate: plain.tuning[rate])
    assert max(other.scores) < 0.3 < 0.8 < min(plain.scores)


def test_a_run_that_blows_up_is_the_worst_and_no_crash() -> None:
    task = tasks.inr(16)
    budget = train.Budget(seeds=(0,), rates=(1e12, 1e-3), steps=30, optimiser="sgd")
    found = train.train(task, NamedFunction("identity"), networks.coordinate_mlp((8, 8)), budget)
    assert found.rate == 1e-3 and found.tuning[1e12] == task.worst and found.diverged == 0
    lost = train.train(task, NamedFunction("identity"), networks.coordinate_mlp((8, 8)), replace(budget, rates=(1e12,)))
    assert lost.diverged == 1 and lost.scores == (task.worst,) and lost.health == {}


def test_a_method_is_called_where_it_asks_to_be() -> None:
    calls: list[Any] = []

    @dataclass(frozen=True)
    class Watching(NamedFunction):
        def initialise(self, network: nn.Module, example: Tensor) -> None:
            calls.append(("start", tuple(example.shape)))
            nn.init.zeros_(network[-1].weight)  # type: ignore[index,union-attr,arg-type]

        def penalty(self, network: nn.Module) -> Tensor | None:
            return 100 * sum(p.square().sum() for p in network[0].parameters())  # type: ignore[index,union-attr]

        def before_step(self, network: nn.Module, step: int, steps: int) -> None:
            calls.append((step, steps))

        def after_training(self, network: nn.Module) -> None:
            calls.append("end")

        def without_decay(self, network: nn.Module) -> Any:
            return network[0].parameters()  # type: ignore[index,union-attr]

    task = tasks.digits()
    budget = replace(SHORT, seeds=(0,), rates=(1e-2,), steps=3)
    with_penalty = train.run_once(task, Watching(), BUILD, budget, 0, 1e-2, task.split(0))
    assert calls == [("start", (64, 64)), (0, 3), (1, 3), (2, 3), "end"]
    assert with_penalty.curve[0] > train.run_once(task, NamedFunction(), BUILD, budget, 0, 1e-2, task.split(0)).curve[0]


def test_parameters_without_decay_keep_their_size() -> None:
    @dataclass(frozen=True)
    class Kept(NamedFunction):
        def without_decay(self, network: nn.Module) -> Any:
            return [network[0].weight]  # type: ignore[index,union-attr]

    task = tasks.digits()
    free = replace(task, loss=lambda outputs, _: (outputs * 0).sum())
    budget = replace(SHORT, weight_decay=1.0, cosine=False)
    made: list[nn.Module] = []

    def build(activation: Any, seed: int) -> nn.Module:
        made.append(BUILD(activation, seed))
        return made[-1]

    train.run_once(free, Kept(), build, budget, 0, 1e-2, task.split(0))
    start = BUILD(NamedFunction().module, 0)
    assert torch.equal(made[0][0].weight, start[0].weight)  # type: ignore[index]
    assert made[0][2].weight.norm() < 0.7 * start[2].weight.norm()  # type: ignore[index,union-attr,operator]


def test_health_of_a_network_by_hand() -> None:
    task = tasks.digits()
    network = nn.Sequential(nn.Linear(64, 4), nn.ReLU(), nn.Linear(4, 10))
    with torch.no_grad():
        network[0].weight[0], network[0].bias[0] = 0, -1  # never active
        network[0].weight[1], network[0].bias[1] = 0, 2  # always the same
    found = measure_health(task, network, [network[1]], task.split(0).fit)
    answers = network[1](network[0](task.split(0).fit.inputs[:256]))
    assert found.dead == 0.5 and found.sparsity == pytest.approx(float((answers == 0).float().mean()))
    assert found.gradients > 0 and found.kept >= 256 * 64 * 4


def test_ranks_and_whether_seeds_agree() -> None:
    def made(label: str, scores: tuple[float, ...], higher: bool = True) -> train.Trained:
        return train.Trained(label, "digits", higher, 1e-3, scores, {}, ())

    clear = [made("a", (0.9, 0.8)), made("b", (0.7, 0.6)), made("c", (0.5, 0.4))]
    assert comparing.agreement(clear) == pytest.approx(1)
    assert comparing.ranks(clear).tolist() == [[1, 2, 3], [1, 2, 3]]
    mixed = [made("a", (0.9, 0.4)), made("b", (0.7, 0.6)), made("c", (0.5, 0.8))]
    assert comparing.agreement(mixed) == pytest.approx(-1)
    losses = [made("a", (1.0, 1.1), False), made("b", (2.0, 2.2), False)]
    assert comparing.gain(losses[0], losses[1]).value == pytest.approx(1.05)
    with pytest.raises(BadInput, match="two seeds and three"):
        comparing.agreement(losses)
    with pytest.raises(BadInput, match="different tasks"):
        comparing.gain(clear[0], made("d", (0.1,)))


def test_wrong_words() -> None:
    with pytest.raises(UnknownName, match="did you mean digits"):
        tasks.find_task("digit")
    with pytest.raises(MissingFile):
        tasks.find_task("nothing.csv", "y")
    with pytest.raises(BadInput, match="adam or sgd"):
        train.Budget(optimiser="lion")
    with pytest.raises(BadInput, match="at least one step"):
        train.Budget(steps=0)
