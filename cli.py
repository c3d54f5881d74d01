"""Launcher for a checkout: `python cli.py search ...` is the installed command `nasgraph search ...`."""

import sys

from nasgraph.commands import main

if __name__ == "__main__":
    sys.exit(main())
