"""References that cannot live beside optrode: what they compute is kept in small files that the tests read.

    python -m tools.oracles                 which there are, and which kept files are stale
    python -m tools.oracles captum timm     make their environments, run them, write their files
    python -m tools.oracles --all           all of them

An oracle is one file here: it says what it needs and which file it writes, and its function `measured` gives tensors
and texts. It runs in an environment of its own, `.oracles/NAME`, which sees the packages of the main one below its own.
A file keeps the versions and the hash of the script that wrote it; a test says when the script has changed since.
"""
