"""Benchmarks: optrode beside plain transformers, its peers and hand-written loops, alternated in one run."""
