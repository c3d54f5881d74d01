"""One node about to be written: how it reads its operands.

A value that is the same for each example has a batch axis of size one, as in `nasgraph.modules.functional`; a free parameter or
constant that is read where it stands (`self.position1`) has none, which is how torch broadcasts it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from nasgraph.ir import Dtype, Scalar, Shape
from nasgraph.modules.source_layers import whole


@dataclass(frozen=True, slots=True)
class Operand:
    """What a node reads.

    Attributes:
        text: A variable, or an attribute of the module.
        shape: Its shape per example.
        dtype: What it consists of.
        is_batched: Whether it differs from example to example.
        is_bare: Whether it has no batch axis at all, not even one of size one.
    """

    text: str
    shape: Shape
    dtype: Dtype
    is_batched: bool
    is_bare: bool = False


@dataclass(frozen=True)
class Use:
    """One node about to be written.

    Attributes:
        attrs: Its attributes.
        operands: What it reads.
        layer: The module's attribute that does the work, if the node has one.
        needs: Takes the names of helpers, `batch_size` and `real` that the expression uses.
    """

    attrs: Mapping[str, Scalar]
    operands: tuple[Operand, ...]
    layer: str
    needs: set[str]

    @property
    def is_batched(self) -> bool:
        """Whether the result differs from example to example."""
        return any(operand.is_batched for operand in self.operands)

    def value(self, place: int = 0) -> str:
        """An operand with a batch axis, maybe of size one."""
        operand = self.operands[place]
        return f"{operand.text}.unsqueeze(0)" if operand.is_bare else operand.text

    def real(self, place: int = 0) -> str:
        """An operand with a batch axis, as real numbers."""
        if self.operands[place].dtype == "float":
            return self.value(place)
        self.needs.add("real")
        return f"{self.value(place)}.to(real)"

    def joined(self) -> list[str]:
        """All operands for a function that broadcasts: bare ones as they are, unless all are."""
        if all(operand.is_bare for operand in self.operands):
            return [self.value(0), *(operand.text for operand in self.operands[1:])]
        return [operand.text for operand in self.operands]

    def repeated(self, place: int = 0) -> str:
        """An operand with as many entries as the batch has examples."""
        operand = self.operands[place]
        if operand.is_batched:
            return operand.text
        self.needs.add("batch_size")
        return f"{operand.text}.expand(batch_size{', -1' * len(operand.shape)})"

    def together(self, count: int | None = None) -> list[str]:
        """The first operands with one batch size."""
        places = range(len(self.operands) if count is None else count)
        if any(self.operands[place].is_batched for place in places):
            return [self.repeated(place) for place in places]
        return [self.value(place) for place in places]

    def fixed(self, place: int) -> str:
        """An operand that is the same for each example, without a batch axis."""
        operand = self.operands[place]
        return operand.text if operand.is_bare else f"{operand.text}[0]"

    def axis(self, name: str = "axis") -> int:
        """An axis, counted with the batch."""
        return whole(self.attrs[name]) + 1
