"""Numbers and dates as the pages write them, and the addresses of entries."""

import math
import re
from urllib.parse import quote

from markupsafe import Markup, escape

_UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def short_number(value: float | None) -> str:
    """A count in three digits and a unit: `1.23 M`. Empty for None."""
    if value is None:
        return ""
    for size, unit in _UNITS:
        if abs(value) >= 0.9995 * size:
            return f"{_three_digits(value / size)} {unit}"
    return _three_digits(value)


def full_number(value: float | None) -> str:
    """A count with all its digits, in groups of three. Empty for None."""
    return "" if value is None else f"{value:,}"


def percent(value: float | None) -> str:
    """A share in [0, 1] with two decimals: `91.25 %`. Empty for None and for what is not finite."""
    return "" if value is None or not math.isfinite(value) else f"{100 * value:.2f} %"


def exact_percent(value: float | None) -> str:
    """A share in [0, 1] with all its digits, for a field that is sent back: `90.5 %`. Empty for None."""
    return "" if value is None else f"{100 * value:.10g} %"


def milliseconds(value: float | None) -> str:
    """A time in three digits. Empty for None."""
    return "" if value is None else f"{_three_digits(value)} ms"


def plain_number(value: float | None) -> str:
    """A number in at most five digits, without needless zeros. Empty for None."""
    return "" if value is None else f"{value:.5g}"


def rate(value: float | None) -> str:
    """A rate in two or three digits: it is a mean over a few events. Empty for None."""
    return "" if value is None else f"{value:.0f}" if value >= 10 else f"{value:.2g}"


def code_spans(text: str) -> Markup:
    """A text of ours in which `this` is set as code. Everything is escaped."""
    return Markup(re.sub(r"`([^`]*)`", r"<code>\1</code>", str(escape(text))))


def entry_url(reference: str, prefix: str = "/entry") -> str:
    """Address of a page about an entry, escaped: `/entry/name/3`."""
    return f"{prefix}/{quote(reference, safe='/@')}"


def _three_digits(value: float) -> str:
    size = abs(value)
    if float(value).is_integer() and size < 1000:
        return f"{value:.0f}"
    decimals = 2 if size < 10 else 1 if size < 100 else 0
    if 0 < size < 0.1:
        return f"{value:.3g}"
    return f"{value:.{decimals}f}"
