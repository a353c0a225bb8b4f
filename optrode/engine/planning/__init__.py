"""Planning: what a read will keep and cost, before it runs and within a budget."""
