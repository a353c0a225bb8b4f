"""A GPT-2 of four blocks in which the paper's claims hold by construction, written weight by weight.

The texts repeat one letter, and the head answers each token with itself. The first position has a marker; the MLP of
block 0 turns it into one huge value, the MLP of block 3 takes that away again. In block 1 every token looks at the huge
value and gets nothing; where nothing is huge, it gets the embedding of a token that never comes.
"""

from __future__ import annotations

from typing import Any

import torch

WIDTH, HUGE, CHANNEL, MARKER = 64, 5000.0, 0, 1
LETTERS = "qzxjkvbwQZXJKVBW"
TEXTS = [letter * (6 + number) for number, letter in enumerate(LETTERS)]


def planted_module(tokenizer: Any, *, needed: bool = True) -> Any:
    """`needed=False` leaves out what block 1 does, so that the huge value is there and nothing depends on it."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=len(tokenizer), n_embd=WIDTH, n_layer=4, n_head=1, n_positions=128, bos_token_id=None,
        pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    module = GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.fill_(1.0 if name.endswith("weight") and ".ln_" in name else 0.0)
        base = module.transformer
        base.wte.weight.copy_(_embeddings(len(tokenizer)))
        base.wpe.weight[0, MARKER] = 5.0
        # Normalised, the marker is about 6 and a lone huge value about 8.
        _neuron(base.h[0].mlp, MARKER, over=3.0, writes=HUGE, at=6.2)
        _neuron(base.h[3].mlp, CHANNEL, over=4.0, writes=-HUGE, at=(WIDTH - 1) ** 0.5)
        if needed:
            _distracted(base.h[1].attn, base.wte.weight[tokenizer.pad_token_id])
    return module


def _embeddings(count: int) -> torch.Tensor:
    """Rows of length 4 and mean 0 that leave the two channels of the plan empty."""
    rows = torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(0))
    rows[:, :2] = 0
    rows[:, 2:] -= rows[:, 2:].mean(-1, keepdim=True)
    return 4 * rows / rows.norm(dim=-1, keepdim=True)


def _neuron(mlp: Any, reads: int, *, over: float, writes: float, at: float) -> None:
    """One neuron that is silent while the channel it reads is below `over`, and writes about `writes` at `at`."""
    mlp.c_fc.weight[reads, 0], mlp.c_fc.bias[0] = 4.0, -4.0 * over
    mlp.c_proj.weight[0, CHANNEL] = writes / (4.0 * (at - over))


def _distracted(attention: Any, embedding: torch.Tensor) -> None:
    """Keys that grow with the huge channel, values that are `2 * embedding` except where it is huge."""
    alone = (WIDTH - 1) ** 0.5
    attention.c_attn.bias[0] = 1.0
    attention.c_attn.weight[CHANNEL, WIDTH] = 40.0
    attention.c_attn.bias[2 * WIDTH :] = 2 * embedding
    attention.c_attn.weight[CHANNEL, 2 * WIDTH :] = -2 * embedding / alone
    attention.c_proj.weight.copy_(torch.eye(WIDTH))
