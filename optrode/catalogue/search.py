"""Searching the catalogue by words and by meaning: BM25 and sentence embeddings, fused.

How they are fused was chosen by the study of the row `fusion-functions`, on queries that this search was not tuned on.
"""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any

import numpy as np

from ..errors import BadInput, OptrodeError
from ..retrieval.fusion_functions import ConvexCombination
from ..retrieval.protocol import Candidates, FusionMethod, best_of_both, ranks
from .rows import Catalogue, System, all_systems

EMBEDDINGS = "embeddings.safetensors"

# Words that say nothing about a system.
_COMMON = (
    "a an and are as at be by can do for from how i in into is it its me model models my of on or that the their them "
    "then this to want what when where which with without"
)
STOP_WORDS = frozenset(_COMMON.split())

DEFAULT_FUSION = ConvexCombination()


def search(query: str, fusion: FusionMethod = DEFAULT_FUSION) -> Catalogue:
    """All systems, the best match first. Without the sentence encoder (no network, never fetched) by words alone.

    Raises `BadInput` for a query without words.
    """
    if not _words(query):
        raise BadInput(f"the query {query!r} has no word to search for: say what the system should do")
    systems = all_systems()
    words = lexical_scores([query])
    try:
        meaning = semantic_scores([query])
    except OptrodeError as problem:
        warnings.warn(f"searched by words alone, since the sentence encoder is missing: {problem}", stacklevel=3)
        fused = words
    else:
        fused = fusion.fuse(best_of_both(words, meaning, len(systems)))
    order = np.argsort(ranks(fused)[0])
    return Catalogue(tuple(systems[number] for number in order), tuple(float(fused[0, number]) for number in order))


def candidates(queries: Sequence[str], k: int) -> Candidates:
    """Both scores of every system for every query, and the best `k` of either as candidates."""
    return best_of_both(lexical_scores(queries), semantic_scores(queries), k)


def lexical_scores(queries: Sequence[str]) -> np.ndarray:
    """BM25 of every system, [query, system]."""
    return _scores(_index(), queries)


def bm25_scores(queries: Sequence[str], documents: Sequence[str]) -> np.ndarray:
    """BM25 (Lucene's form, k1 1.5, b 0.75) of any documents, [query, document]."""
    return _scores(_indexed(documents), queries)


def semantic_scores(queries: Sequence[str]) -> np.ndarray:
    """Cosine of the embeddings of query and system, [query, system]."""
    from ..parts.sentences import embed

    return embed(list(queries)) @ _embeddings().T


def _words(text: str) -> list[str]:
    words = [word for word in re.findall(r"[a-z0-9]+", text.lower()) if word not in STOP_WORDS]
    return _stemmer().stemWords(words)


@cache
def _stemmer() -> Any:
    import snowballstemmer

    return snowballstemmer.stemmer("english")


@cache
def _index() -> tuple[Any, int]:
    return _indexed([system.text for system in all_systems()])


def _indexed(documents: Sequence[str]) -> tuple[Any, int]:
    import bm25s

    index = bm25s.BM25(method="lucene")
    index.index([_words(document) for document in documents], show_progress=False)
    return index, len(documents)


def _scores(indexed: tuple[Any, int], queries: Sequence[str]) -> np.ndarray:
    """A word that no document has says nothing; a query of such words alone scores 0 everywhere."""
    index, count = indexed
    found = np.zeros((len(queries), count))
    for row, query in zip(found, queries, strict=True):
        words = [word for word in _words(query) if word in index.vocab_dict]
        if words:
            row[:] = index.get_scores(words)
    return found


def fingerprint(systems: Sequence[System]) -> str:
    """Hash of the texts that the stored embeddings belong to."""
    return hashlib.sha256("\n".join(system.text for system in systems).encode()).hexdigest()[:16]


@cache
def _embeddings() -> np.ndarray:
    """[system, width] float32; computed anew where the stored ones belong to other texts."""
    from safetensors.numpy import load

    from ..parts.sentences import embed

    stored = load((resources.files(__package__) / EMBEDDINGS).read_bytes())
    systems = all_systems()
    if fingerprint(systems) in stored:
        return stored[fingerprint(systems)].astype(np.float32)
    return embed([system.text for system in systems])


def stored_embeddings() -> bytes:
    """The file of embeddings for the systems as they are, float16."""
    from safetensors.numpy import save

    from ..parts.sentences import embed

    systems = all_systems()
    return save({fingerprint(systems): embed([system.text for system in systems]).astype(np.float16)})
