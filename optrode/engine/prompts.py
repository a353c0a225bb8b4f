"""Encoding prompts with the prefix edits of the context put in front."""

from __future__ import annotations

from collections.abc import Sequence

from ..batches import Batch
from ..encoding import Prompt, as_prompts, encode, template_of
from ..host import Host
from .edited import PREFIXES


def encode_edited(
    host: Host, prompts: Prompt | Sequence[Prompt], *, template: str | None = None, system: str | None = None
) -> Batch:
    """`encode`, after every active prefix edit of this network has put its tokens in front."""
    listed = as_prompts(prompts)
    kind = template_of(host, template)
    for owner, edit, receipt in PREFIXES.get():
        if owner is not host:
            continue
        site = receipt.sites["prefix"]
        site.calls += 1
        site.rows = max(site.rows, len(listed))
        if kind == "chat":
            listed = [edit.messages(_conversation(prompt)) for prompt in listed]
        else:
            listed = [f"{edit.system}\n{prompt}" for prompt in listed]
    return encode(host, listed, template=template, system=system)


def _conversation(prompt: Prompt) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
