"""Dictionaries: an activation as a sum of few features out of many, and back.

A dictionary is a `Score` (features for each token) and gives edits. The file of each foreign format is one module here.
"""

from .dictionary import Dictionary
from .encodings import Encoding, Gate, Jump, Relu, TopK
from .saelens import load_saelens

__all__ = ["Dictionary", "Encoding", "Gate", "Jump", "Relu", "TopK", "load_saelens"]
