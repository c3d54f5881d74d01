"""Message passing along the edges of a data graph, done by the layers of PyG with given parameters.

Each kernel keeps one PyG layer without values, on the "meta" device, and runs it with the node's parameters in place of
the layer's own. torch_geometric is slow to import, so that happens when the first kernel runs.

Shape letters: N = nodes of the data graph, which are the examples; E = edges; I = features in, O = features out; H = heads.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from types import ModuleType

import torch
from torch import Tensor, nn
from torch.func import functional_call

from nasgraph.modules.kernels.kernel import Attrs, Kernel, KernelMaker, Parameters, RunContext, number, whole


@cache
def _pyg() -> ModuleType:
    """`torch_geometric.nn`, which takes seconds to import."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it scripts functions, as torch no longer wants
        import torch_geometric.nn
    found: ModuleType = torch_geometric.nn
    return found


_MakeLayer = Callable[[Attrs, int], nn.Module]
_Named = Callable[[Attrs, Parameters, Tensor], dict[str, Tensor]]


def _kernel(make: _MakeLayer, named: _Named, *, reads_sparse: bool = False) -> KernelMaker:
    """The kernel of a PyG layer.

    Args:
        make: Makes the layer from attributes and the number of features in.
        named: The node's parameters by the layer's names, from attributes, parameters and input.
        reads_sparse: Whether the layer applies its linear map first, so that a sparse input may stay so.
    """

    def maker(node: int, attrs: Attrs) -> Kernel:
        layers: dict[int, nn.Module] = {}

        def run(inputs: Sequence[Tensor], own: Parameters, context: RunContext) -> Tensor:
            if context.edges is None:
                raise ValueError(
                    f"Node {node} passes messages between examples: give the edges of the data graph, as in "
                    "'RunContext(edges=...)' or 'module(x, edges=...)'"
                )
            x_NI = inputs[0]
            if x_NI.layout != torch.strided and not reads_sparse:
                x_NI = x_NI.to_dense()
            if x_NI.shape[0] != context.batch_size:  # the same for each node
                x_NI = x_NI.expand(context.batch_size, -1)
            size = x_NI.shape[1]
            if size not in layers:
                with torch.device("meta"):  # draws nothing from the global generator
                    layers[size] = make(attrs, size)
            result: Tensor = functional_call(
                layers[size], named(attrs, own, x_NI), (x_NI, context.edges), strict=False
            )
            return result

        return run

    return maker


def _linear_map(own: Parameters, place: str) -> dict[str, Tensor]:
    bias = {f"{place}.bias": own["bias"]} if "bias" in own else {}
    return {f"{place}.weight": own["weight"], **bias}


def _gcn(attrs: Attrs, size: int) -> nn.Module:
    layer: nn.Module = _pyg().GCNConv(size, whole(attrs, "out_features"), bias=bool(attrs["bias"]))
    return layer


def _gcn_parameters(attrs: Attrs, own: Parameters, x_NI: Tensor) -> dict[str, Tensor]:  # noqa: ARG001
    bias = {"bias": own["bias"]} if "bias" in own else {}
    return {"lin.weight": own["weight"], **bias}


def _gat(attrs: Attrs, size: int) -> nn.Module:
    heads = whole(attrs, "num_heads")
    layer: nn.Module = _pyg().GATConv(
        size, whole(attrs, "out_features") // heads, heads, bias=bool(attrs["bias"])
    )
    return layer


def _gat_parameters(attrs: Attrs, own: Parameters, x_NI: Tensor) -> dict[str, Tensor]:
    attention = {"att_src": own["source"].unsqueeze(0), "att_dst": own["target"].unsqueeze(0)}
    return {**_gcn_parameters(attrs, own, x_NI), **attention}


def _gin(attrs: Attrs, size: int) -> nn.Module:
    linear = nn.Linear(size, whole(attrs, "out_features"), bias=bool(attrs["bias"]))
    layer: nn.Module = _pyg().GINConv(linear, aggr=attrs["aggregation"])
    return layer


def _gin_parameters(attrs: Attrs, own: Parameters, x_NI: Tensor) -> dict[str, Tensor]:
    return {**_linear_map(own, "nn"), "eps": x_NI.new_full((1,), number(attrs, "eps"))}


def _sage(attrs: Attrs, size: int) -> nn.Module:
    layer: nn.Module = _pyg().SAGEConv(
        size, whole(attrs, "out_features"), aggr=attrs["aggregation"], bias=bool(attrs["bias"])
    )
    return layer


def _sage_parameters(attrs: Attrs, own: Parameters, x_NI: Tensor) -> dict[str, Tensor]:  # noqa: ARG001
    return {**_linear_map(own, "lin_l"), "lin_r.weight": own["root"]}


def _cheb(attrs: Attrs, size: int) -> nn.Module:
    layer: nn.Module = _pyg().ChebConv(
        size, whole(attrs, "out_features"), whole(attrs, "num_terms"), bias=bool(attrs["bias"])
    )
    return layer


def _cheb_parameters(attrs: Attrs, own: Parameters, x_NI: Tensor) -> dict[str, Tensor]:  # noqa: ARG001
    terms = own["weight"].chunk(whole(attrs, "num_terms"), dim=1)
    bias = {"bias": own["bias"]} if "bias" in own else {}
    return {**{f"lins.{place}.weight": term for place, term in enumerate(terms)}, **bias}


def _arma(attrs: Attrs, size: int) -> nn.Module:
    layer: nn.Module = _pyg().ARMAConv(
        size,
        whole(attrs, "out_features"),
        whole(attrs, "num_stacks"),
        bias=bool(attrs["bias"]),
        act=nn.ReLU(),
    )
    return layer


def _arma_parameters(attrs: Attrs, own: Parameters, x_NI: Tensor) -> dict[str, Tensor]:  # noqa: ARG001
    stacks = whole(attrs, "num_stacks")
    by_stack = {name: tensor.reshape(stacks, -1, *tensor.shape[1:]) for name, tensor in own.items()}
    named = {
        "init_weight": by_stack["weight"].transpose(1, 2),
        "root_weight": by_stack["root"].transpose(1, 2).unsqueeze(0),
    }
    bias = {"bias": by_stack["bias"].unsqueeze(1).unsqueeze(0)} if "bias" in own else {}
    return {**named, **bias}


def _graph(attrs: Attrs, size: int) -> nn.Module:
    layer: nn.Module = _pyg().GraphConv(
        size, whole(attrs, "out_features"), aggr=attrs["aggregation"], bias=bool(attrs["bias"])
    )
    return layer


def _graph_parameters(attrs: Attrs, own: Parameters, x_NI: Tensor) -> dict[str, Tensor]:  # noqa: ARG001
    return {**_linear_map(own, "lin_rel"), "lin_root.weight": own["root"]}


MESSAGE_PASSING: Mapping[str, KernelMaker] = {
    "gcn_conv": _kernel(_gcn, _gcn_parameters, reads_sparse=True),
    "gat_conv": _kernel(_gat, _gat_parameters, reads_sparse=True),
    "gin_conv": _kernel(_gin, _gin_parameters),
    "sage_conv": _kernel(_sage, _sage_parameters),
    "cheb_conv": _kernel(_cheb, _cheb_parameters),
    "arma_conv": _kernel(_arma, _arma_parameters),
    "graph_conv": _kernel(_graph, _graph_parameters),
}
