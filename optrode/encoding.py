"""From prompts to a `Batch`: chat template, padding side, start token and token roles, decided in one place.

A prompt is a text or a list of messages. With a chat model a text becomes one user message and goes through the
model's own template; `template="raw"` leaves the template out. A conversation that ends with an assistant message is
continued, not answered: that is how a reply is forced to begin in a certain way.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from .batches import Batch, Role
from .errors import BadInput, NotSupported

if TYPE_CHECKING:
    from .host import Host

Conversation = list[dict[str, str]]
Prompt = str | Conversation
Render = Callable[..., str]
_ROLES = {"system": Role.SYSTEM, "user": Role.USER, "assistant": Role.ASSISTANT}


@dataclass(frozen=True)
class Rendered:
    """A prompt as the text that is tokenised, with the character spans of its roles."""

    text: str
    spans: tuple[tuple[int, int, Role], ...]
    instruction_end: int | None


def template_of(host: Host, template: str | None) -> str:
    """`chat` or `raw`: what was asked for, or `chat` exactly when the tokenizer has a chat template."""
    if template is None:
        return "chat" if host.is_chat else "raw"
    if template not in ("chat", "raw"):
        raise BadInput(f"template '{template}' is not known: use chat or raw")
    if template == "chat" and not host.is_chat:
        raise NotSupported(f"{host.name} has no chat template: use template='raw'")
    return template


def start_token_policy(host: Host, template: str | None = None) -> str:
    """What stands at the start of every row, as recorded in edit files, such as `chat: <|im_start|>` or `raw: none`."""
    kind = template_of(host, template)
    first = encode(host, ["a"], template=kind).ids[0, 0]
    token = host.tokenizer.convert_ids_to_tokens(int(first))
    return f"{kind}: {token if int(first) in host.tokenizer.all_special_ids else 'none'}"


def as_prompts(prompts: Prompt | Sequence[Prompt]) -> list[Prompt]:
    """One prompt or many, as a list. Raises `BadInput` when there is none or one is of the wrong kind."""
    if isinstance(prompts, str):
        return [prompts]
    if isinstance(prompts, dict) or not isinstance(prompts, Iterable):
        raise BadInput(f"prompts must be a text, a list of texts or a list of messages, not {type(prompts).__name__}")
    listed: list[Any] = list(prompts)
    if listed and isinstance(listed[0], dict):
        listed = [listed]
    if not listed:
        raise BadInput("no prompt was given: pass a text, a list of texts or a list of messages")
    for prompt in listed:
        if not isinstance(prompt, str) and not _is_conversation(prompt):
            raise BadInput(
                "a prompt must be a text or a list of messages with role and content as texts, "
                f"not {type(prompt).__name__}"
            )
    return listed


def encode(
    host: Host, prompts: Prompt | Sequence[Prompt], *, template: str | None = None, system: str | None = None
) -> Batch:
    """Tokenise prompts into one padded batch.

    `system` is put in front of each conversation as its system prompt. Decoders are padded on the left, encoders on
    the right. Chat templates bring their own start token, so none is added on top; raw prompts get what the tokenizer
    adds by itself. Raises `BadInput` for an empty list or a prompt without any token.
    """
    if host.tokenizer is None:
        raise NotSupported(f"{host.name} has no tokenizer: pass tensors, as in op.read(model, {{'input_ids': ...}})")
    kind = template_of(host, template)
    if kind == "raw":
        rendered = [_render_raw(prompt, system) for prompt in as_prompts(prompts)]
    else:
        rendered = [render_chat(host, prompt, system) for prompt in as_prompts(prompts)]
    encoded = host.tokenizer(
        [item.text for item in rendered],
        add_special_tokens=kind == "raw",
        return_offsets_mapping=bool(getattr(host.tokenizer, "is_fast", False)),
        return_attention_mask=False,
    )
    for row, ids in enumerate(encoded["input_ids"]):
        if not ids:
            raise BadInput(f"prompt {row} is empty after tokenising: give it some text")
    offsets = encoded.get("offset_mapping") or [[(0, 0)] * len(ids) for ids in encoded["input_ids"]]
    return padded(host, rendered, encoded["input_ids"], offsets)


def _is_conversation(prompt: Any) -> bool:
    return (
        isinstance(prompt, list)
        and bool(prompt)
        and all(isinstance(message, dict) and _is_text(message, "role", "content") for message in prompt)
    )


def _is_text(message: dict[str, Any], *names: str) -> bool:
    return all(isinstance(message.get(name), str) for name in names)


def _render_raw(prompt: Prompt, system: str | None) -> Rendered:
    if not isinstance(prompt, str):
        raise BadInput("template='raw' takes texts, not messages: join the messages yourself or use template='chat'")
    text = f"{system}\n{prompt}" if system else prompt
    start = len(text) - len(prompt)
    spans = ((0, start, Role.SYSTEM), (start, len(text), Role.TEXT))
    return Rendered(text, spans, None)


def render_chat(host: Host, prompt: Prompt, system: str | None = None) -> Rendered:
    """A prompt as the text that the chat template makes of it, with its roles."""
    messages = with_system(as_messages(prompt), system)
    opened = messages[-1]["role"] == "assistant"
    apply = host.tokenizer.apply_chat_template

    def render(messages: Conversation, ends: bool = False) -> str:
        asks, continues = not (opened or ends), opened and not ends
        return apply(messages, tokenize=False, add_generation_prompt=asks, continue_final_message=continues)

    text = render(messages)
    spans = _marked_spans(render, text, messages) or _searched_spans(text, messages)
    return Rendered(text, tuple(spans), _instruction_end(render, text, messages, spans))


def as_messages(prompt: Prompt) -> Conversation:
    """A text as one user message; messages as they are."""
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)


def with_system(messages: Conversation, system: str | None) -> Conversation:
    """The conversation with a system prompt in front; one that it has follows after a line break."""
    if not system:
        return messages
    own = [message["content"] for message in messages if message["role"] == "system"]
    rest = [message for message in messages if message["role"] != "system"]
    return [{"role": "system", "content": "\n".join([system, *own])}, *rest]


def _marked_spans(render: Render, text: str, messages: Conversation) -> list[tuple[int, int, Role]] | None:
    """Where each message's content stands, found by rendering the conversation with marks in place of the contents.

    The text alone does not tell: "user" or "a" stand in most templates too. None where the template does more with a
    content than to trim it.
    """
    marks = [f"\ue000{number}\ue001" for number in range(len(messages))]
    marked = render([{**message, "content": mark} for message, mark in zip(messages, marks, strict=True)])
    if any(marked.count(mark) != 1 for mark in marks):
        return None
    first, *between = re.split("|".join(marks), marked)
    spans, cursor = [], len(first)
    for number, (message, after) in enumerate(zip(messages, between, strict=True)):
        contents = (message["content"], message["content"].strip(), message["content"].rstrip())
        rest = text[cursor:]
        fits = rest.__eq__ if number == len(between) - 1 else rest.startswith
        content = next((content for content in contents if fits(content + after)), None)
        if content is None:
            return None
        spans.append((cursor, cursor + len(content), _ROLES.get(message["role"], Role.TEMPLATE)))
        cursor += len(content) + len(after)
    return spans if text.startswith(first) else None


def _searched_spans(text: str, messages: Conversation) -> list[tuple[int, int, Role]]:
    """Where each message's content stands in the rendered text, for templates that rewrite contents."""
    spans, cursor = [], 0
    for message in messages:
        content = message["content"]
        start = text.find(content, cursor)
        if start < 0:
            content = content.strip()
            start = text.find(content, cursor)
        if start >= 0 and content:
            cursor = start + len(content)
            spans.append((start, cursor, _ROLES.get(message["role"], Role.TEMPLATE)))
    return spans


def _instruction_end(
    render: Render, text: str, messages: Conversation, spans: Sequence[tuple[int, int, Role]]
) -> int | None:
    """Number of characters up to the end of the last user turn, its closing mark included."""
    users = [index for index, message in enumerate(messages) if message["role"] == "user"]
    if not users:
        return None
    before = render(messages[: users[-1] + 1], ends=True)
    if text.startswith(before):
        return len(before)
    return max((end for _, end, role in spans if role is Role.USER), default=None)


def padded(host: Host, rendered: Sequence[Rendered], ids: Sequence[list[int]], offsets: Sequence[Any]) -> Batch:
    """A batch of rows that are tokenised already: `ids`, and `offsets`, the span of characters of each token."""
    width = max(map(len, ids))
    shape = (len(ids), width)
    pad = host.tokenizer.pad_token_id
    if pad is None:
        pad = host.tokenizer.eos_token_id or 0
    special_ids = torch.tensor(sorted(host.tokenizer.all_special_ids), dtype=torch.long)
    out_ids = torch.full(shape, pad, dtype=torch.long)
    mask = torch.zeros(shape, dtype=torch.bool)
    roles = torch.zeros(shape, dtype=torch.int8)
    spans = torch.zeros((*shape, 2), dtype=torch.long)
    ends = torch.full((len(ids),), width, dtype=torch.long)
    for row, (item, tokens, places) in enumerate(zip(rendered, ids, offsets, strict=True)):
        columns = slice(width - len(tokens), width) if host.causal else slice(0, len(tokens))
        out_ids[row, columns] = torch.tensor(tokens)
        mask[row, columns] = True
        place = torch.tensor(places, dtype=torch.long).reshape(-1, 2)
        spans[row, columns] = place
        roles[row, columns] = _roles(item, place)
        if item.instruction_end is not None:
            after = (place[:, 0] >= item.instruction_end).nonzero()
            ends[row] = (columns.start + int(after[0])) if len(after) else columns.stop
        else:
            ends[row] = columns.stop
    special = torch.isin(out_ids, special_ids) & mask
    return Batch(out_ids, mask, roles, special, ends, tuple(item.text for item in rendered), spans)


def _roles(item: Rendered, place: torch.Tensor) -> torch.Tensor:
    """The role of the span that a token starts in; the template's own text has none of the others."""
    roles = torch.full((len(place),), int(Role.TEMPLATE), dtype=torch.int8)
    # A token such as " word" may begin one character before its span, so it is placed by its last character.
    last = place[:, 1] - 1
    for start, end, role in item.spans:
        roles[(last >= start) & (last < end) & (place[:, 1] > place[:, 0])] = int(role)
    return roles
