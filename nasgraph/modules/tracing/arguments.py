"""Reading the arguments of layers."""

from nasgraph.modules.tracing.lowering import Batch, Dims, Lowering, UntranslatableError, integers
from nasgraph.modules.tracing.recording import Call, Value


def optional(call: Call, position: int, name: str) -> Value | None:
    """A tensor argument that may be missing."""
    found = call.argument(position, name)
    if found is None:
        return None
    if not isinstance(found, Value):
        raise UntranslatableError(f"expected a tensor as '{name}'")
    return found


def ownable(lower: Lowering, *values: Value | None) -> bool:
    """Whether a node can own all these parameters."""
    return all(value is None or lower.owned(value) is not None for value in values)


def sizes(argument: object, rank: int) -> Dims:
    numbers = tuple(integers((argument,)))
    return numbers * rank if len(numbers) == 1 else numbers


def example_first(lower: Lowering, x: Value, rank: int) -> Batch:
    """The layout of (examples, channels, positions...), which alone convolutions and pooling can read.

    Raises:
        UntranslatableError: For any other.
    """
    batch = lower.layout(x)
    if batch is None or batch.axis != 0 or batch.rest != 1 or len(x.shape) != rank + 2:
        raise UntranslatableError("reads no plain batch of images")
    return batch
