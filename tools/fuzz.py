"""Reads malformed files with every reader of optrode: each is read, or refused by one clear line, and no code is run.

`python tools/fuzz.py --inputs 100000 --seed 0` makes tiny networks and valid files of them, damages those in ways that
know their formats (bytes, headers, counts, shapes, offsets, values in JSON, dtypes, names, links, pickles, bombs),
makes checksums fit again, and reads each in a process of its own under limits of time and memory. Anything but a value
or an error of `optrode.errors` in one line of at most 400 characters is a finding; so is a read that runs code, imports
what a file names, writes, opens other files than those of the input, or connects. `tools/fuzzing/guard.py` says what is
seen.

The inputs are the same for the same seed. Prints a table by kind, keeps a small input for each cause of a finding in
`--out`, and exits with 1 where there is one. `--again FOLDER` reads a kept input once more and shows what happens.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

# Before any library is loaded: processes are forked, and threads of libraries would be lost in them.
os.environ.update(OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false", MALLOC_ARENA_MAX="2", ARROW_NUM_THREADS="1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

from fuzzing import campaign, shrink
from fuzzing.kinds import Kind, all_kinds
from fuzzing.trees import load
from fuzzing.worker import Bench, Limits


def main() -> int:
    options = _options()
    kinds = all_kinds()
    chosen = {name: kinds[name] for name in (options.kinds or kinds)}
    _import_libraries()
    scratch = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else Path(tempfile.gettempdir())
    box = Path(tempfile.mkdtemp(prefix="optrode-fuzz-", dir=scratch))
    limits = Limits(options.limit, options.memory)
    try:
        _make_corpus(chosen, box / "corpus")

        def make(own: Path) -> Bench:
            return Bench(own, box / "corpus", chosen, options.seed, limits)

        if options.again:
            return _again(options.again, make, box / "again")
        started = time.perf_counter()
        result = campaign.run(
            chosen, make, box, inputs=options.inputs, seconds=options.seconds, limits=limits, workers=options.workers
        )
        print(_table(result, time.perf_counter() - started, options.seed))
        for place, (key, first) in enumerate(sorted(result.first.items())):
            if place < options.keep:
                kept = shrink.keep(options.out, box / "shrink", make, first, result.often[key])
                print(f"{first.kind}: {first.signature} ({result.often[key]} inputs): {kept}")
            else:
                print(f"{first.kind}: {first.signature} ({result.often[key]} inputs), input {first.number}")
        return 1 if result.first else 0
    finally:
        shutil.rmtree(box, ignore_errors=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=100_000, help="how many inputs, over all kinds")
    parser.add_argument("--seed", type=int, default=0, help="other seeds are other inputs")
    kinds = sorted(all_kinds())
    parser.add_argument("--kinds", nargs="+", choices=kinds, metavar="KIND", help="only these: %(choices)s")
    parser.add_argument("--seconds", type=float, help="stop after so long, whatever is left")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes that read")
    parser.add_argument("--limit", type=float, default=5.0, help="seconds that one read may take")
    parser.add_argument("--memory", type=int, default=1024, help="MiB that one read may map")
    parser.add_argument("--keep", type=int, default=40, help="how many causes are made small and kept")
    parser.add_argument("--out", type=Path, default=Path("out/fuzz"), help="where inputs of findings are kept")
    parser.add_argument("--again", type=Path, help="read one that was kept before")
    return parser.parse_args()


def _import_libraries() -> None:
    """Once, before the processes part: what they share needs no memory of its own."""
    import datasketches
    import gguf
    import pandas
    import pyarrow.parquet
    import safetensors.torch
    import torch
    import transformers
    from PIL import Image

    import optrode.cli.command_rerun
    import optrode.functions.saved
    import optrode.store.verify
    from optrode.functions import built

    del datasketches, gguf, pandas, pyarrow, safetensors, transformers, optrode
    torch.set_num_threads(1)
    # The list of functions is read once, and what computes them is imported with it.
    built.built_functions()
    # Its formats are modules that it imports when a picture might be of them.
    Image.init()


def _make_corpus(kinds: dict[str, Kind], corpus: Path) -> None:
    """Write the seeds, in a process of its own: a network that has run has threads that no fork has."""
    (corpus.parent / "outside").mkdir(parents=True)
    (corpus.parent / "outside" / "secret.txt").write_text("a file that no input may have read\n")
    for name in kinds:
        (corpus / name).mkdir(parents=True)
    process = campaign.FORK.Process(target=_seeds, args=(kinds, corpus))
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit("the seeds could not be made")


def _seeds(kinds: dict[str, Kind], corpus: Path) -> None:
    import warnings

    warnings.simplefilter("ignore")
    # What libraries say at their first import is of no interest, unless it comes to nothing.
    said = corpus.parent / "said"
    kept = os.dup(2)
    os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT), 2)
    try:
        for name, kind in kinds.items():
            kind.seeds(corpus / name)
    except BaseException:
        os.dup2(kept, 2)
        print(said.read_text(errors="replace"), file=sys.stderr)
        raise


def _table(result: campaign.Result, seconds: float, seed: int) -> str:
    head = f"{'kind':12} {'inputs':>8} {'read':>8} {'refused':>8} {'findings':>8} {'slowest, s':>11} {'peak, MiB':>10}"
    lines = [head]
    total = campaign.Tally()
    for name, tally in result.tallies.items():
        lines.append(_line(name, tally))
        total.inputs, total.read = total.inputs + tally.inputs, total.read + tally.read
        total.refused, total.finding = total.refused + tally.refused, total.finding + tally.finding
        total.slowest, total.peak = max(total.slowest, tally.slowest), max(total.peak, tally.peak)
    lines.append(_line("all", total))
    return "\n".join([*lines, f"seed {seed}, {seconds:.0f} s, {total.inputs / max(seconds, 1e-9):.0f} inputs a second"])


def _line(name: str, tally: campaign.Tally) -> str:
    return (
        f"{name:12} {tally.inputs:8,} {tally.read:8,} {tally.refused:8,} {tally.finding:8,} {tally.slowest:11.2f} "
        f"{tally.peak:10.0f}"
    )


def _again(folder: Path, make: object, box: Path) -> int:
    import json

    about = json.loads((folder / "about.json").read_text(encoding="utf-8"))
    bench = make(box)  # type: ignore[operator]
    outcome = bench.judge(bench.kinds[about["kind"]], about["number"], load(folder / "case"))
    print(f"{outcome.verdict} {outcome.signature} ({outcome.seconds:.2f} s, {outcome.peak:.0f} MiB)\n{outcome.detail}")
    return int(outcome.verdict == "finding")


if __name__ == "__main__":
    sys.exit(main())
