"""What a recorder notes down: values, the calls that made them, and what the module returned."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from torch import Tensor


class Value:
    """One tensor of a recorded forward pass. Compared by identity.

    Attributes:
        shape: Its full shape, batch axis included.
        dtype: "float", "int", "bool" or "complex".
        parameter: Name of the module's parameter that it is, or "".
        tensor: Its content, where that does not depend on the inputs or parameters (a constant).
        is_input: Whether it is an input of the module.
        is_known: Whether its content is at hand while recording: constants, and what follows from integer inputs alone.
        made: Number of the call that made it, from 1.
    """

    __slots__ = ("dtype", "is_input", "is_known", "made", "parameter", "shape", "tensor")

    def __init__(
        self,
        shape: tuple[int, ...],
        dtype: str,
        *,
        parameter: str = "",
        tensor: Tensor | None = None,
        is_input: bool = False,
        is_known: bool = False,
    ) -> None:
        self.shape = shape
        self.dtype = dtype
        self.parameter = parameter
        self.tensor = tensor
        self.is_input = is_input
        self.is_known = is_known or tensor is not None
        self.made = 0

    def __repr__(self) -> str:
        what = self.parameter or ("constant" if self.tensor is not None else "input" if self.is_input else "")
        return f"<{what or 'value'} {self.dtype} {self.shape}>"


class Call:
    """One torch function applied: its name, its arguments with values in place of tensors, and its results.

    A result that is no tensor is left out of `outputs`.
    """

    __slots__ = ("args", "kwargs", "name", "outputs")

    def __init__(
        self, name: str, args: tuple[object, ...], kwargs: dict[str, object], outputs: tuple[Value, ...]
    ) -> None:
        self.name = name
        self.args = args
        self.kwargs = kwargs
        self.outputs = outputs

    def argument(self, position: int, name: str, default: object = None) -> object:
        """An argument given by position or by name."""
        if position < len(self.args):
            return self.args[position]
        return self.kwargs.get(name, default)

    def inputs(self) -> Iterator[Value]:
        """Every value among the arguments, in their order; also inside lists, tuples and dictionaries."""
        for argument in self.args:
            if isinstance(argument, Value):
                yield argument
            elif isinstance(argument, list | tuple | dict):
                yield from values_in(argument)
        for argument in self.kwargs.values():
            yield from values_in(argument)

    def __repr__(self) -> str:
        return f"{self.name}({self.args}, {self.kwargs}) -> {self.outputs}"


def values_in(argument: object) -> Iterator[Value]:
    """Values in a nested argument."""
    if isinstance(argument, Value):
        yield argument
    elif isinstance(argument, list | tuple):
        for item in argument:
            yield from values_in(item)
    elif isinstance(argument, dict):
        for item in argument.values():
            yield from values_in(item)


@dataclass
class Recording:
    """A forward pass as a list of calls.

    Attributes:
        batch_size: Examples in the recorded batch.
        calls: In the order in which they ran.
        inputs: Values of the tensors given, in their order.
        outputs: Path and value of every tensor returned.
        questions: What the module asked about values that follow from the inputs, once each.
    """

    batch_size: int
    calls: list[Call] = field(default_factory=list)
    inputs: list[Value] = field(default_factory=list)
    outputs: list[tuple[str, Value]] = field(default_factory=list)
    questions: list[str] = field(default_factory=list)

    def live_calls(self) -> list[Call]:
        """The calls on which an output depends, in their order."""
        wanted = {value for _, value in self.outputs}
        live = []
        for call in reversed(self.calls):
            if not wanted.isdisjoint(call.outputs):
                live.append(call)
                wanted.update(call.inputs())
        return live[::-1]
