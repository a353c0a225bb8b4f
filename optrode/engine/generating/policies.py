"""Policy edits in a context, and the loop that they own: a custom decoding method of `generate`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...edits.base import Edit
from ...edits.policy import PolicyEdit
from ...errors import BadInput, EditDidNothing, NotSupported, WrongShape
from ...host import Host
from ..editing.actions import Tap
from ..editing.receipt import Receipt, SiteReceipt
from ..editing.session import Session
from ..editing.undo import having, sure
from ..transformers_names import (
    branched_cache,
    cache_argument,
    chosen_cache,
    cropped_cache,
    keep_columns_argument,
    keeps_columns,
    new_cache,
)

# Policies may take tokens back; they may not do so for ever.
STEPS_PER_TOKEN = 20


@dataclass(eq=False)
class Policy:
    """The policy edit of the context. `over` outlives the block in contexts that were copied inside it."""

    host: Host
    edit: PolicyEdit
    receipt: Receipt
    over: bool = False


POLICY: ContextVar[Policy | None] = ContextVar("optrode_policy", default=None)


def active_policy(host: Host) -> Policy | None:
    """The policy that owns the decode loop of this network in this context."""
    policy = POLICY.get()
    return policy if policy is not None and not policy.over and policy.host.module is host.module else None


def refuse_policy(host: Host, what: str) -> None:
    """Raise where there is no loop for the active policy to own, which would be left out silently."""
    if active_policy(host) is not None:
        raise NotSupported(f"a policy edit owns the loop in which text is written, and {what} has none: use generate")


@contextmanager
def policy_edit(host: Host, edit: PolicyEdit) -> Iterator[Receipt]:
    """The block of `model.edited(policy)`."""
    if POLICY.get() is not None and active_policy(host) is not None:
        raise NotSupported("another policy edit is active: only one can own the loop in which text is written")
    if not host.causal or cache_argument(host.accepts) is None or not hasattr(host.module, "generate"):
        raise NotSupported(f"{host.name} ({type(host.module).__name__}) does not write with a cache of keys and values")
    if not keeps_columns(host.config):
        raise NotSupported(f"{host.name} has layers that keep one state of all tokens, which no policy can take back")
    sites = [site.address for pattern in edit.sites for site in host.match(pattern)]
    receipt = Receipt(sites={"policy": SiteReceipt("policy")})
    policy, before = Policy(host, edit, receipt), POLICY.get()

    def leave() -> None:
        policy.over = True
        if POLICY.get() is policy:
            POLICY.set(before)

    with sure(leave):
        POLICY.set(policy)
        yield receipt
    if not receipt.calls:
        looks = f", which looks at {', '.join(sites)}," if sites else ""
        raise EditDidNothing(f"the policy edit{looks} never ran: nothing was written inside the block")


class Decoding:
    """The state of one completion: tokens, cache, and what the network said of the newest token. See `State`."""

    def __init__(self, policy: Policy, ids: Tensor, choose: Callable[[Tensor, Tensor], Tensor], stack: ExitStack):
        self.host = policy.host
        self.ids = ids
        self.prompt_columns = ids.shape[1]
        self.logits = torch.empty(0)
        self.memory: dict[str, Any] = {}
        self.finished = torch.zeros(len(ids), dtype=torch.bool, device=ids.device)
        self.taken_back = 0
        self._receipt = policy.receipt
        self._choose = choose
        self._stack = stack
        self._cache = new_cache()
        self._cached = 0
        session = Session(self.host)
        sites = [site for pattern in policy.edit.sites for site in self.host.match(pattern)]
        self._taps = {site.address: Tap(site, None, keep_graph=False) for site in sites}
        for tap in self._taps.values():
            session.add_tap(tap)
        stack.enter_context(session.active())

    @property
    def written(self) -> Tensor:
        return self.ids[:, self.prompt_columns :]

    @property
    def activations(self) -> dict[str, Tensor]:
        found = {}
        for address, tap in self._taps.items():
            if tap.value is None:
                raise NotSupported(f"{address} did not run, so the policy cannot see it")
            found[address] = tap.value[:, -1] if tap.value.dim() > 2 else tap.value
        return found

    def choose(self, banned: Tensor | None = None) -> Tensor:
        logits = self.logits
        if banned is not None:
            logits = logits.index_fill(-1, banned, -torch.inf)
        return self._choose(self.ids, logits)

    def advance(self) -> None:
        """Run the network on the tokens that it has not seen."""
        new = self.ids[:, self._cached :]
        columns = torch.arange(self._cached, self.ids.shape[1], device=self.ids.device)
        arguments: dict[str, Any] = {"input_ids": new, "use_cache": True}
        arguments[cache_argument(self.host.accepts) or "cache"] = self._cache
        if "attention_mask" in self.host.accepts:
            arguments["attention_mask"] = torch.ones_like(self.ids)
        if "position_ids" in self.host.accepts:
            arguments["position_ids"] = columns.expand(len(self.ids), -1)
        keep = keep_columns_argument(self.host.head_accepts)
        if keep:
            arguments[keep] = 1
        self.logits = self.host.module(**arguments).logits[:, -1].float()
        self._cached = self.ids.shape[1]
        self._receipt.forwards += 1
        self._receipt.layers_run = self.host.layers

    def append(self, tokens: Tensor, padding: int) -> None:
        if tokens.shape != (len(self.ids),):
            shape = tuple(tokens.shape)
            raise WrongShape(f"the policy's step gave tokens of shape {shape} for {len(self.ids)} branches")
        tokens = torch.where(self.finished, padding, tokens.to(self.ids))
        self.ids = torch.cat([self.ids, tokens[:, None]], 1)

    def crop(self, tokens: int) -> None:
        if not 0 <= tokens <= self.written.shape[1]:
            raise BadInput(f"a policy cannot take {tokens} tokens back: {self.written.shape[1]} are written")
        if not tokens:
            return
        self.ids = self.ids[:, :-tokens]
        self.taken_back += tokens
        # What follows the last token that is kept is not known any more, so that one is run again.
        self._cache = cropped_cache(self._cache, self._cached - self.ids.shape[1] + 1)
        self._cached = self.ids.shape[1] - 1
        self.advance()

    def fork(self, copies: int) -> None:
        if copies < 1:
            raise BadInput(f"a policy cannot make {copies} branches of one: give at least 1")
        self._cache = branched_cache(self._cache, copies)
        self._each(lambda value: value.repeat_interleave(copies, 0))

    def keep(self, branches: Tensor | Sequence[int]) -> None:
        index = torch.as_tensor(branches, dtype=torch.long, device=self.ids.device).reshape(-1)
        if not len(index) or not bool(((index >= 0) & (index < len(self.ids))).all()):
            raise BadInput(f"branches {index.tolist()} cannot be kept: there are {len(self.ids)}, from 0")
        self._cache = chosen_cache(self._cache, index)
        self._each(lambda value: value[index.to(value.device)])

    def _each(self, change: Callable[[Tensor], Tensor]) -> None:
        self.ids, self.logits, self.finished = change(self.ids), change(self.logits), change(self.finished)
        for tap in self._taps.values():
            tap.value = change(tap.value) if tap.value is not None else None

    def apply(self, edit: Edit) -> None:
        from ..editing.edited import edited

        self._stack.enter_context(edited(self.host, edit))  # type: ignore[arg-type]

    def note(self, text: str) -> None:
        self._receipt.note(text)


def decoding_method(policy: Policy) -> Callable[..., Tensor]:
    """What `generate` calls as its decoding method: one prompt in, prompt and completion out."""

    def decode(
        model: Any, input_ids: Tensor, logits_processor: Any, stopping_criteria: Any, generation_config: Any, **_: Any
    ) -> Tensor:
        def choose(ids: Tensor, logits: Tensor) -> Tensor:
            scores = logits_processor(ids, logits)
            if not generation_config.do_sample:
                return scores.argmax(-1)
            return torch.multinomial(scores.softmax(-1), 1)[:, 0]

        # Inside its own loop the policy may read and write as it likes.
        with having(POLICY, None), ExitStack() as stack:
            state = Decoding(policy, input_ids, choose, stack)
            return _written(policy, state, stopping_criteria, generation_config)

    return decode


def _written(policy: Policy, state: Decoding, stopping_criteria: Any, generation_config: Any) -> Tensor:
    padding = int(generation_config.pad_token_id or 0)
    longest = generation_config.max_length - state.prompt_columns
    steps = 0
    state.advance()
    while not bool(state.finished.all()):
        if steps > STEPS_PER_TOKEN * max(longest, 1):
            raise NotSupported(
                f"the policy took {steps} steps for {state.written.shape[1]} tokens: it takes back what it writes"
            )
        state.append(policy.edit.step(state), padding)
        steps += 1
        state.finished = state.finished | stopping_criteria(state.ids, None).to(state.finished.device)
        if not bool(state.finished.all()):
            state.advance()
    receipt = policy.receipt
    site = receipt.sites["policy"]
    site.calls, site.decode_calls, site.rows = site.calls + steps, site.decode_calls + steps, max(site.rows, 1)
    if state.taken_back:
        receipt.note(f"{state.written.shape[1]} tokens written in {steps} steps, {state.taken_back} taken back")
    best = policy.edit.best(state)
    return state.ids[best : best + 1]
