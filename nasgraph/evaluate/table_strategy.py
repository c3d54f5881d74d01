"""Searching a table: what a strategy is and sees, and what strategies share. No strategy sees a label that it did not ask for.

Shape letters: R = rows, D = rows that differ in what is seen of them, C = columns.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from nasgraph.evaluate.table import TableError
from nasgraph.evaluate.table_predictors import TableView
from nasgraph.predict.columns import ColumnScale
from nasgraph.predict.gaussian_process import Block
from nasgraph.predict.graph_features import GraphFeatures, NeighbourhoodFeatures
from nasgraph.predict.ranks import NormalScores

Array = np.ndarray
Places = Int[Array, " rows"]
MAX_OPTIONS = 64
"""A word of a key that takes more values than this is a name, not a choice."""
MIN_CONNECTED = 0.9
"""Share of rows that need a neighbour by choices, lest neighbours be sought among graph features."""
NUM_NEAREST = 24
"""Nearest other rows that count as neighbours where there are no choices. A NAS-Bench-201 cell has 24 neighbours by choices."""


@dataclass(frozen=True, eq=False, kw_only=True)
class SearchView:
    """What a strategy may see of a table before it asks. A row is a place in the view. No labels.

    Everything derived is computed once, when it is first asked for.

    Attributes:
        rows: Graphs, and the side columns that were allowed.
        side_higher: Which end of each side column is stated to be better; None where nobody said.
        keys: Names of the rows, if they have names.
        num_queries: How many rows will be queried.
    """

    rows: TableView
    num_queries: int
    side_higher: tuple[bool | None, ...] = ()
    keys: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def description(self) -> "Description":
        """Numbers that describe every row: graph features, neighbourhoods, and side columns as a block of its own.

        Raises:
            TableError: If nothing that is seen tells rows apart.
        """
        return _description(self.rows)

    @cached_property
    def neighbours(self) -> Callable[[int], Places]:
        """The neighbours of a row: rows that differ in one choice, where keys spell out choices; else the nearest rows by features.

        A key spells out choices if it has at least two words that vary, as in NAS-Bench-201 strings and architectures as JSON.
        """
        by_choice = _one_choice_away(self.keys) if self.keys is not None else None
        if by_choice is None:
            return NearestRows(self.description)
        return by_choice.__getitem__

    @cached_property
    def signals(self) -> Float[Array, "rows signals"]:
        """Side columns that higher is stated to be better of, as normal scores. Those where lower is better are costs, which say
        how small a network is, not how bad; they are left out, as is what is constant."""
        columns = [
            NormalScores.of(column)(column)
            for column, higher in zip(self.rows.side.T, self.side_higher, strict=True)
            if higher and len(np.unique(column[~np.isnan(column)])) > 1
        ]
        return np.column_stack(columns) if columns else np.zeros((len(self), 0))


@runtime_checkable  # so that the type checker of the tests can look
class Strategy(Protocol):
    """Decides which rows to query next. `ask` and `tell` are called in turn, by one thread, until all queries are spent."""

    def ask(self) -> Sequence[int]:
        """One or more rows, none of which was asked for before. If there are more than queries are left, the last are dropped."""

    def tell(self, rows: Sequence[int], values: Sequence[float]) -> None:
        """What the rows of the last `ask` reached, in their order; finite, higher is better."""


SeededStrategy = Callable[[int], Strategy]
"""Begins a search whose random decisions a seed settles. Called once per repetition."""
StrategyFactory = Callable[[SearchView], SeededStrategy]
"""Prepares for a table what does not depend on labels; called once per table."""


@dataclass(eq=False)
class OpenRows:
    """Rows that were not asked for yet.

    Attributes:
        is_open: One truth value per row.
    """

    is_open: Array

    @staticmethod
    def all_of(view: SearchView) -> "OpenRows":
        """Every row of a view."""
        return OpenRows(np.ones(len(view), dtype=bool))

    def take(self, row: int) -> int:
        """Close a row and return it."""
        self.is_open[row] = False
        return row

    def among(self, rows: Places) -> Int[Array, " open"]:
        """Those of some rows that are open."""
        result: Array = rows[self.is_open[rows]]
        return result

    def draw(self, rng: np.random.Generator) -> int:
        """Some open row, each with the same chance. Stays open."""
        return int(rng.choice(np.flatnonzero(self.is_open)))


# ---- numbers that describe rows


@dataclass(frozen=True, eq=False)
class Description:
    """Rows as numbers. Rows that are alike in all that is seen of them share a description.

    Attributes:
        numbers: One row per description; columns have mean 0 and variance 1 over the rows that there are.
        blocks: Which columns belong together.
        place: The description of every row.
    """

    numbers: Float[Array, "descriptions columns"]
    blocks: tuple[Block, ...]
    place: Places
    _members: dict[int, Array] = field(default_factory=dict, init=False)

    def members(self, place: int) -> Places:
        """Rows that have a description, rising."""
        if not self._members:
            order = np.argsort(self.place, kind="stable")
            ends = np.searchsorted(self.place[order], np.arange(1, len(self.numbers)))
            self._members.update(enumerate(np.split(order, ends)))
        return self._members[place]


def _description(view: TableView) -> Description:
    """Kinds of operators and scales of columns come from all rows of the view, whose labels play no part."""
    distinct = list(dict.fromkeys(view.graphs))
    number = {graph: index for index, graph in enumerate(distinct)}
    graph_of = np.array([number[graph] for graph in view.graphs])
    seen = np.column_stack([graph_of, np.where(np.isnan(view.side), -np.inf, view.side)])
    _, first, place = np.unique(seen, axis=0, return_index=True, return_inverse=True)
    features, around = GraphFeatures.of(distinct), NeighbourhoodFeatures.of(distinct)
    own = np.column_stack([features(distinct), around(distinct)])
    ends = np.cumsum([features.blocks[-1][1], len(around.known), view.side.shape[1]]).tolist()
    blocks = (*features.blocks, (ends[0], ends[1]), (ends[1], ends[2]))
    scale = ColumnScale.of(np.column_stack([own[graph_of], view.side]), blocks)
    if not scale.kept:
        raise TableError(
            "All rows look the same to a strategy: their graphs, and what else it may see of them"
        )
    numbers = scale(np.column_stack([own[graph_of[first]], view.side[first]]))
    used = tuple(block for block in scale.blocks if block[1] > block[0])
    return Description(numbers, used, place.reshape(-1))


# ---- neighbours


@dataclass(frozen=True, eq=False)
class NearestRows:
    """The rows with the nearest other descriptions, in squared distance per column summed over blocks. Remembers its answers.

    Attributes:
        description: Of all rows.
    """

    description: Description
    _known: dict[int, Array] = field(default_factory=dict, init=False)

    def __call__(self, row: int) -> Places:
        """Rows of the nearest descriptions; rows that look the same as this one are not among them."""
        place = int(self.description.place[row])
        if place not in self._known:
            self._known[place] = self._nearest(place)
        return self._known[place]

    def _nearest(self, place: int) -> Array:
        x_DC = self.description.numbers
        away = np.zeros(len(x_DC))
        for low, high in self.description.blocks:
            away += ((x_DC[:, low:high] - x_DC[place, low:high]) ** 2).mean(axis=1)
        away[place] = np.inf
        nearest = np.argsort(away, kind="stable")[: min(NUM_NEAREST, len(away) - 1)]
        return np.concatenate([np.zeros(0, dtype=int), *map(self.description.members, nearest.tolist())])


def _one_choice_away(keys: Sequence[str]) -> list[Array] | None:
    """For every row the rows whose keys differ in one word; None if keys do not spell out choices."""
    words = [tuple(re.findall(r"[\w.-]+", key)) for key in keys]
    options: list[set[str]] = [set() for _ in range(max(map(len, words)))]
    for each in words:
        for found, word in zip(options, each, strict=False):
            found.add(word)
    choices = [place for place, found in enumerate(options) if 1 < len(found) <= MAX_OPTIONS]
    if len(choices) < 2:
        return None
    alike: dict[tuple[str | None, ...], list[int]] = {}
    for row, each in enumerate(words):
        for place in choices:
            if place < len(each):
                alike.setdefault((*each[:place], None, *each[place + 1 :]), []).append(row)
    sets: list[set[int]] = [set() for _ in words]
    for rows in alike.values():
        for row in rows if len(rows) > 1 else ():
            sets[row].update(rows)
    near = [np.array(sorted(rows - {row}), dtype=int) for row, rows in enumerate(sets)]
    connected = sum(len(rows) > 0 for rows in near)
    return near if connected >= MIN_CONNECTED * len(keys) else None
