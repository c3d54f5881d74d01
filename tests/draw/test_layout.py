"""What every layered drawing guarantees, on random graphs."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from nasgraph.draw.columns import MAX_HEIGHT
from nasgraph.draw.layout import Layout, place_vertices
from nasgraph.draw.network import Edge, layers_of

Sizes = list[tuple[float, float]]


@st.composite
def networks(draw: st.DrawFn, max_vertices: int = 25, max_height: int = 90) -> tuple[Sizes, list[Edge]]:
    number = draw(st.integers(1, max_vertices))
    size = st.tuples(st.integers(20, 200), st.integers(20, max_height))
    sizes = [
        (float(width), float(height))
        for width, height in draw(st.lists(size, min_size=number, max_size=number))
    ]
    edge = st.tuples(st.integers(0, number - 1), st.integers(0, number - 1))
    edges = [
        (min(pair), max(pair)) for pair in draw(st.lists(edge, max_size=2 * number)) if pair[0] != pair[1]
    ]
    return sizes, edges


def box(layout: Layout, sizes: Sizes, vertex: int) -> tuple[float, float, float, float]:
    """Left, top, right, bottom."""
    (x, y), (width, height) = layout.centres[vertex], sizes[vertex]
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


@settings(max_examples=60)
@given(networks())
def test_boxes_do_not_overlap(network: tuple[Sizes, list[Edge]]) -> None:
    sizes, edges = network
    layout = place_vertices(sizes, edges)
    boxes = [box(layout, sizes, vertex) for vertex in range(len(sizes))]
    for i, (left, top, right, bottom) in enumerate(boxes):
        assert left >= -0.2
        assert top >= -0.2
        assert right <= layout.width + 0.2
        assert bottom <= layout.height + 0.2
        for other_left, other_top, other_right, other_bottom in boxes[:i]:
            apart_x = other_right < left or right < other_left
            apart_y = other_bottom < top or bottom < other_top
            assert apart_x or apart_y


@settings(max_examples=60)
@given(networks())
def test_edges_lead_from_their_source_to_their_target(network: tuple[Sizes, list[Edge]]) -> None:
    sizes, edges = network
    layout = place_vertices(sizes, edges)
    for (source, target), route in zip(edges, layout.routes, strict=True):
        _, _, _, bottom = box(layout, sizes, source)
        left, top, right, _ = box(layout, sizes, target)
        assert route[0][0] == layout.centres[source][0]
        assert abs(route[0][1] - bottom) < 0.2
        assert abs(route[-1][2] - top) < 0.2
        assert left <= route[-1][0] <= right


@settings(max_examples=60)
@given(networks())
def test_straight_pieces_of_edges_cross_no_box(network: tuple[Sizes, list[Edge]]) -> None:
    sizes, edges = network
    layout = place_vertices(sizes, edges)
    boxes = [box(layout, sizes, vertex) for vertex in range(len(sizes))]
    for route in layout.routes:
        for x, start, end in route:
            for left, top, right, bottom in boxes:
                low, high = sorted((start, end))
                assert not (left < x < right and max(low, top) + 0.3 < min(high, bottom))


@settings(max_examples=60)
@given(networks(max_vertices=8, max_height=60))
def test_in_one_column_curves_run_between_rows_only_and_down(network: tuple[Sizes, list[Edge]]) -> None:
    sizes, edges = network
    layout = place_vertices(sizes, edges)
    assert layout.height <= MAX_HEIGHT
    for route in layout.routes:
        for (_, _, leave), (_, arrive, _) in pairwise(route):
            assert leave < arrive
            for vertex in range(len(sizes)):
                _, top, _, bottom = box(layout, sizes, vertex)
                assert max(leave, top) + 0.3 >= min(arrive, bottom)


def test_tall_chains_are_broken_into_columns_that_read_from_left_to_right() -> None:
    sizes = [(100.0, 50.0)] * 60
    edges = [(vertex, vertex + 1) for vertex in range(59)]
    layout = place_vertices(sizes, edges)
    assert layout.height < MAX_HEIGHT
    columns = [layout.centres[0][0]]
    for (x, y), (next_x, next_y) in pairwise(layout.centres):
        assert next_y > y if next_x == x else next_x > x
        if next_x != x:
            columns.append(next_x)
    assert len(columns) > 2


def test_blocks_stay_in_one_column() -> None:
    sizes = [(100.0, 50.0)] * 60
    edges = [(vertex, vertex + 1) for vertex in range(59)]
    blocks = [range(start, start + 12) for start in range(0, 60, 12)]
    layout = place_vertices(sizes, edges, together=blocks)
    assert len({layout.centres[0][0], layout.centres[59][0]}) == 2
    for block in blocks:
        assert len({layout.centres[vertex][0] for vertex in block}) == 1


def test_a_residual_block_has_a_straight_main_path() -> None:
    #  0 -> 1 -> 2 -> 3 with a skip from 0 to 3
    layout = place_vertices([(100.0, 40.0)] * 5, [(0, 1), (1, 2), (2, 3), (0, 3), (3, 4)])
    assert len({x for x, _ in layout.centres}) == 1


def test_vertices_without_inputs_stand_just_above_their_readers() -> None:
    assert layers_of(5, [(0, 1), (1, 2), (2, 4), (3, 4)]) == (0, 1, 2, 2, 3)


@settings(max_examples=60)
@given(networks())
def test_equal_graphs_are_drawn_alike(network: tuple[Sizes, list[Edge]]) -> None:
    assert place_vertices(*network) == place_vertices(*network)
