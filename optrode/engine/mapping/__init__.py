"""Mapping: where the sites of a network are, by table or by measurement, and never unmeasured."""
