# ruff: noqa: ARG005 -- all rules of one column have one signature, whether they need all of it or not
"""Message passing: layers whose examples are the nodes of one data graph.

An example is a node of the data with its features, and the batch is all nodes. These operators mix examples along the
edges of the data graph, which belong to the data and not to the network: whoever runs a graph gives them. Messages, and
thus edges, count no multiply-adds: only the linear maps do, which every node needs once however many neighbours it has.
"""

from collections.abc import Callable, Mapping, Sequence

from nasgraph.errors import InvalidGraphError
from nasgraph.ir.op import SIZE, Attr, Attrs, Op, ParameterSpec, Shape, expect_rank, real, whole

_BIAS = Attr("bool", True)
_AGGREGATIONS = ("sum", "mean", "max")


def _features(attrs: Attrs, inputs: Sequence[Shape]) -> Shape:
    expect_rank(inputs[0], 1, "one vector per node, (features,)")
    return (whole(attrs, "out_features"),)


def _gat(attrs: Attrs, inputs: Sequence[Shape]) -> Shape:
    heads, size = whole(attrs, "num_heads"), whole(attrs, "out_features")
    if size % heads:
        raise InvalidGraphError(f"expected 'num_heads' to divide 'out_features' (got {heads} and {size})")
    return _features(attrs, inputs)


def _linear_map(attrs: Attrs, in_features: int, *, maps: int = 1) -> dict[str, ParameterSpec]:
    """A weight and maybe a bias of `maps` linear maps side by side."""
    rows = maps * whole(attrs, "out_features")
    parameters = {"weight": ParameterSpec((rows, in_features), "weight")}
    if attrs["bias"]:
        parameters["bias"] = ParameterSpec((rows,), "bias")
    return parameters


def _one_map(attrs: Attrs, inputs: Sequence[Shape]) -> dict[str, ParameterSpec]:
    return _linear_map(attrs, inputs[0][0])


def _gat_parameters(attrs: Attrs, inputs: Sequence[Shape]) -> dict[str, ParameterSpec]:
    heads = whole(attrs, "num_heads")
    attention = ParameterSpec((heads, whole(attrs, "out_features") // heads), "weight")
    return {**_one_map(attrs, inputs), "source": attention, "target": attention}


def _with_root(attrs: Attrs, inputs: Sequence[Shape]) -> dict[str, ParameterSpec]:
    parameters = _one_map(attrs, inputs)
    return {**parameters, "root": parameters["weight"]}


def _cheb_parameters(attrs: Attrs, inputs: Sequence[Shape]) -> dict[str, ParameterSpec]:
    return _linear_map(attrs, inputs[0][0] * whole(attrs, "num_terms"))


def _arma_parameters(attrs: Attrs, inputs: Sequence[Shape]) -> dict[str, ParameterSpec]:
    parameters = _linear_map(attrs, inputs[0][0], maps=whole(attrs, "num_stacks"))
    return {**parameters, "root": parameters["weight"]}


def _linear_maps(count: Callable[[Attrs], int]) -> Callable[[Attrs, Sequence[Shape], Shape], int]:
    """Multiply-adds of as many linear maps as the attributes say."""

    def cost(attrs: Attrs, inputs: Sequence[Shape], output: Shape) -> int:
        return count(attrs) * inputs[0][0] * output[0]

    return cost


def _op(
    summary: str,
    parameters: Callable[[Attrs, Sequence[Shape]], dict[str, ParameterSpec]],
    *,
    maps: Callable[[Attrs], int] = lambda attrs: 1,
    shape: Callable[[Attrs, Sequence[Shape]], Shape] = _features,
    **attrs: Attr,
) -> Op:
    return Op(
        summary,
        (1, 1),
        shape,
        {"out_features": SIZE, "bias": _BIAS, **attrs},
        parameters,
        _linear_maps(maps),
        reads_edges=True,
    )


def _aggregation(default: str) -> Attr:
    return Attr("str", default, options=_AGGREGATIONS)


MESSAGE_PASSING: Mapping[str, Op] = {
    "gcn_conv": _op(
        "graph convolution (Kipf and Welling 2017): mean of the neighbours, weighted by degrees", _one_map
    ),
    "gat_conv": _op(
        "graph attention (Velickovic et al. 2018), heads side by side",
        _gat_parameters,
        shape=_gat,
        num_heads=Attr("int", 1, low=1, high=1024),
    ),
    "gin_conv": _op(
        "graph isomorphism layer (Xu et al. 2019) with one linear map",
        _one_map,
        eps=real(0.0),
        aggregation=_aggregation("sum"),
    ),
    "sage_conv": _op(
        "GraphSAGE layer (Hamilton et al. 2017): linear maps of the neighbours' mean and of the node",
        _with_root,
        maps=lambda attrs: 2,
        aggregation=_aggregation("mean"),
    ),
    "cheb_conv": _op(
        "Chebyshev filter of the graph's Laplacian (Defferrard et al. 2016)",
        _cheb_parameters,
        maps=lambda attrs: whole(attrs, "num_terms"),
        num_terms=Attr("int", 2, low=1, high=64),
    ),
    "arma_conv": _op(
        "auto-regressive moving-average filter (Bianchi et al. 2019), one step of each stack, ReLU included",
        _arma_parameters,
        maps=lambda attrs: 2 * whole(attrs, "num_stacks"),
        num_stacks=Attr("int", 1, low=1, high=64),
    ),
    "graph_conv": _op(
        "graph layer of Morris et al. 2019 (k-GNN): linear maps of the neighbours' sum and of the node",
        _with_root,
        maps=lambda attrs: 2,
        aggregation=_aggregation("sum"),
    ),
}
