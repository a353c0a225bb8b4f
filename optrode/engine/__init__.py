"""The engine: from sites to read, edits to apply and inputs to the least work that gives the same numbers."""
