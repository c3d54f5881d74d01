# ruff: noqa: ARG001 -- all rules of one column have one signature, whether they need all of it or not
"""Linear maps, products of matrices and look-up tables."""

from collections.abc import Mapping, Sequence
from math import prod

from nasgraph.errors import InvalidGraphError
from nasgraph.ir.op import MANY, SIZE, Attr, Attrs, Op, ParameterSpec, Shape, broadcast, whole


def _linear(attrs: Attrs, inputs: Sequence[Shape]) -> Shape:
    return (*inputs[0][:-1], whole(attrs, "out_features"))


def _linear_parameters(attrs: Attrs, inputs: Sequence[Shape]) -> dict[str, ParameterSpec]:
    return _weight_and_bias(attrs, (whole(attrs, "out_features"), inputs[0][-1]))


def _weight_and_bias(attrs: Attrs, shape: Shape) -> dict[str, ParameterSpec]:
    parameters = {"weight": ParameterSpec(shape, "weight")}
    if attrs["bias"]:
        parameters["bias"] = ParameterSpec(shape[:1], "bias")
    return parameters


def _linear_multiply_adds(attrs: Attrs, inputs: Sequence[Shape], output: Shape) -> int:
    return prod(output) * inputs[0][-1]


def _given_linear(attrs: Attrs, inputs: Sequence[Shape]) -> Shape:
    data, weight = inputs[:2]
    if len(weight) != 2 or weight[1] != data[-1]:
        raise InvalidGraphError(f"expected a weight of shape (out, {data[-1]}) (got {weight})")
    if inputs[2:] and inputs[2] != weight[:1]:
        raise InvalidGraphError(f"expected a bias of shape {weight[:1]} (got {inputs[2]})")
    return (*data[:-1], weight[0])


def _bilinear(attrs: Attrs, inputs: Sequence[Shape]) -> Shape:
    first, second = inputs
    if first[:-1] != second[:-1]:
        raise InvalidGraphError(
            f"expected shapes that differ on the last axis only (got {first} and {second})"
        )
    return (*first[:-1], whole(attrs, "out_features"))


def _bilinear_parameters(attrs: Attrs, inputs: Sequence[Shape]) -> dict[str, ParameterSpec]:
    return _weight_and_bias(attrs, (whole(attrs, "out_features"), inputs[0][-1], inputs[1][-1]))


def _bilinear_multiply_adds(attrs: Attrs, inputs: Sequence[Shape], output: Shape) -> int:
    return prod(output) * inputs[0][-1] * inputs[1][-1]


def _embedding(attrs: Attrs, inputs: Sequence[Shape]) -> Shape:
    return (*inputs[0], whole(attrs, "dim"))


def _embedding_parameters(attrs: Attrs, inputs: Sequence[Shape]) -> dict[str, ParameterSpec]:
    return {"weight": ParameterSpec((whole(attrs, "num_embeddings"), whole(attrs, "dim")), "embedding")}


def _given_embedding(attrs: Attrs, inputs: Sequence[Shape]) -> Shape:
    if len(inputs[1]) != 2:
        raise InvalidGraphError(f"expected a table of shape (entries, dim) (got {inputs[1]})")
    return (*inputs[0], inputs[1][1])


def _matmul(attrs: Attrs, inputs: Sequence[Shape]) -> Shape:
    first, second = inputs
    if len(first) != len(second) or len(first) < 2 or first[-1] != second[-2]:
        raise InvalidGraphError(f"expected shapes (..., T, D) and (..., D, S) (got {first} and {second})")
    if first[:-2] == second[:-2]:
        return (*first[:-1], second[-1])
    return (*broadcast(attrs, (first[:-2], second[:-2])), first[-2], second[-1])


def equation_sizes(equation: str, inputs: Sequence[Shape]) -> tuple[dict[str, int], str]:
    """Sizes of the letters of an einsum equation, and the letters of its result.

    Raises:
        InvalidGraphError: If the equation is no equation, or does not fit the shapes.
    """
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if not arrow or not all(term.isalpha() and term.isascii() for term in (*terms, right)):
        raise InvalidGraphError(f"expected an equation such as 'ij,jk->ik' (got {equation!r})")
    if [len(term) for term in terms] != [len(shape) for shape in inputs]:
        listed = ", ".join(map(str, inputs[:8]))
        raise InvalidGraphError(f"expected one letter per axis in {equation!r} (got shapes {listed})")
    sizes: dict[str, int] = {}
    for term, shape in zip(terms, inputs, strict=True):
        for letter, size in zip(term, shape, strict=True):
            if sizes.setdefault(letter, size) != size:
                raise InvalidGraphError(
                    f"expected one size for '{letter}' in {equation!r} (got {sizes[letter]} and {size})"
                )
    if len(set(right)) != len(right) or not set(right) <= set(sizes) or len(sizes) > 50:
        raise InvalidGraphError(f"expected a result of different letters of the inputs (got {equation!r})")
    return sizes, right


def _einsum(attrs: Attrs, inputs: Sequence[Shape]) -> Shape:
    sizes, right = equation_sizes(str(attrs["equation"]), inputs)
    return tuple(sizes[letter] for letter in right)


def _einsum_multiply_adds(attrs: Attrs, inputs: Sequence[Shape], output: Shape) -> int:
    sizes, _ = equation_sizes(str(attrs["equation"]), inputs)
    return prod(sizes.values()) if len(inputs) > 1 else 0


LINEAR: Mapping[str, Op] = {
    "linear": Op(
        "linear map of the last axis",
        (1, 1),
        _linear,
        attrs={"out_features": SIZE, "bias": Attr("bool", True)},
        parameters=_linear_parameters,
        multiply_adds=_linear_multiply_adds,
    ),
    "apply_linear": Op(
        "linear map of the first input's last axis by the second input, maybe with a bias",
        (2, 3),
        _given_linear,
        multiply_adds=_linear_multiply_adds,
    ),
    "bilinear": Op(
        "bilinear map of the last axes of two inputs",
        (2, 2),
        _bilinear,
        attrs={"out_features": SIZE, "bias": Attr("bool", True)},
        parameters=_bilinear_parameters,
        multiply_adds=_bilinear_multiply_adds,
    ),
    "embedding": Op(
        "one vector per integer",
        (1, 1),
        _embedding,
        attrs={"num_embeddings": SIZE, "dim": SIZE},
        parameters=_embedding_parameters,
        reads=("int",),
    ),
    "apply_embedding": Op(
        "one row of the second input per integer of the first",
        (2, 2),
        _given_embedding,
        reads=("int", "float"),
    ),
    "matmul": Op(
        "product of matrices on the last two axes; other axes of size one are repeated",
        (2, 2),
        _matmul,
        multiply_adds=_linear_multiply_adds,
    ),
    "einsum": Op(
        "Einstein sum; the batch has no letter",
        (1, MANY),
        _einsum,
        attrs={"equation": Attr("name")},
        multiply_adds=_einsum_multiply_adds,
    ),
}
