"""Dividing examples so that every part has the same share of each class."""

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
Rng = np.random.Generator | np.random.RandomState


def stratified_sample(labels: npt.NDArray[np.integer], size: int, rng: Rng, *, leave: int = 0) -> IntArray:
    """Draw `size` positions so that each class has its share, in random order.

    The share is exact up to one example; where `size` allows it, every class that occurs is drawn at
    least once. Equal arguments and an equal state of `rng` give the equal result.

    Args:
        labels: Class numbers `[examples]`, from 0.
        size: Positions to draw.
        rng: Source of the choice.
        leave: Examples of each class that must not be drawn.

    Raises:
        ValueError: If there are fewer than `size` examples to draw from.
    """
    counts = np.bincount(labels)
    by_class = np.split(np.argsort(labels, kind="stable"), np.cumsum(counts)[:-1])
    quota = _allot(counts, size, np.maximum(counts - leave, 0))
    drawn = [rng.permutation(places)[:number] for places, number in zip(by_class, quota, strict=True)]
    positions: IntArray = rng.permutation(np.concatenate(drawn))
    return positions


def hold_out(labels: npt.NDArray[np.integer], size: int, rng: Rng) -> tuple[IntArray, IntArray]:
    """Divide all positions into `(kept, held)`, both stratified and in random order.

    `held` has `size` positions, and at least one example of each class that occurs is kept.

    Raises:
        ValueError: If there are not that many examples to hold out.
    """
    held = stratified_sample(labels, size, rng, leave=1)
    kept = np.ones(len(labels), dtype=bool)
    kept[held] = False
    return rng.permutation(np.flatnonzero(kept)), held


def _allot(counts: IntArray, total: int, upper: IntArray) -> IntArray:
    """Whole numbers that sum to `total`, near the classes' shares of it, at most `upper`."""
    if total > upper.sum():
        raise ValueError(f"Expected at most {upper.sum()} examples to draw (got {total})")
    ideal = counts * (total / counts.sum())
    lower = np.minimum(upper, 1) if total >= np.count_nonzero(upper) else np.zeros_like(upper)
    quota: IntArray = np.clip(np.floor(ideal).astype(np.int64), lower, upper)
    while quota.sum() < total:
        quota[np.argmax(np.where(quota < upper, ideal - quota, -np.inf))] += 1
    while quota.sum() > total:
        quota[np.argmax(np.where(quota > lower, quota - ideal, -np.inf))] -= 1
    return quota
