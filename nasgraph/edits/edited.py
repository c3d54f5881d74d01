"""The result of an edit: another architecture with the weights it inherits."""

from dataclasses import dataclass

from torch import Tensor

from nasgraph.errors import NasGraphError
from nasgraph.ir import ComputationalGraph


class EditError(NasGraphError, ValueError):
    """An edit that this network does not allow. The message names the node or the group, and says why."""


@dataclass(frozen=True, eq=False)
class Edited:
    """A network after an edit.

    Attributes:
        graph: The new architecture, checked.
        state: Its parameters, running statistics and constants. What the edit does not touch is shared with the state before.
        note: One line on what was done, for lineage, such as "widen n3.weight/0 from 16 to 24".
        preserves_function: Whether the network computes what it computed before, up to rounding, in inference mode.
        nodes: For each node of the new graph the node of the old one that it comes from, or -1 where it is new.
    """

    graph: ComputationalGraph
    state: dict[str, Tensor]
    note: str
    preserves_function: bool
    nodes: tuple[int, ...]
