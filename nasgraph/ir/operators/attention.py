# ruff: noqa: ARG001 -- all rules of one column have one signature, whether they need all of it or not
"""Scaled dot-product attention (Vaswani et al. 2017, "Attention is all you need", eq. 1)."""

from collections.abc import Mapping, Sequence
from math import prod

from nasgraph.errors import InvalidGraphError
from nasgraph.ir.op import SIZE, Attr, Attrs, Op, Shape, real, whole


def _attention(attrs: Attrs, inputs: Sequence[Shape]) -> Shape:
    query, key, value = inputs[:3]
    if len(query) < 2:
        raise InvalidGraphError(f"expected (tokens, dim) or more axes (got shape {query})")
    if key[:-1] != value[:-1] or key[:-2] != query[:-2] or key[-1] != query[-1]:
        raise InvalidGraphError(
            f"expected query and key of one width, key like value (got {query}, {key}, {value})"
        )
    heads = whole(attrs, "num_heads")
    for width in (query[-1], value[-1]):
        if width % heads:
            raise InvalidGraphError(f"expected 'num_heads' to divide the width (got {heads} and {width})")
    if inputs[3:]:
        _check_mask(inputs[3], query, key, heads)
    return (*query[:-1], value[-1])


def _check_mask(mask: Shape, query: Shape, key: Shape, heads: int) -> None:
    scores = (*query[:-1], key[-2]) if heads == 1 else (*query[:-2], heads, query[-2], key[-2])
    if heads > 1 and len(mask) == len(query):  # one mask for all heads
        mask = (*mask[:-2], 1, *mask[-2:])
    if len(mask) != len(scores) or any(m not in (1, s) for m, s in zip(mask, scores, strict=True)):
        raise InvalidGraphError(f"expected a mask that broadcasts to the scores {scores} (got {mask})")


def _multiply_adds(attrs: Attrs, inputs: Sequence[Shape], output: Shape) -> int:
    query, key, value = inputs[:3]
    return prod(query[:-1]) * key[-2] * (query[-1] + value[-1])  # query @ key and weights @ value


ATTENTION: Mapping[str, Op] = {
    "attention": Op(
        "scaled dot-product attention of query, key, value and maybe a mask (integers: true where attended; real "
        "numbers: added to the scores), with heads side by side on the last axis",
        (3, 4),
        _attention,
        attrs={
            "num_heads": SIZE,
            "causal": Attr("bool", False),
            "scale": real(0.0, low=0.0),
        },
        multiply_adds=_multiply_adds,
        reads=("float", "float", "float", "any"),
    )
}
