"""Colours, fonts and text measure of the pictures."""

from collections.abc import Mapping

FONT = 'ui-sans-serif, system-ui, -apple-system, "Segoe UI", Roboto, Helvetica, Arial, sans-serif'

LIGHT: Mapping[str, tuple[str, str]] = {
    "data": ("#f1f5f9", "#64748b"),
    "conv": ("#e3eeff", "#2f6fde"),
    "linear": ("#efe9ff", "#7a4fe0"),
    "attention": ("#fde8f3", "#d0317f"),
    "norm": ("#ddf6f3", "#0f8a80"),
    "activation": ("#fff3d6", "#c27803"),
    "pool": ("#e4f7e3", "#2e9338"),
    "join": ("#ffe9df", "#dd5a20"),
    "shape": ("#f3f2ef", "#8a8175"),
    "group": ("#eceff3", "#475569"),
}
DARK: Mapping[str, tuple[str, str]] = {
    "data": ("#1f2733", "#94a3b8"),
    "conv": ("#14294b", "#6ea3ff"),
    "linear": ("#2a2052", "#a98bff"),
    "attention": ("#421a33", "#f472b6"),
    "norm": ("#0d332f", "#3cc9bb"),
    "activation": ("#3b2c08", "#eab54a"),
    "pool": ("#143318", "#6ccf74"),
    "join": ("#42220f", "#ff9a66"),
    "shape": ("#2b2925", "#b5ab9d"),
    "group": ("#232b36", "#a3b1c2"),
}
"""Fill and line of each family, on light and on dark ground. Lines have a contrast of at least 3 to 1."""

_GROUND = {
    "light": {
        "page": "#ffffff",
        "text": "#17202e",
        "muted": "#5b6675",
        "edge": "#8894a5",
        "frame": "#f7f9fb",
    },
    "dark": {"page": "#0f151e", "text": "#e8edf4", "muted": "#a2afbf", "edge": "#748297", "frame": "#161e29"},
}


def _rules(families: Mapping[str, tuple[str, str]], ground: Mapping[str, str]) -> str:
    rules = [
        f".ng-page{{fill:{ground['page']}}}",
        f".ng-frame{{fill:{ground['frame']};stroke:{ground['edge']}}}",
        f".ng-text{{fill:{ground['text']}}}",
        f".ng-muted{{fill:{ground['muted']}}}",
        f".ng-edge{{stroke:{ground['edge']}}}",
        f".ng-arrow{{fill:{ground['edge']}}}",
        f".ng-badge{{fill:{ground['muted']}}}",
        f".ng-badge-text{{fill:{ground['page']}}}",
    ]
    for family, (fill, line) in families.items():
        rules.append(f".ng-{family}{{fill:{fill};stroke:{line}}}.ng-dot-{family}{{fill:{line}}}")
    return "".join(rules)


FIXED = (
    f".ng-picture{{font-family:{FONT};font-size:13px}}"
    ".ng-title{font-size:17px;font-weight:600}.ng-small{font-size:11.5px}"
    ".ng-head{font-weight:600}"
    ".ng-box rect{stroke-width:1.3}.ng-frame{stroke-dasharray:5 4;stroke-width:1.2}"
    ".ng-edge{fill:none;stroke-width:1.5;stroke-linecap:round}.ng-badge-text{font-size:12px;font-weight:700}"
)
"""Rules that do not depend on the ground."""

COLOURS = (_rules(LIGHT, _GROUND["light"]), _rules(DARK, _GROUND["dark"]))
"""Rules for light and for dark ground."""

STYLE = f"{FIXED}{COLOURS[0]}@media (prefers-color-scheme:dark){{{COLOURS[1]}}}"

_NARROW, _WIDE = frozenset("ijlt.,:;'|!()[] /f-r·"), frozenset("mwMWQOGDHNU@%→")


def text_width(text: str, *, size: float = 13.0) -> float:
    """Estimated width of a text in pixels, rather too large than too small for common sans-serif fonts."""
    units = sum(0.36 if letter in _NARROW else 0.88 if letter in _WIDE else 0.62 for letter in text)
    return units * size
