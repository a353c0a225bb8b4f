"""Editing: what edits do in a context, at which module, and what they are said to have done."""
