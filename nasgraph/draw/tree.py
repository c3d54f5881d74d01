"""Where something came from and what came of it: a small picture of boxes with links, oldest on top."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil

from nasgraph.draw import marks
from nasgraph.draw.layout import place_vertices
from nasgraph.draw.style import text_width

MAX_TEXT = 34
_MARGIN = 14.0
_PADDING = 14.0
_FAMILIES: Mapping[str, str] = {
    "search": "pool",
    "trial": "norm",
    "entry": "conv",
    "this": "activation",
    "lost": "shape",
    "source": "data",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ancestor:
    """One box of a lineage.

    Attributes:
        key: Tells it from others.
        title: First line.
        text: Second line, smaller; empty: none.
        kind: "search", "trial", "entry", "this", "lost" (no longer there) or "source" (outside).
        url: Where a click leads; empty: nowhere.
    """

    key: str
    title: str
    text: str = ""
    kind: str = "entry"
    url: str = ""

    def __post_init__(self) -> None:
        if self.kind not in _FAMILIES:
            raise ValueError(f"Expected 'kind' to be one of {', '.join(_FAMILIES)} (got '{self.kind}')")


def draw_tree(items: Sequence[Ancestor], links: Sequence[tuple[str, str]], *, label: str) -> str:
    """Draw a lineage as one `<svg>` element without style, for a page with `nasgraph.draw.theme.page_style`.

    Args:
        items: The boxes.
        links: Keys of what came first and of what came of it. No cycles.
        label: Name of the picture.

    Raises:
        ValueError: If a link names no box, or the links go in a circle.
    """
    order = _in_order(items, links)
    place = {item.key: index for index, item in enumerate(order)}
    sizes = [_size(item) for item in order]
    edges = sorted({(place[source], place[target]) for source, target in links})
    layout = place_vertices(sizes, edges)
    width, height = ceil(layout.width + 2 * _MARGIN), ceil(layout.height + 2 * _MARGIN)
    boxes = "".join(
        _box(item, centre, size) for item, centre, size in zip(order, layout.centres, sizes, strict=True)
    )
    return (
        f'<svg class="ng-picture ng-tree" role="group" aria-label={marks.attribute(label)} width="{width}" height="{height}"'
        f' viewBox="0 0 {width} {height}"><g transform="translate({_MARGIN:g} {_MARGIN:g})">'
        f"{marks.draw_edges(layout.routes) if layout.routes else ''}{boxes}</g></svg>"
    )


def _in_order(items: Sequence[Ancestor], links: Sequence[tuple[str, str]]) -> list[Ancestor]:
    """Every box after those that it came of, otherwise as given."""
    known = {item.key: item for item in items}
    waiting: dict[str, set[str]] = {key: set() for key in known}
    for source, target in links:
        if source not in known or target not in known:
            raise ValueError(f"Expected links between boxes (got '{source}' to '{target}')")
        waiting[target].add(source)
    order: list[Ancestor] = []
    while waiting:
        ready = [key for key, sources in waiting.items() if not sources & waiting.keys()]
        if not ready:
            raise ValueError("Expected links without a circle")
        order += [known[key] for key in ready]
        for key in ready:
            del waiting[key]
    return order


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 1]}…"


def _size(item: Ancestor) -> tuple[float, float]:
    widest = max(text_width(_cut(item.title), size=14.2), text_width(_cut(item.text), size=11.5))
    return widest + 2 * _PADDING, 48.0 if item.text else 32.0


def _box(item: Ancestor, centre: marks.Point, size: tuple[float, float]) -> str:
    (x, y), (width, height) = centre, size
    content = (
        f'<rect class="ng-{_FAMILIES[item.kind]}" x="{marks.number(x - width / 2)}" y="{marks.number(y - height / 2)}"'
        f' width="{marks.number(width)}" height="{marks.number(height)}" rx="9"/>'
        + marks.draw_text(
            _cut(item.title), x, y + (-3 if item.text else 4.5), "ng-text ng-head", anchor="middle"
        )
    )
    if item.text:
        content += marks.draw_text(_cut(item.text), x, y + 15, "ng-muted ng-small", anchor="middle")
    full = marks.escaped(f"{item.title}\n{item.text}".strip())
    group = f'<g class="ng-box" data-kind="{item.kind}"><title>{full}</title>{content}</g>'
    return f"<a href={marks.attribute(item.url)}>{group}</a>" if item.url else group
