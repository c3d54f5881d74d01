"""Reports as HTML and Markdown."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from nasgraph.draw.chart import Chart, Line, draw_chart
from nasgraph.draw.report import (
    Code,
    Figure,
    Grid,
    Report,
    Section,
    check_report_path,
    spread_text,
    to_html,
    to_markdown,
    write_report,
)
from nasgraph.errors import ConfigError, NasGraphError

VOID = {"meta", "br"}


class Reader(HTMLParser):
    """Collects elements, and the text of each."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((self.open[-1], data))


def figure(name: str = "best") -> Figure:
    drawn = draw_chart(
        Chart(title="T", x_label="x", y_label="y", lines=(Line(label="a", x=(1.0, 2.0), y=(1.0, 2.0)),))
    )
    return Figure(name=name, svg=drawn, caption="What it shows")


def report(text: str = "A sentence.") -> Report:
    grid = Grid(columns=("name", "value"), rows=((text, "1.5 ± 0.2"), ("b|c", "93")), caption="A table")
    return Report(
        title="A search",
        lead=(text,),
        tiles=(("queries", "21"),),
        sections=(
            Section(title="Curves", blocks=(figure(), figure("other"), text)),
            Section(title="Numbers", blocks=(grid, Code(text="nasgraph bench search --table 'a b'"))),
        ),
    )


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    assert reader.open == []
    return reader


def test_html_is_one_file_that_loads_nothing_and_has_no_script() -> None:
    html = to_html(report())
    reader = read(html)
    tags = {tag for tag, _ in reader.elements}
    assert not tags & {"script", "link", "img", "iframe", "object"}
    for _, attrs in reader.elements:
        assert not {"src", "href", "xlink:href"} & attrs.keys()
        assert not any(name.startswith("on") for name in attrs)
    assert not re.search(r"url\((?!#)|@import", html)
    assert html.count("<svg") == 2


def test_html_fits_a_phone_and_follows_light_and_dark() -> None:
    html = to_html(report())
    metas = [attrs for tag, attrs in read(html).elements if tag == "meta"]
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in metas
    assert "prefers-color-scheme:dark" in html.partition("</style>")[0]
    assert "overflow-x:auto" in html
    assert re.search(r"figure svg\{[^}]*width:100%", html)


def test_html_holds_every_part_and_numbers_stand_right() -> None:
    reader = read(to_html(report()))
    assert ("h1", "A search") in reader.texts
    assert [text for tag, text in reader.texts if tag == "h2"] == ["Curves", "Numbers"]
    assert [text for tag, text in reader.texts if tag == "td"] == ["A sentence.", "1.5 ± 0.2", "b|c", "93"]
    assert [attrs.get("class") for tag, attrs in reader.elements if tag == "td"] == [None, "n", None, "n"]
    assert ("pre", "nasgraph bench search --table 'a b'") in reader.texts


@pytest.mark.parametrize("text", ["<script>alert(1)</script>", '"><img src=x>', "a & b", "\x00\ud800"])
def test_strange_text_stays_text(text: str) -> None:
    tags = {tag for tag, _ in read(to_html(report(text))).elements}
    assert not tags & {"script", "img"}
    markdown = to_markdown(report(text), lambda figure: figure.name)
    assert not re.search(r"(?<!\\)<(script|img)", markdown)


def test_markdown_names_its_pictures_and_has_whole_tables(tmp_path: Path) -> None:
    path = tmp_path / "result.md"
    files = write_report(report("under_score _x_ *bold*"), path)
    assert [file.name for file in files] == ["result-best.svg", "result-other.svg", "result.md"]
    text = path.read_text()
    pictures = re.findall(r"!\[[^]]*\]\(([^)]+)\)", text)
    assert pictures == ["result-best.svg", "result-other.svg"]
    assert all((tmp_path / name).read_text().startswith("<svg") for name in pictures)
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert lines[:2] == ["| name | value |", "| --- | ---: |"]
    assert {line.count("|") for line in lines} == {3}
    assert r"under_score \_x\_ \*bold\*" in text


def test_html_is_written_as_one_file(tmp_path: Path) -> None:
    assert write_report(report(), tmp_path / "new" / "result.html") == (tmp_path / "new" / "result.html",)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["result.html"]


def test_other_endings_and_places_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"end in \.html, \.htm, \.md \(got 'a\.pdf'\)"):
        check_report_path(Path("a.pdf"))
    (tmp_path / "file").write_text("")
    with pytest.raises(NasGraphError, match="Cannot write"):
        write_report(report(), tmp_path / "file" / "result.html")


def test_rows_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match="Expected 2 cells"):
        Grid(columns=("a", "b"), rows=(("1",),))


@pytest.mark.parametrize(
    ("mean", "std", "text"),
    [
        (91.60712, 0.0123, "91.607 ± 0.012"),
        (12345.6, 321.0, "12,346 ± 321"),
        (0.5, 0.0, "0.500 ± 0.000"),
        (0.1234567, float("nan"), "0.12346"),
        (float("nan"), 0.1, "-"),
    ],
)
def test_a_mean_is_shown_as_exactly_as_its_spread_warrants(mean: float, std: float, text: str) -> None:
    assert spread_text(mean, std) == text
