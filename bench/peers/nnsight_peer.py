"""nnsight 0.8.1, on the very network that optrode holds: it wraps modules and leaves the weights alone."""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ..subject import LAYERS, Subject, subject


@cache
def wrapped() -> Any:
    from nnsight import TransformersModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        own = subject()
        return TransformersModel(own.copied(), tokenizer=own.tokenizer, task="text-generation")


def read_all(own: Subject) -> list[Tensor]:
    import nnsight

    model = wrapped()
    with torch.no_grad(), model.trace(own.ids):
        saved = nnsight.save([model.model.layers[layer].output for layer in range(LAYERS)])
    return saved


def read_one(own: Subject, layer: int) -> Tensor:
    model = wrapped()
    with torch.no_grad(), model.trace(own.ids) as tracer:
        saved = model.model.layers[layer].output.save()
        tracer.stop()
    return saved


def generate(ids: Tensor, mask: Tensor, layer: int, vector: Tensor, tokens: int) -> Tensor:
    model = wrapped()
    inputs = {"input_ids": ids, "attention_mask": mask}
    options = {"max_new_tokens": tokens, "min_new_tokens": tokens, "do_sample": False}
    with torch.no_grad(), model.generate(inputs, **options) as tracer:
        with tracer.iter[0:tokens]:
            model.model.layers[layer].output[:] += vector
        written = tracer.result.save()
    return written


def donor_residuals(own: Subject) -> list[Tensor]:
    import nnsight

    model = wrapped()
    with torch.no_grad(), model.trace(own.donor):
        saved = nnsight.save([model.model.layers[layer].output for layer in range(LAYERS)])
    return saved


def patches(own: Subject, donors: list[Tensor], cells: list[tuple[int, int]]) -> list[float]:
    """One trace a patch: the naive loop."""
    model = wrapped()
    first, second = own.answers
    found = []
    for layer, position in cells:
        with torch.no_grad(), model.trace(own.base):
            model.model.layers[layer].output[:, position] = donors[layer][:, position]
            logits = model.lm_head.output[0, -1].save()
        found.append(float(logits[first] - logits[second]))
    return found


def batched_patches(own: Subject, donors: list[Tensor], cells: list[tuple[int, int]], invokes: int) -> list[float]:
    """Many invokes a trace: nnsight runs them as rows of one forward."""
    import nnsight

    model = wrapped()
    first, second = own.answers
    found: list[float] = []
    for start in range(0, len(cells), invokes):
        with torch.no_grad(), model.trace() as tracer:
            logits = nnsight.save([])
            for layer, position in cells[start : start + invokes]:
                with tracer.invoke(own.base):
                    model.model.layers[layer].output[:, position] = donors[layer][:, position]
                    logits.append(model.lm_head.output[0, -1])
        found += [float(row[first] - row[second]) for row in logits]
    return found


def gradients(own: Subject) -> list[Tensor]:
    """The gradient of the logit difference at every block's output."""
    import nnsight

    model = wrapped()
    first, second = own.answers
    with model.trace(own.base):
        outputs = nnsight.save([model.model.layers[layer].output for layer in range(LAYERS)])
        logits = model.lm_head.output[0, -1]
        difference = (logits[first] - logits[second]).save()
    return list(torch.autograd.grad(difference, outputs))
