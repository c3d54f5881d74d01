"""The command line: one verb per file. Loading it loads neither torch nor any other heavy package."""

from nasgraph.commands.app import main

__all__ = ["main"]
