"""Edits of trained networks with known effect: symmetries, growth that keeps the function, and pruning of groups of units."""

from nasgraph.edits.edited import Edited, EditError

__all__ = ["EditError", "Edited"]
