"""Measures every architecture that has a layout, on the networks that the layout tests make.

For each: its sites, and the largest error of its equations in float32, bfloat16 and float16, with the attention of
PyTorch (sdpa) and written out (eager). `python tools/architectures.py` writes docs/data/architectures.json and
docs/reference/architectures.md; numbers are those of tiny random networks.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import sys
from pathlib import Path
from typing import Any

import torch

import optrode as op
from optrode.engine.mapping.equations import measure

ROOT = Path(__file__).parents[1]
DATA = ROOT / "docs" / "data" / "architectures.json"
PAGE = ROOT / "docs" / "reference" / "architectures.md"
TESTS = ROOT / "tests" / "layouts"
# Where networks of several towers are made, and the names of what makes them.
WHOLES = {
    "test_towers": ("clip", "siglip"),
    "test_encoder_decoder": ("t5",),
    "test_map_towers": ("llava_siglip", "paligemma", "gemma3", "smolvlm"),
}
DTYPES = ("float32", "bfloat16", "float16")
ATTENTIONS = ("sdpa", "eager")

HEAD = """# Architectures

Every architecture that has a layout, with its sites and the largest error of its
[equations](../nouns/sites.md): |left - right| relative to the largest value of the result, over all layers of a tiny
random network of the real class. The error is the same order for networks of any size; `op.load` measures yours.
Networks that are not here are mapped by measurement when they are loaded, or read by module path.

Written by `python tools/architectures.py` from `docs/data/architectures.json`.

"""

TOWERS = """Each tower has the layout of its own class. `measured` is one that no table knows.
"""


def loaded(path: Path) -> Any:
    """A test file as a module."""
    spec = importlib.util.spec_from_file_location(f"architectures_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def cases() -> list[Any]:
    """One test class for each layout, the first in its file."""
    sys.path.insert(0, str(TESTS))
    found: dict[str, Any] = {}
    try:
        for path in sorted(TESTS.glob("test_*.py")):
            module = loaded(path)
            for _, kind in inspect.getmembers(module, inspect.isclass):
                own = kind.__module__ == module.__name__
                if own and kind.__name__.startswith("Test") and hasattr(kind, "network"):
                    found.setdefault(kind.layout, kind)
    finally:
        sys.path.remove(str(TESTS))
    return [found[name] for name in sorted(found)]


def row(case: Any) -> dict[str, Any]:
    """Sites and errors of one architecture."""
    model = op.load(case().network())
    assert model.layout is not None
    inside = list(model.layout.ports)
    return {
        "layout": case.layout,
        "model_types": sorted(model.layout.model_types or model.layout.module_classes),
        "blocks": [name for name in inside if any(address.endswith(f".{name}") for address in model.table)],
        "ends": [address for address, site in model.table.items() if site.layer is None and not site.tower],
        "equations": [str(equation) for equation in model.layout.equations],
        "errors": {f"{kind} {how}": error(case, kind, how) for kind in DTYPES for how in ATTENTIONS},
    }


def wholes() -> list[dict[str, Any]]:
    """Networks of several towers: the layout of each, and what was measured on load."""
    rows = []
    for file, names in WHOLES.items():
        module = loaded(ROOT / "tests" / "engine" / f"{file}.py")
        for name in names:
            torch.manual_seed(0)
            model = op.load(getattr(module, name)().eval())
            assert model.measured is not None and model.measured.worst is not None
            rows.append(
                {
                    "network": type(model.module).__name__,
                    "own": model.layout.name if model.layout else "",
                    "towers": {
                        prefix: tower.layout.name for prefix, tower in model.tower_hosts.items() if tower.layout
                    },
                    "equations": len(model.measured.checks),
                    "error": float(f"{model.measured.worst.error:.0e}"),
                }
            )
    return rows


def error(case: Any, dtype: str, attention: str) -> float | None:
    """The largest error of all equations; None where the network has no such attention or does not run."""
    kind = getattr(torch, dtype)
    network, inputs = case().network().to(kind), case().inputs()
    inputs = {name: value.to(kind) if value.is_floating_point() else value for name, value in inputs.items()}
    if not hasattr(network, "set_attn_implementation"):
        if attention == "eager":
            return None
    else:
        try:
            network.set_attn_implementation(attention)
        except ValueError:
            return None
    found = max(check.error for check in measure(op.load(network, measure=False), inputs))
    return float(f"{found:.0e}")


def page(rows: list[dict[str, Any]], towers: list[dict[str, Any]]) -> str:
    keys = [f"{dtype} {attention}" for dtype in DTYPES for attention in ATTENTIONS]
    lines = ["| layout | model types | equations | " + " | ".join(keys) + " |", "|---" * (3 + len(keys)) + "|"]
    for one in rows:
        errors = ["" if one["errors"][key] is None else f"{one['errors'][key]:.0e}" for key in keys]
        types, equations = ", ".join(one["model_types"]), "; ".join(f"`{text}`" for text in one["equations"])
        lines.append(f"| {one['layout']} | {types} | {equations} | {' | '.join(errors)} |")
    lines += ["", "## Networks of several towers", "", TOWERS]
    lines += ["| network | `layers.*` | with a prefix | equations | error in float32 |", "|---" * 5 + "|"]
    for one in towers:
        parts = ", ".join(f"`{prefix}.`: {layout}" for prefix, layout in one["towers"].items())
        lines.append(f"| {one['network']} | {one['own']} | {parts} | {one['equations']} | {one['error']:.0e} |")
    lines += ["", "## Sites", "", "| layout | in a block | outside |", "|---|---|---|"]
    for one in rows:
        lines.append(f"| {one['layout']} | {', '.join(one['blocks'])} | {', '.join(one['ends'])} |")
    return HEAD + "\n".join(lines) + "\n"


def main() -> None:
    rows, towers = [row(case) for case in cases()], wholes()
    DATA.parent.mkdir(parents=True, exist_ok=True)
    DATA.write_text(
        json.dumps({"torch": torch.__version__, "rows": rows, "towers": towers}, indent=1) + "\n", encoding="utf-8"
    )
    PAGE.write_text(page(rows, towers), encoding="utf-8")


if __name__ == "__main__":
    main()
