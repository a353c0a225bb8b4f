"""A recurrent controller that learns which core units are good, for spaces too large to try everything.

Source: arXiv 1710.05941: an RNN chooses one part of a candidate after the other; its probabilities move towards what
was rewarded above a running average, by clipped steps (PPO, arXiv 1707.06347). Sizes and rates are ours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .search import Candidate, Space


@dataclass(frozen=True)
class Tried:
    """A candidate that the controller proposed, in the order of trying, with its reward."""

    candidate: Candidate
    reward: float


def learn(
    space: Space,
    reward: Callable[[Candidate], float],
    budget: int,
    *,
    batch: int = 8,
    width: int = 32,
    rate: float = 0.01,
    average: float = 0.9,
    epochs: int = 4,
    clip: float = 0.2,
    entropy: float = 0.01,
    seed: int = 0,
) -> list[Tried]:
    """Try `budget` candidates, `batch` at a time, and learn from each batch. Repeats are tried again.

    `average` is the weight of the past in the running average of rewards, `entropy` keeps choices from narrowing early.
    Cost: a few milliseconds a batch beside the rewards.
    """
    # Weights of the controller are drawn from the seed, and the caller's random state stays.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        controller = _Controller(space.choices, width)
        draws = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(controller.parameters(), lr=rate)
    tried: list[Tried] = []
    baseline: float | None = None
    while len(tried) < budget:
        places = controller.draw(min(batch, budget - len(tried)), draws)
        found = [Tried(candidate, reward(candidate)) for candidate in map(space.at, places.tolist())]
        tried += found
        rewards = torch.tensor([one.reward for one in found])
        mean = float(rewards.mean())
        baseline = mean if baseline is None else average * baseline + (1 - average) * mean
        # In units of their spread: rewards such as accuracies differ by little.
        gains = (rewards - baseline) / (float(rewards.std(correction=0)) + 1e-3)
        with torch.no_grad():
            before, _ = controller.judge(places)
        for _ in range(epochs):
            now, spread = controller.judge(places)
            ratio = (now - before).exp()
            step = (
                torch.minimum(ratio * gains, ratio.clamp(1 - clip, 1 + clip) * gains).mean() + entropy * spread.mean()
            )
            optimiser.zero_grad()
            (-step).backward()
            optimiser.step()
    return tried


class _Controller(nn.Module):
    """A GRU over the parts of a candidate; each part has a softmax of its own over its choices."""

    def __init__(self, choices: list[int], width: int):
        super().__init__()
        self.start = nn.Parameter(torch.zeros(1, width))
        self.cell = nn.GRUCell(width, width)
        self.heads = nn.ModuleList(nn.Linear(width, count) for count in choices)
        self.embeddings = nn.ModuleList(nn.Embedding(count, width) for count in choices)

    @torch.no_grad()
    def draw(self, count: int, draws: torch.Generator) -> Tensor:
        """Places of the choices, [candidate, part]."""
        given, state, found = self.start.expand(count, -1), None, []
        for head, embedding in zip(self.heads, self.embeddings, strict=True):
            state = self.cell(given, state)
            chosen = torch.multinomial(head(state).softmax(-1), 1, generator=draws)[:, 0]
            found.append(chosen)
            given = embedding(chosen)
        return torch.stack(found, 1)

    def judge(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probability and mean entropy of the choices, [candidate] each."""
        given, state = self.start.expand(len(places), -1), None
        total, spread = torch.zeros(len(places)), torch.zeros(len(places))
        for part, (head, embedding) in enumerate(zip(self.heads, self.embeddings, strict=True)):
            state = self.cell(given, state)
            logs = head(state).log_softmax(-1)
            total = total + logs.gather(1, places[:, part : part + 1])[:, 0]
            spread = spread - (logs.exp() * logs).sum(-1)
            given = embedding(places[:, part])
        return total, spread / len(self.heads)
