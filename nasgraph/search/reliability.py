"""How far one ranking agrees with another, when not all that was ranked could be measured.

A cascade measures what it kept, which its own scores chose. Rank agreement among those few says little of the scores: the range is
cut. A few candidates that were passed at random, each of which stands for all that were dropped, put that right (weights by
the inverse chance to be seen; Horvitz and Thompson 1952).

Shape letters: N = candidates that were seen.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.special import stdtrit

Array = np.ndarray
Values = Sequence[float] | Float[Array, " seen"]
MIN_SEEN = 4
"""Candidates below which nothing is said."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """Kendall's tau between two rankings, estimated from some of those that were ranked.

    Attributes:
        tau: The estimate, from -1 to 1; NaN if nothing can be said.
        low: Lower end of its interval; -1 if nothing can be said.
        high: Upper end; 1 if nothing can be said.
        level: Probability that the interval holds the truth, approximately.
        num_seen: Candidates that the estimate rests on.
        num_effective: As many equally likely ones would say as much (Kish): small if a few weights are large.
    """

    tau: float
    low: float
    high: float
    level: float
    num_seen: int
    num_effective: float

    @property
    def is_known(self) -> bool:
        """Whether anything can be said."""
        return not math.isnan(self.tau)

    def to_json(self) -> dict[str, float | None]:
        """Numbers by name; nothing in place of NaN."""
        return {
            "tau": None if math.isnan(self.tau) else round(self.tau, 6),
            "low": round(self.low, 6),
            "high": round(self.high, 6),
            "level": self.level,
            "num_seen": self.num_seen,
            "num_effective": round(self.num_effective, 3),
        }


def agreement_from_json(value: Mapping[str, float | None]) -> Agreement:
    """What `Agreement.to_json` wrote."""
    numbers = {name: math.nan if number is None else float(number) for name, number in value.items()}
    return Agreement(
        numbers["tau"],
        numbers["low"],
        numbers["high"],
        numbers["level"],
        int(numbers["num_seen"]),
        numbers["num_effective"],
    )


def rank_agreement(
    first: Values,
    second: Values,
    *,
    weights: Values | None = None,
    groups: Sequence[int] | None = None,
    level: float = 0.9,
) -> Agreement:
    """Kendall's tau-b between two scores of candidates, with an interval by the jackknife.

    A pair of candidates counts with the product of their weights. Candidates whose score is NaN stand below all others.

    Args:
        first: One score of each candidate.
        second: Another score of each.
        weights: How many candidates each stands for: one over its chance to be seen. Equal ones if not given.
        groups: Pairs are made within a group only, where scores cannot be compared between groups.
        level: Probability of the interval: Student's t with as many degrees of freedom as there are effective candidates less one.

    Raises:
        ValueError: If lengths differ, or a weight is not above zero.
    """
    x_N, y_N = (
        np.nan_to_num(np.asarray(each, dtype=np.float64), nan=-np.inf, neginf=-np.inf, posinf=np.inf)
        for each in (first, second)
    )
    w_N = np.ones(len(x_N)) if weights is None else np.asarray(weights, dtype=np.float64)
    group_N = np.zeros(len(x_N), dtype=np.int64) if groups is None else np.asarray(groups)
    if not len(x_N) == len(y_N) == len(w_N) == len(group_N):
        raise ValueError("Expected one value of everything per candidate")
    if len(w_N) and not (np.isfinite(w_N) & (w_N > 0)).all():
        raise ValueError("Expected finite weights above 0")
    effective = float(w_N.sum() ** 2 / (w_N**2).sum()) if len(w_N) else 0.0
    nothing = Agreement(math.nan, -1.0, 1.0, level, len(x_N), effective)
    if len(x_N) < MIN_SEEN:
        return nothing
    pair_NN = np.outer(w_N, w_N) * (group_N[:, None] == group_N[None, :])
    x_NN, y_NN = _signs(x_N), _signs(y_N)
    each_3N = np.stack([(pair_NN * part).sum(axis=1) for part in (x_NN * y_NN, x_NN != 0, y_NN != 0)])
    total_3 = each_3N.sum(axis=1)
    tau = _tau(total_3[:, None])[0]
    left_out_N = _tau(total_3[:, None] - 2 * each_3N)
    if math.isnan(tau) or np.isnan(left_out_N).any():
        return nothing
    count = len(x_N)
    error = math.sqrt((count - 1) / count * float(((left_out_N - left_out_N.mean()) ** 2).sum()))
    reach = float(stdtrit(max(1.0, effective - 1), (1 + level) / 2)) * error
    return Agreement(
        float(tau), max(-1.0, float(tau) - reach), min(1.0, float(tau) + reach), level, count, effective
    )


def pooled(agreements: Sequence[Agreement]) -> Agreement:
    """The mean of independent agreements of the same two rankings, such as those of several rounds, weighted by what they rest on."""
    known = [each for each in agreements if each.is_known]
    level = known[0].level if known else (agreements[0].level if agreements else 0.9)
    seen = sum(each.num_seen for each in agreements)
    if not known:
        return Agreement(math.nan, -1.0, 1.0, level, seen, 0.0)
    share = np.array([each.num_effective for each in known])
    effective = float(share.sum())
    share = share / share.sum()
    tau = float(share @ [each.tau for each in known])
    reach = [
        float(np.sqrt(((share * [abs(end) for end in ends]) ** 2).sum()))
        for ends in zip(*((each.tau - each.low, each.high - each.tau) for each in known), strict=True)
    ]
    return Agreement(tau, max(-1.0, tau - reach[0]), min(1.0, tau + reach[1]), level, seen, effective)


def _signs(values_N: Float[Array, " seen"]) -> Float[Array, "seen seen"]:
    higher: Array = (values_N[:, None] > values_N[None, :]).astype(np.float64)
    result: Array = higher - higher.T
    return result


def _tau(sums_3M: Float[Array, "3 columns"]) -> Float[Array, " columns"]:
    """Tau-b from what concordant pairs, pairs that differ in the first, and those that differ in the second score add up to."""
    with np.errstate(invalid="ignore", divide="ignore"):
        tau: Array = sums_3M[0] / np.sqrt(sums_3M[1] * sums_3M[2])
    return np.where((sums_3M[1] > 1e-12) & (sums_3M[2] > 1e-12), tau, np.nan)
