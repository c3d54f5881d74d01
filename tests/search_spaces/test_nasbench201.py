"""NAS-Bench-201 against what its authors and others published about it."""

from collections.abc import Sequence
from itertools import product
from pathlib import Path

import networkx
import numpy as np
import pytest
from networkx.algorithms.isomorphism import MultiDiGraphMatcher, categorical_node_match

from nasgraph.errors import InvalidChoiceError, NasGraphError
from nasgraph.files import parse_json
from nasgraph.ir import cost_of
from nasgraph.spaces import architecture_from_json, enumerate_candidates, replay
from search_spaces.nasbench201 import EDGES, OPERATIONS, NASBench201, arch_string, architecture_from_string

ALL_OPERATIONS = list(product(OPERATIONS, repeat=len(EDGES)))
FULL = "|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_3x3~1|skip_connect~2|"


def text_of(operations: Sequence[str]) -> str:
    """Official text, written without the code under test."""
    a, b, c, d, e, f = operations
    return f"|{a}~0|+|{b}~0|{c}~1|+|{d}~0|{e}~1|{f}~2|"


def small_space() -> NASBench201:
    return NASBench201(input_shape=(1, 4, 4), num_classes=2)


def test_enumeration_gives_exactly_15625_architectures() -> None:
    found = [arch_string(candidate.architecture) for candidate in enumerate_candidates(small_space())]
    assert len(found) == 15_625
    assert set(found) == {text_of(operations) for operations in ALL_OPERATIONS}


def published_expression(operations: Sequence[str]) -> str:
    """Expression tree of a cell as its authors count unique structures: zeros stay as '#', skips vanish."""
    nodes = ["input"]
    for target in range(1, 4):
        terms = []
        for operation, (source, its_target) in zip(operations, EDGES, strict=True):
            if its_target != target:
                continue
            if operation == "none" or nodes[source] == "#":
                terms.append("#")
            else:
                terms.append(
                    nodes[source] if operation == "skip_connect" else f"({nodes[source]})@{operation}"
                )
        nodes.append("+".join(sorted(terms)))
    return nodes[-1]


def test_expression_trees_fall_into_the_published_6466_classes() -> None:
    assert len({published_expression(operations) for operations in ALL_OPERATIONS}) == 6_466


def test_cells_that_compute_different_expressions_have_different_graphs() -> None:
    space = small_space()
    expression_of: dict[str, str] = {}
    for place in np.random.default_rng(0).permutation(len(ALL_OPERATIONS))[:600]:
        graph = replay(space, architecture_from_string(text_of(ALL_OPERATIONS[place]))).graph
        expression = without_zeros(ALL_OPERATIONS[place])
        assert expression_of.setdefault(graph.fingerprint, expression) == expression


def without_zeros(operations: Sequence[str]) -> str:
    """Expression tree of a cell with zeros dropped and sums of sums flattened."""
    nodes: list[list[str]] = [["input"]]
    for target in range(1, 4):
        terms: list[str] = []
        for operation, (source, its_target) in zip(operations, EDGES, strict=True):
            if its_target == target and operation != "none" and nodes[source]:
                inner = nodes[source]
                terms += inner if operation == "skip_connect" else [f"({'+'.join(inner)})@{operation}"]
        nodes.append(sorted(terms))
    return "+".join(nodes[-1])


def cell_graph(operations: Sequence[str]) -> networkx.MultiDiGraph:
    """A cell as a networkx graph, written without the code under test."""
    graph = networkx.MultiDiGraph()
    graph.add_node("n0", label="input")
    place: list[str | None] = ["n0"]
    for target in range(1, 4):
        values = []
        for operation, (source, its_target) in zip(operations, EDGES, strict=True):
            value = place[source] if its_target == target else None
            if value is not None and operation == "skip_connect":
                values.append(value)
            elif value is not None and operation != "none":
                name = f"{operation} {source} {target}"
                graph.add_node(name, label=operation)
                graph.add_edge(value, name)
                values.append(name)
        if len(values) > 1:
            graph.add_node(f"n{target}", label="sum")
            graph.add_edges_from((value, f"n{target}") for value in values)
            values = [f"n{target}"]
        place.append(values[0] if values else None)
    if place[3] is None:
        return networkx.MultiDiGraph()
    alive = graph.subgraph({place[3], *networkx.ancestors(graph, place[3])}).copy()
    alive.add_node("output", label="output")
    alive.add_edge(place[3], "output")
    return alive


@pytest.mark.slow
def test_the_number_of_distinct_graphs_is_the_one_that_networkx_finds() -> None:
    classes: dict[str, list[networkx.MultiDiGraph]] = {}
    same_label = categorical_node_match("label", None)
    for operations in ALL_OPERATIONS:
        cell = cell_graph(operations)
        others = classes.setdefault(without_zeros(operations), [])
        if not any(
            MultiDiGraphMatcher(cell, other, node_match=same_label).is_isomorphic() for other in others
        ):
            others.append(cell)
    expected = sum(map(len, classes.values()))
    found = len({candidate.graph.fingerprint for candidate in enumerate_candidates(small_space())})
    print(f"{found:,} distinct graphs among 15,625 architectures of NAS-Bench-201")  # noqa: T201
    assert found == expected == 6_334


@pytest.mark.parametrize("operations", [FULL, text_of(["none"] * 6), text_of(["skip_connect"] * 6)])
def test_official_text_goes_both_ways(operations: str) -> None:
    architecture = architecture_from_string(operations)
    assert arch_string(architecture) == operations
    assert replay(small_space(), architecture).architecture == architecture
    assert architecture_from_json(parse_json(architecture.to_json())) == architecture


@pytest.mark.parametrize(
    "text",
    [
        "",
        "|",
        "nor_conv_3x3",
        FULL[:-1],
        FULL + "|",
        FULL.replace("~2", "~1"),
        FULL.replace("+", ""),
        FULL + "+|none~0|none~1|none~2|none~3|",
        "|none~0|+|none~0|none~1|",
        "|none~0|+|none~0|none~1|+|none~0|none~1|none~22|",
    ],
)
def test_text_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(InvalidChoiceError, match=r"Expected an architecture as '\|op~0\|\+"):
        architecture_from_string(text)


def test_an_unknown_operation_is_named() -> None:
    with pytest.raises(
        InvalidChoiceError, match=r"no operation 'conv_7x7'.*Allowed: none, skip_connect, nor_conv_1x1"
    ):
        architecture_from_string(FULL.replace("avg_pool_3x3", "conv_7x7"))


def test_an_architecture_of_another_space_has_no_text() -> None:
    other = architecture_from_json({"space": "mlp", "choices": [["depth", 2]]})
    with pytest.raises(
        InvalidChoiceError, match=r"Expected an architecture of 'nasbench201'.*got one of 'mlp'"
    ):
        arch_string(other)


@pytest.mark.parametrize("shape", [(8, 8), (1, 7, 8), (0, 8, 8), (1, 30, 30), (784,)])
def test_inputs_that_cannot_be_halved_twice_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(NasGraphError, match="sides divisible by four"):
        NASBench201(input_shape=shape, num_classes=10)


@pytest.mark.parametrize("settings", [{"channels": 0}, {"num_cells": 0}])
def test_settings_out_of_bounds_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(NasGraphError, match="at least 1"):
        NASBench201(input_shape=(3, 32, 32), num_classes=10, **settings)


def test_the_macro_skeleton_is_official_from_32_pixels_on_and_small_below() -> None:
    architecture = architecture_from_string(
        text_of(["none"] * 5 + ["none"]).replace("none~0", "nor_conv_1x1~0")
    )
    for shape, num_cells in (((3, 32, 32), 5), ((3, 28, 28), 1), ((1, 8, 8), 1)):
        default = NASBench201(input_shape=shape, num_classes=10)
        explicit = NASBench201(input_shape=shape, num_classes=10, channels=16, num_cells=num_cells)
        assert replay(default, architecture) == replay(explicit, architecture)


def test_dead_operations_and_operations_on_zeros_add_no_node() -> None:
    space = small_space()
    plain = architecture_from_string(text_of(["none", "none", "none", "nor_conv_3x3", "none", "none"]))
    dead_end = architecture_from_string(
        text_of(["nor_conv_1x1", "none", "none", "nor_conv_3x3", "none", "none"])
    )
    on_zeros = architecture_from_string(
        text_of(["none", "none", "none", "nor_conv_3x3", "none", "nor_conv_1x1"])
    )
    skipped = architecture_from_string(
        text_of(["skip_connect", "none", "none", "none", "nor_conv_3x3", "none"])
    )
    graphs = {replay(space, each).graph for each in (plain, dead_end, on_zeros, skipped)}
    assert len(graphs) == 1


def test_a_cell_without_a_path_gives_zeros() -> None:
    graph = replay(small_space(), architecture_from_string(text_of(["none"] * 6))).graph
    assert sum(node.op == "zero" for node in graph.nodes) == 3


def test_parameters_and_operations_equal_the_published_ones(shared_data: Path) -> None:
    """Parameters exactly. The published FLOPs count our multiply-adds, and beside them 3 per element of each
    convolution of a cell (norm and activation), 9 per element of each pooling, and a constant of the skeleton."""
    table = np.load(shared_data / "nasbench201.npz")
    space = NASBench201(input_shape=(3, 32, 32), num_classes=10)
    reachable = np.flatnonzero(table["no_unreachable_ops"])
    elements = 5 * (16 * 32 * 32 + 32 * 16 * 16 + 64 * 8 * 8)  # of one edge, over all cells
    constants = set()
    for row in np.random.default_rng(0).choice(reachable, 200, replace=False):
        text = str(table["arch_str"][row])
        architecture = architecture_from_string(text)
        assert arch_string(architecture) == text
        cost = cost_of(replay(space, architecture).graph)
        assert cost.num_parameters == round(table["params_M"][row] * 1e6)
        counted_besides = elements * (3 * text.count("nor_conv") + 9 * text.count("avg_pool"))
        constants.add(round(table["flops_M"][row] * 1e6) - cost.multiply_adds - counted_besides)
    assert constants == {160_832}
