"""Results that `optrode rerun` and reports are made from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .kinds import kind


def _read_result(folder: Path) -> None:
    from optrode.cli import command_rerun
    from optrode.errors import BadFile

    path = next(folder.iterdir())
    record = command_rerun.read_record(path)
    said: list[str] = []
    note, command_rerun.common.note = command_rerun.common.note, said.append
    try:
        arguments = command_rerun.checked(record.get("arguments"), path)
        command_rerun.warn_of_versions(record)
    finally:
        command_rerun.common.note = note
    for text in said:
        # What is printed of a file must not steer a terminal.
        if any(ord(character) < 32 or 0x7F <= ord(character) < 0xA0 for character in text):
            raise AssertionError(f"control characters are printed: {text!r:.200}")
    for part in arguments:
        if part.startswith(("-o", "--out", "--json")) or part == "--":
            raise AssertionError(f"an option of rerun's own is passed on: {part!r:.200}")
    if arguments[0] not in ("compare", "study"):
        raise BadFile("never")


def _result() -> dict[str, Any]:
    return {
        "schema": "optrode.comparison/1", "headline": "No method beats prompting.", "family": "steering",
        "model": {"name": "tiny", "layers": 2}, "data": "sentiment",
        "protocol": {"budget": {"perplexity_ratio": 1.2}, "seeds": [0, 1, 2]},
        "rows": [
            {"id": "caa", "method": "CAA", "kind": "method", "shift": {"value": 0.3, "low": 0.1, "high": 0.5}},
            {
                "id": "prompt", "method": "prompting", "kind": "baseline",
                "shift": {"value": 0.4, "low": None, "high": 1},
            },
        ],
        "record": {
            "seed": 0, "versions": {"optrode": "0.1", "python": "3.11", "torch": "2.0"},
            "started": "2026-01-01T00:00:00",
            "command": "optrode compare steering", "seconds": 1.5, "hashes": {"model": "ab", "data": "cd"},
            "arguments": [
                "compare", "steering", "--model", "smollm2-135m", "--data", "sentiment", "--seed", "0", "--quick",
            ],
        },
    }  # fmt: skip


@kind(share=9, read=_read_result)
def result(box: Path) -> None:
    """Results of comparisons and studies as JSON, and inside of a report."""
    from optrode.report import write_report

    for name in ("compare", "study", "report"):
        (box / name).mkdir(parents=True)
    (box / "compare" / "result.json").write_text(json.dumps(_result(), indent=1))
    study = {**_result(), "record": {**_result()["record"], "arguments": ["study", "caa", "--full"]}}
    (box / "study" / "caa.json").write_text(json.dumps(study))
    page = write_report(_result(), box / "report" / "report.html").read_bytes()
    # Without the chart library, which is most of it.
    start, stop = page.find(b"<script>"), page.find(b'<script type="application/json"')
    (box / "report" / "report.html").write_bytes(page if start < 0 or stop < start else page[:start] + page[stop:])
