"""Stands in for plotly, which a reference imports for its drawings."""
