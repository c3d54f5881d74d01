"""Interactive pictures: parts that open and close, boxes that say what they are."""

import xml.etree.ElementTree as ElementTree

import pytest

from nasgraph.draw.fold import fold_chains
from nasgraph.draw.interactive import (
    Detail,
    InteractiveDrawing,
    View,
    draw_interactive,
    opened_of,
    opened_text,
)
from nasgraph.draw.theme import page_style, without_style
from nasgraph.ir import ComputationalGraph
from tests.draw.networks import dense, mlp, residual, tangled, transformer

PLAIN = View()


def link(opened: frozenset[int]) -> str:
    return f"/page?open={opened_text(opened)}"


def draw(graph: ComputationalGraph, view: View = PLAIN) -> tuple[InteractiveDrawing, ElementTree.Element]:
    drawing = draw_interactive(graph, view, link=link, label="A network & <more>")
    return drawing, ElementTree.fromstring(drawing.svg)


def boxes(root: ElementTree.Element) -> list[ElementTree.Element]:
    return [group for group in root.iter("g") if group.attrib.get("role") == "button"]


def nodes_of(root: ElementTree.Element) -> list[int]:
    return sorted(int(node) for box in boxes(root) for node in box.attrib["data-node"].split())


def parts_of(root: ElementTree.Element) -> dict[str, ElementTree.Element]:
    return {a.attrib["data-part"]: a for a in root.iter("a")}


@pytest.mark.parametrize("detail", ["overview", "chains", "operators", None])
@pytest.mark.parametrize("opened", [None, frozenset(), frozenset({0}), frozenset({0, 1, 2, 999})])
@pytest.mark.parametrize(
    "graph",
    [mlp(), residual(6), transformer(12), dense(12), tangled(300)],
    ids=["mlp", "residual", "transformer", "dense", "tangled"],
)
def test_every_node_is_in_exactly_one_box(
    graph: ComputationalGraph, opened: frozenset[int] | None, detail: Detail | None
) -> None:
    drawing, root = draw(graph, View(detail=detail, opened=opened))
    assert nodes_of(root) == list(range(len(graph)))
    assert drawing.num_boxes == len(boxes(root))


def test_repeated_blocks_are_closed_in_a_large_picture_and_open_one_by_one() -> None:
    graph = transformer(12)
    closed, root = draw(graph)
    (part,) = closed.parts
    assert (part.times, part.is_open, part.words) == (12, False, "Expand 12 equal blocks")
    button = parts_of(root)["0"]
    assert (button.attrib["href"], button.attrib["aria-expanded"]) == ("/page?open=0", "false")
    opened, root = draw(graph, View(opened=frozenset({0})))
    assert opened.parts[0].is_open
    assert opened.num_boxes == len(fold_chains(graph).boxes)
    button = parts_of(root)["0"]
    assert (button.attrib["href"], button.attrib["aria-expanded"]) == ("/page?open=none", "true")
    assert len([rect for rect in root.iter("rect") if "data-repeat" in rect.attrib]) == 12


def test_repeated_blocks_are_open_in_a_small_picture_unless_they_are_closed() -> None:
    graph = residual(3)
    assert [part.is_open for part in draw(graph)[0].parts] == [True]
    closed, _ = draw(graph, View(opened=frozenset()))
    assert [part.is_open for part in closed.parts] == [False]
    assert closed.num_boxes < draw(graph)[0].num_boxes


def test_the_numbers_of_parts_do_not_depend_on_what_is_open() -> None:
    graph = residual(8)
    for opened in (frozenset[int](), frozenset({0})):
        drawing, _ = draw(graph, View(detail="chains", opened=opened))
        assert [(p.number, p.times, p.num_nodes) for p in drawing.parts] == [(0, 8, 56)]


def test_groups_of_a_large_graph_open_one_by_one() -> None:
    graph = tangled(300)
    overview, root = draw(graph)
    assert overview.detail == "overview"
    assert overview.notes
    number = overview.parts[1].number
    opened, root = draw(graph, View(opened=frozenset({number})))
    part = next(part for part in opened.parts if part.number == number)
    assert part.is_open
    assert opened.num_boxes > overview.num_boxes
    assert parts_of(root)[str(number)].attrib["aria-expanded"] == "true"


def test_operators_are_drawn_one_by_one_if_asked_for() -> None:
    drawing, root = draw(mlp(), View(detail="operators", opened=frozenset({0})))
    assert drawing.num_boxes == len(mlp())
    assert all(len(box.attrib["data-node"].split()) == 1 for box in boxes(root))


def test_boxes_are_buttons_with_names_and_one_of_them_is_reached_by_tab() -> None:
    _, root = draw(mlp())
    assert [box.attrib["tabindex"] for box in boxes(root)].count("0") == 1
    labels = [box.attrib["aria-label"] for box in boxes(root)]
    assert "linear 16, batch norm, relu; output 16; 304 parameters" in labels
    assert root.attrib["aria-label"] == "A network & <more>"


def test_a_picture_for_a_page_brings_no_style_no_script_and_no_handlers() -> None:
    text = draw(transformer(3))[0].svg
    for word in ("<style", "style=", "<script", "onclick", "http"):
        assert word not in text


def test_equal_arguments_give_equal_text() -> None:
    assert draw(tangled(120))[0] == draw(tangled(120))[0]


@pytest.mark.parametrize("opened", [frozenset[int](), frozenset({3}), frozenset({12, 3})])
def test_open_parts_survive_the_address(opened: frozenset[int]) -> None:
    assert opened_of(opened_text(opened)) == opened


@pytest.mark.parametrize("text", ["", "x", "1,,2", "-1", "1" * 9, "1,", "٣", "1;2", ",".join("1" * 300)])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="Expected numbers of parts"):
        opened_of(text)


def test_the_page_style_has_rules_for_the_system_and_for_the_readers_choice() -> None:
    style = page_style()
    assert ':root:not([data-theme="light"])' in style
    assert ':root[data-theme="dark"]' in style
    assert style.count("{") == style.count("}")


def test_a_picture_loses_its_own_style_and_nothing_else() -> None:
    assert without_style("<svg><style>.a{}</style><g>style</g></svg>") == "<svg><g>style</g></svg>"
