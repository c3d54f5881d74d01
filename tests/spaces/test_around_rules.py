"""Every operator between layers whose widths vary: the network stays one, whatever the widths are."""

import pytest

from nasgraph.ir import OPS, ComputationalGraph, GraphBuilder, check_graph
from nasgraph.seeding import generator
from nasgraph.spaces import replay, sample
from nasgraph.spaces.around import AroundConfig, AroundGraph
from nasgraph.spaces.around_rules import RULES
from tests.modules.operator_cases import ALL_CASES, Shape

WIDTHS = AroundConfig(families=("width",), width_factors=(0.5, 1.5, 2.0))


def between_layers(op: str, shapes: tuple[Shape, ...], attrs: dict[str, object]) -> ComputationalGraph:
    """The operator on what layers give: its first and its last axis come from layers of their own."""
    g = GraphBuilder()
    reads = OPS[op].reads
    inputs = []
    for place, shape in enumerate(shapes):
        if reads[min(place, len(reads) - 1)] == "int":
            inputs.append(g("input", shape=shape, dtype="int"))
            continue
        x = g("linear", g("input", shape=shape), out_features=shape[-1])
        if 2 <= len(shape) <= 4:
            x = g(f"conv{len(shape) - 1}d", x, out_channels=shape[0], kernel_size=1)
        inputs.append(x)
    result = g(op, *inputs, **attrs)
    if g.dtype(result) == "int":
        result = g("cast", result, dtype="float")
    return g.finish(g("linear", g("linear", g("flatten", result), out_features=5), out_features=3))


READING = [case for case in ALL_CASES if OPS[str(case.values[0])].num_inputs[1]]


@pytest.mark.parametrize(("op", "shapes", "attrs"), READING)
def test_widths_around_every_operator_vary_safely(
    op: str, shapes: tuple[Shape, ...], attrs: dict[str, object]
) -> None:
    graph = between_layers(op, shapes, attrs)
    space = AroundGraph(graph, name="test", config=WIDTHS)
    assert replay(space, space.original).graph.fingerprint == graph.fingerprint
    rng = generator(0, op)
    for _ in range(15):
        variant = sample(space, rng).graph
        check_graph(variant)
        assert variant.shapes[variant.outputs[0]] == (3,)


def test_rules_are_for_operators_that_exist() -> None:
    assert set(RULES) <= set(OPS)


def test_an_operator_without_a_rule_fixes_what_it_reads() -> None:
    g = GraphBuilder()
    x = g("linear", g("input", shape=(5, 4)), out_features=6)
    indices = g("input", shape=(5, 2), dtype="int")
    y = g("linear", g("gather", x, indices, axis=1), out_features=8)
    graph = g.finish(g("linear", y, out_features=3))
    space = AroundGraph(graph, name="test", config=WIDTHS)
    assert [offer.name for offer in space.offers] == ["linear1 width"]
    assert space.fixed[0].what == "linear0 width"
    assert space.fixed[0].reason == "'gather0' (gather) needs it as it is"


def test_layers_over_the_edges_of_a_data_graph_vary_like_linear_ones() -> None:
    g = GraphBuilder()
    x = g("gcn_conv", g("input", shape=(7,)), out_features=16)
    x = g("gat_conv", g("relu", x), out_features=16, num_heads=4)
    x = g("add", x, g("sage_conv", g("relu", x), out_features=16))
    space = AroundGraph(g.finish(g("gin_conv", x, out_features=3)), name="test", config=WIDTHS)
    offers = {offer.name: offer.options for offer in space.offers}
    assert offers == {"gcn_conv0 width": (8, 16, 24, 32), "gat_conv0 width": (8, 16, 24, 32)}
    for seed in range(10):
        check_graph(sample(space, generator(seed)).graph)
