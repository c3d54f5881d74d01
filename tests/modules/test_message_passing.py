"""Message passing between examples, held against the layers of PyG."""

import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from nasgraph.errors import InvalidGraphError, UnsupportedOpError
from nasgraph.ir import OPS, ComputationalGraph, GraphBuilder, cost_of
from nasgraph.modules import Program, RunContext, build, graph_to_source, initial_parameters
from nasgraph.modules.kernels.message_passing import MESSAGE_PASSING
from nasgraph.modules.kernels.sparse import sparse_rows
from tests.modules.samples import single_op_graph

NODES, IN, OUT = 12, 5, 6
CASES: list[tuple[str, dict[str, object]]] = [
    ("gcn_conv", {}),
    ("gcn_conv", {"bias": False}),
    ("gat_conv", {}),
    ("gat_conv", {"num_heads": 3, "bias": False}),
    ("gin_conv", {"eps": 0.25}),
    ("gin_conv", {"aggregation": "max", "bias": False}),
    ("sage_conv", {}),
    ("sage_conv", {"aggregation": "max", "bias": False}),
    ("cheb_conv", {}),
    ("cheb_conv", {"num_terms": 4, "bias": False}),
    ("cheb_conv", {"num_terms": 1}),
    ("arma_conv", {}),
    ("arma_conv", {"num_stacks": 3, "bias": False}),
    ("graph_conv", {}),
    ("graph_conv", {"aggregation": "mean", "bias": False}),
]
IDS = [f"{op}-{place}" for place, (op, _) in enumerate(CASES)]


def edges_of(num_nodes: int = NODES, *, seed: int = 0) -> Tensor:
    """A random undirected graph in both directions, with a node that has no neighbour."""
    rng = torch.Generator().manual_seed(seed)
    pairs = torch.combinations(torch.arange(num_nodes - 1))
    kept = pairs[torch.rand(len(pairs), generator=rng) < 0.3].t()
    return torch.cat([kept, kept.flip(0)], dim=1)


def features(num_nodes: int = NODES, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(num_nodes, IN, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def graph_of(op: str, attrs: dict[str, object]) -> ComputationalGraph:
    return single_op_graph(op, ((IN,),), {"out_features": OUT, **attrs})


def layer_of(op: str, attrs: dict[str, Any], own: dict[str, Tensor]) -> nn.Module:
    """The layer of PyG with the same weights, set one by one as its documentation names them."""
    pyg: Any = sys.modules["torch_geometric.nn"]  # a kernel has imported it
    bias = bool(attrs.get("bias", True))
    layer: Any
    state: dict[str, Tensor] = {}
    match op:
        case "gcn_conv":
            layer = pyg.GCNConv(IN, OUT, bias=bias)
            state = {"lin.weight": own["weight"]}
        case "gat_conv":
            heads = attrs.get("num_heads", 1)
            layer = pyg.GATConv(IN, OUT // heads, heads=heads, bias=bias)
            state = {
                "lin.weight": own["weight"],
                "att_src": own["source"][None],
                "att_dst": own["target"][None],
            }
        case "gin_conv":
            linear = nn.Linear(IN, OUT, bias=bias)
            layer = pyg.GINConv(linear, eps=attrs.get("eps", 0.0), aggr=attrs.get("aggregation", "add"))
            state = {"nn.weight": own["weight"], "eps": torch.tensor([attrs.get("eps", 0.0)])}
        case "sage_conv":
            layer = pyg.SAGEConv(IN, OUT, aggr=attrs.get("aggregation", "mean"), bias=bias)
            state = {"lin_l.weight": own["weight"], "lin_r.weight": own["root"]}
        case "cheb_conv":
            terms = attrs.get("num_terms", 2)
            layer = pyg.ChebConv(IN, OUT, K=terms, bias=bias)
            state = {f"lins.{k}.weight": own["weight"][:, k * IN : (k + 1) * IN] for k in range(terms)}
        case "arma_conv":
            stacks = attrs.get("num_stacks", 1)
            layer = pyg.ARMAConv(IN, OUT, num_stacks=stacks, bias=bias)
            state = {"weight": layer.weight}
            for name, mine in (("init_weight", "weight"), ("root_weight", "root")):
                blocks = [own[mine][k * OUT : (k + 1) * OUT].t() for k in range(stacks)]
                state[name] = torch.stack(blocks) if mine == "weight" else torch.stack(blocks)[None]
            if bias:
                state["bias"] = own["bias"].reshape(1, stacks, 1, OUT)
        case _:
            layer = pyg.GraphConv(IN, OUT, aggr=attrs.get("aggregation", "add"), bias=bias)
            state = {"lin_rel.weight": own["weight"], "lin_root.weight": own["root"]}
    place = {"gin_conv": "nn.", "sage_conv": "lin_l.", "graph_conv": "lin_rel."}.get(op, "")
    if bias and op != "arma_conv":
        state[f"{place}bias"] = own["bias"]
    assert isinstance(layer, nn.Module)
    layer.load_state_dict(state)
    return layer


@pytest.mark.parametrize(("op", "attrs"), CASES, ids=IDS)
def test_an_operator_computes_and_learns_what_the_layer_of_pyg_does(
    op: str, attrs: dict[str, object]
) -> None:
    graph = graph_of(op, attrs)
    parameters = {name: t.requires_grad_() for name, t in initial_parameters(graph, seed=1).items()}
    x, edges = features(), edges_of()
    context = RunContext(batch_size=NODES, edges=edges)
    (result,) = Program(graph)(parameters, [x], context)
    with torch.random.fork_rng():
        layer = layer_of(op, attrs, {n.split(".")[1]: t.detach() for n, t in parameters.items()})
    expected = layer(x, edges)
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)
    (result**2).sum().backward()  # type: ignore[no-untyped-call]
    (expected**2).sum().backward()
    total = sum(float(t.grad.abs().sum()) for t in parameters.values() if t.grad is not None)
    wanted = sum(float(t.grad.abs().sum()) for t in layer.parameters() if t.grad is not None)
    assert total == pytest.approx(wanted, rel=1e-4)
    assert all(t.grad is not None for t in parameters.values())


@pytest.mark.parametrize(("op", "attrs"), CASES, ids=IDS)
def test_the_table_has_the_shapes_and_multiply_adds_of_torch(op: str, attrs: dict[str, object]) -> None:
    graph = graph_of(op, attrs)
    module = build(graph)
    with FlopCounterMode(display=False) as counter:
        assert module(features(), edges=edges_of()).shape == (NODES, OUT)
    assert counter.get_total_flops() == 2 * NODES * cost_of(graph).multiply_adds
    assert cost_of(graph).num_parameters == sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(("op", "attrs"), CASES, ids=IDS)
def test_the_order_of_the_nodes_does_not_matter(op: str, attrs: dict[str, object]) -> None:
    module = build(graph_of(op, attrs)).double()
    x, edges = features(dtype=torch.double), edges_of()
    order = torch.randperm(NODES, generator=torch.Generator().manual_seed(0))
    place = torch.argsort(order)
    torch.testing.assert_close(module(x[order], edges=place[edges]), module(x, edges=edges)[order])


@pytest.mark.parametrize(("op", "attrs"), CASES, ids=IDS)
def test_messages_come_from_neighbours_only(op: str, attrs: dict[str, object]) -> None:
    module = build(graph_of(op, attrs)).double()
    edges = torch.tensor([[0, 1, 2, 3], [1, 0, 3, 2]])
    x = features(4, dtype=torch.double)
    changed = x.clone()
    changed[0] += 1.0
    before, after = module(x, edges=edges), module(changed, edges=edges)
    assert torch.equal(before[2:], after[2:])
    if attrs.get("num_terms") != 1:  # a filter of one term looks at the node alone
        assert not torch.equal(before[1], after[1])


@pytest.mark.parametrize(("op", "attrs"), CASES, ids=IDS)
def test_a_sparse_input_gives_what_the_dense_one_gives(op: str, attrs: dict[str, object]) -> None:
    g = GraphBuilder()
    x = g("dropout", g("input", shape=(IN,)), p=0.0)
    graph = g.finish(g(op, x, out_features=OUT, **attrs), g("linear", x, out_features=3))
    parameters = initial_parameters(graph, seed=0)
    dense = features().relu()
    context = RunContext(
        batch_size=NODES, training=True, generator=torch.Generator().manual_seed(0), edges=edges_of()
    )
    for one, two in zip(
        Program(graph)(parameters, [dense], context),
        Program(graph)(parameters, [sparse(dense)], context),
        strict=True,
    ):
        torch.testing.assert_close(one, two)


def sparse(dense: Tensor) -> Tensor:
    rows, columns = dense.nonzero(as_tuple=True)
    ends = torch.bincount(rows, minlength=len(dense)).cumsum(0)
    return sparse_rows(
        torch.cat([ends.new_zeros(1), ends]), columns, dense[rows, columns], tuple(dense.shape), check=True
    )


@pytest.mark.parametrize("op", ["flatten", "relu", "batch_norm", "dropout"])
def test_what_cannot_read_a_sparse_input_gets_a_dense_one(op: str) -> None:
    g = GraphBuilder()
    source = g("input", shape=(IN,))
    x = g("relu", g("dropout", source, p=0.0)) if op == "dropout" else g(op, source)
    graph = g.finish(g("linear", x, out_features=3), g("gcn_conv", source, out_features=3))
    parameters = initial_parameters(graph, seed=0)
    dense, context = features().relu(), RunContext(batch_size=NODES, edges=edges_of())
    results = [Program(graph)(parameters, [x], context) for x in (dense, sparse(dense))]
    for one, two in zip(*results, strict=True):
        torch.testing.assert_close(one, two)


def test_dropout_of_a_sparse_input_drops_its_share_and_keeps_the_mean() -> None:
    g = GraphBuilder()
    x = g("dropout", g("input", shape=(1000,)), p=0.25)
    graph = g.finish(g("linear", x, out_features=1, bias=False))
    context = RunContext(batch_size=100, training=True, generator=torch.Generator().manual_seed(0))
    parameters = {"n2.weight": torch.ones(1, 1000)}
    (result,) = Program(graph)(parameters, [sparse(torch.ones(100, 1000))], context)
    assert float(result.mean()) == pytest.approx(1000, rel=0.02)
    kept = result * 0.75  # how many are left in each row: each counts 1 / 0.75
    torch.testing.assert_close(kept, kept.round(), rtol=0, atol=1e-2)
    assert float(kept.std()) == pytest.approx((1000 * 0.75 * 0.25) ** 0.5, rel=0.3)


def test_a_value_that_is_the_same_for_every_node_counts_for_each() -> None:
    g = GraphBuilder()
    g("input", shape=(1,))
    shared = g("parameter", shape=(IN,))
    graph = g.finish(g("graph_conv", shared, out_features=OUT))
    parameters = initial_parameters(graph, seed=0)
    edges = edges_of()
    context = RunContext(batch_size=NODES, edges=edges)
    (result,) = Program(graph)(parameters, [torch.zeros(NODES, 1)], context)
    degree = torch.bincount(edges[1], minlength=NODES).unsqueeze(1)
    x, own = parameters["n1.weight"], {n.split(".")[1]: t for n, t in parameters.items() if n[:2] == "n2"}
    torch.testing.assert_close(result, degree * (own["weight"] @ x) + own["bias"] + own["root"] @ x)


def test_without_edges_there_is_a_clear_message() -> None:
    module = build(graph_of("gcn_conv", {}))
    with pytest.raises(ValueError, match=r"Node 1 passes messages between examples: give the edges"):
        module(features())


def test_running_draws_nothing_from_the_global_generator() -> None:
    before = torch.get_rng_state()
    for op in MESSAGE_PASSING:
        build(graph_of(op, {}))(features(), edges=edges_of())
    assert torch.equal(torch.get_rng_state(), before)


def test_a_graph_says_whether_it_passes_messages() -> None:
    assert {op for op, entry in OPS.items() if entry.reads_edges} == set(MESSAGE_PASSING)
    assert graph_of("gin_conv", {}).reads_edges
    assert not single_op_graph("linear", ((IN,),), {"out_features": OUT}).reads_edges


@pytest.mark.parametrize(
    ("op", "shape", "attrs", "message"),
    [
        ("gcn_conv", (4, 5), {}, r"one vector per node, \(features,\) .got shape \(4, 5\)"),
        ("gat_conv", (5,), {"num_heads": 4}, "'num_heads' to divide 'out_features' .got 4 and 6"),
    ],
)
def test_what_cannot_run_is_refused_in_words(
    op: str, shape: tuple[int, ...], attrs: dict[str, object], message: str
) -> None:
    with pytest.raises(InvalidGraphError, match=message):
        single_op_graph(op, (shape,), {"out_features": OUT, **attrs})


@pytest.mark.parametrize("op", MESSAGE_PASSING)
def test_plain_torch_cannot_say_it_and_the_message_tells_what_can(op: str) -> None:
    with pytest.raises(UnsupportedOpError, match=rf"Cannot write '{op}' \(node 1\).*build\(graph\)"):
        graph_to_source(graph_of(op, {}))
