"""Lineage: what a card says about where a model came from, followed through the zoo; and differences between graphs."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from nasgraph.ir import ComputationalGraph, GraphBuilder
from nasgraph.modelzoo import Lineage
from nasgraph.modelzoo.catalogue import Row
from nasgraph.modelzoo.store import Zoo
from nasgraph.pipeline import (
    SearchSettings,
    TrainingSettings,
    Workspace,
    load_ingredients,
    open_study,
    search,
)
from nasgraph.seeding import generator
from nasgraph.spaces import load_space, mutate, sample
from nasgraph.web.app import make_app
from nasgraph.web.context import WebContext, WebSettings
from nasgraph.web.difference import MAX_NODES, graph_difference
from nasgraph.web.lineage import MAX_CHILDREN, children_of, family_of_entry
from tests.draw.networks import mlp, residual, tangled, transformer
from tests.web.conftest import ADDRESS
from tests.web.making import MadeCatalogue
from tests.web.reading import Page


def versions(small: Row, **lineages: Lineage) -> tuple[Row, ...]:
    """Rows named after their keywords, each at version 1."""
    assert small.card is not None
    return tuple(
        replace(
            small, name=name, reference=f"{name}/1", card=replace(small.card, lineage=lineage), aliases=()
        )
        for name, lineage in lineages.items()
    )


@pytest.fixture(scope="module")
def small(context: WebContext) -> Row:
    return context.catalogue.row("small/1")


def links(row: Row, rows: tuple[Row, ...]) -> set[tuple[str, str]]:
    return set(family_of_entry(row, rows, has_live_view=True).links)


def test_search_trial_parents_and_children_are_followed(small: Row) -> None:
    rows = versions(
        small,
        first=Lineage(study="s", trial=7),
        second=Lineage(origin="training", parent="first/1"),
        third=Lineage(origin="training", parent="second/1"),
        soup=Lineage(origin="merge", ingredients=("second/1", "third/1")),
    )
    assert links(rows[2], rows) == {
        ("study s", "study s trial 7"),
        ("study s trial 7", "first/1"),
        ("first/1", "second/1"),
        ("second/1", "third/1"),
        ("third/1", "soup/1"),
    }
    assert {("second/1", "soup/1"), ("third/1", "soup/1")} <= links(rows[3], rows)
    assert [row.name for row in children_of(rows[1], rows)] == ["third", "soup"]


def test_the_closest_earlier_trial_stands_between_search_and_trial(small: Row) -> None:
    (row,) = versions(small, one=Lineage(study="s", trial=7, parent_trial=3, mutation=(("depth", "2", "3"),)))
    assert links(row, (row,)) == {
        ("study s", "study s trial 3"),
        ("study s trial 3", "study s trial 7"),
        ("study s trial 7", "one/1"),
    }
    family = family_of_entry(row, (row,), has_live_view=True)
    assert family.items["study s trial 7"].text == "1 choice changed"
    assert family.items["study s"].url == "/live/s"


def test_a_parent_that_is_gone_is_said_to_be_so(small: Row) -> None:
    (row,) = versions(small, orphan=Lineage(origin="merge", ingredients=("gone/4",)))
    item = family_of_entry(row, (row,), has_live_view=False).items["gone/4"]
    assert (item.kind, item.url, item.text) == ("lost", "", "no longer in the zoo")


def test_cards_that_name_each_other_as_parents_do_not_go_round_in_circles(small: Row) -> None:
    rows = versions(
        small,
        egg=Lineage(origin="training", parent="hen/1"),
        hen=Lineage(origin="training", parent="egg/1"),
        self=Lineage(origin="training", parent="self/1"),
    )
    for row in rows:
        assert len(links(row, rows)) <= 1


def test_an_alias_in_a_card_names_the_version_that_has_it(small: Row) -> None:
    parent, child = versions(small, old=Lineage(), new=Lineage(origin="training", parent="old@champion"))
    parent = replace(parent, aliases=("champion",))
    assert ("old/1", "new/1") in links(child, (parent, child))


def test_many_children_are_cut_and_counted(zoo: Zoo, small: Row) -> None:
    lineages = {f"child{n:02}": Lineage(origin="training", parent="small/1") for n in range(MAX_CHILDREN + 5)}
    rows = (small, *versions(small, **lineages))
    catalogue = MadeCatalogue(rows, {row.reference: row for row in rows})
    client = TestClient(make_app(WebContext(zoo=zoo, catalogue=catalogue)), base_url=ADDRESS)
    assert "And 5 more that were made from this." in client.get("/lineage/small/1").text


def test_the_fragment_says_what_the_picture_shows(client: TestClient) -> None:
    page = Page(client.get("/lineage/convnet-1").text)
    items = [item.words for item in page.all("li")]
    assert "web (search)" in items
    assert "trial 1: from web" in items
    assert any(item.startswith("convnet-1 v1") and "this entry" in item for item in items)
    assert page.one("svg").attributes["aria-label"] == "Lineage of convnet-1"


def test_the_difference_from_the_closest_trial_is_found_in_its_study(
    zoo: Zoo, small: Row, context: WebContext, tmp_path: Path
) -> None:
    settings = SearchSettings(space="convnet", num_train=60, trials=2, screened=0, kept=0, ghn="none", sampler="random", train=TrainingSettings(epochs=1))  # fmt: skip
    parts = load_ingredients(settings)
    workspace = Workspace(tmp_path, "s")
    workspace.begin(settings)
    result = search(parts, open_study(parts, workspace, resume=False))
    before = result.trials[0].candidate
    row = context.catalogue.row("convnet-0/1")
    assert row.card is not None
    lineage = Lineage(study="s", trial=1, parent_trial=0, parent_fingerprint=before.graph.fingerprint)
    rows = (replace(row, card=replace(row.card, lineage=lineage)),)
    catalogue = MadeCatalogue(rows, {row.reference: rows[0]})
    known = WebContext(zoo=zoo, catalogue=catalogue, settings=WebSettings(workspace=tmp_path))
    text = TestClient(make_app(known), base_url=ADDRESS).get("/lineage/convnet-0/1").text
    difference = graph_difference(before.graph, zoo.graph("convnet-0/1"))
    assert difference is not None
    assert f"{len(difference.kept)} nodes are equal" in text
    workspace.journal.unlink()
    text = TestClient(make_app(known), base_url=ADDRESS).get("/lineage/convnet-0/1").text
    assert "not here" in text


# ---- differences


def assert_a_difference(before: ComputationalGraph, after: ComputationalGraph) -> None:
    """Every node of both is accounted for once."""
    found = graph_difference(before, after)
    assert found is not None
    pairs = (*found.kept, *found.changed)
    assert sorted([*(a for a, _ in pairs), *found.removed]) == list(range(len(before)))
    assert sorted([*(b for _, b in pairs), *found.added]) == list(range(len(after)))
    for a, b in pairs:
        assert before.nodes[a].op == after.nodes[b].op
    for a, b in found.kept:
        assert before.nodes[a].attrs == after.nodes[b].attrs
        assert before.shapes[a] == after.shapes[b]


@pytest.mark.parametrize("graph", [mlp(4), residual(3), transformer(2), tangled(30)])
def test_a_graph_does_not_differ_from_itself(graph: ComputationalGraph) -> None:
    found = graph_difference(graph, graph)
    assert found is not None
    assert found.is_empty


@given(st.integers(0, 40), st.integers(0, 40))
def test_every_node_is_kept_changed_added_or_removed_once(first: int, second: int) -> None:
    assert_a_difference(tangled(12 + first % 9, seed=first), tangled(12 + second % 9, seed=second))


@pytest.mark.parametrize("seed", range(4))
def test_mutants_differ_in_few_nodes(seed: int) -> None:
    space = load_space("convnet", input_shape=(1, 8, 8), num_classes=10)
    candidate = sample(space, generator(seed))
    mutant = mutate(space, candidate.architecture, generator(seed, "mutant"))
    assert_a_difference(candidate.graph, mutant.graph)


def chain(*kernels: int) -> ComputationalGraph:
    graph = GraphBuilder()
    x = graph("input", shape=(3, 8, 8))
    for kernel in kernels:
        x = graph("conv2d", x, out_channels=3, kernel_size=kernel, padding=kernel // 2)
        x = graph("relu", x)
    return graph.finish(x)


def test_another_kernel_is_a_change_and_another_layer_an_addition() -> None:
    found = graph_difference(chain(3, 3, 3), chain(3, 5, 3))
    assert found is not None
    assert (found.changed, found.added, found.removed) == (((3, 3),), (), ())
    found = graph_difference(chain(3, 3), chain(3, 5, 3))
    assert found is not None
    assert (len(found.added), found.removed) == (2, ())
    assert len(found.changed) <= 1


def test_graphs_too_large_to_compare_while_a_reader_waits_are_not() -> None:
    assert graph_difference(mlp(MAX_NODES), mlp(1)) is None
