"""An edited model as a model of `lm-eval`: benchmarks of that harness with the edit live."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs
from lm_eval.utils import get_rolling_token_windows

from ..edits.anatomy import brief
from ..edits.base import Edit
from ..edits.checked import recipe_hash
from ..edits.file import load_edit
from ..edits.prefix import PrefixEdit
from ..edits.rows import rows_edits
from ..edits.together import flat
from ..encoding import Rendered, render_chat
from ..engine.editing.receipt import Receipt
from ..errors import BadInput, NotSupported
from ..model import Model, load
from .rows import NOWHERE, Row, followed, plain, tokenised
from .scoring import scored
from .writing import sampling_of, written

# Entries of a config that say how many tokens the network takes.
_LENGTHS = ("max_position_embeddings", "n_positions", "n_ctx")
_DEFAULT_LENGTH = 2048
_DEFAULT_NEW_TOKENS = 256


@register_model("optrode")
class Harness(TemplateLM):  # type: ignore[misc]
    """A model for `lm_eval.simple_evaluate`, with edits active in everything that it is asked.

    `model`: a `Model`, or anything that `optrode.load` takes. `edit`: an edit, an edit file, or several; None for the
    model as it is. `strength` multiplies them. `batch_size`: rows in a forward; by default as many as fit in 4096
    tokens. `max_length`: tokens that the model takes, by default what its config says. `device`: where a model that is
    loaded here goes, the cpu where there is no such GPU. `receipt` is that of the last batch of requests.

    Tokens are those of the harness's own `hf` model, and so are scores without an edit, within float tolerance. What is
    to be predicted counts as what the assistant says (see `rows`), so that an edit on `after_instruction` acts there;
    with `apply_chat_template=True` the roles are those of the template. Prompts as edits are put in front. Edits by row
    are refused with `NotSupported`, since a task's rows have no order of yours.
    """

    def __init__(
        self,
        model: Model | str | Path,
        edit: Edit | str | Path | Sequence[Edit | str | Path] | None = None,
        *,
        strength: float = 1.0,
        batch_size: int | str | None = None,
        max_length: int | None = None,
        device: str | None = None,
        max_batch_size: int | None = None,
    ):
        super().__init__()
        self.host = model if isinstance(model, Model) else load(model, device=_device(device))
        if not self.host.causal or self.host.tokenizer is None:
            raise NotSupported(f"{self.host.name} is no causal language model with a tokenizer, which lm-eval needs")
        edits = [edit] if isinstance(edit, Edit | str | Path) else list(edit or ())
        loaded = list(flat(one if isinstance(one, Edit) else load_edit(one) for one in edits))
        self.edits = [one if strength == 1 else one * strength for one in loaded]
        if any(True for one in self.edits for _ in rows_edits(one)):
            raise NotSupported("an edit by row cannot be measured by lm-eval: a task's rows have no order of yours")
        self._prefixes = [one for one in self.edits if isinstance(one, PrefixEdit)]
        self._others = [one for one in self.edits if not isinstance(one, PrefixEdit)]
        self.tokenizer = self.host.tokenizer
        self.receipt: Receipt | None = None
        self._rows_at_once = None if batch_size in (None, "auto") else int(batch_size)  # type: ignore[arg-type]
        self._max_length = max_length
        # Texts that the chat template made, by which their roles are known again.
        self._chats: dict[str, Rendered] = {}

    # What the harness asks about the model --------------------------------------------------------------------------

    @property
    def eot_token_id(self) -> int:
        return self.tokenizer.eos_token_id

    @property
    def prefix_token_id(self) -> int:
        start = self.tokenizer.bos_token_id
        return start if start is not None else self.tokenizer.eos_token_id

    @property
    def max_length(self) -> int:
        named = (self._max_length, *(self.host.entry(name) for name in _LENGTHS))
        return next((length for length in named if isinstance(length, int) and length > 0), _DEFAULT_LENGTH)

    @property
    def max_gen_toks(self) -> int:
        return _DEFAULT_NEW_TOKENS

    @property
    def device(self) -> Any:
        return self.host.device

    @property
    def tokenizer_name(self) -> str:
        # The answers depend on what edits put in front, so requests that were kept for others must not be used.
        marks = "".join(f"__{recipe_hash({'system': one.system, 'turns': one.turns})}" for one in self._prefixes)
        return self.host.name.replace("/", "__") + marks

    def get_model_info(self) -> dict[str, Any]:
        """What is written into the results: model, weights, and every edit in words."""
        return {
            "model_name": self.host.name,
            "model_num_parameters": sum(parameter.numel() for parameter in self.host.module.parameters()),
            "model_dtype": str(self.host.dtype),
            "model_sha": self.host.fingerprint["weights"],
            "edits": [brief(edit) for edit in self.edits],
        }

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        return self._encoded(string, add_special_tokens)[0]

    def _encoded(self, text: str, special: bool | None = None) -> tuple[list[int], list[tuple[int, int]]]:
        if special is None and text.startswith(self.tokenizer.decode(self.prefix_token_id)):
            special = False
        return tokenised(self.host, text, special)

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        messages = chat_history
        for prefix in self._prefixes:
            messages = prefix.messages(messages)
        if add_generation_prompt == (messages[-1]["role"] == "assistant"):
            raise BadInput("a conversation that ends with the assistant is continued, and any other is answered")
        rendered = render_chat(self.host, messages)
        self._chats[rendered.text] = rendered
        return rendered.text

    # What the harness asks the model --------------------------------------------------------------------------------

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Log-probability (nats) of each continuation after its context, and whether greedy decoding gives it."""
        rows = [self._pair(*request.args) for request in requests]
        return self._answered("loglikelihood", requests, self._scored(rows, "scoring"))

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        """Log-probability (nats) of each whole text, in windows of the longest length that the model takes."""
        if self._prefixes:
            raise NotSupported("a whole text is scored without anything in front, so a prompt edit has no place there")
        windows = [(number, row) for number, request in enumerate(requests) for row in self._windows(request.args[0])]
        totals = [0.0] * len(requests)
        for (number, _), (logprob, _) in zip(
            windows, self._scored([row for _, row in windows], "scoring"), strict=True
        ):
            totals[number] += logprob
        return self._answered("loglikelihood_rolling", requests, totals)

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """What the model writes after each context, up to the stop texts of the task."""
        end = self.tokenizer.decode(self.eot_token_id, skip_special_tokens=False)
        groups: dict[str, list[int]] = {}
        for number, request in enumerate(requests):
            groups.setdefault(repr(request.args[1]), []).append(number)
        found: dict[int, str] = {}
        with self._edited():
            for numbers in groups.values():
                settings = normalize_gen_kwargs(requests[numbers[0]].args[1], self.max_gen_toks)
                stops = handle_stop_sequences(settings.pop("until", None), eos=end)
                count = settings.pop("max_gen_toks")
                room = self.max_length - count
                if room < 1:
                    raise BadInput(f"the task writes {count} tokens, and {self.host.name} takes {self.max_length}")
                rows = [self._context(requests[number].args[0]).last(room) for number in numbers]
                sampling, options = sampling_of(dict(settings))
                texts = written(self.host, rows, stops, count, sampling, self._rows_at_once, options)
                found |= dict(zip(numbers, texts, strict=True))
        return self._answered("generate_until", requests, [found[number] for number in range(len(requests))])

    def _loglikelihood_tokens(self, requests: list[Any], **_: Any) -> list[tuple[float, bool]]:
        """Scores of tokens that the harness has encoded itself; they are text of no known place."""
        rows = []
        for _, context, continuation in requests:
            ids = [*context, *continuation]
            rows.append(Row(ids, [NOWHERE] * len(ids), plain(""), len(continuation)))
        return self._scored(rows, "scoring")

    def _answered(self, kind: str, requests: Sequence[Any], answers: list[Any]) -> list[Any]:
        for request, answer in zip(requests, answers, strict=True):
            self.cache_hook.add_partial(kind, request.args, answer)
        return answers

    @contextmanager
    def _edited(self) -> Iterator[None]:
        with self.host.edited(*self._others) if self._others else nullcontext() as self.receipt:
            yield

    def _scored(self, rows: Sequence[Row], what: str) -> list[tuple[float, bool]]:
        if not rows:
            return []
        short = [row.last(self.max_length + 1) for row in rows]
        with self._edited():
            return scored(self.host, short, self._rows_at_once, what)

    # Texts as rows --------------------------------------------------------------------------------------------------

    def _rendered(self, context: str) -> Rendered:
        known = self._chats.get(context)
        if known is not None:
            return known
        if any(prefix.turns for prefix in self._prefixes):
            raise NotSupported("example turns need a chat template: evaluate with apply_chat_template=True")
        return plain(context, "\n".join(prefix.system for prefix in self._prefixes))

    def _context(self, context: str) -> Row:
        rendered = self._rendered(context)
        ids, offsets = self._encoded(rendered.text)
        return Row(ids, offsets, rendered) if ids else Row([self.prefix_token_id], [NOWHERE], rendered)

    def _pair(self, context: str, continuation: str) -> Row:
        """A context with its continuation, tokenised as one text; blanks at the seam belong to the continuation."""
        before = self._rendered(context)
        whole = followed(before, continuation)
        if not before.text:
            ids, offsets = self._encoded(continuation, False)
            if ids and ids[0] != self.prefix_token_id:
                ids, offsets = [self.prefix_token_id, *ids], [NOWHERE, *offsets]
            count = len(ids) - 1
        else:
            ids, offsets = self._encoded(whole.text)
            count = len(ids) - len(self._encoded(before.text.rstrip() or before.text)[0])
        if count < 1:
            raise BadInput(f"the continuation {continuation!r} has no token of its own after its context")
        return Row(ids, offsets, whole, count)

    def _windows(self, text: str) -> Iterator[Row]:
        """A text in windows that predict each of its tokens once, each with as much before it as fits."""
        ids, offsets = self._encoded(text)
        ids, offsets = [self.prefix_token_id, *ids], [NOWHERE, *offsets]
        places = list(range(1, len(ids)))
        for given, predicted in get_rolling_token_windows(places, 0, self.max_length, 1):
            window = [*given, predicted[-1]]
            chosen = [ids[place] for place in window]
            yield Row(chosen, [offsets[place] for place in window], followed(plain(""), text), len(predicted))


def _device(wanted: str | None) -> str:
    """Where to load a model: the harness asks for a GPU unless told otherwise, whether or not there is one."""
    import torch

    if wanted is None or (wanted.startswith("cuda") and not torch.cuda.is_available()):
        return "cpu"
    return wanted
