"""Peak resident memory of one read of all 30 sites, each variant in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from statistics import median

from .alternate import Result, Row

REFERENCE = "transformers, plain forward"
VARIANTS = {
    REFERENCE: "reading.plain(own)",
    "transformers, output_hidden_states": "reading.hidden_states(own)",
    "optrode": "own.model.read(own.ids, 'layers.*.out')",
    "optrode, last token only": "own.model.read(inputs, 'layers.*.out', positions='last_prompt')",
    "nnsight": "nnsight_peer.read_all(own)",
    "TransformerLens": "transformer_lens_peer.read_all(own)",
}

# The high-water mark of the process is taken before and after, so that what importing and loading needed is left out.
SCRIPT = """
import resource, threading, time
from pathlib import Path
import torch
from bench import reading
from bench.peers import nnsight_peer, transformer_lens_peer
from bench.subject import subject
own = subject()
{prepare}
inputs = {{"input_ids": own.ids, "attention_mask": torch.ones_like(own.ids)}}
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
peak, done = resident(), False
start = peak
def watch():
    global peak
    while not done:
        peak = max(peak, resident())
        time.sleep(0.002)
watcher = threading.Thread(target=watch)
watcher.start()
kept = {call}
done = True
watcher.join()
print(peak - start)
"""


def measure(rounds: int = 3) -> Result:
    found: dict[str, list[float]] = {name: [] for name in VARIANTS}
    for number in range(rounds):
        for name in VARIANTS:
            found[name].append(_peak(name))
        print(f"  round {number + 1} of {rounds}")
    rows = [_row(name, found[name], found[REFERENCE]) for name in VARIANTS]
    result = Result("Peak memory beyond the loaded network, all 30 sites", REFERENCE, rows, [], [], unit="MiB")
    result.notes.append("The values that a read returns take 135 MiB; the peak of a variant holds them.")
    return result


def _peak(name: str) -> float:
    prepare = {"nnsight": "nnsight_peer.wrapped()", "TransformerLens": "transformer_lens_peer.bridge()"}.get(name, "")
    code = SCRIPT.format(prepare=prepare, call=VARIANTS[name])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{name}: {done.stderr.strip().splitlines()[-1]}")
    return int(done.stdout.split()[-1]) / 2**20


def _row(name: str, own: list[float], reference: list[float]) -> Row:
    ratios = [mine / other for mine, other in zip(own, reference, strict=True)]
    middle, low, high = (round(of(ratios), 3) for of in (median, min, max))
    return Row(name, round(median(own), 1), middle, low, high, len(own))
