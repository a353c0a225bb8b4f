"""Writing token by token: a thread writes under the caller's edits, the caller reads along.

The thread runs in a copy of the caller's context, so that edits act and receipts count as in `generate`, and the text
is the same. It keeps a few tokens ahead at most, and is gone when the stream is closed, is dropped, or its block ends.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import ExitStack
from contextvars import copy_context
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ...batches import Batch
from ...encoding import Prompt, as_prompts
from ...errors import BadInput, NotSupported
from ...host import Host
from ..editing.actions import Tap
from ..editing.scope import open_scopes
from ..editing.session import Session
from ..editing.undo import sure
from .channel import Channel
from .generate import Completion, Sampling, completions, generate_part, refuse, refuse_beams
from .pieces import Pieces
from .policies import active_policy
from .prompts import encode_edited


@dataclass(frozen=True)
class Token:
    """One written token.

    `text` is the text that became certain with it: empty where a character needs more tokens to be whole. `position`
    counts written tokens from 0. `logprob` is its log-probability (nats) by the network's own scores, edits included,
    before temperature and penalties; None where it was not asked for.
    """

    text: str
    id: int
    position: int
    logprob: float | None = None

    def __str__(self) -> str:
        return self.text


class Stream:
    """Text pieces as they are written: `for piece in stream`. `tokens()` gives the tokens instead.

    Use it in a `with` block, or read it to its end: leaving it stops the writing thread. What goes wrong in the thread
    is raised here. Made by `model.stream`.
    """

    def __init__(self, writer: _Writer):
        self._channel = writer.channel
        # All that will stop the thread is in place before there is one.
        self._finalizer = weakref.finalize(self, self._channel.stop)
        for scope in open_scopes():
            scope.welcome(self._channel)
        context = copy_context()
        self._channel.start(lambda: context.run(writer.write))

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        for token in self.tokens():
            if token.text:
                return token.text
        raise StopIteration

    def tokens(self) -> Iterator[Token]:
        """The tokens that were not read yet, with their texts."""
        while True:
            try:
                token = self._channel.get()
            except BaseException:
                self.close()
                raise
            if token is None:
                self.close()
                return
            yield token

    @property
    def completion(self) -> Completion:
        """All that was written, as `completions` gives it. Raises `NotSupported` before the stream has been read."""
        if self._channel.result is None:
            raise NotSupported("the stream was not read to its end, so there is no completion: read it first")
        return self._channel.result

    def close(self) -> None:
        """Stop writing, and return when the thread is gone. Does nothing the second time."""
        with sure(self._channel.close):
            self._finalizer.detach()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *problem: object) -> None:
        self.close()


def stream(
    host: Host,
    prompt: Prompt | Batch,
    *,
    max_new_tokens: int = 64,
    sampling: Sampling | None = None,
    template: str | None = None,
    system: str | None = None,
    logprobs: bool = False,
    ahead: int = 16,
    **options: Any,
) -> Stream:
    """Write the completion of one prompt token by token; the text is that of `generate` with the same arguments.

    The thread writes at most `ahead` tokens that nobody has read. A stream belongs to the blocks of the edits that are
    active: when one ends the stream does, and reading on raises `NotSupported`. `logprobs=True` gives each token its
    log-probability. `options` go to the network's own `generate`.

    Raises `BadInput` for more than one prompt, `NotSupported` for a network that cannot write and for beam search.
    Costs what `generate` does, and decoding the last few tokens for every token.
    """
    refuse(host, max_new_tokens, options)
    refuse_beams(host, options, "a stream gives tokens out as they are chosen, which beam search does later")
    if logprobs and active_policy(host) is not None:
        raise NotSupported("a policy edit chooses tokens in its own way, so they have no log-probabilities")
    if ahead < 1:
        raise BadInput(f"ahead is {ahead}: the thread needs room for at least 1 token")
    batch = _one(host, prompt, template, system)
    return Stream(_Writer(host, batch, max_new_tokens, sampling or Sampling(), options, logprobs, Channel(ahead)))


def _one(host: Host, prompt: Prompt | Batch, template: str | None, system: str | None) -> Batch:
    if isinstance(prompt, Batch):
        if len(prompt) != 1:
            raise BadInput(f"a stream writes one completion, but the batch has {len(prompt)} rows: pick one")
        return prompt
    if not isinstance(prompt, str) and as_prompts(prompt)[0] is prompt[0]:
        raise BadInput("a stream writes one completion: give one prompt, not a list, or use generate for many")
    return encode_edited(host, prompt, template=template, system=system)


class _Writer:
    """What the thread does. It knows nothing of the `Stream`, so that a stream that nobody holds can go."""

    def __init__(
        self, host: Host, batch: Batch, new_tokens: int, sampling: Sampling, options: dict, logprobs: bool, to: Channel
    ):
        self.host = host
        self.channel = to
        self._batch = batch
        self._new_tokens = new_tokens
        self._sampling = sampling
        self._options = options
        self._logprobs = logprobs
        self._pieces = Pieces(host.tokenizer)
        # Tokens whose text is not certain yet.
        self._waiting: list[Token] = []
        self._count = 0

    def write(self) -> Completion:
        options = dict(self._options)
        criteria = options.pop("stopping_criteria", None) or ()
        with ExitStack() as stack:
            self._tap = self._look_at_logits(stack) if self._logprobs else None
            # A policy may take tokens back, so that none is certain before the completion is.
            policy = active_policy(self.host)
            options["stopping_criteria"] = [*criteria, self._step if policy is None else self._stopped]
            ids = generate_part(self.host, self._batch, self._new_tokens, self._sampling, options)
            for count in range(1, ids.shape[1] + 1) if policy is not None else ():
                self._step(ids[:, :count], None)
        completion = completions(self.host, ids)[0]
        rest = self._pieces.rest(completion.text)
        if self._waiting:
            last = self._waiting[-1]
            self._send([*self._waiting[:-1], replace(last, text=rest)])
        return completion

    def _look_at_logits(self, stack: ExitStack) -> Tap:
        session = Session(self.host)
        tap = Tap(self.host.match("logits")[0], None, keep_graph=False)
        session.add_tap(tap)
        stack.enter_context(session.active())
        return tap

    def _step(self, ids: Tensor, scores: Any, **_: Any) -> Tensor:
        """Called by `generate` after each token, as a stopping criterion."""
        token = int(ids[0, -1])
        piece = self._pieces.add(token)
        self._waiting.append(Token("", token, self._count, self._logprob(token)))
        self._count += 1
        if piece is not None:
            ready, self._waiting = self._waiting, []
            self._send([*ready[:-1], replace(ready[-1], text=piece)])
        return self._stopped(ids, scores)

    def _stopped(self, ids: Tensor, scores: Any, **_: Any) -> Tensor:
        return torch.full((len(ids),), self.channel.stopped, dtype=torch.bool, device=ids.device)

    def _logprob(self, token: int) -> float | None:
        if self._tap is None or self._tap.value is None:
            return None
        return float(torch.log_softmax(self._tap.value[0, -1].float(), -1)[token])

    def _send(self, tokens: list[Token]) -> None:
        for token in tokens:
            self.channel.put(token)
