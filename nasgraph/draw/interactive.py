"""Pictures that a reader works with: parts that open and close, boxes that can be reached, named and asked about.

A picture of this kind lies in a page, which brings the style (`nasgraph.draw.theme`), the scripts for zooming, and what is shown about
a box. Without scripts it is still a picture whose parts open and close by links.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Literal

from nasgraph.draw import marks
from nasgraph.draw.fold import Box, Picture, Repeat, fold_chains
from nasgraph.draw.labels import FAMILIES
from nasgraph.draw.layout import Layout, place_vertices
from nasgraph.draw.network import Edge
from nasgraph.draw.shrink import fold_repeats, group_boxes, groups_of, repeated_runs
from nasgraph.draw.style import text_width
from nasgraph.draw.svg import draw_routes, is_too_large, output_pills
from nasgraph.ir import ComputationalGraph

Detail = Literal["overview", "chains", "operators"]
Point = tuple[float, float]

OVERVIEW_BOXES = 80
"""Boxes up to which a picture begins with chains; larger ones begin with an overview."""
OPEN_BOXES = 30
"""Boxes up to which repeated blocks are drawn out unless the reader asks for something else."""
_MARGIN = 26.0
_BADGE_HEIGHT = 22.0


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What a reader wants to see.

    Attributes:
        detail: A box for each group of nodes, for each chain of operators, or for each operator; None: an overview of what is
            large, chains of the rest.
        opened: Numbers of the parts that are drawn out; None: all if the picture stays small, else none.
    """

    detail: Detail | None = None
    opened: frozenset[int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part of a picture that can be opened and closed: equal blocks in a row, or a group of nodes.

    Attributes:
        number: Its number, the same however it is drawn.
        times: How many equal blocks; 1 for a group.
        num_nodes: Nodes in it.
        is_open: Whether it is drawn out.
        toggled: Numbers of the open parts after it was opened or closed.
    """

    number: int
    times: int
    num_nodes: int
    is_open: bool
    toggled: frozenset[int]

    @property
    def words(self) -> str:
        """What its button does."""
        what = f"{self.times} equal blocks" if self.times > 1 else f"a group of {self.num_nodes:,} nodes"
        return f"{'Collapse' if self.is_open else 'Expand'} {what}"


@dataclass(frozen=True, slots=True, kw_only=True)
class InteractiveDrawing:
    """A picture and what a page says about it.

    Attributes:
        svg: One `<svg>` element without style and scripts.
        width: Its extent in pixels at full size.
        height: Its extent.
        num_boxes: How many boxes it shows.
        detail: What a box stands for.
        parts: What can be opened and closed, by number.
        families: Colour families that occur, with their words.
        notes: What the picture leaves out, in words.
    """

    svg: str
    width: int
    height: int
    num_boxes: int
    detail: Detail
    parts: tuple[Part, ...]
    families: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Scene:
    """A picture, its parts, and the boxes of each part's blocks."""

    picture: Picture
    detail: Detail
    parts: tuple[Part, ...]
    blocks: Mapping[int, tuple[range, ...]]


def draw_interactive(
    graph: ComputationalGraph, view: View = View(), *, link: Callable[[frozenset[int]], str], label: str
) -> InteractiveDrawing:
    """Draw an architecture from top to bottom for a page. Equal arguments give equal text.

    Each box lists its nodes in `data-node` (those of all copies, where it stands for several blocks), is a button in the words of
    screen readers, named after its operators, shape and parameters, and takes no part in the order of the Tab key except the
    first: a script moves on from there. The button of each part is a link to the picture with that part opened or closed.

    Args:
        graph: A checked graph.
        view: What is opened. Numbers of parts that do not exist are ignored, and so are groups beyond what can be drawn.
        link: Address of the page that shows other parts opened.
        label: Name of the picture.
    """
    scene = _scene(graph, view)
    content, layout = _content(scene, link)
    width, height = ceil(layout.width + 2 * _MARGIN + 40), ceil(layout.height + 2 * _MARGIN)
    shown = {family for box in scene.picture.boxes for _, family in box.lines} | {"data"}
    return InteractiveDrawing(
        svg=(
            f'<svg class="ng-picture" role="group" aria-label={marks.attribute(label)} width="{width}" height="{height}"'
            f' viewBox="0 0 {width} {height}" preserveAspectRatio="xMidYMin meet">'
            f'<g transform="translate({_MARGIN:g} {_MARGIN:g})">{content}</g></svg>'
        ),
        width=width,
        height=height,
        num_boxes=len(scene.picture.boxes),
        detail=scene.detail,
        parts=scene.parts,
        families=tuple((family, words) for family, words in FAMILIES.items() if family in shown),
        notes=scene.picture.notes,
    )


def _content(scene: _Scene, link: Callable[[frozenset[int]], str]) -> tuple[str, Layout]:
    """Everything that is drawn, from the lowest to the topmost, and where it stands."""
    picture = scene.picture
    labels, output_edges = output_pills(picture)
    sizes = [*map(marks.box_size, picture.boxes), *map(marks.pill_size, labels)]
    edges: list[Edge] = [(s, target) for target, box in enumerate(picture.boxes) for s in box.inputs]
    edges += output_edges
    together = [block for blocks in scene.blocks.values() for block in blocks if len(block) > 1]
    layout = place_vertices(sizes, edges, together=together)
    frames, badges = _draw_parts(scene, layout, sizes, edges, link)
    drawn = list(zip(layout.centres, sizes, strict=True))
    boxes = [
        marks.draw_box(box, *place, attributes=_button(box, index))
        for index, (box, place) in enumerate(zip(picture.boxes, drawn, strict=False))
    ]
    pills = [marks.draw_pill(text, *place) for text, place in zip(labels, drawn[len(boxes) :], strict=True)]
    return "".join([*frames, *draw_routes(layout, edges), *boxes, *pills, *badges]), layout


def _scene(graph: ComputationalGraph, view: View) -> _Scene:
    plain = fold_chains(graph, fold=view.detail != "operators")
    runs = repeated_runs(plain)
    folded = fold_repeats(plain)
    is_large = view.detail is None and len(folded.boxes) > OVERVIEW_BOXES
    if view.detail == "overview" or is_large or is_too_large(folded):
        return _grouped_scene(plain, view.opened or frozenset())
    default = range(len(runs)) if len(plain.boxes) <= OPEN_BOXES else ()
    opened = frozenset(default if view.opened is None else view.opened) & set(range(len(runs)))
    picture = fold_repeats(plain, [run for number, run in enumerate(runs) if number not in opened])
    if is_too_large(picture):
        opened, picture = frozenset(), folded
    detail: Detail = "operators" if view.detail == "operators" else "chains"
    return _repeated_scene(plain, replace(picture, notes=()), runs, opened, detail)


def _repeated_scene(
    plain: Picture, picture: Picture, runs: Sequence[Repeat], opened: frozenset[int], detail: Detail
) -> _Scene:
    place = {box.nodes[0]: index for index, box in enumerate(picture.boxes)}
    parts, blocks = [], {}
    for number, run in enumerate(runs):
        length, is_open = run.last + 1 - run.first, number in opened
        first = place[plain.boxes[run.first].nodes[0]]
        copies = run.times if is_open else 1
        blocks[number] = tuple(range(first + n * length, first + (n + 1) * length) for n in range(copies))
        members = plain.boxes[run.first : run.first + length * run.times]
        num_nodes = sum(len(box.nodes) for box in members)
        parts.append(
            Part(
                number=number,
                times=run.times,
                num_nodes=num_nodes,
                is_open=is_open,
                toggled=opened ^ {number},
            )
        )
    return _Scene(picture, detail, tuple(parts), blocks)


def _grouped_scene(plain: Picture, wanted: frozenset[int]) -> _Scene:
    members: dict[int, list[Box]] = {}
    for box, group in zip(plain.boxes, groups_of(plain), strict=True):
        members.setdefault(group, []).append(box)
    foldable = sorted(group for group, boxes in members.items() if len(boxes) > 1)
    opened: frozenset[int] = frozenset()
    picture = group_boxes(plain)
    for group in foldable:
        if group in wanted:
            larger = group_boxes(plain, opened=opened | {group})
            if not is_too_large(larger):
                opened, picture = opened | {group}, larger
    place = {box.nodes[0]: index for index, box in enumerate(picture.boxes)}
    parts, blocks = [], {}
    for group in foldable:
        first = place[members[group][0].nodes[0]]
        blocks[group] = (range(first, first + 1),)  # an open group has its button on its first box
        parts.append(
            Part(
                number=group,
                times=1,
                num_nodes=sum(len(box.nodes) for box in members[group]),
                is_open=group in opened,
                toggled=opened ^ {group},
            )
        )
    return _Scene(picture, "overview", tuple(parts), blocks)


def _button(box: Box, index: int) -> str:
    names = ", ".join(text for text, _ in box.lines)
    words = f"{names}; output {box.shape}"
    if box.num_parameters:
        words += f"; {box.num_parameters:,} parameters"
    reachable = 0 if index == 0 else -1
    return f' role="button" tabindex="{reachable}" aria-label={marks.attribute(words)}'


def _draw_parts(
    scene: _Scene,
    layout: Layout,
    sizes: Sequence[Point],
    edges: Sequence[Edge],
    link: Callable[[frozenset[int]], str],
) -> tuple[list[str], list[str]]:
    """Frames around blocks, to be drawn below everything, and the buttons of the parts, to be drawn above."""
    frames, badges = [], []
    for part in scene.parts:
        for block in scene.blocks[part.number]:
            places = [(layout.centres[index], sizes[index]) for index in block]
            is_first = block == scene.blocks[part.number][0]
            if part.times == 1:
                (x, y), (width, height) = places[0]
                corner = (x + width / 2, y - height / 2)
            else:
                routes = [r for r, edge in zip(layout.routes, edges, strict=True) if edge[1] in block]
                frame = marks.frame_around(places, routes, times=part.times)
                frames.append(frame.draw())
                corner = (frame.right, (frame.top + frame.bottom) / 2)
            if is_first:
                badges.append(_badge(part, corner, link(part.toggled)))
    return frames, badges


def _badge(part: Part, centre: Point, address: str) -> str:
    sign = "−" if part.is_open else "+"
    text = f"{sign} x {part.times}" if part.times > 1 else sign
    (x, y), width = centre, max(text_width(text) + 16, _BADGE_HEIGHT)
    return (
        f'<a class="ng-part" href={marks.attribute(address)} data-part="{part.number}" role="button"'
        f' aria-expanded="{"true" if part.is_open else "false"}" aria-label={marks.attribute(part.words)}>'
        f'<rect class="ng-badge" x="{marks.number(x - width / 2)}" y="{marks.number(y - _BADGE_HEIGHT / 2)}"'
        f' width="{marks.number(width)}" height="{_BADGE_HEIGHT:g}" rx="11"/>'
        f"{marks.draw_text(text, x, y + 4.5, 'ng-badge-text', anchor='middle')}</a>"
    )


def opened_text(opened: frozenset[int]) -> str:
    """Open parts as part of an address: `3,7`, or `none`."""
    return ",".join(map(str, sorted(opened))) or "none"


def opened_of(text: str) -> frozenset[int]:
    """The parts that `opened_text` names.

    Raises:
        ValueError: If it is something else.
    """
    if text == "none":
        return frozenset()
    if not re.fullmatch(r"[0-9]{1,6}(,[0-9]{1,6}){0,199}", text, re.ASCII):
        raise ValueError(f"Expected numbers of parts such as '3,7', or 'none' (got {text[:60]!r})")
    return frozenset(map(int, text.split(",")))
