"""Writes docs/functions/torch-activation.md: our functions beside those of torch_activation, and where they differ.

The numbers of that package are kept by `python -m tools.oracles torch_activation`; ours are computed here.
`python -m tools.torch_activation_page`
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

import optrode as op

from .oracles.oracle import about
from .oracles.torch_activation import GRID, ORACLE, Line, lines

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "functions" / "torch-activation.md"
# Relative, and absolute below 1. A few of its constants are float32 whatever the dtype is.
SAME = 1e-7


@dataclass(frozen=True)
class Compared:
    """A line with the largest differences, relative above 1: at the parameters of the line, and at both defaults."""

    line: Line
    float64: float
    float32: float
    defaults: float

    @property
    def same(self) -> bool:
        return self.float64 <= SAME


def compared() -> list[Compared]:
    kept = load_file(ORACLE.path)
    found = []
    for place, line in enumerate(lines()):
        function = op.functions.get(line.row)
        x = torch.tensor(GRID, dtype=torch.float64)
        ours = function(x, **line.ours)
        found.append(
            Compared(
                line,
                difference(kept["float64"][place], ours),
                difference(kept["float32"][place], function(x.float(), **line.ours)),
                difference(kept["defaults"][place], function(x)),
            )
        )
    return found


def difference(theirs: Tensor, ours: Tensor) -> float:
    """Largest |a - b|/max(1, |b|); where both are the same infinity or no number, they agree."""
    a, b = theirs.double(), ours.double()
    agree = (a == b) | (a.isnan() & b.isnan())
    apart = torch.where(agree, 0.0, (a - b).abs() / b.abs().clamp(min=1))
    return float(torch.nan_to_num(apart, nan=torch.inf).max())


def page() -> str:
    found = compared()
    equal = [one for one in found if not one.line.verdict and one.defaults < 1e-6]
    moved = [one for one in found if not one.line.verdict and one.defaults >= 1e-6]
    theirs, ours, unclear = ([one for one in found if one.line.verdict == kind] for kind in ("theirs", "ours", "open"))
    texts = about(ORACLE.path)
    version = json.loads(texts["versions"])["torch-activation"]
    others = sorted(set(json.loads(texts["classes"])) - {one.line.name for one in found})
    parts = [
        HEAD.format(
            version=version, grid=len(GRID), compared=len(found), equal=len(equal), moved=len(moved),
            theirs=len(theirs), ours=len(ours), open=len(unclear), others=len(others), low=min(GRID), high=max(GRID),
            float32=max(one.float32 for one in (*equal, *moved)),
        ),
        "## Theirs is wrong\n\nBy the paper, by the survey, or because the pieces do not meet.\n",
        _differing(theirs),
        "## Ours was wrong\n\nCorrected; the difference is the present one.\n",
        _differing(ours),
        "## The sources leave it open\n",
        _differing(unclear),
        "## Equal with other defaults\n\nThey agree once both have the same parameters, as they are given here.\n",
        _moved(moved),
        "## Equal as they come\n",
        ", ".join(f"{_bare(one.line.name)} ({one.line.row})" for one in equal) + ".\n",
        "## Not compared\n\nOf several numbers, with functions or random coefficients inside, or without a row.\n",
        ", ".join(_bare(name) for name in others) + ".\n",
    ]  # fmt: skip
    return "\n".join(parts)


HEAD = """# Beside torch_activation

<!-- Written by tools/torch_activation_page.py: do not edit. -->

[torch_activation](https://github.com/hdmquan/torch_activation) is the other large collection of activation functions
for PyTorch. This page compares its release {version} with the list of optrode, class by class: {grid} points from
{low:g} to {high:g}, in float64 and float32, in evaluation mode, with the parameters of both set to the same function.
Both come from the same survey, so that agreement is no proof.

| | |
| --- | --- |
| classes compared | {compared} |
| equal as they come | {equal} |
| equal with other defaults | {moved} |
| theirs wrong | {theirs} |
| ours wrong, now corrected | {ours} |
| sources leave it open | {open} |
| classes not compared | {others} |

Equal means within 1e-7 in float64. In float32 the largest difference among these is {float32:.1g}.
"""


def _bare(name: str) -> str:
    return f"`{name.rpartition('.')[2]}`"


def _settings(values: dict[str, float]) -> str:
    return ", ".join(f"{name.removeprefix('set.')}={value:.5g}" for name, value in values.items()) or "defaults"


def _differing(found: list[Compared]) -> str:
    lines = ["| theirs | ours | at | difference | why |", "| --- | --- | --- | --- | --- |"]
    for one in found:
        line = one.line
        why = line.reason.replace("|", "\\|")
        lines.append(f"| {_bare(line.name)} | {line.row} | {_settings(line.theirs)} | {one.float64:.2g} | {why} |")
    return "\n".join(lines) + "\n"


def _moved(found: list[Compared]) -> str:
    lines = ["| theirs | with | ours | with | |", "| --- | --- | --- | --- | --- |"]
    for one in found:
        line = one.line
        theirs, ours = _settings(line.theirs), _settings(line.ours)
        lines.append(f"| {_bare(line.name)} | {theirs} | {line.row} | {ours} | {line.reason} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE.relative_to(ROOT))


if __name__ == "__main__":
    main()
