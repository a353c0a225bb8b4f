"""Generating: the network's own loop under edits, its draws, and text as it comes."""
