"""Retrieval: find and rank, and merge the rankings that several scores give.

Every method of this folder is one file; its classes are found by their `id`, so there is no list to edit.
"""

from pathlib import Path

from ..parts.discovery import lazy_family

__getattr__, __dir__ = lazy_family(__name__, str(Path(__file__).parent))
