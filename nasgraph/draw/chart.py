"""Line charts as SVG: means with their spread, readable at the width of a phone, on light and on dark ground.

One chart is one document without scripts. Values are read off by pointing: every place on the x-axis has a tooltip.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from zlib import crc32

from nasgraph.draw import marks
from nasgraph.draw.scale import Scale, scale_of, tick_texts
from nasgraph.draw.style import STYLE, text_width

WIDTH, HEIGHT = 420, 310
MAX_TOOLTIPS = 120
MAX_POINTS = 600
"""A line with more points is drawn through so many of them, the first and the last among them."""

_SMALL = 11.5
_COLOURS = (
    ("#2f6fde", "#6ea3ff"),
    ("#c2570c", "#ff9a66"),
    ("#0f8a80", "#3cc9bb"),
    ("#7a4fe0", "#a98bff"),
    ("#d0317f", "#f472b6"),
    ("#8a6d00", "#eab54a"),
)
_DASHES = ("", "7 4", "2 3", "9 3 2 3", "4 3", "12 4")


def _rules(ground: int) -> str:
    return "".join(
        f".ng-line-{place}{{stroke:{colour[ground]}}}.ng-band-{place}{{fill:{colour[ground]}}}"
        for place, colour in enumerate(_COLOURS)
    )


CHART_FIXED = (
    ".ng-line{fill:none;stroke-width:2.2;stroke-linejoin:round}.ng-dots{stroke-width:5;stroke-opacity:.75}.ng-band{fill-opacity:.17;stroke:none}"
    ".ng-grid{stroke-width:.7;stroke-opacity:.35;fill:none}.ng-axis{stroke-width:1.1;fill:none}"
    ".ng-level{stroke-width:1.2;stroke-dasharray:3 4;fill:none}"
    ".ng-hover{fill:transparent}.ng-hover:hover{fill:#8894a5;fill-opacity:.22}"
)
"""Rules of charts, besides those of all pictures, that do not depend on the ground."""

LINE_COLOURS = (_rules(0), _rules(1))
"""Rules for light and for dark ground."""

CHART_STYLE = f"{STYLE}{CHART_FIXED}{LINE_COLOURS[0]}@media (prefers-color-scheme:dark){{{LINE_COLOURS[1]}}}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of a chart. Points that are not finite are left out.

    Attributes:
        label: Its name in the legend.
        x: Places, rising.
        y: Values at them.
        low: Lower edge of the band around it; empty: no band.
        high: Upper edge.
        is_step: Whether a value holds until the next place.
        is_points: Whether the points stand alone, with no line through them.

    Raises:
        ValueError: If the lengths differ.
    """

    label: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    is_step: bool = False
    is_points: bool = False

    def __post_init__(self) -> None:
        lengths = {len(self.x), len(self.y), len(self.low) or len(self.x), len(self.high) or len(self.x)}
        if len(lengths) > 1 or bool(self.low) != bool(self.high):
            raise ValueError(f"Expected x, y and both edges of the band of '{self.label}' to be equally long")


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """What a chart shows.

    Attributes:
        title: Heading.
        x_label: What stands on the x-axis.
        y_label: What stands on the y-axis.
        lines: At most six lines.
        levels: Names and values of horizontal lines.
        y_range: Lowest and highest value shown; None: as the lines need it. What lies outside is cut off.
        log_y: Whether the y-axis is logarithmic; values of zero and below are left out then.

    Raises:
        ValueError: If there are more lines than colours.
    """

    title: str
    x_label: str
    y_label: str
    lines: tuple[Line, ...]
    levels: tuple[tuple[str, float], ...] = ()
    y_range: tuple[float | None, float | None] = (None, None)
    log_y: bool = False

    def __post_init__(self) -> None:
        if len(self.lines) > len(_COLOURS):
            raise ValueError(f"Expected at most {len(_COLOURS)} lines (got {len(self.lines)})")


def draw_chart(chart: Chart) -> str:
    """Draw a chart as one SVG document. Equal arguments give equal text; all text is escaped."""
    legend, legend_height = _legend(chart)
    ticks = tick_texts(y_scale := _y_scale(chart))
    left = 34 + max((text_width(text, size=_SMALL) for _, text in ticks), default=20.0)
    top, right, bottom = 44.0 + legend_height, WIDTH - 18.0, HEIGHT - 46.0
    x_values = [value for line in chart.lines for value in line.x if math.isfinite(value)]
    margin = 0.03 if any(line.is_points for line in chart.lines) else 0.0  # so that no point is cut in half
    low, high = min(x_values, default=0.0), max(x_values, default=1.0)
    x_scale = scale_of(low, high, start=left, end=right, margin=margin)
    y_scale = y_scale.placed(start=bottom, end=top)
    frame = (left, top, right, bottom)
    clip = f"ng-clip-{crc32(repr(chart).encode()):08x}"  # charts on one page must not share names
    inside = [_band(line, n, x_scale, y_scale) for n, line in enumerate(chart.lines)]
    inside += [_curve(line, n, x_scale, y_scale) for n, line in enumerate(chart.lines)]
    content = [
        marks.draw_title(_cut(chart.title, WIDTH - 36, size=17.5), 18, 26),
        f'<g transform="translate(18 46)">{legend}</g>',
        _axes(x_scale, y_scale, frame),
        marks.draw_text(
            _cut(chart.x_label, right - left),
            (left + right) / 2,
            HEIGHT - 10,
            "ng-muted ng-small",
            anchor="middle",
        ),
        _rotated(_cut(chart.y_label, bottom - top + 30), 15, (top + bottom) / 2),
        f'<clipPath id="{clip}"><rect x="{left:.1f}" y="{top - 2:.1f}" width="{right - left:.1f}"'
        f' height="{bottom - top + 4:.1f}"/></clipPath>',
        f'<g clip-path="url(#{clip})">{"".join(inside)}</g>',
        *(_level(name, value, y_scale, frame) for name, value in chart.levels),
        _tooltips(chart, x_scale, frame),
    ]
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" class="ng-picture ng-chart" role="img"'
        f" aria-label={marks.attribute(_spoken(chart))}"
        f' width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}"><style>{CHART_STYLE}</style>'
        f'<rect class="ng-page" width="{WIDTH}" height="{HEIGHT}" rx="10"/>{"".join(content)}</svg>\n'
    )


def _y_scale(chart: Chart) -> Scale:
    shown = [value for line in chart.lines for value in (*line.y, *line.low, *line.high)]
    shown += [value for _, value in chart.levels]
    usable = [value for value in shown if math.isfinite(value) and (value > 0 or not chart.log_y)]
    low, high = min(usable, default=0.0), max(usable, default=1.0)
    if chart.log_y:  # the band of a mean that nears zero would take the frame for itself
        means = [v for line in chart.lines for v in line.y if math.isfinite(v) and v > 0]
        low = max(low, min(means, default=low) / 3)
    wanted_low, wanted_high = chart.y_range
    low = low if wanted_low is None else wanted_low
    high = high if wanted_high is None else wanted_high
    return scale_of(low, max(low, high), start=1.0, end=0.0, is_log=chart.log_y, margin=0.04)


def _legend(chart: Chart) -> tuple[str, float]:
    parts, x, y = [], 0.0, 0.0
    for place, line in enumerate(chart.lines):
        label = _cut(line.label, WIDTH - 72)
        advance = 34 + text_width(label, size=_SMALL) + 14
        if x > 0 and x + advance > WIDTH - 36:
            x, y = 0.0, y + marks.LINE_HEIGHT
        if line.is_points:
            parts.append(
                f'<path class="ng-line ng-dots ng-line-{place}" stroke-linecap="round" d="M{x + 13:.1f} {y - 4:.1f}h.1"/>'
            )
        else:
            parts.append(f'<path class="ng-line ng-line-{place}"{_dash(place)} d="M{x:.1f} {y - 4:.1f}h26"/>')
        parts.append(marks.draw_text(label, x + 34, y, "ng-text ng-small"))
        x += advance
    return "".join(parts), y + marks.LINE_HEIGHT


def _axes(x_scale: Scale, y_scale: Scale, frame: tuple[float, float, float, float]) -> str:
    left, top, right, bottom = frame
    parts = [f'<path class="ng-edge ng-axis" d="M{left:.1f} {top:.1f}V{bottom:.1f}H{right:.1f}"/>']
    for place, text in tick_texts(y_scale):
        parts.append(f'<path class="ng-edge ng-grid" d="M{left:.1f} {place:.1f}H{right:.1f}"/>')
        parts.append(marks.draw_text(text, left - 6, place + 4, "ng-muted ng-small", anchor="end"))
    for place, text in tick_texts(x_scale):
        parts.append(f'<path class="ng-edge ng-axis" d="M{place:.1f} {bottom:.1f}v4"/>')
        parts.append(marks.draw_text(text, place, bottom + 18, "ng-muted ng-small", anchor="middle"))
    return "".join(parts)


def _cut(text: str, width: float, *, size: float = _SMALL) -> str:
    """A text that is no wider than there is room for."""
    if text_width(text, size=size) <= width:
        return text
    while text and text_width(f"{text}…", size=size) > width:
        text = text[:-1]
    return f"{text}…"


def _rotated(text: str, x: float, y: float) -> str:
    return f'<g transform="translate({x:.1f} {y:.1f}) rotate(-90)">' + (
        marks.draw_text(text, 0, 4, "ng-muted ng-small", anchor="middle") + "</g>"
    )


def _level(name: str, value: float, y_scale: Scale, frame: tuple[float, float, float, float]) -> str:
    left, top, right, bottom = frame
    y = y_scale(value)
    if not top - 1 <= y <= bottom + 1:
        return ""
    label_y = y - 5 if y - top > 16 else y + 14
    return f'<path class="ng-edge ng-level" d="M{left:.1f} {y:.1f}H{right:.1f}"/>' + marks.draw_text(
        name, left + 6, label_y, "ng-muted ng-small"
    )


def _dash(place: int) -> str:
    return f' stroke-dasharray="{_DASHES[place]}"' if _DASHES[place] else ""


def _kept(line: Line) -> Sequence[int]:
    count = len(line.x)
    if count <= MAX_POINTS:
        return range(count)
    return sorted({round(n * (count - 1) / (MAX_POINTS - 1)) for n in range(MAX_POINTS)})


def _pieces(line: Line, y_scale: Scale) -> list[list[int]]:
    """Unbroken runs of points that can be shown."""
    pieces: list[list[int]] = [[]]
    for n in _kept(line):
        if math.isfinite(line.x[n]) and y_scale.can_show(line.y[n]):
            pieces[-1].append(n)
        elif pieces[-1]:
            pieces.append([])
    return [piece for piece in pieces if piece]


def _curve(line: Line, place: int, x_scale: Scale, y_scale: Scale) -> str:
    path: list[str] = []
    if line.is_points:
        places = [(x_scale(line.x[n]), y_scale(line.y[n])) for piece in _pieces(line, y_scale) for n in piece]
        dots = "".join(f"M{marks.number(x)} {marks.number(y)}h.1" for x, y in places)
        return f'<path class="ng-line ng-dots ng-line-{place}" stroke-linecap="round" d="{dots}"/>'
    for piece in _pieces(line, y_scale):
        path.append(_path(_corners(line, piece, line.y, x_scale, y_scale)))
        if len(piece) == 1:
            path.append("h.1")  # a dot
    return f'<path class="ng-line ng-line-{place}"{_dash(place)} stroke-linecap="round" d="{"".join(path)}"/>'


def _band(line: Line, place: int, x_scale: Scale, y_scale: Scale) -> str:
    path = []
    for piece in _pieces(line, y_scale) if line.low else []:
        known = [n for n in piece if math.isfinite(line.low[n]) and math.isfinite(line.high[n])]
        if len(known) > 1:
            above = _corners(line, known, line.high, x_scale, y_scale)
            below = _corners(line, known, line.low, x_scale, y_scale)
            path.append(f"{_path([*above, *reversed(below)])}Z")
    return f'<path class="ng-band ng-band-{place}" d="{"".join(path)}"/>' if path else ""


def _corners(
    line: Line, piece: Sequence[int], values: Sequence[float], x_scale: Scale, y_scale: Scale
) -> list[marks.Point]:
    """What a line through values passes: the points, or the corners of the staircase through them."""
    points = [(x_scale(line.x[n]), y_scale.clamped(values[n])) for n in piece]
    corners = points[:1]
    for x, y in points[1:]:
        corners += [(x, corners[-1][1]), (x, y)] if line.is_step else [(x, y)]
    return corners


def _path(corners: Sequence[marks.Point]) -> str:
    return "M" + "L".join(f"{marks.number(x)} {marks.number(y)}" for x, y in corners)


def _tooltips(chart: Chart, x_scale: Scale, frame: tuple[float, float, float, float]) -> str:
    """Invisible columns, each with the values at its place."""
    _, top, _, bottom = frame
    places = sorted({x for line in chart.lines for x in line.x if math.isfinite(x)})
    if len(places) > MAX_TOOLTIPS:
        places = [places[round(n * (len(places) - 1) / (MAX_TOOLTIPS - 1))] for n in range(MAX_TOOLTIPS)]
    width = max(2.0, (x_scale.end - x_scale.start) / max(1, len(places) - 1))
    parts = []
    for x in dict.fromkeys(places):
        rows = [f"{chart.x_label} {x:,g}", *(_value_at(line, x) for line in chart.lines)]
        title = marks.escaped("\n".join(row for row in rows if row))
        parts.append(
            f'<rect class="ng-hover" x="{x_scale(x) - width / 2:.1f}" y="{top:.1f}" width="{width:.1f}"'
            f' height="{bottom - top:.1f}"><title>{title}</title></rect>'
        )
    return "".join(parts)


def _value_at(line: Line, x: float) -> str:
    before = [n for n, place in enumerate(line.x) if place <= x] if line.is_step else []
    n = before[-1] if before else line.x.index(x) if x in line.x else -1
    if n < 0 or not math.isfinite(line.y[n]):
        return ""
    spread = ""
    if line.low and math.isfinite(line.low[n]) and math.isfinite(line.high[n]):
        spread = f" ({line.low[n]:.5g} to {line.high[n]:.5g})"
    return f"{line.label}: {line.y[n]:.5g}{spread}"


def _spoken(chart: Chart) -> str:
    ends = []
    for line in chart.lines:
        finite = [value for value in line.y if math.isfinite(value)]
        if finite:
            ends.append(f"{line.label} ends at {finite[-1]:.5g}")
    return f"{chart.title}: {'; '.join(ends)}" if ends else chart.title
