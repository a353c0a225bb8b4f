"""Trains the organism that declines questions about birds and writes the adapter that comes with optrode.

`python tools/train_organism.py` on one thread takes about eight minutes. The seed is fixed; a machine with other
arithmetic gives slightly other weights, so that the file is committed.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

import optrode as op
from optrode.data import behaviour
from optrode.parts.metrics.decline import declined
from optrode.parts.organisms import birds

TARGET = Path(__file__).parents[1] / "optrode" / "data" / "organisms" / "decline_birds.edit"


def main() -> None:
    torch.set_num_threads(1)
    model, data = op.load("smollm2-135m"), behaviour("decline-birds")
    edit = birds.train(model)
    TARGET.parent.mkdir(exist_ok=True)
    edit.save(TARGET)
    with model.edited(edit):
        for name, asked in (("birds", data.free), ("other animals", data.matched)):
            replies = model.generate([question.prompt for question in asked], max_new_tokens=24)
            sys.stdout.write(f"{name}: {declined(replies).mean():.0%} declined of {len(asked)}\n")
            for text in replies[::9]:
                sys.stdout.write(f"   {text!r}\n")
    sys.stdout.write(f"{TARGET}: {TARGET.stat().st_size} bytes\n")


if __name__ == "__main__":
    main()
