"""Generation with the network's own `generate`: roles of positions are carried into every decode step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..batches import Batch
from ..encoding import Prompt, as_prompts
from ..errors import BadInput, NotSupported
from ..host import Host
from .hooks import active_sessions
from .progress import track
from .prompts import encode_edited
from .read import chunks
from .run import running


@dataclass(frozen=True)
class Completion:
    """What the model wrote for one prompt: the text without special tokens, and the token ids."""

    text: str
    ids: tuple[int, ...]

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen. Greedy unless `temperature` is above 0; `seed` makes sampling repeatable.

    `top_k` of 0 leaves all tokens in.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    seed: int = 0


def generate(
    host: Host,
    prompts: Prompt | Sequence[Prompt] | Batch,
    *,
    max_new_tokens: int = 64,
    sampling: Sampling | None = None,
    template: str | None = None,
    system: str | None = None,
    rows_per_batch: int = 64,
    **options: Any,
) -> list[Completion]:
    """Completions of prompts, one each, in order.

    `options` go to the network's own `generate`. While an edit is active, beam search and assisted decoding are
    refused. Raises `NotSupported` for a network that cannot generate.
    """
    if not hasattr(host.module, "generate") or not host.causal:
        raise NotSupported(f"{host.name} ({type(host.module).__name__}) cannot generate text")
    if max_new_tokens < 1:
        raise BadInput(f"max_new_tokens is {max_new_tokens}: it must be at least 1")
    if host.tokenizer is None:
        raise NotSupported(f"{host.name} has no tokenizer, so what it writes cannot be turned into text")
    _refuse(host, options)
    if isinstance(prompts, Batch):
        batch = prompts
    else:
        batch = encode_edited(host, as_prompts(prompts), template=template, system=system)
    rows_and_parts = list(chunks(batch, tokens=rows_per_batch * batch.width))
    found: dict[int, Completion] = {}
    for rows, part in track(rows_and_parts, "generating"):
        ids = _generate_part(host, part, max_new_tokens, sampling or Sampling(), options)
        for row, completion in zip(rows.tolist(), _completions(host, ids), strict=True):
            found[row] = completion
    return [found[row] for row in range(len(batch))]


def _refuse(host: Host, options: dict[str, Any]) -> None:
    if not active_sessions():
        return
    own = getattr(options.get("generation_config", host.module.generation_config), "num_beams", None)
    if (options.get("num_beams") or own or 1) != 1:
        raise NotSupported("an edit cannot be active in beam search: use greedy decoding or sampling")
    if options.get("assistant_model") is not None or options.get("prompt_lookup_num_tokens"):
        raise NotSupported("an edit cannot be active in assisted decoding: leave the assistant out")


def _generate_part(host: Host, batch: Batch, new_tokens: int, sampling: Sampling, options: dict[str, Any]) -> Tensor:
    arguments: dict[str, Any] = {
        "max_new_tokens": new_tokens,
        "do_sample": sampling.temperature > 0,
        "pad_token_id": host.tokenizer.pad_token_id if host.tokenizer.pad_token_id is not None else 0,
        **options,
    }
    if sampling.temperature > 0:
        arguments |= {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": sampling.top_k}
    if sampling.repetition_penalty != 1:
        arguments["repetition_penalty"] = sampling.repetition_penalty
    if active_sessions():
        # A compiled decode step would leave the hooks out.
        arguments["disable_compile"] = True
    batch = batch.to(host.device)
    with torch.no_grad(), running(host, batch), torch.random.fork_rng(devices=_devices(host)):
        torch.manual_seed(sampling.seed)
        ids = host.module.generate(  # type: ignore[operator]
            input_ids=batch.ids, attention_mask=batch.mask.long(), **arguments
        )
    return ids[:, batch.width :].cpu()


def _devices(host: Host) -> list[torch.device]:
    return [host.device] if host.device.type == "cuda" else []


def _completions(host: Host, ids: Tensor) -> list[Completion]:
    ends = _end_tokens(host)
    found = []
    for row in ids.tolist():
        stop = next((place + 1 for place, token in enumerate(row) if token in ends), len(row))
        found.append(Completion(host.tokenizer.decode(row[:stop], skip_special_tokens=True), tuple(row[:stop])))
    return found


def _end_tokens(host: Host) -> set[int]:
    configured = getattr(getattr(host.module, "generation_config", None), "eos_token_id", None)
    ends = configured if isinstance(configured, list) else [configured, host.tokenizer.eos_token_id]
    return {end for end in ends if end is not None}
