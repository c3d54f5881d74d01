"""Pictures of architectures as SVG: readable in a browser, a README and a page, on light and on dark ground."""

from collections import Counter
from collections.abc import Sequence
from math import ceil

from nasgraph.draw import marks
from nasgraph.draw.fold import Picture, fold_chains
from nasgraph.draw.labels import FAMILIES, shape_text
from nasgraph.draw.layout import Layout, Run, place_vertices
from nasgraph.draw.network import Edge, layers_of
from nasgraph.draw.shrink import fold_repeats, group_boxes
from nasgraph.draw.style import STYLE, text_width
from nasgraph.ir import ComputationalGraph, cost_of

MAX_PLAIN_BOXES = 80
"""Boxes up to which repeated blocks are drawn out in full."""
MAX_BOXES = 400
MAX_BOXES_IN_ROW = 40
MAX_PASSED_LAYERS = 4000
"""A picture with more boxes, with more side by side, or with longer edges in sum is drawn in groups."""
MAX_PILLS = 12
MAX_TITLE = 100

_MARGIN = 28.0
_LEAST_WIDTH = 440.0


def draw_svg(graph: ComputationalGraph, *, title: str = "", fold: bool = True) -> str:
    """Draw an architecture from top to bottom, as one SVG document.

    Each box is a chain of nodes (`fold=True`) or one node, with its operators, output shape and parameters. With
    `fold=True`, equal blocks in a row are drawn once where there are more than 80 boxes. Graphs too large to
    read, folded or not, are drawn as groups of nodes, and the picture says so; it takes seconds at most for any
    graph. Equal arguments give equal text. Each box carries the indices of its nodes in `data-node` and their
    details as a tooltip; no node is left out. The picture loads nothing and has no script.

    Args:
        graph: A checked graph.
        title: Heading. Escaped, and cut after 100 characters.
        fold: Whether chains and repeated blocks are drawn as one box.
    """
    title = title or "Architecture"
    title = title if len(title) <= MAX_TITLE else f"{title[: MAX_TITLE - 3]}..."
    return _render(picture_of(graph, fold=fold), title=title, summary=_summary(graph))


def picture_of(graph: ComputationalGraph, *, fold: bool = True) -> Picture:
    """The boxes that `draw_svg` draws."""
    plain = fold_chains(graph, fold=fold)
    picture = fold_repeats(plain) if fold and len(plain.boxes) > MAX_PLAIN_BOXES else plain
    return group_boxes(plain) if is_too_large(picture) else picture


def is_too_large(picture: Picture) -> bool:
    """Whether a picture has more boxes, more of them side by side, or longer edges than can be read."""
    if len(picture.boxes) > MAX_BOXES:
        return True
    edges = _edges(picture)
    layers = layers_of(len(picture.boxes), edges)
    reach = [0] * len(layers)
    for source, target in edges:
        reach[source] = max(reach[source], layers[target] - layers[source])
    return max(Counter(layers).values()) > MAX_BOXES_IN_ROW or sum(reach) > MAX_PASSED_LAYERS


def _edges(picture: Picture) -> list[Edge]:
    return [(source, target) for target, box in enumerate(picture.boxes) for source in box.inputs]


def _summary(graph: ComputationalGraph) -> str:
    cost = cost_of(graph)
    return (
        f"{len(graph):,} nodes · {cost.num_parameters:,} parameters · {cost.multiply_adds:,} multiply-adds"
        f" · {_shapes(graph, graph.inputs)} → {_shapes(graph, graph.outputs)}"
    )


def _shapes(graph: ComputationalGraph, indices: Sequence[int]) -> str:
    texts = [shape_text(graph.shapes[index]) for index in indices[:4]]
    return ", ".join(texts) if len(indices) <= 4 else f"{', '.join(texts)}, ... ({len(indices):,})"


def output_pills(picture: Picture) -> tuple[list[str], list[Edge]]:
    """The pills below the boxes, one per output or one for many, and the edges that lead to them."""
    number, first = len(picture.outputs), len(picture.boxes)
    if number > MAX_PILLS:
        return [f"{number:,} outputs"], [(box, first) for box in sorted(set(picture.outputs))]
    labels = ["output"] if number == 1 else [f"output {n + 1}" for n in range(number)]
    return labels, [(box, first + n) for n, box in enumerate(picture.outputs)]


def _render(picture: Picture, *, title: str, summary: str) -> str:
    labels, output_edges = output_pills(picture)
    sizes = [*map(marks.box_size, picture.boxes), *map(marks.pill_size, labels)]
    edges = [*_edges(picture), *output_edges]
    blocks = [range(repeat.first, repeat.last + 1) for repeat in picture.repeats]
    layout = place_vertices(sizes, edges, together=blocks)
    frames = _frames(picture, layout, sizes, edges)
    drawn = list(zip(layout.centres, sizes, strict=True))
    content = [
        *(frame.draw() for frame in frames),
        *draw_routes(layout, edges),
        *(marks.draw_box(box, *place) for box, place in zip(picture.boxes, drawn, strict=False)),
        *(
            marks.draw_pill(label, *place)
            for label, place in zip(labels, drawn[len(picture.boxes) :], strict=True)
        ),
        *(frame.draw_badge() for frame in frames),
    ]
    left = min([0.0, *(frame.extent[0] for frame in frames)])
    right = max([layout.width, *(frame.extent[1] for frame in frames)])
    extent = (left, right, layout.height)
    return _page("".join(content), extent, title=title, summary=summary, picture=picture)


def draw_routes(layout: Layout, edges: Sequence[Edge]) -> list[str]:
    """Edges as SVG, those of one source together."""
    by_source: dict[int, list[tuple[Run, ...]]] = {}
    for (source, _), route in zip(edges, layout.routes, strict=True):
        by_source.setdefault(source, []).append(route)
    return [marks.draw_edges(routes) for _, routes in sorted(by_source.items())]


def _frames(
    picture: Picture, layout: Layout, sizes: list[tuple[float, float]], edges: list[Edge]
) -> list[marks.Frame]:
    frames = []
    for repeat in picture.repeats:
        inside = range(repeat.first, repeat.last + 1)
        routes = [route for route, edge in zip(layout.routes, edges, strict=True) if edge[1] in inside]
        frames.append(
            marks.frame_around([(layout.centres[i], sizes[i]) for i in inside], routes, times=repeat.times)
        )
    return frames


def _page(
    content: str, extent: tuple[float, float, float], *, title: str, summary: str, picture: Picture
) -> str:
    left, right, height = extent
    width = max(right - left, text_width(title, size=17.5), _LEAST_WIDTH)
    lines = marks.wrap(summary, " · ", width)
    for note in picture.notes:
        lines += marks.wrap(note, " ", width)
    top = _MARGIN + 32 + len(lines) * marks.LINE_HEIGHT
    families = {family for box in picture.boxes for _, family in box.lines}
    legend, legend_height = marks.draw_legend(
        [family for family in FAMILIES if family in families], width=width
    )
    legend_y = top + height + 36
    full = ceil(width + 2 * _MARGIN), ceil(legend_y + legend_height + _MARGIN - 6)
    shift = marks.number(_MARGIN + (width - right - left) / 2)
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" class="ng-picture" role="img"'
        f" aria-label={marks.attribute(f'{title}: {summary}')}"
        f' width="{full[0]}" height="{full[1]}" viewBox="0 0 {full[0]} {full[1]}"><style>{STYLE}</style>'
        f'<rect class="ng-page" width="{full[0]}" height="{full[1]}" rx="10"/>'
        + marks.draw_title(title, _MARGIN, _MARGIN + 14)
        + marks.draw_lines(lines, _MARGIN, _MARGIN + 34)
        + f'<g transform="translate({shift} {marks.number(top)})">{content}</g>'
        + f'<g transform="translate({marks.number(_MARGIN)} {marks.number(legend_y)})">{legend}</g></svg>\n'
    )
