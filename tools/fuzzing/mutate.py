"""Which damage an input gets: by the endings of its files, and to the folder that they lie in."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from .archives import npz_of, picture_of, torch_trap, trap, zip_bomb
from .damage import bytes_of, csv_of, json_lines_of, json_of, plain_dump
from .gguf import gguf_of
from .kinds import Kind
from .tables import arrow_of, parquet_of
from .tensors import safetensors_of
from .trees import Folder, Link, Pipe, Thing, Tree

# Set where seeds are made: files of gigabytes in a few kilobytes, by ending.
BOMBS: dict[str, bytes] = {}


def _store_json(random: Random, data: bytes) -> bytes:
    """JSON as a store writes it: any other spelling is refused before what it says is looked at."""
    from optrode.store.receipts import dump

    def dumped(value: object) -> bytes:
        try:
            return dump(value)  # type: ignore[arg-type]
        except TypeError:
            return plain_dump(value)

    return json_of(random, data, dumped)


DAMAGE: dict[str, Callable[[Random, bytes], bytes]] = {
    ".edit": safetensors_of, ".stats": safetensors_of, ".safetensors": safetensors_of, ".gguf": gguf_of,
    ".json": json_of, ".jsonl": json_lines_of, ".csv": csv_of, ".txt": bytes_of, ".npz": npz_of,
    ".parquet": parquet_of, ".arrow": arrow_of,
    ".png": picture_of, ".gif": picture_of, ".jpg": picture_of, ".bmp": picture_of, ".html": lambda r, d: _page(r, d),
}  # fmt: skip


def _page(random: Random, data: bytes) -> bytes:
    """A report with the JSON that it carries damaged, or anything of it."""
    mark, end = b'id="optrode-result">', b"</script>"
    start = data.find(mark) + len(mark)
    stop = data.find(end, start)
    if random.random() < 0.3 or start < len(mark) or stop < 0:
        return bytes_of(random, data)
    return data[:start] + json_of(random, data[start:stop]) + data[stop:]


def mutated(random: Random, kind: Kind, seed: Tree) -> Tree:
    """A seed with some damage, whose checksums mostly fit again."""
    tree = dict(seed)
    for _ in range(random.choice((1, 1, 1, 1, 2, 3))):
        if random.random() < 0.05:
            _misplace(random, tree)
            continue
        files = [name for name, thing in tree.items() if isinstance(thing, bytes)]
        if files:
            name = random.choice(files)
            tree[name] = damaged(random, name, tree[name])  # type: ignore[arg-type]
    if random.random() < 0.85:
        try:
            return kind.seal(tree, seed)
        except Exception:
            # What cannot be sealed any more stays as it is.
            return tree
    return tree


def damaged(random: Random, name: str, data: bytes) -> bytes:
    """One file with one damage."""
    if random.random() < 0.2:
        return bytes_of(random, data)
    ending = "." + name.rpartition(".")[2]
    if ending == ".json" and data.startswith(b'{\n "'):
        return _store_json(random, data)
    try:
        return DAMAGE.get(ending, bytes_of)(random, data)
    except Exception:
        # A second damage may meet a file that nobody can take apart any more.
        return bytes_of(random, data)


def _misplace(random: Random, tree: Tree) -> None:
    """Something else where a file was, or the file somewhere else."""
    name = random.choice(list(tree))
    ending = "." + name.rpartition(".")[2]
    devices = ("/dev/zero", "/dev/null", "/proc/self/mem")
    links = ("nowhere", name.rpartition("/")[2], *devices, "../outside/secret.txt", "..")
    things: list[Callable[[], Thing]] = [
        lambda: Link(random.choice(links)), lambda: Pipe(), lambda: Folder(), lambda: b"", lambda: trap(2),
        lambda: trap(0),
        torch_trap, lambda: BOMBS.get(ending, b"PK"), lambda: zip_bomb() if ending == ".npz" else b"\0" * 5000,
    ]  # fmt: skip
    choice = random.random()
    if choice < 0.15 and len(tree) > 1:
        del tree[name]
    elif choice < 0.25:
        other = random.choice(list(tree))
        tree[name], tree[other] = tree[other], tree[name]
    elif choice < 0.3 and "adapter_config.json" in tree:
        tree["adapter_model.bin"] = trap()
    else:
        tree[name] = random.choice(things)()
