"""Malformed files for every reader of optrode; see `tools/fuzz.py`.

| module | what it holds |
|---|---|
| `trees` | an input as it lies on a disk: files, links, pipes |
| `damage` | damage to bytes and to values in JSON |
| `tensors`, `gguf`, `tables`, `archives` | damage that knows a format: safetensors, GGUF, Parquet, zip and pictures |
| `mutate` | which damage an input gets |
| `kinds` | the registry; `kinds_*` hold the kinds: how seeds are made and how an input is read |
| `guard` | what a read must not do: run code, write, connect, take too long or too much memory |
| `worker`, `campaign` | one input after the other in processes of their own; who hands them out and counts |
| `shrink` | findings made small, and kept on disk |
"""
