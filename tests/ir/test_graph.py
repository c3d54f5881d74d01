"""The rules of `check_graph`, one by one, and the graph builder."""

import pickle

import pytest

from nasgraph.errors import InvalidGraphError
from nasgraph.ir import (
    ComputationalGraph,
    GraphBuilder,
    Node,
    check_graph,
    infer_shapes,
    make_node,
    without_dead_nodes,
)
from nasgraph.ir.graph import MAX_NODES

INPUT = make_node("input", shape=(4,))
RELU = make_node("relu", (0,))


def refused(message: str, *nodes: Node, outputs: tuple[int, ...]) -> None:
    with pytest.raises(InvalidGraphError, match=message):
        check_graph(ComputationalGraph(nodes, outputs))


def test_a_correct_graph_passes() -> None:
    check_graph(ComputationalGraph((INPUT, RELU), (1,)))
    check_graph(ComputationalGraph((INPUT,), (0,)))
    check_graph(ComputationalGraph((INPUT, RELU), (1, 0, 1)))


def test_a_graph_has_nodes_and_not_too_many() -> None:
    refused("Expected 1 to 100,000 nodes .got 0.", outputs=())
    refused("Expected 1 to 100,000 nodes .got 100,001.", *[INPUT] * (MAX_NODES + 1), outputs=(0,))


def test_operators_are_known() -> None:
    refused("Node 1: No operator named 'conv9d'", INPUT, Node("conv9d", (0,)), outputs=(1,))


def test_attributes_are_known_and_legal() -> None:
    refused("Node 1: 'relu' has no attribute 'p'", INPUT, Node("relu", (0,), (("p", 1),)), outputs=(1,))
    refused("Node 1: 'linear' needs", INPUT, Node("linear", (0,)), outputs=(1,))


@pytest.mark.parametrize(
    "node",
    [
        Node("max_pool2d", (0,), (("kernel_size", (2, 2)),)),
        Node("linear", (0,), (("out_features", 4), ("bias", True))),
        Node("dropout", (0,), (("p", 0),)),
        Node("mean", (0,), (("axis", 0), ("axis", 0))),
    ],
    ids=["defaults left out", "not sorted", "an integer for a number", "twice"],
)
def test_attributes_are_in_normal_form(node: Node) -> None:
    refused("attributes are not in normal form; use 'make_node'", INPUT, node, outputs=(1,))


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (make_node("relu", ()), r"Node 1 \(relu\): expected 1 inputs .got 0."),
        (make_node("relu", (0, 0)), "expected 1 inputs .got 2."),
        (make_node("add", (0,)), "expected 2 to 65536 inputs .got 1."),
        (make_node("input", (0,), shape=(4,)), "expected 0 inputs .got 1."),
    ],
)
def test_operators_get_the_right_number_of_inputs(node: Node, message: str) -> None:
    refused(message, INPUT, node, outputs=(1,))


@pytest.mark.parametrize("source", [1, 2, 99, -1, 10**30])
def test_inputs_stand_before_their_users(source: int) -> None:
    refused(
        rf"Node 1 \(relu\) reads node {source}, which does not come before it: a cycle, or",
        *(INPUT, make_node("relu", (source,)), make_node("relu", (1,))),
        outputs=(2,),
    )


def test_node_indices_are_plain_integers() -> None:
    refused("expected node indices as inputs .got False.", INPUT, make_node("relu", [False]), outputs=(1,))
    refused("Output True is no node", INPUT, RELU, outputs=(True,))


@pytest.mark.parametrize("output", [-1, 2, 10**30])
def test_outputs_are_nodes(output: int) -> None:
    refused(f"Output {output} is no node: there are 2", INPUT, RELU, outputs=(output,))


def test_there_is_an_input_and_an_output() -> None:
    refused("at least one input node and one output", INPUT, RELU, outputs=())
    refused("at least one input node and one output", make_node("parameter", shape=(4,)), outputs=(0,))


def test_every_node_but_inputs_reaches_an_output() -> None:
    refused(r"Node 1 \(relu\) does not reach an output", INPUT, RELU, make_node("tanh", (0,)), outputs=(2,))
    check_graph(ComputationalGraph((INPUT, INPUT, RELU), (2,)))


TOKENS = make_node("input", shape=(4,), dtype="int")


def test_integers_go_where_integers_are_read() -> None:
    refused(r"Node 1 \(relu\) can read real numbers only", TOKENS, RELU, outputs=(1,))
    embedding = make_node("embedding", (0,), num_embeddings=9, dim=2)
    refused(r"Node 1 \(embedding\) can read integers only", INPUT, embedding, outputs=(1,))
    check_graph(ComputationalGraph((TOKENS, embedding), (1,)))
    take = make_node("take", (0, 0), axis=0)
    refused(r"Node 1 \(take\) can read integers only as input 1", INPUT, take, outputs=(1,))
    check_graph(ComputationalGraph((TOKENS, take), (1,)))


def test_types_follow_from_the_operators() -> None:
    graph = GraphBuilder()
    ids, x = graph("input", shape=(4,), dtype="int"), graph("input", shape=(4,))
    nodes = {
        "int": [
            graph("add", ids, ids),
            graph("reshape", ids, shape=(2, 2)),
            graph("compare", x, ids, kind="lt"),
            graph("where", ids, ids, ids),
            graph("affine", ids, scale=2.0, shift=-1.0),
            graph("cast", x, dtype="int"),
            graph("constant", shape=(4,), dtype="int"),
            graph("opaque", x, name="argsort", shape=(4,), dtype="int"),
            graph("take", ids, ids, axis=0),
        ],
        "float": [
            graph("add", ids, x),
            graph("concat", ids, x),
            graph("div", ids, ids),
            graph("where", ids, ids, x),
            graph("affine", ids, scale=0.5),
            graph("cast", ids, dtype="float"),
            graph("parameter", shape=(4,)),
            graph("gather", x, ids, axis=0),
        ],
    }
    finished = graph.finish(*nodes["int"], *nodes["float"])
    assert [finished.dtypes[index] for index in finished.outputs] == ["int"] * 9 + ["float"] * 8
    assert all(graph.dtype(index) == dtype for dtype, indices in nodes.items() for index in indices)


def test_what_the_builder_knows_is_what_is_inferred_anew() -> None:
    graph = GraphBuilder()
    unused = graph("linear", graph("input", shape=(9,)), out_features=5)
    x = graph("linear", graph("input", shape=(4,)), out_features=3)
    graph("relu", unused)
    finished = graph.finish(graph("relu", x), x)
    again = ComputationalGraph(finished.nodes, finished.outputs)
    assert len(finished) == 4
    assert (finished.shapes, finished.dtypes, finished.parameters) == (
        again.shapes,
        again.dtypes,
        again.parameters,
    )
    assert len(graph) == 6


def test_the_builder_writes_arguments_without_an_order_in_ascending_order() -> None:
    graph = GraphBuilder()
    x = graph("input", shape=(4,))
    y = graph("relu", x)
    finished = graph.finish(graph("sub", y, x), graph("add", y, x, y))
    assert [node.inputs for node in finished.nodes[2:]] == [(1, 0), (0, 1, 1)]


def test_a_graph_with_an_opaque_node_is_valid_and_not_executable() -> None:
    graph = GraphBuilder()
    x = graph("input", shape=(4,))
    assert graph.finish(graph("relu", x)).is_executable
    assert not graph.finish(graph("opaque", x, name="fft", shape=(4,))).is_executable


def test_shapes_fit() -> None:
    other = make_node("input", shape=(5,))
    refused(
        r"Node 2 \(add\): expected shapes that broadcast",
        INPUT,
        other,
        make_node("add", (0, 1)),
        outputs=(2,),
    )


def test_absurd_tensors_are_refused() -> None:
    big = make_node("input", shape=(2**20, 2**20))
    refused(r"Node 0 \(input\): a tensor of shape .* is too large", big, outputs=(0,))
    wide = make_node("input", shape=(2**20,))
    linear = make_node("linear", (0,), out_features=2**20)  # its output is small, its weight is not
    refused(
        r"Node 1 \(linear\): a tensor of shape \(1048576, 1048576\) is too large", wide, linear, outputs=(1,)
    )


def test_a_deep_chain_of_doublings_is_refused_and_does_not_overflow() -> None:
    nodes = [make_node("input", shape=(2**10,))]
    nodes += [make_node("concat", (index, index)) for index in range(200)]
    refused("too large", *nodes, outputs=(200,))


def test_graphs_are_values() -> None:
    graph = ComputationalGraph((INPUT, RELU), (1,))
    same = ComputationalGraph((INPUT, RELU), (1,))
    assert graph == same
    assert hash(graph) == hash(same)
    assert graph.shapes == infer_shapes(same)
    restored = pickle.loads(pickle.dumps(graph))
    assert (restored, restored.fingerprint) == (graph, graph.fingerprint)
    assert len(graph) == 2
    assert graph.inputs == (0,)
    with pytest.raises(AttributeError):
        graph.outputs = (0,)  # type: ignore[misc]  # wrong on purpose


def test_the_builder_names_the_node_that_does_not_fit() -> None:
    graph = GraphBuilder()
    x = graph("input", shape=(4,))
    with pytest.raises(InvalidGraphError, match=r"Node 1 \(add\): expected 2 to 65536 inputs"):
        graph("add", x)
    with pytest.raises(InvalidGraphError, match=r"Node 1 \(relu\) reads node 5"):
        graph("relu", 5)
    assert graph.shape(graph("linear", x, out_features=7)) == (7,)


def test_the_builder_leaves_out_what_does_not_reach_the_output() -> None:
    graph = GraphBuilder()
    x = graph("input", shape=(4,))
    unused_input = graph("input", shape=(9,))
    graph("relu", graph("tanh", unused_input))
    finished = graph.finish(graph("gelu", x))
    assert [node.op for node in finished.nodes] == ["input", "input", "gelu"]
    assert finished == without_dead_nodes(finished)


@pytest.mark.parametrize(
    ("outputs", "message"), [((), "at least one input"), ((5,), "no node"), ((-1,), "no node")]
)
def test_the_builder_checks_the_outputs(outputs: tuple[int, ...], message: str) -> None:
    graph = GraphBuilder()
    graph("relu", graph("input", shape=(4,)))
    with pytest.raises(InvalidGraphError, match=message):
        graph.finish(*outputs)


def test_the_builder_refuses_absurd_tensors_in_the_end() -> None:
    graph = GraphBuilder()
    x = graph("input", shape=(2**20,))
    with pytest.raises(InvalidGraphError, match="too large"):
        graph.finish(graph("linear", x, out_features=2**20))
