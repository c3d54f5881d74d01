"""Non-dominated sorting, crowding and reference points. Higher is better; N = members, M = objectives, R = reference points."""

from itertools import combinations

import numpy as np
from jaxtyping import Float, Int

Array = np.ndarray


def nondominated_ranks(gains_NM: Float[Array, "members objectives"]) -> Int[Array, " members"]:
    """The front of each member: 0 for those that none dominates, 1 for those that only these dominate, and so on.

    Deb et al., "A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II", 2002, section III A. Takes N x N of memory.
    """
    no_worse = np.all(gains_NM[:, None, :] >= gains_NM[None, :, :], axis=2)
    dominates = no_worse & ~no_worse.T
    num_above = dominates.sum(axis=0)
    ranks = np.full(len(gains_NM), -1)
    front = num_above == 0
    rank = 0
    while front.any():
        ranks[front] = rank
        num_above = num_above - dominates[front].sum(axis=0)
        rank += 1
        front = (num_above == 0) & (ranks < 0)
    return ranks


def crowding_distances(
    gains_NM: Float[Array, "members objectives"], ranks: Int[Array, " members"]
) -> Float[Array, " members"]:
    """How far apart the neighbours of each member of a front are (Deb et al. 2002, section III B); the ends are infinitely far.

    Of members with equal gains all but the first have distance zero, so that they go first.
    """
    distance = np.zeros(len(gains_NM))
    for rank in range(int(ranks.max(initial=-1)) + 1):
        members = np.flatnonzero(ranks == rank)
        _, first = np.unique(gains_NM[members], axis=0, return_index=True)
        members = members[np.sort(first)]
        for gains in gains_NM[members].T:
            order = members[np.argsort(gains, kind="stable")]
            ordered = np.sort(gains, kind="stable")
            span = ordered[-1] - ordered[0]
            distance[order[[0, -1]]] = np.inf
            if span > 0:
                distance[order[1:-1]] += (ordered[2:] - ordered[:-2]) / span
    return distance


def reference_points(num_objectives: int, *, at_most: int) -> Float[Array, "points objectives"]:
    """Points on the simplex with equal steps, as many as fit under `at_most` (Das and Dennis 1998); at least the corners."""
    divisions = 1
    while len(_simplex(num_objectives, divisions + 1)) <= at_most and num_objectives > 1:
        divisions += 1
    return _simplex(num_objectives, divisions)


def _simplex(num_objectives: int, divisions: int) -> Float[Array, "points objectives"]:
    places = range(divisions + num_objectives - 1)
    bars = np.array(list(combinations(places, num_objectives - 1)), dtype=int)
    bars = bars.reshape(len(bars), num_objectives - 1)
    ends = np.full((len(bars), 1), -1)
    steps = np.diff(np.hstack([ends, bars, ends + divisions + num_objectives]), axis=1) - 1
    return np.asarray(steps / divisions)


def surviving_by_crowding(
    gains_NM: Float[Array, "members objectives"], size: int
) -> Int[Array, " survivors"]:
    """Places of the members that stay, in their order: by front, within the last by crowding (Deb et al. 2002, section III C).

    Where one member is one too many, as in a steady state, this is the whole rule; where several are, the most crowded
    is taken out first and the distances are computed anew, since two that crowd each other should not both go
    (Kukkonen and Deb 2006).
    """
    keep = np.arange(len(gains_NM))
    while len(keep) > size:
        ranks = nondominated_ranks(gains_NM[keep])
        last = np.flatnonzero(ranks == ranks.max())
        surplus = len(keep) - size
        if len(last) <= surplus:
            keep = np.delete(keep, last)
            continue
        for _ in range(surplus):
            distance = crowding_distances(gains_NM[keep[last]], np.zeros(len(last), dtype=int))
            worst = len(last) - 1 - int(np.argmin(distance[::-1]))  # of equals the youngest
            keep, last = np.delete(keep, last[worst]), np.delete(last, worst)
            last[worst:] -= 1
    return keep


def surviving_by_reference(
    gains_NM: Float[Array, "members objectives"],
    size: int,
    points_RM: Float[Array, "points objectives"],
    rng: np.random.Generator,
) -> Int[Array, " survivors"]:
    """Places of the members that stay, in their order: by front, within the last by how few stay near their reference point.

    Deb and Jain, "An Evolutionary Many-Objective Optimization Algorithm Using Reference-Point-Based Nondominated Sorting",
    2014, Algorithms 1 and 4. Departs from section IV C: gains are scaled from the nadir to the ideal point of the first
    front instead of by intercepts of a hyperplane, which need not exist for a small population.
    """
    if len(gains_NM) <= size:
        return np.arange(len(gains_NM))
    ranks = nondominated_ranks(gains_NM)
    last = int(np.sort(ranks)[size - 1])
    keep, edge = np.flatnonzero(ranks < last), np.flatnonzero(ranks == last)
    niche, distance = _niches(gains_NM, ranks, points_RM)
    counts = np.bincount(niche[keep], minlength=len(points_RM))
    while len(keep) < size:
        open_niches = np.unique(niche[edge])
        fewest = open_niches[counts[open_niches] == counts[open_niches].min()]
        chosen = int(rng.choice(fewest))
        near = edge[niche[edge] == chosen]
        member = near[np.argmin(distance[near])] if counts[chosen] == 0 else rng.choice(near)
        keep, edge = np.append(keep, member), edge[edge != member]
        counts[chosen] += 1
    return np.sort(keep)


def _niches(
    gains_NM: Float[Array, "members objectives"],
    ranks: Int[Array, " members"],
    points_RM: Float[Array, "points objectives"],
) -> tuple[Int[Array, " members"], Float[Array, " members"]]:
    """For each member the reference point whose line from the ideal point is nearest, and how far that is."""
    front = gains_NM[ranks == 0]
    span = front.max(axis=0) - front.min(axis=0)
    cost = (front.max(axis=0) - gains_NM) / np.where(span > 0, span, 1.0)
    direction = points_RM / np.linalg.norm(points_RM, axis=1, keepdims=True)
    along = cost @ direction.T
    square = np.maximum((cost**2).sum(axis=1, keepdims=True) - along**2, 0.0)
    niche = np.argmin(square, axis=1)
    return niche, np.sqrt(square[np.arange(len(cost)), niche])
