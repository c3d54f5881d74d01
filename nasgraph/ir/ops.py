"""The operators: one table with arity, attributes, rules for shapes and types, parameters and multiply-adds.

Shapes are *per example*: an image is `(channels, height, width)`, a token sequence `(tokens, dim)`, a
vector `(features,)`. The batch axis never appears. `nasgraph.modules.functional` holds the torch twin of
each operator, and a test holds the two tables against each other.

Multiply-adds count the multiply-accumulate operations of convolutions, linear maps, recurrent layers, products of
matrices and attention, the convention of `torch.utils.flop_counter` divided by two. Norms, activations, pooling and
additions count zero.
"""

from collections.abc import Mapping

from nasgraph.ir.op import (
    MANY,
    MAX_ELEMENTS,
    MAX_LENGTH,
    MAX_SIZE,
    Attr,
    Attrs,
    Dtype,
    Op,
    ParameterSpec,
    Role,
    Scalar,
    Shape,
)
from nasgraph.ir.operators.attention import ATTENTION
from nasgraph.ir.operators.convolution import CONVOLUTIONS
from nasgraph.ir.operators.elementwise import ACTIVATIONS, FUNCTIONS, JOINING
from nasgraph.ir.operators.linear import LINEAR
from nasgraph.ir.operators.message_passing import MESSAGE_PASSING
from nasgraph.ir.operators.norms import NORMS
from nasgraph.ir.operators.pooling import POOLING
from nasgraph.ir.operators.recurrent import RECURRENT
from nasgraph.ir.operators.reductions import REDUCTIONS
from nasgraph.ir.operators.sources import OPAQUE, SOURCES
from nasgraph.ir.operators.structure import STRUCTURE

__all__ = [
    "MANY",
    "MAX_ELEMENTS",
    "MAX_LENGTH",
    "MAX_SIZE",
    "OPS",
    "Attr",
    "Attrs",
    "Dtype",
    "Op",
    "ParameterSpec",
    "Role",
    "Scalar",
    "Shape",
]

OPS: Mapping[str, Op] = {
    **SOURCES,
    **CONVOLUTIONS,
    **LINEAR,
    **RECURRENT,
    **ATTENTION,
    **MESSAGE_PASSING,
    **NORMS,
    **POOLING,
    **REDUCTIONS,
    **JOINING,
    **STRUCTURE,
    **ACTIVATIONS,
    **FUNCTIONS,
    **OPAQUE,
}
