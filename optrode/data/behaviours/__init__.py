"""One file per behaviour; each has `build() -> Behaviour`. A new file here is a new behaviour, with no list to edit."""
