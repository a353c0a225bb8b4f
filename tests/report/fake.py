"""A made-up but realistic comparison, the same on every call: nine rows, a full search, dose curves and completions."""

from __future__ import annotations

import math
import random
from typing import Any

LAYERS = [4, 8, 12, 16, 20, 24]
STRENGTHS = [0.05, 0.1, 0.2, 0.4, 0.8]
# name, id, best layer, gain, cost, seconds to fit
METHODS = [
    ("mean difference (CAA)", "caa", 12, 1.00, 1.0, 3.1),
    ("LDA direction", "lda", 12, 0.86, 0.9, 4.8),
    ("RepE, first component", "repe", 16, 0.62, 1.2, 5.2),
    ("ActAdd", "actadd", 8, 0.45, 1.4, 0.2),
    ("inference-time intervention", "iti", 16, 0.38, 0.8, 31.0),
    ("angular steering", "angular", 20, 0.07, 1.1, 6.0),
]
HEADLINE = (
    "One sentence of prompting shifts the behaviour most (0.61), ahead of mean difference at layer 12 (0.52), the best "
    "of six steering methods. Angular steering is no better than a random direction."
)
PROMPTS = [
    "I went to see the new film last night and",
    "The food at the little restaurant was",
    "Working here for two years has been",
]


def interval(value: float, half: float) -> dict[str, float]:
    return {"value": round(value, 4), "low": round(value - half, 4), "high": round(value + half, 4)}


def _row(
    name: str, kind: str, layer: int | None, strength: float | None, shift: float, ratio: float, **more: Any
) -> dict[str, Any]:
    completions = [
        {
            "prompt": prompt,
            "unsteered": "it was fine. The plot is about a man who returns home, and some scenes are long.",
            "steered": f"it was a delight from the first minute ({name}). I laughed, and I would see it again.",
        }
        for prompt in PROMPTS
    ]
    return {
        "method": name,
        "id": more.get("id", kind),
        "kind": kind,
        "layer": layer,
        "strength": strength,
        "shift": interval(shift, 0.08),
        "log_odds": interval(shift * 3.4, 0.21),
        "perplexity_ratio": interval(ratio, 0.06),
        "kl_neutral": interval(0.05 * ratio**3, 0.004),
        "seconds_fit": more.get("seconds"),
        "seconds_tune": 11.4,
        "tokens_per_second": 58.3,
        "within_budget": ratio <= 1.2,
        "completions": completions if kind != "unsteered" else [],
        "edit_file": "best.edit" if more.get("best") else None,
    }


def _rows() -> list[dict[str, Any]]:
    rows = [_row("prompting, one sentence", "baseline", None, None, 0.61, 1.07)]
    for index, (name, identity, layer, gain, cost, seconds) in enumerate(METHODS):
        ratio = 1.06 + 0.11 * cost
        rows.append(_row(name, "method", layer, 0.2, 0.52 * gain, ratio, id=identity, seconds=seconds, best=index == 0))
    control = _row("random direction (20)", "control", 12, 0.2, 0.02, 1.14, seconds=0.0)
    generator = random.Random(0)
    values = sorted(generator.gauss(0.02, 0.07) for _ in range(20))
    control["spread"] = {
        "p05": values[1],
        "p50": values[10],
        "p95": values[18],
        "best": values[-1],
        "count": 20,
        "values": values,
    }
    shots = _row("few-shot, 8 examples", "baseline", None, None, 0.29, 1.03)
    unsteered = _row("unsteered", "unsteered", None, None, 0.0, 1.0)
    return [*sorted([*rows, control, shots], key=lambda row: -row["shift"]["value"]), unsteered]


def _search() -> list[dict[str, Any]]:
    cells = []
    for name, _, best, gain, cost, _ in METHODS:
        for layer in LAYERS:
            for strength in STRENGTHS:
                near = math.exp(-(((layer - best) / 6) ** 2))
                effect = gain * near * 3 * math.tanh(3.2 * strength) - 1.4 * max(0.0, strength - 0.4) * (1 - near) * 2
                ratio = 1 + cost * (strength * 1.1) ** 2 * (1 + 0.03 * layer)
                chosen = layer == best and strength == 0.2
                cells.append(
                    {
                        "method": name,
                        "layer": layer,
                        "strength": strength,
                        "log_odds": effect,
                        "perplexity_ratio": ratio,
                        "chosen": chosen,
                    }
                )
    return cells


def _dose() -> list[dict[str, Any]]:
    steps = []
    for name, _, _, gain, cost, _ in METHODS:
        for strength in [0.0, *STRENGTHS, 1.2]:
            effect = gain * 3.2 * math.tanh(2.6 * strength) * (1 - 0.25 * max(0.0, strength - 0.7))
            steps.append(
                {
                    "method": name,
                    "strength": strength,
                    "log_odds": interval(effect, 0.1 + 0.12 * strength),
                    "shift": interval(effect / 5, 0.05),
                    "kl_neutral": interval(0.9 * cost * strength**2, 0.002),
                    "perplexity_ratio": interval(1 + 1.6 * cost * strength**2, 0.02),
                }
            )
    return steps


def fake_result() -> dict[str, Any]:
    """A result of schema `optrode.comparison/1` in which prompting wins."""
    probe = [
        {"layer": layer, "accuracy": interval(0.52 + 0.43 / (1 + math.exp(-(layer - 8) / 2.2)), 0.035), "chance": 0.5}
        for layer in range(30)
    ]
    norms = [
        {"layer": n, "median": 14 * 1.09**n, "p95": 21 * 1.09**n, "max": (21500.0 if 12 <= n <= 28 else 40 * 1.09**n)}
        for n in range(30)
    ]
    massive = [
        {
            "layer": n,
            "channel": 357,
            "position": 0,
            "token": "<|im_start|>",
            "value": 21371.0 - 40 * abs(n - 18),
            "median": 0.9 + 0.02 * n,
        }
        for n in (12, 16, 20, 24, 28)
    ]
    return {
        "schema": "optrode.comparison/1",
        "family": "steering",
        "title": "Steering SmolLM2-135M toward positive sentiment",
        "headline": HEADLINE,
        "warnings": [
            "Quick run: 48 test prompts, so intervals are wide.",
            "The judge agrees with the labels on 93 % of 400 texts.",
        ],
        "model": {"name": "smollm2-135m", "layers": 30, "width": 576, "dtype": "float32", "fingerprint": "9c1f3a77e2"},
        "data": {
            "name": "sentiment",
            "description": "pairs of sentences",
            "sizes": {"fit": 160, "tune": 40, "test": 48},
        },
        "protocol": {
            "budget": {"perplexity_ratio": 1.2},
            "layers": LAYERS,
            "strengths": STRENGTHS,
            "strength_unit": "share of the stream's median norm",
            "quick": True,
            "judge": {"name": "minilm-l6 + logistic regression", "accuracy": 0.93, "texts": 400},
        },
        "rows": _rows(),
        "search": _search(),
        "dose": _dose(),
        "probe_accuracy": probe,
        "massive": massive,
        "norms": norms,
        "record": {
            "seed": 0,
            "versions": {"optrode": "0.1.0", "torch": "2.13.0"},
            "command": "optrode compare steering --quick",
            "started": "2026-03-02 14:05",
            "seconds": 242.0,
            "hashes": {"data": "5d0c77", "method": "a81e02"},
        },
    }
