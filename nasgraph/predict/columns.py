# ruff: noqa: N815  shape letters after array names, in fields too
"""Columns of unlike scales made alike, and how far a row lies from what is known.

Shape letters: P = rows of the pool, R = rows, F = columns, C = columns that are kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from nasgraph.predict.gaussian_process import Block
from nasgraph.predict.ranks import NormalScores

Array = np.ndarray
NEIGHBOUR_QUANTILE = 0.99
"""Share of known rows whose nearest neighbour is nearer than the distance that counts as far."""
MAX_KNOWN = 2000
"""Known rows that distances are measured to."""
DECIMALS = 6
CONSTANT = 1e-9
"""Relative spread up to which a column counts as constant: rounding, not difference."""


@dataclass(frozen=True, eq=False)
class ColumnScale:
    """Replaces values by normal quantiles of their ranks in a pool of rows, with mean 0 and variance 1 there.

    The pool needs no labels: all rows that could be asked about are the best. Columns that are constant in it, or in the
    same order as an earlier one of the same block, are dropped.

    Attributes:
        kept: Indices of the columns that are kept.
        blocks: Where the blocks lie among them.
    """

    kept: tuple[int, ...]
    blocks: tuple[Block, ...]
    _scores: tuple[NormalScores, ...]
    _mean_C: Float[Array, " kept"]
    _std_C: Float[Array, " kept"]

    @staticmethod
    def of(pool_PF: Float[Array, "rows columns"], blocks: Sequence[Block] = ()) -> "ColumnScale":
        """Scale by a pool. Blocks divide the columns; if there are none, all are one."""
        kept: list[int] = []
        scores: list[NormalScores] = []
        scaled: list[Array] = []
        places: list[Block] = []
        for low, high in blocks or ((0, pool_PF.shape[1]),):
            seen: set[bytes] = set()
            first = len(kept)
            for column in range(low, high):
                score = NormalScores.of(pool_PF[:, column])
                values = score(pool_PF[:, column])
                if values.std() <= 10**-DECIMALS:
                    continue
                key = np.round((values - values.mean()) / values.std(), DECIMALS).tobytes()
                if key not in seen:
                    seen.add(key)
                    kept.append(column)
                    scores.append(score)
                    scaled.append(values)
            places.append((first, len(kept)))
        mean = np.array([values.mean() for values in scaled])
        std = np.array([values.std() for values in scaled])
        return ColumnScale(tuple(kept), tuple(places), tuple(scores), mean, std)

    def __call__(self, rows_RF: Float[Array, "rows columns"]) -> Float[Array, "rows kept"]:
        """Scaled values of the columns that are kept. NaN counts as minus infinity."""
        values = [score(rows_RF[:, column]) for column, score in zip(self.kept, self._scores, strict=True)]
        return (
            (np.column_stack(values) - self._mean_C) / self._std_C if values else np.zeros((len(rows_RF), 0))
        )


@dataclass(frozen=True, eq=False)
class Familiarity:
    """How well rows are covered by known rows: their nearest neighbour, and the columns that leave the known range."""

    _known_PF: Float[Array, "rows columns"]
    _mean_F: Float[Array, " columns"]
    _std_F: Float[Array, " columns"]
    _low_F: Float[Array, " columns"]
    _high_F: Float[Array, " columns"]
    _far: float

    @staticmethod
    def of(known_PF: Float[Array, "rows columns"]) -> "Familiarity":
        """Of known rows, two at least; of more than 2,000, every so many stand for all."""
        finite = np.where(np.isfinite(known_PF), known_PF, 0.0)
        std = finite.std(axis=0)
        mean = finite.mean(axis=0)
        std = np.where(std > CONSTANT * (1 + np.abs(mean)), std, 1.0)
        rows = (finite[:: 1 + (len(finite) - 1) // MAX_KNOWN] - mean) / std
        nearest = _nearest(rows, rows, skip_self=True)[0]
        far = float(np.quantile(nearest, NEIGHBOUR_QUANTILE))
        return Familiarity(rows, mean, std, finite.min(axis=0), finite.max(axis=0), max(far, 1e-9))

    def distance(self, rows_RF: Float[Array, "rows columns"]) -> Float[Array, " rows"]:
        """Distance to the nearest known row, as a multiple of what 99 in 100 known rows have to theirs."""
        result: Array = _nearest(self._scaled(rows_RF), self._known_PF)[0] / self._far
        return result

    def outside(self, rows_RF: Float[Array, "rows columns"]) -> list[list[int]]:
        """For each row the columns that lie outside of the known range, the farthest first."""
        rows = np.where(np.isfinite(rows_RF), rows_RF, 0.0)
        beyond = np.maximum(self._low_F - rows, rows - self._high_F) / self._std_F
        return [[int(c) for c in np.argsort(-row, kind="stable") if row[c] > 1e-9] for row in beyond]

    def _scaled(self, rows_RF: Float[Array, "rows columns"]) -> Float[Array, "rows columns"]:
        scaled: Array = (np.where(np.isfinite(rows_RF), rows_RF, 0.0) - self._mean_F) / self._std_F
        return scaled


def _nearest(rows: Array, known: Array, *, skip_self: bool = False) -> tuple[Array, Array]:
    """Root mean squared difference per column to the nearest known row, and its index. Zero to an equal row."""
    squares = (rows**2).sum(1)[:, None] + (known**2).sum(1) - 2 * rows @ known.T
    if skip_self:
        np.fill_diagonal(squares, np.inf)
    index = squares.argmin(axis=1)
    found = ((rows - known[index]) ** 2).sum(1)  # the expanded square above is off by its rounding
    distance: Array = np.sqrt(found / max(1, known.shape[1]))
    return distance, index
