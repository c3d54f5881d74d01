"""Thumbnails: the shape of a graph, small, without text, the same every time."""

import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable

import pytest

from nasgraph.draw.fold import fold_chains
from nasgraph.draw.labels import FAMILIES
from nasgraph.draw.shrink import fold_repeats
from nasgraph.draw.svg import draw_svg
from nasgraph.draw.thumbnail import HEIGHT, WIDTH, draw_thumbnail
from nasgraph.ir import ComputationalGraph, GraphBuilder
from tests.draw.networks import dense, mlp, residual, tangled, transformer, wide

SVG = "{http://www.w3.org/2000/svg}"
GRAPHS = {
    "mlp": mlp(),
    "residual": residual(3),
    "deep": residual(200),
    "transformer": transformer(12),
    "dense": dense(40),
    "wide": wide(300),
    "tangled": tangled(1000),
}
graphs = pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS)


def marks(graph: ComputationalGraph) -> list[ElementTree.Element]:
    root = ElementTree.fromstring(draw_thumbnail(graph))
    return [rect for rect in root.iter(f"{SVG}rect") if not rect.attrib["class"].endswith(" s")]


@graphs
def test_a_thumbnail_is_small_and_holds_no_text(graph: ComputationalGraph) -> None:
    text = draw_thumbnail(graph)
    root = ElementTree.fromstring(text)
    assert (root.attrib["width"], root.attrib["height"]) == (str(WIDTH), str(HEIGHT))
    assert {element.tag.removeprefix(SVG) for element in root.iter()} <= {"svg", "style", "g", "path", "rect"}
    assert len(text) < 16_000


@graphs
def test_everything_is_drawn_inside_the_picture(graph: ComputationalGraph) -> None:
    root = ElementTree.fromstring(draw_thumbnail(graph))
    group = root.find(f"{SVG}g")
    assert group is not None
    shift, _, factor = group.attrib["transform"].removeprefix("translate(").partition(") scale(")
    left, top = map(float, shift.split())
    across, down = map(float, factor.removesuffix(")").split())
    for rect in group.iter(f"{SVG}rect"):
        x, y, width, height = (float(rect.attrib[name]) for name in ("x", "y", "width", "height"))
        assert 0 <= left + across * x <= left + across * (x + width) <= WIDTH
        assert 0 <= top + down * y <= top + down * (y + height) <= HEIGHT


@pytest.mark.parametrize("graph", [mlp(), residual(3), transformer(1)])
def test_a_small_graph_has_one_mark_per_chain_in_its_colour(graph: ComputationalGraph) -> None:
    boxes = fold_chains(graph).boxes
    assert [mark.attrib["class"] for mark in marks(graph)] == [box.family for box in boxes]


def test_repeated_blocks_are_drawn_once_before_a_shadow() -> None:
    graph = transformer(12)
    root = ElementTree.fromstring(draw_thumbnail(graph))
    shadows = [rect for rect in root.iter(f"{SVG}rect") if rect.attrib["class"].endswith(" s")]
    picture = fold_repeats(fold_chains(graph))
    (repeat,) = picture.repeats
    assert len(shadows) == repeat.last - repeat.first + 1
    assert len(marks(graph)) == len(picture.boxes)


def test_graphs_of_different_shape_look_different() -> None:
    pictures = {draw_thumbnail(graph) for graph in GRAPHS.values()}
    assert len(pictures) == len(GRAPHS)


def test_equal_graphs_look_equal() -> None:
    assert draw_thumbnail(tangled(60, seed=3)) == draw_thumbnail(tangled(60, seed=3))


def test_groups_wear_the_colours_of_their_operators() -> None:
    families = {mark.attrib["class"] for mark in marks(tangled(1000))}
    assert families <= set(FAMILIES) - {"group"}
    assert {"conv", "join"} <= families


def test_light_and_dark_ground_have_colours_of_their_own() -> None:
    text = draw_thumbnail(mlp())
    assert "@media (prefers-color-scheme:dark)" in text
    assert text.count(".linear{fill:") == 2


def test_the_smallest_graph_has_a_thumbnail() -> None:
    graph = GraphBuilder()
    assert len(marks(graph.finish(graph("input", shape=(3,))))) == 1


def test_a_thumbnail_costs_about_as_much_as_the_picture() -> None:
    def seconds(draw: Callable[[ComputationalGraph], str]) -> float:
        times = []
        for _ in range(5):
            start = time.process_time()
            draw(graph)
            times.append(time.process_time() - start)
        return min(times)

    graph = tangled(50)
    assert seconds(draw_thumbnail) < 3 * seconds(draw_svg)
