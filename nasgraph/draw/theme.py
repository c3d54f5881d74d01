"""Pictures inside a page: one style sheet for all of them, that follows the page's choice of light or dark.

A page that forbids styles within its text takes pictures `without_style` and loads `page_style()` as a style sheet.
"""

import re

from nasgraph.draw.chart import CHART_FIXED, LINE_COLOURS
from nasgraph.draw.style import COLOURS, FIXED

_STYLE_ELEMENT = re.compile(r"<style>[^<]*</style>")


def page_style() -> str:
    """Rules for the pictures of `draw_svg`, `draw_chart` and `draw_interactive` in a page.

    The page's root says `data-theme="light"` or `"dark"`; without it the reader's system decides.
    """
    light, dark = (f"{COLOURS[ground]}{LINE_COLOURS[ground]}" for ground in (0, 1))
    return (
        f"{FIXED}{CHART_FIXED}{light}\n"
        f'@media (prefers-color-scheme:dark){{:root:not([data-theme="light"]){{{dark}}}}}\n'
        f':root[data-theme="dark"]{{{dark}}}\n'
    )


def without_style(svg: str) -> str:
    """A picture without its own style sheet, for a page that loads `page_style`."""
    return _STYLE_ELEMENT.sub("", svg, count=1)
