"""Breaking a tall drawing into columns, where a single value passes from one row to the next."""

from collections.abc import Sequence
from dataclasses import dataclass

from nasgraph.draw.network import Network

MAX_HEIGHT = 1250.0
"""Drawings up to this height in pixels stay in one column."""
MAX_COLUMNS = 8
_ASPECT = 1.2
_COLUMN_GAP = 100.0
_CHANNEL = 64.0
_TURN = 34.0


@dataclass(frozen=True, slots=True)
class Columns:
    """How far each row is moved, and where values go from the end of one column to the start of the next.

    Attributes:
        shifts: For each row the distance to the right and down.
        channels: By the last row of a column: x of the way up, y of its lower and its upper end.
        width: Extent of the drawing.
        height: Extent of the drawing.
    """

    shifts: tuple[tuple[float, float], ...]
    channels: dict[int, tuple[float, float, float]]
    width: float
    height: float

    def channel_after(self, row: int) -> tuple[float, float, float] | None:
        """The way up after a row, if it is the last of a column that is not the last."""
        return self.channels.get(row)


def break_into_columns(
    network: Network,
    xs: Sequence[float],
    tops: Sequence[float],
    bottoms: Sequence[float],
    *,
    together: Sequence[range],
) -> Columns:
    """Choose columns of about equal height, so that the drawing is about as wide as high. May be a single one.

    Args:
        network: With ordered rows.
        xs: Middle of every vertex.
        tops: Top of every row.
        bottoms: Bottom of every row.
        together: Vertices that must stay in one column.
    """
    ends = [*_choose_breaks(network, xs, bottoms, together), len(network.rows) - 1]
    starts = [0, *(end + 1 for end in ends[:-1])]
    shifts: list[tuple[float, float]] = []
    channels: dict[int, tuple[float, float, float]] = {}
    left = height = 0.0
    inset = _TURN if len(ends) > 1 else 0.0
    for start, end in zip(starts, ends, strict=True):
        low, high = _extent(network, xs, network.rows[start : end + 1])
        top = tops[start] if start == 0 else bottoms[start - 1]  # below the turn there is room to fan out
        shifts += [(left - low, inset - top)] * (end + 1 - start)
        left += high - low
        height = max(height, inset + bottoms[end] - top)
        if end != ends[-1]:
            channels[end] = (round(left + _CHANNEL, 1), round(inset + bottoms[end] - top + 8, 1), inset)
            left += _COLUMN_GAP
    return Columns(tuple(shifts), channels, round(left, 1), round(height + inset, 1))


def _extent(network: Network, xs: Sequence[float], rows: Sequence[Sequence[int]]) -> tuple[float, float]:
    vertices = [vertex for row in rows for vertex in row]
    low = min((xs[vertex] - network.size(vertex)[0] / 2 for vertex in vertices), default=0.0)
    return low, max((xs[vertex] + network.size(vertex)[0] / 2 for vertex in vertices), default=0.0)


def _choose_breaks(
    network: Network, xs: Sequence[float], bottoms: Sequence[float], together: Sequence[range]
) -> list[int]:
    height = bottoms[-1] if bottoms else 0.0
    if height <= MAX_HEIGHT:
        return []
    low, high = _extent(network, xs, network.rows)
    num_columns = min(MAX_COLUMNS, max(2, round((height / (_ASPECT * (high - low + _COLUMN_GAP))) ** 0.5)))
    possible = _possible_breaks(network, together)
    breaks: list[int] = []
    for column in range(1, num_columns):
        wanted = column * height / num_columns
        later = [row for row in possible if not breaks or row > breaks[-1]]
        nearest = min(later, key=lambda row: (abs(bottoms[row] - wanted), row), default=None)
        if nearest is not None and abs(bottoms[nearest] - wanted) < height / num_columns / 2:
            breaks.append(nearest)
    return breaks


def _possible_breaks(network: Network, together: Sequence[range]) -> list[int]:
    """Rows after which only one value goes on, that of a box in this row."""
    torn: set[int] = set()
    for vertices in together:
        layers = [network.layer[vertex] for vertex in vertices]
        torn.update(range(min(layers), max(layers)))
    rows = []
    for layer, row in enumerate(network.rows[:-1]):
        sources = [vertex for vertex in row if network.below[vertex]]
        if len(sources) == 1 and not network.is_dummy(sources[0]) and layer not in torn:
            rows.append(layer)
    return rows
