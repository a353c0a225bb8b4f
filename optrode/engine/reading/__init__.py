"""Reading: from what is asked for to the least forward that gives it, and its results put together."""
