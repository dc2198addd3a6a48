"""`python -m finesweep` is the command line."""

from finesweep.cli import main

main()
