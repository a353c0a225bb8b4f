"""From measured rows to a verdict: ranking, headline, warnings, and the plain data that reports are made of."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ..model import Model
from ..parts.tuner import Trial

if TYPE_CHECKING:
    from .comparison import Bench, Candidate, Settings


def rank(rows: list[dict[str, Any]], judged: bool) -> list[dict[str, Any]]:
    """Rows within the budget first, then by judged shift; by log-odds where the judge is not good enough to rank.

    Rows of equal shift stand in order of log-odds.
    """
    keys = ("shift", "log_odds") if judged else ("log_odds",)
    return sorted(rows, key=lambda row: (not row["within_budget"], *(-row[key]["value"] for key in keys)))


def headline(rows: list[dict[str, Any]], bench: Bench, settings: Settings) -> str:
    """The verdict in one or two sentences; prompting and chance are named when they win."""
    what = f"{'for' if bench.sign > 0 else 'against'} '{bench.behaviour.name}'"
    if not bench.judge.trusted:
        return (
            f"Not ranked: the judge is right on only {bench.judge.accuracy:.0%} of held-out texts (80% are needed). "
            f"Rows stand in order of forced-choice log-odds {what}."
        )
    allowed = [row for row in rows if row["within_budget"]]
    methods = [row for row in allowed if row["kind"] == "method"]
    if not methods:
        return f"No steering method stays within a perplexity ratio of {settings.budget:g} while moving {what}."
    best, control = methods[0], next((row for row in rows if "spread" in row), None)
    chance = control["spread"]["p95"] if control else None
    figure = f"{best['shift']['value']:+.2f} [{best['shift']['low']:+.2f}, {best['shift']['high']:+.2f}]"
    baseline = next((row for row in allowed if row["kind"] == "baseline"), None)
    if best["shift"]["value"] <= 0 and (baseline is None or baseline["shift"]["value"] <= 0):
        return _nothing_moved(methods, what)
    text = f"{best['method']} at layer {best['layer']} moves replies {what} by {figure} (judged probability)."
    if chance is not None and best["shift"]["value"] <= chance:
        text = (
            f"Chance wins: no method moves replies {what} by more than 95% of random directions do ({chance:+.2f}). "
            + text
        )
    if baseline is not None and baseline["shift"]["value"] >= max(best["shift"]["value"], 1e-9):
        return f"Prompting wins: {baseline['shift']['value']:+.2f} from the system prompt alone. " + text
    if baseline is not None:
        inside = best["shift"]["low"] <= baseline["shift"]["value"]
        text += f" Prompting gives {baseline['shift']['value']:+.2f}"
        text += ", inside that interval: no clear win over it." if inside else "."
    if chance is not None and best["shift"]["value"] > chance:
        text += f" 95% of random directions stay below {chance:+.2f}."
    return text


def _nothing_moved(methods: list[dict[str, Any]], what: str) -> str:
    """What to say where nothing changed the replies that the model writes: forced choice may still have moved."""
    text = f"Nothing moves freely written replies {what} within the budget: no method, and no baseline."
    known = [row for row in methods if row.get("log_odds")]
    if not known:
        return text
    best = max(known, key=lambda row: row["log_odds"]["value"])
    odds = best["log_odds"]
    figure = f"{odds['value']:+.2f} [{odds['low']:+.2f}, {odds['high']:+.2f}]"
    return f"{text} In forced choice {best['method']} at layer {best['layer']} goes furthest: {figure} nats."


def warnings_of(rows: list[dict[str, Any]], bench: Bench, settings: Settings) -> list[str]:
    """What a reader must know before trusting the table."""
    found = []
    over = [row["method"] for row in rows if not row["within_budget"]]
    if over:
        found.append(f"Over the budget at every strength tried, ranked last: {', '.join(over)}.")
    count = settings.size.random_directions
    if count and count < 20:
        found.append(f"Only {count} random directions: their 95th percentile is rough.")
    if abs(float(bench.base_judged.mean()) - 0.5) > 0.4:
        found.append("The unsteered model is near one end of the judge's scale, which leaves little room for a shift.")
    return found


def describe_model(model: Model) -> dict[str, Any]:
    return {
        "name": model.name,
        "layers": model.layers,
        "width": model.width,
        "dtype": str(model.dtype).removeprefix("torch."),
        "fingerprint": model.fingerprint,
    }


def describe_protocol(bench: Bench, settings: Settings, layers: list[int]) -> dict[str, Any]:
    return {
        "budget": {"perplexity_ratio": settings.budget},
        "layers": layers,
        "strengths": list(settings.size.strengths),
        "strength_unit": "share of the stream's median norm, or of the method's own change where it fits that",
        "size": asdict(settings.size),
        "quick": settings.size.name == "quick",
        "direction": "for" if bench.sign > 0 else "against",
        "judge": bench.judge.describe(),
        **({"side_effects": bench.effects.describe()} if bench.effects else {}),
    }


def unsteered_row(bench: Bench) -> dict[str, Any]:
    return {
        "method": "unsteered",
        "id": "unsteered",
        "kind": "unsteered",
        "layer": None,
        "strength": None,
        "shift": {"value": 0.0, "low": 0.0, "high": 0.0},
        "log_odds": {"value": 0.0, "low": 0.0, "high": 0.0},
        "perplexity_ratio": {"value": 1.0, "low": 1.0, "high": 1.0},
        "kl_neutral": {"value": 0.0, "low": 0.0, "high": 0.0},
        "seconds_fit": None,
        "seconds_tune": None,
        "tokens_per_second": round(bench.base_written.tokens / bench.base_written.seconds, 1),
        **bench.base_effects,
        "within_budget": True,
        "judged": float(bench.base_judged.mean()),
        "completions": [],
        "edit_file": None,
    }


def search_entries(candidate: Candidate) -> list[dict[str, Any]]:
    if candidate.tuned is None:
        return []
    return [search_entry(candidate.title, trial, trial == candidate.tuned.best) for trial in candidate.tuned.trials]


def search_entry(title: str, trial: Trial, chosen: bool) -> dict[str, Any]:
    return {
        "method": title,
        "layer": trial.layer,
        "strength": trial.strength,
        "log_odds": trial.effect,
        "perplexity_ratio": trial.damage,
        "chosen": chosen,
    }
