"""Measures what padding and the KV cache cost in precision, for the page on exactness.

Two comparisons, each relative to the largest value of the same row at the same site:

- `padded`: every site without an axis of keys, of every prompt in one padded batch, against the prompt read alone;
- `cached`: the logits of every step of cached writing under an edit, against one full forward over the same tokens with
  the same edit.

`python tools/tolerances.py` writes docs/data/tolerances.json and the table in docs/explanation/exactness.md. The tests
in tests/properties/test_04_positions.py hold the library to constants above these figures.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import optrode as op
from optrode import edits

ROOT = Path(__file__).parents[1]
DATA = ROOT / "docs" / "data" / "tolerances.json"
PAGE = ROOT / "docs" / "explanation" / "exactness.md"
BEGIN, END = "<!-- tolerances -->\n", "<!-- end of tolerances -->\n"

DTYPES = ("float32", "bfloat16", "float16")
PROMPTS = ["Hi", "What is the capital of France, and which river flows through it?", "Name one colour of the rainbow."]
STEPS = 8


def difference(got: Tensor, wanted: Tensor) -> float:
    """Largest difference, relative to the largest value."""
    return float((got.double() - wanted.double()).abs().max() / wanted.double().abs().max())


def padded(model: op.Model) -> tuple[float, str]:
    """The worst site of the worst row, and its name."""
    # An axis of keys is as long as the batch is wide: those sites have no row alone to be compared with.
    sites = [site for site in model.sites if "key" not in model.table[site].port.axes]
    together = model.read(PROMPTS, sites)
    assert together.batch is not None
    worst = (0.0, "")
    for row, prompt in enumerate(PROMPTS):
        alone, mask = model.read(prompt, sites), together.batch.mask[row]
        worst = max(worst, *((difference(together[site][row][mask], alone[site][0]), site) for site in sites))
    return worst


def cached(model: op.Model) -> float:
    """The worst step of greedy writing under an addition after the instruction."""
    layer = model.layers // 2
    site = f"layers.{layer}.out"
    norm = float(model.read(PROMPTS, site).rows(site).float().norm(dim=-1).median())
    direction = torch.randn(model.width or 1, generator=torch.Generator().manual_seed(5))
    vector = 0.5 * norm * direction / direction.norm()
    batch, steps = model.encode(sorted(PROMPTS, key=len)), []
    handle = model.module.lm_head.register_forward_hook(lambda _, __, out: steps.append(out[:, -1].clone()))
    try:
        with model.edited(edits.add(site, vector, "after_instruction")):
            written = [done.ids for done in model.completions(batch, max_new_tokens=STEPS, min_new_tokens=STEPS)]
    finally:
        handle.remove()
    return max(map(difference, steps, full_forward(model, batch, torch.tensor(written), layer, vector)))


@torch.no_grad()
def full_forward(model: op.Model, batch: Any, written: Tensor, layer: int, vector: Tensor) -> list[Tensor]:
    """Logits of each step from one forward without cache, the edit written by hand as a torch hook."""
    ids = torch.cat([batch.ids, written[:, :-1]], -1)
    mask = torch.cat([batch.mask, torch.ones_like(written[:, :-1], dtype=torch.bool)], -1)
    touched = (torch.arange(ids.shape[1]) >= batch.instruction_end[:, None])[..., None]

    def change(_: nn.Module, __: tuple, output: Any) -> Any:
        h = output[0] if isinstance(output, tuple) else output
        new = torch.where(touched, h.float() + vector, h.float()).to(h.dtype)
        return (new, *output[1:]) if isinstance(output, tuple) else new

    handle = model.blocks[layer].register_forward_hook(change)
    try:
        places = (mask.long().cumsum(-1) - 1).clamp(min=0)
        logits = model.module(input_ids=ids, attention_mask=mask.long(), position_ids=places, use_cache=False).logits
    finally:
        handle.remove()
    return [logits[:, batch.width - 1 + step] for step in range(written.shape[1])]


def tiny_gpt2(dtype: torch.dtype, tokenizer: Any) -> op.Model:
    """Three blocks of width 32 with weights large enough that every part of the network matters."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id, "bos_token_id": None}
    shape = {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 256, "initializer_range": 0.2}
    module = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), **shape, **ids))
    return op.load(module.to(dtype).eval(), tokenizer=tokenizer)


def measure() -> dict[str, Any]:
    rows = []
    tokenizer = op.load("smollm2-135m").tokenizer
    for name in ("tiny GPT-2", "smollm2-135m"):
        for dtype in DTYPES:
            kind = getattr(torch, dtype)
            model = tiny_gpt2(kind, tokenizer) if name == "tiny GPT-2" else op.load(name, dtype=kind)
            worst, site = padded(model)
            rows.append({"model": name, "dtype": dtype, "padded": worst, "site": site, "cached": cached(model)})
            print(rows[-1], file=sys.stderr)
    return {"torch": torch.__version__, "rows": rows}


def table(found: dict[str, Any]) -> str:
    """The table of the page, from the figures."""
    lines = ["| model | dtype | padded against alone | at | cached against full |", "|---|---|---|---|---|"]
    for row in found["rows"]:
        lines.append(
            f"| {row['model']} | {row['dtype']} | {row['padded']:.1e} | `{row['site']}` | {row['cached']:.1e} |"
        )
    return "\n".join(lines) + "\n"


def put(text: str, found: dict[str, Any]) -> str:
    """The page with its table replaced."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table(found)}\n{END}{after}"


if __name__ == "__main__":
    figures = measure()
    DATA.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(put(PAGE.read_text(encoding="utf-8"), figures), encoding="utf-8")
