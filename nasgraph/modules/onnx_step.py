"""One ONNX node about to run: what its rule sees."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nasgraph.errors import UnsupportedOpError
from nasgraph.modules.onnx_file import OnnxNode

MAX_MADE_ELEMENTS = 2**28
"""Most elements of a tensor that a file asks for without giving its content."""

Layout = tuple[int, int]
"""An axis, and how many steps on it stand before the examples."""


@dataclass(frozen=True, slots=True)
class Step:
    """One node and its operands.

    Attributes:
        node: The node.
        opset: Version of the operators in the file.
        operands: What it reads; None where an optional input is left out.
        follows: For each operand whether its content follows from the inputs of the model.
        literal: For each operand whether the file alone says what it holds.
        fixed_batch: The batch size that the file was written for, if it names one.
        batch_size: Examples in this batch.
        layout: In a file for one batch size, where the examples lie in the first operand, if that is known.
        training: Whether dropout drops.
        layer: The layer that does the work, for recurrent nodes.
    """

    node: OnnxNode
    opset: int
    operands: Sequence[Tensor | None]
    follows: Sequence[bool]
    literal: Sequence[bool]
    fixed_batch: int | None
    batch_size: int
    layout: Layout | None
    training: bool
    layer: nn.Module | None = None

    def tensor(self, place: int = 0) -> Tensor:
        """A required operand."""
        found = self.optional(place)
        if found is None:
            raise ValueError(f"input {place} is missing")
        return found

    def optional(self, place: int) -> Tensor | None:
        """An operand that may be left out."""
        return self.operands[place] if place < len(self.operands) else None

    def tensors(self) -> list[Tensor]:
        """All operands of a node that reads any number."""
        return [operand for operand in self.operands if operand is not None]

    def integers(self, place: int, attribute: str) -> tuple[int, ...] | None:
        """Integers that older versions state as an attribute and newer ones as an input."""
        operand = self.optional(place)
        if operand is None:
            return self.node.wholes(attribute)
        return tuple(int(number) for number in operand.flatten().tolist())

    def refuse(self, why: str) -> UnsupportedOpError:
        """The error for what nasgraph does not know of this operator."""
        return UnsupportedOpError(f"Cannot run {self.node}: {why}")


Result = Tensor | tuple[Tensor | None, ...]
Rule = Callable[[Step], Result]


def refuse_large(step: Step, sizes: Sequence[int]) -> None:
    """Refuse to make a tensor of absurd size."""
    elements = 1
    for size in sizes:
        elements *= max(0, int(size))
    if elements > MAX_MADE_ELEMENTS:
        raise step.refuse(f"it makes a tensor of {elements:,} elements (at most {MAX_MADE_ELEMENTS:,})")


def integers_like(values: Sequence[int] | int, like: Tensor) -> Tensor:
    """Integers on the device of another tensor."""
    return torch.tensor(values, dtype=torch.int64, device=like.device)
