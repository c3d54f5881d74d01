"""How good a ranking is: the standard measures, one row per query.

Every function takes the relevance of the ranked items, best rank first: 0 for an item that is of no use, and a
positive grade otherwise (1 where there are no grades). Definitions are those of Manning, Raghavan and Schuetze, "Introduction to
Information Retrieval", 2008, chapter 8, and of Jarvelin and Kekalainen, "Cumulated Gain-Based Evaluation of IR Techniques", 2002.
The code published with Pei et al., "Neural Architecture Retrieval", 2024, departs from them for MAP and NDCG; its numbers cannot
be compared with these.

Shape letters: Q = queries, R = ranked items.
"""

from typing import Literal

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Gain = Literal["linear", "exponential"]


def reciprocal_rank(relevance: ArrayLike, *, k: int) -> Float[Array, " queries"]:
    """One over the rank of the first relevant item; 0 if there is none among the first k. Its mean is MRR@k."""
    hit_QR = _first(relevance, k) > 0
    rank_Q = 1.0 + hit_QR.argmax(axis=1)
    return np.where(hit_QR.any(axis=1), 1 / rank_Q, 0.0)


def recall(relevance: ArrayLike, *, k: int) -> Float[Array, " queries"]:
    """Share of the relevant items that are among the first k; 0 if there are none.

    `relevance` has to cover all items, for what is not listed cannot be counted.
    """
    total_Q = (_rows(relevance) > 0).sum(axis=1)
    found_Q = (_first(relevance, k) > 0).sum(axis=1)
    share_Q: Array = found_Q / np.maximum(total_Q, 1)
    return share_Q


def average_precision(relevance: ArrayLike, *, k: int) -> Float[Array, " queries"]:
    """Mean of the precision at the rank of each relevant item among the first k, over min(k, relevant items): a perfect
    ranking has 1. Its mean is MAP@k. 0 if nothing is relevant."""
    hit_QR = _first(relevance, k) > 0
    precision_QR = hit_QR.cumsum(axis=1) / np.arange(1, hit_QR.shape[1] + 1)
    best_Q = np.minimum((_rows(relevance) > 0).sum(axis=1), k)
    mean_Q: Array = (precision_QR * hit_QR).sum(axis=1) / np.maximum(best_Q, 1)
    return mean_Q


def ndcg(relevance: ArrayLike, *, k: int, gain: Gain = "linear") -> Float[Array, " queries"]:
    """Discounted cumulative gain of the first k over that of the best order of the items. 0 if nothing is relevant.

    Args:
        relevance: Grades in ranked order, of all items.
        k: Ranks that count.
        gain: Whether a grade counts as it is or as 2**grade - 1.
    """
    grade_QR = _rows(relevance)
    gain_QR = grade_QR if gain == "linear" else np.exp2(grade_QR) - 1
    ideal_QR = -np.sort(-gain_QR, axis=1)
    return _discounted(gain_QR, k) / np.maximum(_discounted(ideal_QR, k), np.finfo(float).tiny)


def _discounted(gain_QR: Array, k: int) -> Array:
    first = gain_QR[:, :k]
    total_Q: Array = (first / np.log2(np.arange(2, first.shape[1] + 2))).sum(axis=1)
    return total_Q


def _rows(relevance: ArrayLike) -> Array:
    rows = np.asarray(relevance, dtype=np.float64)
    if rows.ndim != 2 or (rows < 0).any():
        raise ValueError(f"Expected grades of at least 0 as [queries, items] (got shape {rows.shape})")
    return rows


def _first(relevance: ArrayLike, k: int) -> Array:
    if k < 1:
        raise ValueError(f"Expected 'k' of at least 1 (got {k})")
    return _rows(relevance)[:, :k]
