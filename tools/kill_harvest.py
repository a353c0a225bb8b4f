"""Kills a harvest at random moments, many times, and checks that nothing is ever lost.

`python tools/kill_harvest.py --kills 100`: a process harvests a small network's activations and is killed (SIGKILL) at
a random moment; then the same call goes on, and is killed again. After each kill what is on disk must be whole and no
smaller than before, and at most one shard's work may have been in vain. Each harvest that gets to its end must be
equal, in its hash and in every file, to one that nobody disturbed. Prints one JSON object; exits with 1 where a check
failed.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import optrode as op
import optrode.store.run
from optrode.store.verify import verify

SITES = ["layers.*.out", "layers.1.attn.heads"]
TOKENS, SHARD_ROWS = 6000, 250
OURS = ("writer.lock", "writer.json")


def network(seed: int = 0) -> Any:
    """Three blocks of width 64 with random weights; no tokenizer, since the data are token ids."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=100, hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, bos_token_id=None, eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    return op.load(LlamaForCausalLM(config).eval())


def write_data(path: Path) -> Path:
    """Rows of token ids of many lengths, some longer than the context."""
    chance = random.Random(0)
    rows = [[chance.randrange(100) for _ in range(chance.choice((1, 7, 40, 40, 90, 300)))] for _ in range(200)]
    path.write_text("".join(json.dumps({"input_ids": row}) + "\n" for row in rows))
    return path


class Trial:
    """One model and data, an undisturbed harvest of them, and a count of rows that outlives a process."""

    def __init__(self, box: Path):
        self.box, self.model, self.data = box, network(), write_data(box / "data.jsonl")
        self.counter = mmap.mmap(-1, 8)
        self._count_forwards()
        start = time.perf_counter()
        self.harvest(box / "undisturbed")
        self.seconds = time.perf_counter() - start
        self.hash = op.open(box / "undisturbed").hash

    def harvest(self, to: Path) -> Any:
        return op.harvest(
            self.model, str(self.data), SITES, to=to, dtype="float16_scaled", tokens=TOKENS, context=128,
            shard_rows=SHARD_ROWS, tokens_per_forward=512,
        )  # fmt: skip

    @property
    def computed(self) -> int:
        return int.from_bytes(self.counter[:8], "little")

    def _count_forwards(self) -> None:
        """Rows that went through the network, in whichever process."""
        plain = optrode.store.run.HarvestRun._forward

        def counted(run: Any, plan: Any, block: int, writer: Any) -> int:
            rows = plain(run, plan, block, writer)
            self.counter[:8] = (self.computed + rows).to_bytes(8, "little")
            return rows

        optrode.store.run.HarvestRun._forward = counted  # type: ignore[method-assign]

    def killed(self, to: Path, after: float) -> bool:
        """Harvest in a process of its own that is killed `after` seconds; False where it was done by then."""
        child = os.fork()
        if not child:
            try:
                self.harvest(to)
                os._exit(0)
            except BaseException as problem:
                print(f"{type(problem).__name__}: {problem}", file=sys.stderr)
                os._exit(3)
        deadline = time.monotonic() + after
        while time.monotonic() < deadline:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                if os.waitstatus_to_exitcode(status) != 0:
                    raise SystemExit("the harvest failed although nobody disturbed it")
                return False
            time.sleep(0.0005)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return True


def run(kills: int, seed: int, box: Path) -> dict[str, Any]:
    trial, chance = Trial(box), random.Random(seed)
    done = {"kills": 0, "finished": 0, "most_rows_in_vain": 0, "partial_files_seen": 0, "in_the_first_shard": 0}
    failures: list[str] = []
    to = box / "killed"
    whole = rows_on_disk(to)
    while done["kills"] < kills:
        before = trial.computed
        # Moments early in a run are as likely as late ones, and each run gets some shards further.
        if trial.killed(to, chance.uniform(0, 0.4) * trial.seconds):
            done["kills"] += 1
            now = rows_on_disk(to)
            in_vain = trial.computed - before - (now - whole)
            done["most_rows_in_vain"] = max(done["most_rows_in_vain"], in_vain)
            done["partial_files_seen"] += (
                any(name.endswith(".partial") for name in os.listdir(to)) if to.exists() else 0
            )
            done["in_the_first_shard"] += now == 0
            if now < whole:
                failures.append(f"kill {done['kills']}: {whole} rows were there, {now} are")
            # A shard has whole examples, so it may have a few rows less than it could.
            if in_vain > SHARD_ROWS:
                failures.append(f"kill {done['kills']}: {in_vain} rows were in vain, more than a shard")
            failures += [f"kill {done['kills']}: {fault}" for fault in (verify(to) if now else [])]
            whole = now
            continue
        done["finished"] += 1
        failures += differences(box / "undisturbed", to, trial.hash)
        shutil.rmtree(to)
        whole = 0
    trial.harvest(to)
    failures += differences(box / "undisturbed", to, trial.hash)
    seconds = round(trial.seconds, 2)
    return {
        **done,
        "seed": seed,
        "undisturbed_seconds": seconds,
        "shards": len(op.open(to).shards),
        "failures": failures,
    }


def rows_on_disk(store: Path) -> int:
    """Rows of the shards that are whole; 0 where there is no store yet."""
    return len(op.open(store)) if (store / "store.json").exists() else 0


def differences(one: Path, other: Path, wanted: str) -> list[str]:
    found = [] if op.open(other).hash == wanted else ["the hash is another"]
    names = {path.name for path in one.iterdir()} | {path.name for path in other.iterdir()}
    for name in sorted(names - set(OURS)):
        if not (one / name).exists() or not (other / name).exists():
            found.append(f"{name} is in one store only")
        elif (one / name).read_bytes() != (other / name).read_bytes():
            found.append(f"{name} differs")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    # A forked process must not wait for threads that its parent had.
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as box:
        found = run(asked.kills, asked.seed, Path(box))
    print(json.dumps(found, indent=1))
    return 1 if found["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
