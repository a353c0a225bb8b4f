"""Nothing is drawn."""

