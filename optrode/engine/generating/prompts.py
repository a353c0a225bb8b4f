"""Encoding prompts with the prefix edits of the context put in front."""

from __future__ import annotations

from collections.abc import Sequence

from ...batches import Batch
from ...encoding import Prompt, as_messages, as_prompts, encode, template_of, with_system
from ...errors import NotSupported
from ...host import Host
from ..editing.edited import PREFIXES


def encode_edited(
    host: Host, prompts: Prompt | Sequence[Prompt], *, template: str | None = None, system: str | None = None
) -> Batch:
    """`encode`, after every active prefix edit of this network has put its tokens in front."""
    prefixes = [prefix for prefix in PREFIXES.get() if prefix.host.module is host.module and not prefix.over]
    if not prefixes:
        return encode(host, prompts, template=template, system=system)
    listed = as_prompts(prompts)
    kind = template_of(host, template)
    if kind == "chat":
        listed, system = [with_system(as_messages(prompt), system) for prompt in listed], None
    for prefix in prefixes:
        site = prefix.receipt.sites["prefix"]
        site.calls += 1
        site.rows = max(site.rows, len(listed))
        if kind == "chat":
            listed = [prefix.edit.messages(as_messages(prompt)) for prompt in listed]
        elif prefix.edit.turns:
            raise NotSupported("example turns need a chat template: leave template='raw' out, or use a system text")
        else:
            system = "\n".join(text for text in (prefix.edit.system, system) if text)
    return encode(host, listed, template=template, system=system)
