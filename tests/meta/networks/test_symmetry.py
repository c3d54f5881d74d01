"""What metanetworks must not see, and what must move with the network: theorems, in both precisions, on several architectures."""

import pytest
import torch

from nasgraph.ir import ComputationalGraph
from nasgraph.meta.graph import collate, parameter_graph
from nasgraph.meta.networks import KINDS, Metanetwork, MetanetworkConfig
from nasgraph.meta.population import perceptron
from nasgraph.symmetry import permute_units, random_factors, random_orders, rescale_units, symmetry_table
from tests.meta.graph.networks import full_state
from tests.meta.networks.making import GRAPHS, make, perturbed, read

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", GRAPHS)
def test_the_order_of_hidden_units_does_not_matter(name: str, kind: str, dtype: torch.dtype) -> None:
    graph, metanetwork = GRAPHS[name], make(kind, dtype=dtype)
    state, table = full_state(graph, dtype=dtype), symmetry_table(graph)
    one, other = (
        parameter_graph(graph, each)
        for each in (state, permute_units(table, state, random_orders(table, seed=3)))
    )
    for head in (metanetwork.predict, metanetwork.embed):
        assert (head(one) - head(other)).abs().max() < TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", GRAPHS)
def test_an_edit_moves_with_the_units(name: str, kind: str, dtype: torch.dtype) -> None:
    graph, metanetwork = GRAPHS[name], make(kind, dtype=dtype)
    state, table = full_state(graph, dtype=dtype), symmetry_table(graph)
    orders = random_orders(table, seed=4)
    one, other = (parameter_graph(graph, each) for each in (state, permute_units(table, state, orders)))
    edited, edited_other = (each.to_states(*metanetwork.edit(each))[0] for each in (one, other))
    moved = permute_units(table, edited, orders)
    assert any(not torch.equal(edited[key], state[key]) for key in state)
    assert max((moved[key] - edited_other[key]).abs().max() for key in moved) < TOLERANCE[dtype]


@pytest.mark.parametrize("kind", KINDS)
def test_reordering_one_layer_alone_shows(kind: str) -> None:
    graph, metanetwork = GRAPHS["perceptron"], perturbed(make(kind), std=0.3)
    state = full_state(graph)
    name = next(name for name, spec in graph.parameters.items() if len(spec.shape) == 2)
    other = {**state, name: state[name].flip(0)}
    change = metanetwork.raw(parameter_graph(graph, state)) - metanetwork.raw(parameter_graph(graph, other))
    assert change.abs().max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_inputs_and_outputs_are_told_apart(kind: str) -> None:
    graph, metanetwork = GRAPHS["perceptron"], perturbed(make(kind), std=0.3)
    state = full_state(graph)
    first, last = [name for name, spec in graph.parameters.items() if len(spec.shape) == 2][::2]
    want = metanetwork.raw(parameter_graph(graph, state))
    for changed in ({first: state[first].flip(1)}, {last: state[last].flip(0)}):
        assert (metanetwork.raw(parameter_graph(graph, {**state, **changed})) - want).abs().max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_networks_of_one_batch_do_not_see_each_other(kind: str) -> None:
    metanetwork = make(kind)
    alone = [read(graph, seed=place) for place, graph in enumerate(GRAPHS.values())]
    together = collate(alone)
    torch.testing.assert_close(
        metanetwork.predict(together), torch.cat([metanetwork.predict(each) for each in alone])
    )
    edits = together.to_states(*metanetwork.edit(together))
    for each, edited in zip(alone, edits, strict=True):
        torch.testing.assert_close(edited, each.to_states(*metanetwork.edit(each))[0])


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-9)])
@pytest.mark.parametrize(
    "graph",
    [
        *(
            GRAPHS[name]
            for name in ("perceptron", "tanh perceptron", "convolutions", "residual convolutions")
        ),
        perceptron((7, 6, 5), norm="batch"),
        perceptron((7, 6), norm="layer"),
        perceptron((7, 6), activation="leaky_relu"),
    ],
)
def test_the_scale_kind_does_not_see_the_rescaling_of_hidden_units(
    graph: ComputationalGraph, dtype: torch.dtype, tolerance: float
) -> None:
    metanetwork = make("scale", dtype=dtype)
    state, table = full_state(graph, dtype=dtype), symmetry_table(graph)
    factors = random_factors(table, seed=1, low=0.1, high=10.0)
    scaled = rescale_units(table, state, factors)
    one, other = (parameter_graph(graph, each) for each in (state, scaled))
    want, found = metanetwork.raw(one), metanetwork.raw(other)
    assert ((want - found).abs() / want.abs().max()).max() < tolerance
    edited, edited_other = (each.to_states(*metanetwork.edit(each))[0] for each in (one, other))
    moved = rescale_units(table, edited, factors)
    for key in moved:
        assert (moved[key] - edited_other[key]).abs().max() <= tolerance * moved[key].abs().max(), key


def test_other_kinds_see_the_rescaling() -> None:
    graph = GRAPHS["perceptron"]
    state, table = full_state(graph), symmetry_table(graph)
    scaled = rescale_units(table, state, random_factors(table, seed=1))
    for kind in ("message_passing", "relational"):
        metanetwork = make(kind)
        change = metanetwork.raw(parameter_graph(graph, state)) - metanetwork.raw(
            parameter_graph(graph, scaled)
        )
        assert change.abs().max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_an_untrained_edit_is_the_identity(kind: str) -> None:
    for graph in GRAPHS.values():
        state = full_state(graph, dtype=torch.float32)
        pg = parameter_graph(graph, state)
        edited = pg.to_states(*Metanetwork(MetanetworkConfig(kind=kind)).edit(pg))[0]
        assert set(edited) == set(state)
        assert all(torch.equal(edited[key], state[key]) for key in state)


def test_messages_can_be_aggregated_by_their_largest_too() -> None:
    graph, metanetwork = GRAPHS["convolutions"], make("message_passing", use_max=True)
    state, table = full_state(graph), symmetry_table(graph)
    moved = permute_units(table, state, random_orders(table, seed=3))
    one, other = (parameter_graph(graph, each) for each in (state, moved))
    torch.testing.assert_close(metanetwork.raw(one), metanetwork.raw(other))
    plain = make("message_passing")
    sizes = [sum(each.numel() for each in own.parameters()) for own in (plain, metanetwork)]
    assert sizes[0] < sizes[1]


@pytest.mark.parametrize("kind", KINDS)
def test_running_statistics_are_read_but_not_edited(kind: str) -> None:
    graph, metanetwork = GRAPHS["convolutions"], make(kind)
    state = full_state(graph)
    name = next(name for name in state if name.endswith("running_mean"))
    pg, other = (
        parameter_graph(graph, each) for each in (state, {**state, name: state[name] + torch.arange(4)})
    )
    assert (metanetwork.raw(pg) - metanetwork.raw(other)).abs().max() > 1e-4
    assert torch.equal(pg.to_states(*metanetwork.edit(pg))[0][name], state[name])
