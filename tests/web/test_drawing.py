"""The drawing on the page: what is opened stands in the address, and works without scripts."""

import re

import pytest
from starlette.testclient import TestClient

from nasgraph.ir import OPS, ComputationalGraph, cost_of
from nasgraph.web.context import WebContext
from nasgraph.web.drawing import MAX_REMEMBERED, GraphMemory
from nasgraph.web.operators import operator_facts
from tests.draw.networks import residual, tangled, transformer
from tests.web.reading import Page


def boxes(page: Page) -> list[str]:
    return [g.attributes["data-node"] for g in page.all("g", role="button")]


def test_the_fragment_and_the_page_draw_the_same(client: TestClient) -> None:
    for query in ("", "?detail=operators", "?detail=operators&open=none", "?detail=overview"):
        page = Page(client.get(f"/entry/nasbench201-0{query}").text)
        fragment = Page(client.get(f"/drawing/nasbench201-0{query}").text)
        assert boxes(page) == boxes(fragment)
        assert boxes(page)


def test_parts_are_links_to_the_page_with_the_part_toggled(client: TestClient) -> None:
    page = Page(client.get("/drawing/nasbench201-0?detail=operators&open=none").text)
    parts = [a for a in page.all("a") if "data-part" in a.attributes]
    for part in parts[:2]:
        assert part.attributes["aria-expanded"] == "false"
        again = Page(client.get(part.attributes["href"].partition("#")[0]).text)
        same = next(a for a in again.all("a", data_part=part.attributes["data-part"]))
        assert same.attributes["aria-expanded"] == "true"
        assert len(boxes(again)) > len(boxes(page))


def test_the_style_of_the_pictures_is_a_style_sheet(client: TestClient) -> None:
    answer = client.get("/drawing.css")
    assert answer.headers["content-type"].startswith("text/css")
    assert ".ng-conv{" in answer.text


def test_every_class_of_a_picture_has_a_rule(client: TestClient) -> None:
    style = client.get("/drawing.css").text + client.get("/static/entry.css").text
    page = Page(client.get("/drawing/convnet-0?detail=chains").text)
    used = {
        name
        for e in page.elements
        for name in e.attributes.get("class", "").split()
        if name.startswith("ng-")
    }
    assert used
    assert [name for name in used if f".{name}" not in style and name not in ("ng-output",)] == []


@pytest.mark.parametrize("graph", [residual(2), transformer(2), tangled(40)])
def test_operators_add_up_to_the_cost_of_the_graph(graph: ComputationalGraph) -> None:
    facts = operator_facts(graph, range(len(graph)))
    cost = cost_of(graph)
    assert sum(fact.num_parameters for fact in facts) == cost.num_parameters
    assert sum(fact.multiply_adds for fact in facts) == cost.multiply_adds
    for fact in facts:
        node = graph.nodes[fact.node]
        assert fact.op == node.op
        assert tuple(source for source, _ in fact.reads) == node.inputs
        assert {name for name, _ in fact.settings} == set(OPS[fact.op].attrs)


def test_graphs_are_read_once_and_not_all_kept(context: WebContext, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = GraphMemory(context)
    row = context.catalogue.row("small/1")
    first = memory.of(row)
    assert memory.of(row) is first
    for number in range(MAX_REMEMBERED + 5):
        memory._known[f"other-{number}", ""] = first
    memory.of(context.catalogue.row("small/2"))
    assert len(memory._known) == MAX_REMEMBERED


def test_scripts_use_no_inline_style_and_no_code_from_text() -> None:
    from nasgraph.web.context import static_files

    for name in ("drawing.js", "entry.js", "live.js"):
        text = static_files()[name].content.decode()
        assert not re.search(
            r"\beval\(|new Function|\.innerHTML|\.outerHTML|insertAdjacentHTML|\.style\b|https?:", text
        )
