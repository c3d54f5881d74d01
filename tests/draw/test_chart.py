"""Line charts: every value at its place, nothing outside the picture, text escaped."""

import math
import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nasgraph.draw.chart import HEIGHT, MAX_POINTS, MAX_TOOLTIPS, WIDTH, Chart, Line, draw_chart
from nasgraph.draw.scale import scale_of, tick_texts, tick_values
from nasgraph.draw.style import text_width

SVG = "{http://www.w3.org/2000/svg}"
NAN = float("nan")


def chart(
    *lines: Line, log_y: bool = False, y_range: tuple[float | None, float | None] = (None, None)
) -> Chart:
    return Chart(title="Best so far", x_label="queries", y_label="accuracy", lines=lines, log_y=log_y, y_range=y_range)  # fmt: skip


def line(*y: float, label: str = "mine", low: tuple[float, ...] = (), high: tuple[float, ...] = ()) -> Line:
    return Line(label=label, x=tuple(map(float, range(1, len(y) + 1))), y=y, low=low, high=high)


def parse(text: str) -> ElementTree.Element:
    return ElementTree.fromstring(text)


def paths(root: ElementTree.Element, style: str) -> list[str]:
    return [path.attrib["d"] for path in root.iter(f"{SVG}path") if style in path.attrib["class"].split()]


def points(path: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"([-\d.]+) ([-\d.]+)", path)]


def curves(root: ElementTree.Element) -> list[str]:
    """Paths of the lines themselves, without those of the legend."""
    inside = next(group for group in root.iter(f"{SVG}g") if "clip-path" in group.attrib)
    return paths(inside, "ng-line")


def test_equal_steps_are_drawn_equally_far_apart() -> None:
    (path,) = curves(parse(draw_chart(chart(line(0.0, 1.0, 2.0, 3.0)))))
    corners = points(path)
    assert len(corners) == 4
    for n in (0, 1):
        steps = [corners[k + 1][n] - corners[k][n] for k in range(3)]
        assert max(steps) - min(steps) < 0.2
    assert corners[0][1] > corners[-1][1]  # up is more


def test_equal_factors_are_equally_far_apart_on_a_logarithmic_axis_and_zero_is_left_out() -> None:
    (path,) = curves(parse(draw_chart(chart(line(10.0, 1.0, 0.1, 0.0, -1.0), log_y=True))))
    heights = [y for _, y in points(path)]
    assert len(heights) == 3
    assert heights[1] - heights[0] == pytest.approx(heights[2] - heights[1], abs=0.2)


def test_a_band_encloses_its_line() -> None:
    root = parse(draw_chart(chart(line(1.0, 2.0, 4.0, low=(0.5, 1.5, 3.0), high=(2.0, 3.0, 4.5)))))
    (band,) = paths(root, "ng-band")
    edge, middle = points(band), points(curves(root)[0])
    upper, lower = edge[:3], edge[3:][::-1]
    for (x, y), (x_high, y_high), (x_low, y_low) in zip(middle, upper, lower, strict=True):
        assert x == x_high == x_low
        assert y_high < y < y_low
    assert not paths(parse(draw_chart(chart(line(1.0, 2.0)))), "ng-band")


def test_a_missing_value_breaks_the_line() -> None:
    (path,) = curves(parse(draw_chart(chart(line(1.0, 2.0, NAN, 3.0, math.inf, 5.0)))))
    assert [len(points(piece)) for piece in path.split("M")[1:]] == [2, 1, 1]


def test_steps_hold_until_the_next_place() -> None:
    stairs = Line(label="share", x=(1.0, 2.0, 3.0), y=(0.0, 0.5, 1.0), is_step=True)
    corners = points(curves(parse(draw_chart(chart(stairs))))[0])
    assert all(a[0] == b[0] or a[1] == b[1] for a, b in pairwise(corners))  # never oblique


def test_tooltips_tell_the_values_of_all_lines_at_a_place() -> None:
    drawn = draw_chart(
        chart(line(1.0, 2.5, low=(0.5, 2.0), high=(1.5, 3.0)), line(0.25, 0.75, label="random"))
    )
    titles = [title.text or "" for title in parse(drawn).iter(f"{SVG}title")]
    assert titles[-1].splitlines() == ["queries 2", "mine: 2.5 (2 to 3)", "random: 0.75"]


def test_long_lines_are_thinned_and_keep_their_ends() -> None:
    long = line(*(float(n) for n in range(20_000)))
    drawn = draw_chart(chart(long))
    root = parse(drawn)
    corners = points(curves(root)[0])
    assert len(corners) == MAX_POINTS
    assert corners[0][1] > corners[-1][1]
    assert len(list(root.iter(f"{SVG}title"))) <= MAX_TOOLTIPS
    assert len(drawn) < 60_000


def test_two_charts_of_one_page_share_no_names() -> None:
    ids = [re.search(r'id="([^"]+)"', draw_chart(chart(line(1.0, top))))[1] for top in (2.0, 3.0)]  # type: ignore[index]  # there is one
    assert len(set(ids)) == 2


@pytest.mark.parametrize("text", ['<script>"&', "]]>", "\x00\ud800", "é漢"])
def test_all_text_is_escaped(text: str) -> None:
    drawn = draw_chart(
        Chart(title=text, x_label=text, y_label=text, lines=(line(1.0, 2.0, label=text),), levels=((text, 1.5),))
    )  # fmt: skip
    root = parse(drawn)
    assert root.find(f".//{SVG}script") is None
    assert "http" not in drawn.replace("http://www.w3.org/2000/svg", "")


def test_long_texts_are_cut_where_there_is_no_room() -> None:
    long = "a very long name of something " * 20
    drawn = draw_chart(Chart(title=long, x_label=long, y_label=long, lines=(line(1.0, 2.0, label=long),)))
    shown = [text.text or "" for text in parse(drawn).iter(f"{SVG}text") if "long" in (text.text or "")]
    assert len(shown) == 4
    assert all(text.endswith("…") and text_width(text, size=11.5) <= WIDTH for text in shown)


def test_equal_charts_give_equal_text() -> None:
    assert draw_chart(chart(line(1.0, 2.0))) == draw_chart(chart(line(1.0, 2.0)))


def test_light_and_dark_ground_have_colours_of_their_own() -> None:
    style = re.findall(r"<style>(.*?)</style>", draw_chart(chart(line(1.0, 2.0))))[0]
    for name in ("ng-line-0", "ng-page", "ng-text"):
        colours = re.findall(rf"\.{name}{{(?:fill|stroke):(#\w+)}}", style)
        assert len(set(colours)) == 2, name


numbers = st.one_of(
    st.floats(-1e9, 1e9), st.floats(-1e-6, 1e-6), st.sampled_from([NAN, math.inf, -math.inf, 0.0, 93.5])
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(numbers, numbers, numbers), max_size=12), st.booleans(), st.booleans())
def test_any_numbers_give_a_picture_with_its_labels_inside(
    rows: list[tuple[float, float, float]], log_y: bool, is_step: bool
) -> None:
    y, low, high = (tuple(row[place] for row in rows) for place in range(3))
    x = tuple(map(float, range(len(rows))))
    one = Line(label="any", x=x, y=y, low=low, high=high, is_step=is_step)
    root = parse(draw_chart(chart(one, log_y=log_y)))
    for text in root.iter(f"{SVG}text"):
        place = (float(text.attrib["x"]), float(text.attrib["y"]))
        assert -5 <= place[0] <= WIDTH
        assert 0 <= place[1] <= HEIGHT
        if text.attrib.get("text-anchor") == "end":
            assert place[0] - text_width(text.text or "", size=11.5) >= 20  # clear of the axis's own label


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), st.booleans())
def test_ticks_are_round_rise_and_lie_on_the_axis(low: float, length: float, is_log: bool) -> None:
    low = abs(low) + 1e-3 if is_log else low
    scale = scale_of(low, low + length, start=0.0, end=100.0, is_log=is_log)
    values = tick_values(scale)
    assert 1 <= len(values) <= 8
    assert values == sorted(set(values))
    if len(values) > 1:
        for place, text in tick_texts(scale):
            assert -1e-3 <= place <= 100.001
            assert text


def test_ends_of_an_axis_are_its_values() -> None:
    scale = scale_of(2.0, 4.0, start=100.0, end=0.0)
    assert (scale(2.0), scale(3.0), scale(4.0)) == (100.0, 50.0, 0.0)
    assert scale_of(1.0, 100.0, start=0.0, end=1.0, is_log=True)(10.0) == pytest.approx(0.5)


def test_mistakes_are_refused() -> None:
    with pytest.raises(ValueError, match="equally long"):
        Line(label="short", x=(1.0,), y=(1.0, 2.0))
    with pytest.raises(ValueError, match="equally long"):
        Line(label="half a band", x=(1.0,), y=(1.0,), low=(0.0,))
    with pytest.raises(ValueError, match="at most 6 lines"):
        chart(*(line(1.0) for _ in range(7)))


def test_points_stand_alone_inside_the_frame() -> None:
    line = Line(label="trials", x=(1.0, 2.0, 4.0), y=(0.5, float("nan"), 0.9), is_points=True)
    svg = draw_chart(Chart(title="t", x_label="x", y_label="y", lines=(line,)))
    dots = re.findall(r'<path class="ng-line ng-dots[^"]*"[^>]* d="([^"]*)"', svg)
    assert dots[-1].count("h.1") == 2
    frame = re.search(r'<clipPath id="[^"]*"><rect x="([\d.]+)" y="[\d.]+" width="([\d.]+)"', svg)
    assert frame is not None
    places = [float(x) for x in re.findall(r"M([\d.]+) ", dots[-1])]
    assert float(frame[1]) + 3 < min(places)
    assert max(places) < float(frame[1]) + float(frame[2]) - 3
