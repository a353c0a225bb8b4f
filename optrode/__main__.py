"""`python -m optrode`."""

from .cli import main

main()
