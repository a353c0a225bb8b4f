"""A small network that learns tasks on digits from examples, in two modalities: handwritten pictures and words.

A row is x, A, y, x, A, y, ... : an input, a delimiter, its answer. Inputs are pictures of 8 x 8 pixels or number words,
one modality in a row; answers are always words. The task of a row must be found out from its examples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

# Words: ten digits, then even, odd, large, small, and the delimiter.
EVEN, ODD, LARGE, SMALL, DELIMITER, WORDS = 10, 11, 12, 13, 14, 15
TASKS = ("next", "parity", "double", "large")
EXAMPLES = 4


def answers(task: int, digits: Tensor) -> Tensor:
    """The answer words of a task to digits 0 to 9.

    >>> answers(2, torch.tensor([3, 7])).tolist()
    [6, 4]
    """
    if task == 0:
        return (digits + 1) % 10
    if task == 1:
        return torch.where(digits % 2 == 0, EVEN, ODD)
    if task == 2:
        return digits * 2 % 10
    return torch.where(digits > 4, LARGE, SMALL)


class DigitTasks(nn.Module):
    """Four blocks of width 64; `forward` may replace the stream of the last token behind one block."""

    def __init__(self, seed: int, *, width: int = 64, blocks: int = 4):
        super().__init__()
        from sklearn.datasets import load_digits

        data = load_digits()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.words = nn.Embedding(WORDS, width)
            self.places = nn.Embedding(3 * (EXAMPLES + 1), width)
            self.picture = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, width))
            layers = [
                nn.TransformerEncoderLayer(width, 4, 128, dropout=0.0, batch_first=True, norm_first=True)
                for _ in range(blocks)
            ]
            self.blocks = nn.ModuleList(layers)
            self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, WORDS))
        self._pictures = torch.tensor(data.images.reshape(len(data.target), -1) / 16, dtype=torch.float32)
        self._of = [torch.tensor(np.flatnonzero(data.target == digit)) for digit in range(10)]

    @classmethod
    def trained(cls, seed: int, *, steps: int, shared: bool = True, rows: int = 64) -> DigitTasks:
        """A network trained on rows of all tasks; `shared=False` gives words two tasks and pictures the other two."""
        network, generator = cls(seed), torch.Generator().manual_seed(seed)
        optimiser = torch.optim.Adam(network.parameters(), lr=2e-3)
        network.train()
        for _ in range(steps):
            seen = bool(torch.randint(0, 2, (1,), generator=generator))
            low, high = (0, 4) if shared else ((2, 4) if seen else (0, 2))
            task = int(torch.randint(low, high, (1,), generator=generator))
            inputs, targets = network.rows(task, rows, seen, generator, EXAMPLES)
            logits = network(inputs)[:, 1::3]
            loss = nn.functional.cross_entropy(logits.reshape(-1, WORDS), targets.reshape(-1))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        return network.eval()

    def rows(
        self, task: int, count: int, pictures: bool, generator: torch.Generator, examples: int
    ) -> tuple[Tensor, Tensor]:
        """Embedded rows [row, token, width] of `examples` examples and a query up to its delimiter, and the answers
        [row, example + 1]. Pictures at the query are from the last fifth of each digit's, others from the rest."""
        digits = torch.randint(0, 10, (count, examples + 1), generator=generator)
        targets = answers(task, digits)
        given = self._inputs(digits, pictures, generator)
        delimiter = self.words.weight[DELIMITER].expand(count, examples + 1, -1)
        tokens = torch.stack([given, delimiter, self.words(targets)], 2).flatten(1, 2)[:, :-1]
        start = 3 * (EXAMPLES - examples)
        return tokens + self.places.weight[start : start + tokens.shape[1]], targets

    def _inputs(self, digits: Tensor, pictures: bool, generator: torch.Generator) -> Tensor:
        if not pictures:
            return self.words(digits)
        share = 0.8 if self.training else 1.0
        first = 0.0 if self.training else 0.8
        drawn = torch.rand(digits.shape, generator=generator) * (share - first) + first
        chosen = torch.empty_like(digits)
        for digit, pool in enumerate(self._of):
            here = digits == digit
            chosen[here] = pool[(drawn[here] * len(pool)).long().clamp(max=len(pool) - 1)]
        return self.picture(self._pictures[chosen])

    def forward(self, tokens: Tensor, patch: tuple[int, Tensor] | None = None, keep: bool = False) -> Tensor:
        """Logits [row, token, word]. `patch`: a block's number and what its output's last token becomes. With `keep`
        the last token's stream behind every block instead, [block, row, width]."""
        mask = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1])
        h, seen = tokens, []
        for number, block in enumerate(self.blocks):
            h = block(h, src_mask=mask, is_causal=True)
            if patch is not None and patch[0] == number:
                h = torch.cat([h[:, :-1], patch[1].expand(len(h), 1, -1)], 1)
            seen.append(h[:, -1])
        return torch.stack(seen) if keep else self.head(h)


@dataclass(frozen=True)
class Picked:
    """Accuracy on picture queries with the own task's vector from words, another task's, none, and picture examples in
    context; the chosen block; cosines of vectors of one task from both modalities and of different tasks."""

    own: float
    wrong: float
    none: float
    shown: float
    block: int
    same: float
    other: float


@torch.no_grad()
def pick(network: DigitTasks, queries: int, seed: int) -> Picked:
    """Vectors from words at every block, the block chosen on other picture queries, and what they do there."""
    generator = torch.Generator().manual_seed(1000 + seed)
    blocks, tasks = len(network.blocks), range(len(TASKS))
    vectors = {
        seen: [network(network.rows(t, 200, seen, generator, EXAMPLES)[0], keep=True).mean(1) for t in tasks]
        for seen in (False, True)
    }

    def accuracy(task: int, patch: tuple[int, Tensor] | None, examples: int = 0) -> float:
        rows, targets = network.rows(task, queries, True, generator, examples)
        return float((network(rows, patch)[:, -1].argmax(-1) == targets[:, -1]).float().mean())

    def with_vector(shift: int, block: int) -> float:
        chosen = [(block, vectors[False][(task + shift) % len(TASKS)][block]) for task in tasks]
        return float(np.mean([accuracy(task, chosen[task]) for task in tasks]))

    block = int(np.argmax([with_vector(0, number) for number in range(blocks)]))
    units = [torch.stack([vector[block] for vector in vectors[seen]]) for seen in (False, True)]
    units = [rows - rows.mean(0) for rows in units]
    cosines = nn.functional.normalize(units[0], dim=1) @ nn.functional.normalize(units[1], dim=1).T
    off = ~torch.eye(len(TASKS), dtype=torch.bool)
    return Picked(
        own=with_vector(0, block),
        wrong=with_vector(1, block),
        none=float(np.mean([accuracy(task, None) for task in tasks])),
        shown=float(np.mean([accuracy(task, None, EXAMPLES) for task in tasks])),
        block=block,
        same=float(cosines.diagonal().mean()),
        other=float(cosines[off].mean()),
    )
