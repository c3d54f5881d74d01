"""Several objectives at once: what nothing else beats, and how much of the space of gains it covers.

Everything is in gains, where higher is better. Shape letters: N = points, M = objectives.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from nasgraph.search.experience import Observation

Array = np.ndarray
Gains = Float[Array, "points objectives"]
Reference = Float[Array, " objectives"]

MARGIN = 0.1
"""How far the reference point lies below the worst of the front, as a share of the front's range."""


def is_nondominated(gains_NM: Gains) -> Bool[Array, " points"]:
    """Which points no other point beats: none is at least as good in all objectives and better in one.

    Equal points do not beat each other: all or none of them are on the front. One objective: the best points. Two: O(N log N).
    Points with NaN are never on the front.
    """
    valid = ~np.isnan(gains_NM).any(axis=1)
    result = np.zeros(len(gains_NM), dtype=bool)
    points, place = np.unique(gains_NM[valid], axis=0, return_inverse=True)
    result[valid] = _distinct_front(points)[place.reshape(-1)]
    return result


def _distinct_front(points_NM: Gains) -> Bool[Array, " points"]:
    """For distinct points in rising lexicographic order."""
    keep = np.zeros(len(points_NM), dtype=bool)
    if points_NM.shape[1] <= 2:
        best = -np.inf
        for row in range(len(points_NM) - 1, -1, -1):  # from the best first objective on
            second = points_NM[row, -1]
            if second > best:
                keep[row], best = True, second
        return keep
    front = np.empty((0, points_NM.shape[1]))
    for row in range(len(points_NM) - 1, -1, -1):
        # A later row in this order cannot beat an earlier one, so the front never shrinks.
        if not (front >= points_NM[row]).all(axis=1).any():
            keep[row] = True
            front = np.vstack([front, points_NM[row]])
    return keep


def pareto_front(observations: Sequence[Observation]) -> tuple[Observation, ...]:
    """The complete observations that no other one beats, best first objective first, then by number."""
    complete = [observation for observation in observations if observation.gains]
    if not complete:
        return ()
    on_front = is_nondominated(np.array([observation.gains for observation in complete], dtype=np.float64))
    front = [observation for observation, is_on in zip(complete, on_front, strict=True) if is_on]
    return tuple(sorted(front, key=lambda each: (*(-gain for gain in each.gains), each.number)))


def reference_point(gains_NM: Gains) -> Reference:
    """A reference point for the hypervolume of a search, from its points: below the worst value on their front.

    The rule: in each objective the least value on the front, less a tenth of the front's range there (Ishibuchi et al. 2011, "A
    many-objective test problem for visually examining diversity maintenance behavior"; as BoTorch's
    `infer_reference_point`). Where the range is zero a tenth of the value's size is taken, or 0.1 if that is zero. To
    compare searches use one reference point for all of them, such as that of their points together.

    Raises:
        ValueError: If no point is finite.
    """
    points = gains_NM[np.isfinite(gains_NM).all(axis=1)]
    if not len(points):
        raise ValueError("Expected at least one point without NaN and infinities")
    front = points[is_nondominated(points)]
    worst = front.min(axis=0)
    reach = front.max(axis=0) - worst
    sizes = np.where(worst == 0, 1.0, np.abs(worst))
    result: Array = worst - MARGIN * np.where(reach > 0, reach, sizes)
    return result


def hypervolume(gains_NM: Gains, reference_M: Reference) -> float:
    """The volume that is at least as bad as some point and better than the reference point: exact, in any dimension.

    Two objectives: a sweep, O(N log N). Three: slices along one objective. More: the exclusive volumes of the points one by
    one, each over the others limited to it (While, Bradstreet and Barone 2012, "A fast way of calculating exact
    hypervolumes", the WFG algorithm), down to slices in three. Points that are not above the reference point in every
    objective, or hold NaN, add nothing.

    Raises:
        ValueError: If the numbers of objectives differ, or there is none.
    """
    if gains_NM.ndim != 2 or gains_NM.shape[1] != len(reference_M) or not len(reference_M):
        raise ValueError(
            f"Expected points with as many objectives as the reference point (got {gains_NM.shape} and {len(reference_M)})"
        )
    points = gains_NM - reference_M
    points = points[(points > 0).all(axis=1)]  # False for NaN
    return _volume(points)


def _volume(points_NM: Gains) -> float:
    """Volume between zero and positive points."""
    if not len(points_NM):
        return 0.0
    if points_NM.shape[1] == 1:
        return float(points_NM.max())
    points = points_NM[is_nondominated(points_NM)]
    if points.shape[1] == 2:
        return _area(points)
    if points.shape[1] == 3:
        return _sliced(points)
    points = points[np.argsort(-points[:, -1], kind="stable")]
    total = 0.0
    for row, point in enumerate(points):
        # What this point adds to those after it: its own box without their part of it.
        total += float(point.prod()) - _volume(np.minimum(points[row + 1 :], point))
    return total


def _area(points_N2: Gains) -> float:
    rising = points_N2[np.argsort(points_N2[:, 0], kind="stable")]
    widths = np.diff(rising[:, 0], prepend=0.0)
    heights = np.maximum.accumulate(rising[::-1, 1])[::-1]
    return float(widths @ heights)


def _sliced(points_N3: Gains) -> float:
    """Between two neighbouring values of the last objective the slice is the area of the points above it."""
    falling = points_N3[np.argsort(-points_N3[:, 2], kind="stable")]
    thickness = falling[:, 2] - np.append(falling[1:, 2], 0.0)
    areas = (_area(falling[: row + 1, :2]) for row in range(len(falling)))
    return float(sum(area * part for area, part in zip(areas, thickness, strict=True)))


def hypervolume_so_far(gains_NM: Gains, reference_M: Reference) -> Float[Array, " points"]:
    """The hypervolume after each point, in order: the best-so-far curve of a search with several objectives."""
    front = np.empty((0, gains_NM.shape[1]))
    volume, curve = 0.0, []
    for point in gains_NM:
        if (point > reference_M).all() and not (front >= point).all(axis=1).any():
            front = np.vstack([front[~(point >= front).all(axis=1)], point])
            volume = hypervolume(front, reference_M)
        curve.append(volume)
    return np.array(curve)
