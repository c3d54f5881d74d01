"""Families: members differ, come from the seed alone, and repeated graphs belong to one family only."""

import pytest

from nasgraph.errors import UnknownNameError
from nasgraph.ir import GraphBuilder, check_graph
from nasgraph.retrieve.corpus import (
    FamilySettings,
    family_around,
    sample_family,
    space_versions,
    without_repeated,
)
from nasgraph.spaces import space_names
from tests.retrieve.making import residual_network

SETTINGS = FamilySettings(size=5)


@pytest.mark.parametrize("name", space_names())
def test_every_space_gives_families_of_different_valid_graphs(name: str) -> None:
    family = sample_family(space_versions(name), name=f"{name}/0", seed=0, settings=SETTINGS)
    assert len(family) == 5
    assert family.group == name
    assert family.edits[0] == 0
    assert all(1 <= number <= SETTINGS.max_edits for number in family.edits[1:])
    assert len({graph.fingerprint for graph in family.graphs}) == 5
    for graph in family.graphs:
        check_graph(graph)


def test_name_and_seed_decide_everything() -> None:
    versions = space_versions("vit")
    one, same, other_name, other_seed = (
        sample_family(versions, name=name, seed=seed, settings=SETTINGS)
        for name, seed in (("a", 0), ("a", 0), ("b", 0), ("a", 1))
    )
    assert one == same
    assert one.graphs != other_name.graphs
    assert one.graphs != other_seed.graphs


def test_a_design_is_made_for_data_of_several_shapes() -> None:
    settings = FamilySettings(size=8, other_data_share=1.0, around_share=0.0)
    family = sample_family(space_versions("convnet"), name="x", seed=0, settings=settings)
    assert len({graph.shapes[graph.inputs[0]] for graph in family.graphs}) > 1


def test_a_given_graph_has_a_family() -> None:
    graph = residual_network(4)
    family = family_around(graph, name="mine", group="torch", seed=0, settings=SETTINGS)
    assert family.graphs[0] == graph
    assert len(family) == 5


def test_a_graph_in_which_nothing_can_be_varied_is_alone() -> None:
    g = GraphBuilder()
    graph = g.finish(g("softmax", g("input", shape=(4,)), axis=0))
    assert len(family_around(graph, name="fixed", group="torch", seed=0)) == 1


def test_repeated_graphs_stay_with_the_first_family() -> None:
    versions = space_versions("mlp")
    one = sample_family(versions, name="a", seed=0, settings=SETTINGS)
    kept = without_repeated([one, one])
    assert kept == (one,)
    seen = {one.graphs[2].fingerprint}
    (shorter,) = without_repeated([one], seen=seen)
    assert len(shorter) == 4
    assert {graph.fingerprint for graph in one.graphs} == seen
    assert without_repeated([one], seen={one.graphs[0].fingerprint}) == ()


def test_unknown_spaces_and_bad_settings_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="nasbench201"):
        space_versions("nasbench20l")
    with pytest.raises(ValueError, match="'size'"):
        FamilySettings(size=1)
