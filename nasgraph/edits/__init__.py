"""Edits of trained networks with known effect: symmetries, growth that keeps the function, and pruning of groups of units."""

from nasgraph.edits.branches import replicate_add, split_concat
from nasgraph.edits.deeper import chained, deepen, deepen_all
from nasgraph.edits.edited import Edited, EditError
from nasgraph.edits.importance import Criterion, importance, loss_gradients
from nasgraph.edits.inherit import Inherited, inherit
from nasgraph.edits.inherit_match import match_nodes
from nasgraph.edits.prune import prune_to, prune_units
from nasgraph.edits.random_edits import random_edit, random_edits
from nasgraph.edits.surgery import select_units
from nasgraph.edits.symmetric import permute, rescale
from nasgraph.edits.targets import choose_units, removable
from nasgraph.edits.transformer import expand_heads, expand_keys, expand_layers, expand_values
from nasgraph.edits.wider import add_units, add_zero_units, widen, widen_all

__all__ = [
    "Criterion",
    "EditError",
    "Edited",
    "Inherited",
    "add_units",
    "add_zero_units",
    "chained",
    "choose_units",
    "deepen",
    "deepen_all",
    "expand_heads",
    "expand_keys",
    "expand_layers",
    "expand_values",
    "importance",
    "inherit",
    "loss_gradients",
    "match_nodes",
    "permute",
    "prune_to",
    "prune_units",
    "random_edit",
    "random_edits",
    "removable",
    "replicate_add",
    "rescale",
    "select_units",
    "split_concat",
    "widen",
    "widen_all",
]
