"""RoBoT: a search that learns how to weigh training-free scores (He et al. 2024).

Shape letters: R = rows, one per network; P = proxies, one per column; W = weight vectors.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from nasgraph.errors import CandidateError
from nasgraph.predict.ranks import NormalScores, scaled_ranks
from nasgraph.seeding import generator

Array = np.ndarray
Normalise = Literal["rank", "minmax", "none"]

NUM_CANDIDATES = 128
"""Weight vectors among which each step of the Bayesian optimisation chooses."""
LENGTHS, NOISES = (0.25, 0.5, 1.0, 2.0), (0.01, 0.1, 0.5)
"""Settings of the surrogate's kernel, of which the best by marginal likelihood counts. Unit of length: the sphere's radius."""


@dataclass(frozen=True)
class RobotResult:
    """What a search found.

    Attributes:
        queried: Rows in the order in which they were queried, each once.
        values: What the query said of each; NaN where it failed.
        reasons: Why a query failed, by row.
        weights: Weight of each proxy in the combination that put the best explored row on top. It has length 1.
        best_row: The queried row with the highest value; the earliest of equals.
        num_explored: How many rows the Bayesian optimisation queried; the others follow from `weights`.
    """

    queried: tuple[int, ...]
    values: tuple[float, ...]
    reasons: tuple[tuple[int, str], ...]
    weights: tuple[float, ...]
    best_row: int
    num_explored: int

    @property
    def best_value(self) -> float:
        """The highest value that was seen."""
        return self.values[self.queried.index(self.best_row)]

    @property
    def best_so_far(self) -> tuple[float, ...]:
        """The highest value after each query; minus infinity until one succeeds."""
        return tuple(np.fmax.accumulate([-math.inf, *self.values])[1:].tolist())


def robot_search(
    scores: Float[Array, "rows proxies"],
    query: Callable[[int], float],
    *,
    num_queries: int,
    seed: int,
    normalise: Normalise = "minmax",
    signed: bool = True,
    explore: float | None = 0.75,
) -> RobotResult:
    """Find a row of high value by querying a few rows, guided by scores that cost nothing.

    Two stages (He et al., "Robustifying and Boosting Training-Free Neural Architecture Search", 2024, Algorithm 1).
    *Exploration*: Bayesian optimisation over weight vectors; the value of a vector is that of the row which the
    weighted sum of scores puts on top. Many vectors agree on that row, and a row is queried once only.
    *Exploitation*: what is left of the budget goes, in order, to the rows which the best vector ranks highest.

    What is guaranteed: `min(num_queries, rows)` different rows are queried, and the same arguments give the same result on
    one machine. If of the `T` rows that a combination ranks highest `k` are among the `T` truly best, in random
    places, then the best of the `T` has expected true rank `(T + 1) / (k + 1)`, the mean of the smallest of `k` draws without
    replacement: that is what exploitation buys, and why even a few hits at the very top are worth it. What is not: a row
    that no weighted sum puts near the top, off the upper hull of the scores, is out of reach however good it is. A
    combination is judged by its top row alone, so one noisy value misleads it. And all depends on the very ends of the scores:
    see `benchmarks/results/robot.json`.

    Departures from the paper: the surrogate sees only the direction of a weight vector (its length changes nothing), values enter
    as normal scores (one broken network would else flatten the surrogate), the acquisition is expected improvement over
    random directions rather than an upper confidence bound, and where several vectors chose the best row,
    their mean is exploited (without missing scores it chooses that row too). With `explore` also: the single proxies are tried
    first, and directions whose top row is known already are passed over, since they teach nothing.

    Args:
        scores: Higher is better in each column. A score that is not finite is missing: it counts as the worst score of its
            column, whatever the sign of the weight.
        query: The value of a row, higher is better; called once for a row. It fails by raising `CandidateError` or
            by a value that is not finite; a failure costs a query, and counts as the worst value seen.
        num_queries: Most rows to query.
        seed: Decides the directions that are tried.
        normalise: How columns are made comparable. "minmax" (the paper): to [0, 1], linearly, so that a column with a long tail
            speaks of the few networks in its tail and is silent on the rest. "rank": every column gets equal say
            everywhere. "none": as they come.
        signed: Whether weights may be negative (the paper), for scores that may mislead.
        explore: Share of the budget for exploration. None: as many steps as there are queries, of which only those with a new row
            cost one (the paper).

    Returns:
        The rows queried, and the best of them.

    Raises:
        ValueError: If there are no rows or columns, no budget, `explore` is not in (0, 1], or a column has no finite score.
        CandidateError: If every query failed; with the first reason.
    """
    if num_queries < 1:
        raise ValueError(f"Expected 'num_queries' of at least 1 (got {num_queries})")
    if explore is not None and not 0 < explore <= 1:
        raise ValueError(f"Expected 'explore' above 0 and at most 1 (got {explore})")
    combine = _Combiner.of(scores, normalise)
    budget = min(num_queries, combine.num_rows)
    record = _Record(query)
    explorer = _Explorer(combine, record, generator(seed, "robot"), signed=signed)
    if explore is None:
        explorer.repeat(num_queries, budget)
    else:
        explorer.seek(max(1, min(budget, round(explore * num_queries))))
    num_explored = len(record.values)
    weights = explorer.best_weights()
    for row in combine.ranking(weights):
        if len(record.values) == budget:
            break
        record.ask(int(row))
    return record.result(weights, num_explored)


def normalised_scores(scores: Float[Array, "rows proxies"], how: Normalise) -> Float[Array, "rows proxies"]:
    """Columns made comparable, missing scores (those that are not finite) as NaN.

    Raises:
        ValueError: If there are no rows or columns, a column has no finite score, or `how` is unknown.
    """
    x_RP = np.where(np.isfinite(scores), np.asarray(scores, dtype=np.float64), np.nan)
    if x_RP.ndim != 2 or 0 in x_RP.shape:
        raise ValueError(f"Expected scores of shape (rows, proxies), both at least 1 (got {x_RP.shape})")
    empty = np.flatnonzero(np.isnan(x_RP).all(axis=0))
    if len(empty):
        raise ValueError(f"Expected finite scores in every column (column {empty[0]} has none). Leave it out")
    if how == "none":
        return x_RP
    if how == "rank":
        return np.column_stack([_ranks(column) for column in x_RP.T])
    if how != "minmax":
        raise ValueError(f"Expected 'normalise' to be 'rank', 'minmax' or 'none' (got {how!r})")
    low, high = np.nanmin(x_RP, axis=0), np.nanmax(x_RP, axis=0)
    result: Array = (x_RP - low) / np.where(high > low, high - low, 1.0)
    return result


def _ranks(column: Float[Array, " rows"]) -> Float[Array, " rows"]:
    """Ranks in (0, 1) among the scores that exist."""
    result = np.full(len(column), np.nan)
    known = ~np.isnan(column)
    result[known] = scaled_ranks(column[known])
    return result


@dataclass(frozen=True)
class _Combiner:
    """Weighted sums of scores. A missing score counts as the least that the weight could make of its column."""

    stacked: Float[Array, "twice rows"]  # for positive weights, then for negative ones

    @staticmethod
    def of(scores: Float[Array, "rows proxies"], how: Normalise) -> "_Combiner":
        x_RP = normalised_scores(scores, how)
        missing = np.isnan(x_RP)
        low = np.where(missing, np.nanmin(x_RP, axis=0), x_RP)
        high = np.where(missing, np.nanmax(x_RP, axis=0), x_RP)
        return _Combiner(np.ascontiguousarray(np.column_stack([low, high]).T))

    @property
    def num_rows(self) -> int:
        return int(self.stacked.shape[1])

    @property
    def num_proxies(self) -> int:
        return len(self.stacked) // 2

    def __call__(self, weights_WP: Float[Array, "vectors proxies"]) -> Float[Array, "vectors rows"]:
        result: Array = np.hstack([np.maximum(weights_WP, 0), np.minimum(weights_WP, 0)]) @ self.stacked
        return result

    def tops(self, weights_WP: Float[Array, "vectors proxies"]) -> list[int]:
        """The row that each vector puts on top; the earliest of equals."""
        top: list[int] = self(weights_WP).argmax(axis=1).tolist()
        return top

    def ranking(self, weights: Float[Array, " proxies"]) -> Int[Array, " rows"]:
        """Rows from the highest sum to the lowest; the earlier of equals first."""
        order: Array = np.argsort(-self(weights[None])[0], kind="stable")
        return order


@dataclass
class _Record:
    """What was queried so far, each row once."""

    query: Callable[[int], float]
    values: dict[int, float] = field(default_factory=dict)
    reasons: dict[int, str] = field(default_factory=dict)

    def ask(self, row: int) -> None:
        if row in self.values:
            return
        try:
            value = float(self.query(row))
        except CandidateError as error:
            self.values[row], self.reasons[row] = math.nan, str(error)
            return
        if not math.isfinite(value):
            self.reasons[row] = f"The value is {value}"
        self.values[row] = value if math.isfinite(value) else math.nan

    def worth(self, rows: Sequence[int]) -> Float[Array, " rows"]:
        """Values of queried rows; failures count as the worst value seen, or as zero before there is one."""
        known = [value for value in self.values.values() if not math.isnan(value)]
        floor = min(known, default=0.0)
        return np.array([floor if math.isnan(self.values[row]) else self.values[row] for row in rows])

    def result(self, weights: Float[Array, " proxies"], num_explored: int) -> RobotResult:
        if len(self.reasons) == len(self.values):
            row, reason = next(iter(self.reasons.items()))
            raise CandidateError(f"All {len(self.values)} queries failed. The first, row {row}: {reason}")
        queried, values = tuple(self.values), tuple(self.values.values())
        return RobotResult(
            queried,
            values,
            tuple(self.reasons.items()),
            tuple(weights.tolist()),
            queried[int(np.nanargmax(values))],
            num_explored,
        )


@dataclass
class _Explorer:
    """Bayesian optimisation over the directions of weight vectors."""

    combine: _Combiner
    record: _Record
    rng: np.random.Generator
    signed: bool = field(kw_only=True)
    tried: list[Float[Array, " proxies"]] = field(default_factory=list)
    tops: list[int] = field(default_factory=list)

    def repeat(self, num_steps: int, budget: int) -> None:
        """So many steps; those that come upon a known row cost no query."""
        for _ in range(num_steps):
            candidates = self._draw()
            self._try(*self._choose(candidates, self.combine.tops(candidates)))
            if len(self.record.values) == budget:
                return

    def seek(self, num_rows: int) -> None:
        """Query so many different rows, fewer if random directions find no further one: single proxies, then others."""
        axes = np.eye(self.combine.num_proxies)
        for index in self.rng.permutation(len(axes)):
            if len(self.record.values) < num_rows:
                self._try(axes[index], self.combine.tops(axes[index : index + 1])[0])
        while len(self.record.values) < num_rows:
            candidates = self._draw()
            tops = self.combine.tops(candidates)
            new = [place for place, top in enumerate(tops) if top not in self.record.values]
            if not new:
                return
            self._try(*self._choose(candidates[new], [tops[place] for place in new]))

    def best_weights(self) -> Float[Array, " proxies"]:
        """Mean of the directions that put the best explored row on top.

        Without missing scores these directions form a convex cone, so that their mean belongs to it.
        """
        best = self.tops[int(self.record.worth(self.tops).argmax())]
        chosen = [weights for weights, top in zip(self.tried, self.tops, strict=True) if top == best]
        mean: Array = _directions(np.mean(chosen, axis=0)[None])[0]
        return mean

    def _draw(self) -> Float[Array, "vectors proxies"]:
        drawn = self.rng.normal(size=(NUM_CANDIDATES, self.combine.num_proxies))
        return _directions(drawn if self.signed else np.abs(drawn))

    def _choose(
        self, candidates: Float[Array, "vectors proxies"], tops: Sequence[int]
    ) -> tuple[Float[Array, " proxies"], int]:
        """The direction of highest expected improvement, and its top row."""
        from scipy.stats import norm

        if len(self.tried) < 2:
            return candidates[0], tops[0]
        worth = self.record.worth(self.tops)
        y = NormalScores.of(worth)(worth)
        mean, std = _surrogate(np.stack(self.tried), y, candidates)
        z = (mean - y.max()) / np.maximum(std, 1e-12)
        best = int(np.argmax((mean - y.max()) * norm.cdf(z) + std * norm.pdf(z)))
        return candidates[best], tops[best]

    def _try(self, weights: Float[Array, " proxies"], top: int) -> None:
        self.record.ask(top)
        self.tried.append(weights)
        self.tops.append(top)


def _surrogate(
    tried: Float[Array, "tried proxies"], y: Float[Array, " tried"], asked: Float[Array, "asked proxies"]
) -> tuple[Float[Array, " asked"], Float[Array, " asked"]]:
    """Mean and spread at some directions: a Gaussian process with a radial kernel and noise (Rasmussen and Williams 2006,
    algorithm 2.1). Small, dense and without an optimiser, since each search fits some twenty points some twenty times."""
    from scipy.linalg import cho_factor, cho_solve

    variance = float(y.var()) or 1.0
    near = 2 - 2 * tried @ tried.T  # squared distances between unit vectors
    best = -math.inf
    for length in LENGTHS:
        kernel = variance * np.exp(-near / (2 * length**2))
        for noise in NOISES:
            factor = cho_factor(kernel + noise * variance * np.eye(len(y)), lower=True)
            alpha = cho_solve(factor, y)
            evidence = -0.5 * float(y @ alpha) - float(np.log(np.diag(factor[0])).sum())
            if evidence > best:
                best, chosen = evidence, (length, factor, alpha)
    length, factor, alpha = chosen
    across = variance * np.exp(-(2 - 2 * asked @ tried.T) / (2 * length**2))
    left = variance - np.einsum("at,ta->a", across, cho_solve(factor, across.T))
    return across @ alpha, np.sqrt(np.maximum(left, 0))


def _directions(vectors: Float[Array, "vectors proxies"]) -> Float[Array, "vectors proxies"]:
    result: Array = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-300)
    return result
