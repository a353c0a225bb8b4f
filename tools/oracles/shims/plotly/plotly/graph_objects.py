"""Nothing is drawn."""

Figure = object
