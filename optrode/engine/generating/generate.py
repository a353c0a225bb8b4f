"""Generation with the network's own `generate`: roles of positions are carried into every decode step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...batches import Batch
from ...encoding import Prompt, as_prompts
from ...errors import BadInput, NotSupported
from ...host import Host
from ...towers import DECODER
from ..hooks import active_sessions
from ..progress import track
from ..reading.read import chunks
from ..run import running
from .draws import drawing, seeded
from .policies import active_policy, decoding_method
from .prompts import encode_edited


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
    refused. Sampling draws from a generator of its own, so that threads and the caller's random numbers are left alone.
    Raises `NotSupported` for a network that cannot generate.
    """
    refuse(host, max_new_tokens, options)
    if isinstance(prompts, Batch):
        batch = prompts
    else:
        batch = encode_edited(host, as_prompts(prompts), template=template, system=system)
    # A policy follows one prompt at a time.
    tokens = 1 if active_policy(host) else rows_per_batch * batch.width
    rows_and_parts = list(chunks(batch, tokens=tokens))
    found: dict[int, Completion] = {}
    with closing(track(rows_and_parts, "generating")) as parts:
        for rows, part in parts:
            ids = generate_part(host, part, max_new_tokens, sampling or Sampling(), options)
            for row, completion in zip(rows.tolist(), completions(host, ids), strict=True):
                found[row] = completion
    return [found[row] for row in range(len(batch))]


def refuse(host: Host, max_new_tokens: int, options: dict[str, Any]) -> None:
    """Raise where this network cannot write, or not with these options while an edit is active."""
    if not hasattr(host.module, "generate") or not (host.causal or DECODER in host.tower_hosts):
        raise NotSupported(f"{host.name} ({type(host.module).__name__}) cannot generate text")
    if max_new_tokens < 1:
        raise BadInput(f"max_new_tokens is {max_new_tokens}: it must be at least 1")
    if host.tokenizer is None:
        raise NotSupported(f"{host.name} has no tokenizer, so what it writes cannot be turned into text")
    if (_asked(host, options, "num_return_sequences") or 1) != 1:
        raise NotSupported("each prompt gets one completion: give a prompt as often as you want answers to it")
    if active_policy(host) is not None:
        _refuse_other_loops(host, options)
    if not active_sessions():
        return
    refuse_beams(host, options, "an edit cannot be active in beam search")
    if options.get("assistant_model") is not None or options.get("prompt_lookup_num_tokens"):
        raise NotSupported("an edit cannot be active in assisted decoding: leave the assistant out")


def _refuse_other_loops(host: Host, options: dict[str, Any]) -> None:
    refuse_beams(host, options, "a policy edit owns the decode loop, which has no beams")
    for name in ("assistant_model", "prompt_lookup_num_tokens", "custom_generate", "cache_implementation"):
        if _asked(host, options, name):
            raise NotSupported(f"a policy edit owns the decode loop, so {name} has no meaning: leave it out")
    if options.get("use_cache") is False:
        raise NotSupported("a policy edit needs the cache of keys and values: leave use_cache out")


def refuse_beams(host: Host, options: dict[str, Any], why: str) -> None:
    if (_asked(host, options, "num_beams") or 1) != 1:
        raise NotSupported(f"{why}: use greedy decoding or sampling")


def _asked(host: Host, options: dict[str, Any], name: str) -> Any:
    """A setting of decoding, from the options or else from the configuration."""
    own = getattr(options.get("generation_config", host.module.generation_config), name, None)
    return options.get(name) or own


def generate_part(host: Host, batch: Batch, new_tokens: int, sampling: Sampling, options: dict[str, Any]) -> Tensor:
    """What is written after each prompt of a batch: token ids [example, token], with padding after an end token."""
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
    policy = active_policy(host)
    if policy is not None:
        arguments["custom_generate"] = decoding_method(policy)
    batch = batch.to(host.device)
    with torch.no_grad(), running(host, batch), _drawing(host, sampling, arguments) as arguments:
        ids = host.module.generate(  # type: ignore[operator]
            input_ids=batch.ids, attention_mask=batch.mask.long(), **arguments
        )
    # A decoder of its own answers without the prompt, after its start token.
    return ids[:, 1 if DECODER in host.tower_hosts else batch.width :].cpu()


@contextmanager
def _drawing(host: Host, sampling: Sampling, arguments: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The arguments with which `generate` draws by the seed, if it draws at all."""
    if not arguments["do_sample"]:
        yield arguments
    elif arguments.get("assistant_model") is not None or arguments.get("prompt_lookup_num_tokens"):
        with seeded(sampling.seed, [host.device] if host.device.type == "cuda" else []):
            yield arguments
    else:
        with drawing(sampling.seed, host.device, arguments) as arguments:
            yield arguments


def completions(host: Host, ids: Tensor) -> list[Completion]:
    """Texts of written token ids, each up to its end token."""
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
