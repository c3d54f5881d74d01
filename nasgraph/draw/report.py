"""Reports as one file: headings, text, tables and charts, as HTML that loads nothing, or as Markdown.

HTML holds its pictures, follows the reader's light or dark ground, fits a phone, and has no script. Markdown has no place
for pictures that its readers would show (GitHub shows no inline SVG), so they lie in files beside it.
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nasgraph.draw.marks import attribute, escaped
from nasgraph.draw.style import FONT
from nasgraph.errors import ConfigError
from nasgraph.files import write_text

SUFFIXES = (".html", ".htm", ".md")


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """A table.

    Attributes:
        columns: Heads; all empty for a table without a head, whose first column names the rows.
        rows: Cells, each row as long as `columns`. Cells that look like numbers stand right.
        caption: A sentence above it.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""

    def __post_init__(self) -> None:
        wrong = [row for row in self.rows if len(row) != len(self.columns)]
        if wrong:
            raise ValueError(f"Expected {len(self.columns)} cells in each row (got {wrong[0]!r:.200})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A picture.

    Attributes:
        name: A word for the name of its file.
        svg: The picture as one SVG document without scripts. It is not escaped.
        caption: A sentence below it.
    """

    name: str
    svg: str
    caption: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """Text to be typed, as it is."""

    text: str


Block = str | Grid | Figure | Code


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A heading and what stands below it. Figures that follow one another stand side by side where there is room."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A document.

    Attributes:
        title: Its heading.
        lead: What it found, in a few sentences.
        tiles: Numbers that matter most, each with what it means.
        sections: The rest.
    """

    title: str
    lead: tuple[str, ...]
    tiles: tuple[tuple[str, str], ...]
    sections: tuple[Section, ...]


def check_report_path(path: Path) -> None:
    """Refuse a file name that is neither HTML nor Markdown, before hours of work.

    Raises:
        ConfigError: If so.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"Expected the name of the report to end in {', '.join(SUFFIXES)} (got '{path}')")


def write_report(report: Report, path: Path) -> tuple[Path, ...]:
    """Write a report, each file whole or not at all.

    Args:
        report: What it says.
        path: Where, with the ending `.html`, `.htm` or `.md`.

    Returns:
        The files written: the report last, before it the pictures of one in Markdown, named after it.

    Raises:
        ConfigError: If the ending is another one.
        NasGraphError: If a file cannot be written.
    """
    check_report_path(path)
    if path.suffix.lower() != ".md":
        write_text(path, to_html(report))
        return (path,)
    files = []
    for figure in _figures(report):
        files.append(path.with_name(f"{path.stem}-{figure.name}.svg"))
        write_text(files[-1], figure.svg)
    write_text(path, to_markdown(report, lambda figure: f"{path.stem}-{figure.name}.svg"))
    return (*files, path)


def _figures(report: Report) -> list[Figure]:
    return [block for section in report.sections for block in section.blocks if isinstance(block, Figure)]


def spread_text(mean: float, std: float) -> str:
    """A mean and its spread, to a hundredth of the spread; to five digits without one, `-` without a mean."""
    if not math.isfinite(mean):
        return "-"
    if not math.isfinite(std):
        return f"{mean:.5g}"
    decimals = 3 if std == 0 else min(8, max(0, 1 - math.floor(math.log10(std))))
    return f"{mean:,.{decimals}f} ± {std:,.{decimals}f}"


# ---- HTML

_STYLE = f"""
:root{{color-scheme:light dark;--page:#fff;--text:#17202e;--muted:#5b6675;--line:#d9dfe7;--tile:#f3f6fa}}
@media (prefers-color-scheme:dark){{:root{{--page:#0f151e;--text:#e8edf4;--muted:#a2afbf;--line:#2b3644;--tile:#18212d}}}}
*{{box-sizing:border-box}}
body{{margin:0;background:var(--page);color:var(--text);font:16px/1.5 {FONT}}}
main{{max-width:66rem;margin:0 auto;padding:1.2rem 1rem 3rem}}
h1{{font-size:1.6rem;line-height:1.25;margin:.4rem 0 .6rem}}
h2{{font-size:1.15rem;margin:2.2rem 0 .6rem;border-bottom:1px solid var(--line);padding-bottom:.3rem}}
p{{margin:.5rem 0;overflow-wrap:anywhere;max-width:48rem}}
.tiles{{display:grid;grid-template-columns:repeat(auto-fit,minmax(9.5rem,1fr));gap:.6rem;margin:1rem 0}}
.tiles div{{background:var(--tile);border-radius:10px;padding:.7rem .9rem}}
.tiles b{{display:block;font-size:1.3rem;font-variant-numeric:tabular-nums}}
.tiles span,figcaption,caption{{color:var(--muted);font-size:.86rem}}
.figures{{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,21rem),1fr));gap:1rem}}
figure{{margin:0;border:1px solid var(--line);border-radius:10px;padding:.3rem .3rem .6rem}}
figure svg{{display:block;width:100%;height:auto}}
figcaption{{padding:.2rem .8rem 0}}
.wide{{overflow-x:auto;margin:.6rem 0}}
table{{border-collapse:collapse;font-size:.9rem;min-width:min(100%,24rem)}}
caption{{text-align:left;padding-bottom:.3rem}}
th,td{{text-align:left;vertical-align:top;padding:.28rem .8rem .28rem 0;border-bottom:1px solid var(--line)}}
th{{font-weight:600}}
.n{{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}}
pre{{background:var(--tile);border-radius:10px;padding:.7rem .9rem;overflow-x:auto;font-size:.85rem}}
"""
_NO_NUMBERS = ("", "-", "not found")
_NUMBER = re.compile(r"[-+]?[\d,]*\.?\d+(e[-+]?\d+)?( ?%)?( ± [\d.,e+-]+( ?%)?)?")


def to_html(report: Report) -> str:
    """One HTML document that needs nothing else."""
    tiles = "".join(
        f"<div><b>{escaped(value)}</b><span>{escaped(name)}</span></div>" for name, value in report.tiles
    )
    body = [
        f"<h1>{escaped(report.title)}</h1>",
        *(f"<p>{escaped(text)}</p>" for text in report.lead),
        f'<div class="tiles">{tiles}</div>' if tiles else "",
    ]
    for section in report.sections:
        body += [
            f"<section><h2>{escaped(section.title)}</h2>",
            *_html_blocks(section.blocks),
            "</section>",
        ]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escaped(report.title)}</title><style>{_STYLE}</style></head>\n<body><main>\n"
        + "\n".join(part for part in body if part)
        + "\n</main></body></html>\n"
    )


def _html_blocks(blocks: Sequence[Block]) -> list[str]:
    parts: list[str] = []
    in_figures = False
    for block in blocks:
        if isinstance(block, Figure) != in_figures:
            in_figures = not in_figures
            parts.append('<div class="figures">' if in_figures else "</div>")
        parts.append(_html(block))
    return [*parts, "</div>"] if in_figures else parts


def _html(block: Block) -> str:
    if isinstance(block, str):
        return f"<p>{escaped(block)}</p>"
    if isinstance(block, Code):
        return f"<pre>{escaped(block.text)}</pre>"
    if isinstance(block, Figure):
        caption = f"<figcaption>{escaped(block.caption)}</figcaption>" if block.caption else ""
        return f"<figure id={attribute(block.name)}>{block.svg}{caption}</figure>"
    numeric = [_is_numeric([row[place] for row in block.rows]) for place in range(len(block.columns))]
    head = _html_row("th", block.columns, numeric) if any(block.columns) else ""
    caption = f"<caption>{escaped(block.caption)}</caption>" if block.caption else ""
    rows = "".join(_html_row("td", row, numeric) for row in block.rows)
    return f'<div class="wide"><table>{caption}<thead>{head}</thead><tbody>{rows}</tbody></table></div>'


def _html_row(tag: str, cells: Sequence[str], numeric: Sequence[bool]) -> str:
    marked = (
        f"<{tag}{' class=n' if is_number else ''}>{escaped(cell)}</{tag}>"
        for cell, is_number in zip(cells, numeric, strict=True)
    )
    return f"<tr>{''.join(marked)}</tr>"


def _is_numeric(cells: Sequence[str]) -> bool:
    filled = [cell for cell in cells if cell not in _NO_NUMBERS]
    return bool(filled) and all(_NUMBER.fullmatch(cell) for cell in filled)


# ---- Markdown


def to_markdown(report: Report, file_of: Callable[[Figure], str]) -> str:
    """The report as Markdown.

    Args:
        report: What it says.
        file_of: Path of a picture, relative to the report.
    """
    parts = [f"# {_plain(report.title)}", *map(_plain, report.lead)]
    if report.tiles:
        parts.append("\n".join(f"- {_plain(name)}: **{_plain(value)}**" for name, value in report.tiles))
    for section in report.sections:
        parts.append(f"## {_plain(section.title)}")
        parts += [_markdown(block, file_of) for block in section.blocks]
    return "\n\n".join(parts) + "\n"


def _markdown(block: Block, file_of: Callable[[Figure], str]) -> str:
    if isinstance(block, str):
        return _plain(block)
    if isinstance(block, Code):
        fence = "`" * max(3, 1 + max(map(len, re.findall("`+", block.text)), default=0))
        return f"{fence}sh\n{block.text}\n{fence}"
    if isinstance(block, Figure):
        picture = f"![{_plain(block.caption or block.name)}]({file_of(block).replace(' ', '%20')})"
        return f"{picture}\n\n{_plain(block.caption)}" if block.caption else picture
    numeric = [_is_numeric([row[place] for row in block.rows]) for place in range(len(block.columns))]
    lines = [
        _markdown_row(block.columns),
        f"| {' | '.join('---:' if is_number else '---' for is_number in numeric)} |",
        *map(_markdown_row, block.rows),
    ]
    table = "\n".join(lines)
    return f"{_plain(block.caption)}\n\n{table}" if block.caption else table


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(_plain(cell).replace('|', '&#124;') for cell in cells)} |"


def _plain(text: str) -> str:
    """Text that Markdown takes as it is, on one line."""
    return re.sub(r"([\\`*\[\]<>#])|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\\g<0>", " ".join(text.split()))
