"""Graphs as JSON: what is written comes back, and what strangers write is refused with an error of ours."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nasgraph.errors import InvalidGraphError, NasGraphError
from nasgraph.files import MAX_JSON_BYTES
from nasgraph.ir import (
    OPS,
    ComputationalGraph,
    GraphBuilder,
    check_graph,
    graph_from_json,
    graph_to_json,
    read_graph,
)
from nasgraph.spaces import load_space, sample
from tests.ir.making import chain, random_graph

SCHEMA = "nasgraph/graph/1"
INPUT = {"op": "input", "inputs": [], "attrs": {"shape": [4]}}
RELU = {"op": "relu", "inputs": [0], "attrs": {}}


def document(*nodes: object, outputs: object = (1,), **more: object) -> str:
    return json.dumps({"schema": SCHEMA, "nodes": nodes, "outputs": outputs, **more})


def image_graph() -> ComputationalGraph:
    """A graph with attributes of every kind."""
    graph = GraphBuilder()
    x = graph("input", shape=(3, 8, 8))
    x = graph("conv2d", x, out_channels=4, kernel_size=(3, 1), bias=True)
    x = graph("dropout", graph("batch_norm", x, eps=1e-3), p=0.25)
    x = graph("affine", graph("clamp", x, low=-3.4028234663852886e38, high=1e-3), scale=-0.1)
    x = graph("pad", graph("roll", x, axis=1, shift=-2), amounts=(1, 1, 0, 0, 0, 0), mode="circular")
    x = graph("reduce_sum", x, axes=(0,), keepdims=True)
    x = graph(
        "conv_transpose3d", graph("reshape", x, shape=(1, 1, 6, 8)), out_channels=2, kernel_size=(1, 2, 1)
    )
    x = graph("conv1d", graph("einsum", x, equation="a b c d -> ad"), out_channels=2, kernel_size=2)
    x = graph("opaque", graph("constant", shape=(2, 2)), x, name="aten.sort.default: [0]", shape=(3, 2, 2))
    x = graph("permute", x, order=(2, 0, 1))
    return graph.finish(graph("linear", graph("flatten", x), out_features=2), x)


@pytest.mark.parametrize("seed", range(20))
def test_a_graph_comes_back_equal(seed: int) -> None:
    graph = random_graph(np.random.default_rng(seed))
    assert graph_from_json(graph_to_json(graph)) == graph
    assert graph_to_json(graph_from_json(graph_to_json(graph))) == graph_to_json(graph)


def test_attributes_of_every_kind_come_back_equal(tmp_path: Path) -> None:
    graph = image_graph()
    path = tmp_path / "graph.json"
    path.write_text(graph_to_json(graph))
    assert read_graph(path) == graph
    assert graph_from_json(graph_to_json(graph).encode()) == graph


def test_defaults_may_be_left_out() -> None:
    assert graph_from_json(
        document({"op": "input", "attrs": {"shape": [4]}}, {"op": "relu", "inputs": [0]})
    ) == chain(1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Not valid JSON in text"),
        ("{", "Not valid JSON"),
        (b"\xff\xfe\xff", "Not valid JSON"),
        ("[" * 200_000, "nested too deeply|Not valid JSON"),
        ('{"a":' * 200_000, "nested too deeply|Not valid JSON"),
        ("null", "Expected a graph with schema 'nasgraph/graph/1' in text .got 'NoneType'"),
        ("[]", "Expected a graph with schema"),
        ('{"schema": "nasgraph/graph/2"}', "got 'nasgraph/graph/2'"),
        ('{"schema": {"a": 1}}', "Expected a graph with schema"),
        (document(INPUT, RELU, more=1), "Unknown field 'more' in text"),
        (document(outputs=[]), "'nodes' in text to be a list of 1 to 100,000"),
        (json.dumps({"schema": SCHEMA, "nodes": "relu", "outputs": []}), "'nodes' in text to be a list"),
        (json.dumps({"schema": SCHEMA, "nodes": [INPUT]}), "Expected 'outputs' to be a list of node indices"),
        (document(INPUT, RELU, outputs=1), "Expected 'outputs' to be a list of node indices"),
        (document(INPUT, RELU, outputs=[1.0]), "Expected 'outputs' to be a list of node indices"),
        (document(INPUT, RELU, outputs=[True]), "Expected 'outputs' to be a list of node indices"),
        (document(INPUT, RELU, outputs=[10**400]), "is no node: there are 2"),
        (document(INPUT, 7), "Node 1: expected an object with 'op'"),
        (document(INPUT, {"op": ["relu"]}), "Node 1: expected an object with 'op'"),
        (document(INPUT, {**RELU, "name": "x"}), "Node 1: expected 'op', 'inputs' and 'attrs' only"),
        (document(INPUT, {**RELU, "attrs": []}), "Node 1: expected 'op', 'inputs' and 'attrs' only"),
        (
            document(INPUT, {**RELU, "inputs": {"0": 0}}),
            "Expected 'inputs' of node 1 to be a list of node indices",
        ),
        (document(INPUT, {**RELU, "op": "exec"}), "Node 1: No operator named 'exec'"),
        (document(INPUT, {**RELU, "op": "\ud800" * 90}), "Node 1: No operator named"),
        (document(INPUT, {**RELU, "attrs": {"op": "relu"}}), "Node 1: 'relu' has no attribute 'op'"),
        (document(INPUT, {**RELU, "inputs": [1]}), r"Node 1 \(relu\) reads node 1, .* a cycle"),
        (
            document(INPUT, {**RELU, "inputs": [2]}, {**RELU, "inputs": [1]}, outputs=[2]),
            "reads node 2, .* a cycle",
        ),
        (document({"op": "input", "attrs": {"shape": [2**20] * 8}}, RELU), "is too large"),
        (document({"op": "input", "attrs": {"shape": [10**300]}}, RELU), "expected 1 to 8 integers"),
        (document({"op": "input", "attrs": {"shape": None}}, RELU), "expected 1 to 8 integers"),
        (document({"op": "input", "attrs": {"shape": [[4]]}}, RELU), "expected 1 to 8 integers"),
        (document(INPUT, {"op": "dropout", "inputs": [0], "attrs": {"p": 10**400}}), "expected a number"),
        (document(INPUT, RELU).replace("[4]", "[NaN]"), "NaN is not a JSON number"),
        (document(INPUT, RELU).replace("[4]", "[" + "9" * 5000 + "]"), "Not valid JSON"),
    ],
)
def test_what_is_wrong_is_said(text: str | bytes, message: str) -> None:
    with pytest.raises(NasGraphError, match=message) as caught:
        graph_from_json(text)
    assert len(str(caught.value)) < 1_000
    str(caught.value).encode()  # can be printed


def test_files_are_named_in_messages(tmp_path: Path) -> None:
    path = tmp_path / "graph.json"
    with pytest.raises(NasGraphError, match=f"Cannot read '{path}'"):
        read_graph(path)
    path.write_text('{"schema": "other"}')
    with pytest.raises(InvalidGraphError, match=f"in '{path}' .got 'other'"):
        read_graph(path)


def test_a_document_of_absurd_length_is_refused_unread() -> None:
    with pytest.raises(NasGraphError, match="at most 67,108,864 bytes"):
        graph_from_json(" " * (MAX_JSON_BYTES + 1))


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-2, 12)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=6)
)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
)
names = st.sampled_from(sorted({name for op in OPS.values() for name in op.attrs}))
nodes = st.fixed_dictionaries(
    {"op": st.sampled_from(sorted(OPS)) | anything},
    optional={
        "inputs": st.lists(st.integers(-1, 6), max_size=4) | anything,
        "attrs": st.dictionaries(names, anything, max_size=4) | anything,
    },
)


def reads_or_refuses(text: str | bytes) -> None:
    """Only a valid graph or an error of ours may come out."""
    try:
        graph = graph_from_json(text)
    except NasGraphError:
        return
    check_graph(graph)
    assert graph_from_json(graph_to_json(graph)) == graph


@given(st.text() | st.binary())
def test_garbage_is_refused(text: str | bytes) -> None:
    reads_or_refuses(text)


@given(anything)
def test_json_of_another_form_is_refused(value: Any) -> None:
    reads_or_refuses(json.dumps(value))


@given(st.lists(nodes, max_size=6), st.lists(st.integers(-1, 6), max_size=3) | anything)
def test_documents_of_nearly_the_right_form_are_read_or_refused(
    node_list: list[object], outputs: object
) -> None:
    reads_or_refuses(document(*node_list, outputs=outputs))


def places(value: Any, path: tuple[int | str, ...] = ()) -> list[tuple[int | str, ...]]:
    """Path of every value inside a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, inner in items for place in places(inner, (*path, key)))]


VALID = [image_graph(), chain(3), *(random_graph(np.random.default_rng(seed)) for seed in range(5))]


@given(st.data())
def test_valid_documents_with_one_value_replaced_or_removed_are_read_or_refused(data: st.DataObject) -> None:
    value: Any = json.loads(graph_to_json(data.draw(st.sampled_from(VALID))))
    path = data.draw(st.sampled_from(places(value)[1:]))
    parent = value
    for key in path[:-1]:
        parent = parent[key]
    if data.draw(st.booleans()):
        parent[path[-1]] = data.draw(anything)
    else:
        del parent[path[-1]]
    reads_or_refuses(json.dumps(value))


@given(st.data())
def test_truncated_and_damaged_documents_are_refused_or_read(data: st.DataObject) -> None:
    text = graph_to_json(data.draw(st.sampled_from(VALID))).encode()
    at = data.draw(st.integers(0, len(text) - 1))
    reads_or_refuses(text[:at])
    reads_or_refuses(text[:at] + bytes([data.draw(st.integers(0, 255))]) + text[at + 1 :])


def test_graphs_of_shipped_spaces_come_back_equal() -> None:
    space = load_space("vit", input_shape=(1, 8, 8), num_classes=10)
    graph = sample(space, np.random.default_rng(0)).graph
    assert graph_from_json(graph_to_json(graph)) == graph
