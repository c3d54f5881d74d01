"""The pieces of a picture as SVG text: boxes, pills, edges, frames, the legend. All text is escaped here."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

from nasgraph.draw.fold import Box
from nasgraph.draw.labels import FAMILIES
from nasgraph.draw.layout import Run
from nasgraph.draw.style import text_width

Point = tuple[float, float]

_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML cannot hold."""

LINE_HEIGHT = 18.0
_PADDING = 14.0
_DOT = 15.0
_FRAME_PADDING = 13.0


def number(value: float) -> str:
    """A coordinate with at most one decimal."""
    return f"{value:.1f}".removesuffix(".0")


def footer_of(box: Box) -> str:
    """Last line of a box: output shape and number of parameters."""
    return f"{box.shape} · {box.num_parameters:,} params" if box.num_parameters else box.shape


def box_size(box: Box) -> Point:
    """Width and height in pixels."""
    dots = _DOT if len(box.lines) > 1 else 0.0
    widest = max(text_width(text, size=14.2) + dots for text, _ in box.lines)
    widest = max(widest, text_width(footer_of(box), size=11.5))
    return widest + 2 * _PADDING, 12 + LINE_HEIGHT * (len(box.lines) + 1)


def draw_box(box: Box, centre: Point, size: Point, *, attributes: str = "") -> str:
    """A rounded box: one line per operator, then shape and parameters. Several lines carry dots in their colours.

    Args:
        box: What it says.
        centre: Its middle.
        size: From `box_size`.
        attributes: Further attributes of its group, as XML.
    """
    (x, y), (width, height) = centre, size
    left, top = x - width / 2, y - height / 2
    parts = []
    for place, (text, family) in enumerate(box.lines):
        baseline = top + 19 + place * LINE_HEIGHT
        if len(box.lines) == 1:
            parts.append(draw_text(text, x, baseline, "ng-text ng-head", anchor="middle"))
        else:
            style = "ng-text ng-head" if family == box.family else "ng-text"
            parts.append(_dot(family, left + _PADDING + 3, baseline - 4.5))
            parts.append(draw_text(text, left + _PADDING + _DOT, baseline, style))
    baseline = top + 18 + len(box.lines) * LINE_HEIGHT
    if len(box.lines) == 1:
        parts.append(draw_text(footer_of(box), x, baseline, "ng-muted ng-small", anchor="middle"))
    else:
        parts.append(draw_text(footer_of(box), left + _PADDING, baseline, "ng-muted ng-small"))
    nodes = " ".join(map(str, box.nodes))
    return (
        f'<g class="ng-box" data-node="{nodes}"{attributes}><title>{escaped(box.tooltip)}</title>'
        f'<rect class="ng-{box.family}" x="{number(left)}" y="{number(top)}" width="{number(width)}"'
        f' height="{number(height)}" rx="9"/>{"".join(parts)}</g>'
    )


def pill_size(label: str) -> Point:
    """Width and height of a pill in pixels."""
    return text_width(label) + 32, 28.0


def draw_pill(label: str, centre: Point, size: Point) -> str:
    """A pill that marks where a value leaves the graph."""
    (x, y), (width, height) = centre, size
    return (
        f'<g class="ng-box ng-output"><rect class="ng-data" x="{number(x - width / 2)}"'
        f' y="{number(y - height / 2)}" width="{number(width)}" height="{number(height)}" rx="14"/>'
        f"{draw_text(label, x, y + 4.5, 'ng-text', anchor='middle')}</g>"
    )


def draw_edges(routes: Sequence[Sequence[Run]]) -> str:
    """Smooth lines along the runs of edges that carry one value, each with an arrow head at its end.

    What they have in common is drawn once. Runs may go up as well as down.
    """
    heads = []
    for route in routes:
        x, _, tip = route[-1]
        heads.append(
            f"M{number(x - 4)} {number(tip - 8)}L{number(x + 4)} {number(tip - 8)}L{number(x)} {number(tip)}Z"
        )
    return f'<path class="ng-edge" d="{edge_path(routes)}"/><path class="ng-arrow" d="{"".join(heads)}"/>'


def edge_path(routes: Sequence[Sequence[Run]]) -> str:
    """The lines of `draw_edges` without arrow heads, as the `d` of a path."""
    pieces: dict[str, None] = {}
    for route in routes:
        for run, following in zip(route, [*route[1:], None], strict=True):
            x, start, end = run
            if abs(end - start) > 0.5:
                pieces[f"M{number(x)} {number(start)}V{number(end)}"] = None
            if following is not None:
                pieces[_curve(run, following)] = None
    return "".join(pieces)


def _curve(run: Run, following: Run) -> str:
    (x, _, y), (to_x, to_y, _) = run, following
    leaving, arriving = _direction(run), _direction(following)
    if abs(x - to_x) < 0.5 and leaving == arriving:
        return f"M{number(x)} {number(y)}V{number(to_y)}"
    bend = abs(to_y - y) / 2 if leaving == arriving else min(abs(to_x - x) * 0.6, 40.0)
    return (
        f"M{number(x)} {number(y)}C{number(x)} {number(y + leaving * bend)}"
        f" {number(to_x)} {number(to_y - arriving * bend)} {number(to_x)} {number(to_y)}"
    )


def _direction(run: Run) -> int:
    return -1 if run[2] < run[1] - 1 else 1


@dataclass(frozen=True, slots=True)
class Frame:
    """A dashed frame around what stands for several equal blocks."""

    left: float
    top: float
    right: float
    bottom: float
    times: int

    @property
    def extent(self) -> tuple[float, float]:
        """Leftmost and rightmost x, the badge included."""
        return self.left, self.right + self._badge_width / 2

    @property
    def _badge_width(self) -> float:
        return text_width(f"x {self.times}") + 18

    def draw(self) -> str:
        """The frame itself, to be drawn below everything else."""
        return (
            f'<rect class="ng-frame" data-repeat="{self.times}" x="{number(self.left)}" y="{number(self.top)}"'
            f' width="{number(self.right - self.left)}" height="{number(self.bottom - self.top)}" rx="14"/>'
        )

    def draw_badge(self) -> str:
        """How many times, on the right side, where no edge crosses the frame; to be drawn above everything else."""
        width, y = self._badge_width, (self.top + self.bottom) / 2
        return (
            f'<rect class="ng-badge" x="{number(self.right - width / 2)}" y="{number(y - 10)}"'
            f' width="{number(width)}" height="20" rx="10"/>'
            + draw_text(f"x {self.times}", self.right, y + 4.5, "ng-badge-text", anchor="middle")
        )


def frame_around(
    boxes: Sequence[tuple[Point, Point]], routes: Sequence[Sequence[Run]], *, times: int
) -> Frame:
    """The frame around boxes, given as centre and size, and the edges that lead to them."""
    top = min(y - height / 2 for (_, y), (_, height) in boxes)
    bottom = max(y + height / 2 for (_, y), (_, height) in boxes)
    passing = [x for route in routes for x, start, end in route[1:] if top <= start <= end <= bottom]
    return Frame(
        left=min([*passing, *(x - width / 2 for (x, _), (width, _) in boxes)]) - _FRAME_PADDING,
        top=top - _FRAME_PADDING,
        right=max([*passing, *(x + width / 2 for (x, _), (width, _) in boxes)]) + _FRAME_PADDING,
        bottom=bottom + _FRAME_PADDING,
        times=times,
    )


def draw_legend(families: Sequence[str], *, width: float) -> tuple[str, float]:
    """The legend, wrapped to `width`, and its height."""
    parts, x, y = [], 0.0, 0.0
    for family in families:
        advance = _DOT + text_width(FAMILIES[family], size=11.5) + 16
        if x > 0 and x + advance > width:
            x, y = 0.0, y + LINE_HEIGHT
        parts.append(_dot(family, x + 4, y - 4))
        parts.append(draw_text(FAMILIES[family], x + _DOT, y, "ng-muted ng-small"))
        x += advance
    return "".join(parts), y


def draw_lines(lines: Sequence[str], x: float, y: float) -> str:
    """Small muted text, line below line, the first with its baseline at `y`."""
    return "".join(
        draw_text(line, x, y + n * LINE_HEIGHT, "ng-muted ng-small") for n, line in enumerate(lines)
    )


def draw_title(title: str, x: float, y: float) -> str:
    """The heading."""
    return draw_text(title, x, y, "ng-text ng-title")


def wrap(text: str, separator: str, width: float) -> list[str]:
    """Break small text at separators into lines of at most `width` where that is possible."""
    lines: list[str] = []
    for part in text.split(separator):
        longer = f"{lines[-1]}{separator}{part}" if lines else part
        if lines and text_width(longer, size=11.5) <= width:
            lines[-1] = longer
        else:
            lines.append(part)
    return lines


def draw_text(text: str, x: float, y: float, style: str, *, anchor: str = "start") -> str:
    """One line of text with its baseline at `y`. Escaped here."""
    where = f' text-anchor="{anchor}"' if anchor != "start" else ""
    return f'<text class="{style}" x="{number(x)}" y="{number(y)}"{where}>{escaped(text)}</text>'


def _dot(family: str, x: float, y: float) -> str:
    return f'<circle class="ng-dot-{family}" cx="{number(x)}" cy="{number(y)}" r="4"/>'


def attribute(text: str) -> str:
    """Text as a quoted XML attribute."""
    return quoteattr(_FORBIDDEN.sub(" ", text))


def escaped(text: str) -> str:
    """Text as XML content."""
    return escape(_FORBIDDEN.sub(" ", text))
