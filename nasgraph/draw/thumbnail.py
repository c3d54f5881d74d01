"""The shape of an architecture at a glance: a picture of 120 x 90 pixels without text, for lists and plots."""

from collections import Counter
from collections.abc import Sequence

from nasgraph.draw import marks
from nasgraph.draw.fold import Box, Picture, fold_chains
from nasgraph.draw.labels import family_of
from nasgraph.draw.layout import Layout, place_vertices
from nasgraph.draw.network import layers_of
from nasgraph.draw.shrink import fold_repeats, group_boxes
from nasgraph.draw.style import DARK, LIGHT
from nasgraph.ir import ComputationalGraph

WIDTH, HEIGHT = 120, 90
MAX_BOXES = 24
"""Boxes up to which repeated blocks are drawn out; beyond, they are drawn once."""
MAX_PLAIN_BOXES = 64
MAX_PASSED_LAYERS = 400
"""With more boxes, or longer edges in sum, groups of nodes are drawn."""
MAX_STRIPES = 3
"""Colours of a group, in the proportions of its operators."""

_MARGIN = 5.0
_BOX = (120.0, 70.0)
_LARGEST_SCALE = 0.22  # a graph of two nodes must not fill the picture
_WIDENING = 2.0  # of a tall and narrow graph, which would be a mere line
_LIGHT_FAMILIES = frozenset({"norm", "activation", "shape", "data"})
_EDGE = ("#8894a5", "#748297")


def draw_thumbnail(graph: ComputationalGraph) -> str:
    """Draw the shape of an architecture as one small SVG document.

    One coloured mark per chain of nodes, in the layout of `draw_svg`; equal blocks in a row once, before a shadow, where there are
    many; and where there are very many, groups of nodes, striped in the colours of their operators. No text, no scripts, nothing loaded; colours follow the reader's light or
    dark ground, and the ground itself is transparent. Equal graphs give equal text, about two kilobytes.

    Args:
        graph: A checked graph.
    """
    picture = _picture(graph)
    sizes = [_BOX] * len(picture.boxes)
    edges = [(source, target) for target, box in enumerate(picture.boxes) for source in set(box.inputs)]
    layout = place_vertices(sizes, edges)
    scale = min(
        (WIDTH - 2 * _MARGIN) / max(layout.width, 1.0),
        (HEIGHT - 2 * _MARGIN) / max(layout.height, 1.0),
        _LARGEST_SCALE,
    )
    widened = min((WIDTH - 2 * _MARGIN) / max(layout.width, 1.0), _WIDENING * scale)
    left, top = (WIDTH - layout.width * widened) / 2, (HEIGHT - layout.height * scale) / 2
    stripes = [_stripes(graph, box) for box in picture.boxes]
    families = sorted({family for shares in stripes for family, _ in shares})
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}">'
        f"<style>{_style(families)}</style>"
        f'<g transform="translate({left:.1f} {top:.1f}) scale({widened:.4f} {scale:.4f})">'
        f"{_edges(layout)}{_marks(picture, layout, stripes)}</g></svg>\n"
    )


def _picture(graph: ComputationalGraph) -> Picture:
    plain = fold_chains(graph)
    picture = fold_repeats(plain) if len(plain.boxes) > MAX_BOXES else plain
    return group_boxes(plain) if _is_too_large(picture) else picture


def _is_too_large(picture: Picture) -> bool:
    if len(picture.boxes) > MAX_PLAIN_BOXES:
        return True
    edges = [(source, target) for target, box in enumerate(picture.boxes) for source in box.inputs]
    layers = layers_of(len(picture.boxes), edges)
    return sum(layers[target] - layers[source] - 1 for source, target in edges) > MAX_PASSED_LAYERS


def _style(families: list[str]) -> str:
    def rules(ground: int, colours: dict[str, str]) -> str:
        fills = "".join(f".{family}{{fill:{colour}}}" for family, colour in colours.items())
        return f".e{{stroke:{_EDGE[ground]}}}{fills}"

    light = rules(0, {family: LIGHT[family][1] for family in families})
    dark = rules(1, {family: DARK[family][1] for family in families})
    fixed = ".e{fill:none;vector-effect:non-scaling-stroke}.s{fill-opacity:.4}"
    return f"{fixed}{light}@media (prefers-color-scheme:dark){{{dark}}}"


def _edges(layout: Layout) -> str:
    if not layout.routes:
        return ""
    return f'<path class="e" d="{marks.edge_path(layout.routes)}"/>'


def _stripes(graph: ComputationalGraph, box: Box) -> list[tuple[str, float]]:
    """Colours of a mark and their shares of its width. A group shows its most frequent kinds of operators."""
    if box.family != "group":
        return [(box.family, 1.0)]
    counts = Counter(family_of(graph.nodes[node].op) for node in box.nodes)
    heavy = {family: count for family, count in counts.items() if family not in _LIGHT_FAMILIES} or counts
    found = sorted(heavy.items(), key=lambda item: (-item[1], item[0]))[:MAX_STRIPES]
    total = sum(count for _, count in found)
    return [(family, count / total) for family, count in found]


def _marks(picture: Picture, layout: Layout, stripes: Sequence[Sequence[tuple[str, float]]]) -> str:
    width, height = _BOX
    repeated = {n for repeat in picture.repeats for n in range(repeat.first, repeat.last + 1)}
    parts = []
    for index, (x, y) in enumerate(layout.centres):
        left, top = x - width / 2, y - height / 2
        if index in repeated:
            family = stripes[index][0][0]
            parts.append(
                f'<rect class="{family} s" x="{left + 26:.0f}" y="{top + 20:.0f}" width="{width:g}" height="{height:g}" rx="18"/>'
            )
        corner = 18 if len(stripes[index]) == 1 else 8
        for family, share in stripes[index]:
            parts.append(
                f'<rect class="{family}" x="{left:.0f}" y="{top:.0f}" width="{width * share:.0f}" height="{height:g}" rx="{corner}"/>'
            )
            left += width * share
    return "".join(parts)
