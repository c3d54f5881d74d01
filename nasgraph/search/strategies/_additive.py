"""A quick model of the objectives for choosing among children: every answer adds its share.

N = observations, D = different answers, M = objectives.
"""

from collections import deque
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from scipy.special import ndtri

from nasgraph.spaces import Choice

Array = np.ndarray
ALWAYS_UNTIL = 100
STEP = 5
"""From this many observations on, it is fitted anew every so many: it changes little then."""


class AdditiveModel:
    """Ridge regression of the normal scores of the latest observations' ranks on which answers they gave.

    By the ranks, the unit of an objective does not matter, nor how far the worst are off. What it predicts is a function
    of the observations that it was shown, in their order; it is fitted when it is asked.

    Args:
        window: Latest observations that it is fitted to.
        ridge: Weight of the squared coefficients.
    """

    def __init__(self, *, window: int, ridge: float = 1.0) -> None:
        self._ridge = ridge
        self._columns: dict[tuple[str, str], int] = {}
        self._window: deque[tuple[list[int], tuple[float, ...]]] = deque(maxlen=window)
        self._num_seen = 0
        self._shown: tuple[tuple[list[int], tuple[float, ...]], ...] = ()
        self._fit: tuple[Array, Array, Array] | None = None

    def learn(self, choices: Mapping[str, Choice], gains: tuple[float, ...]) -> None:
        """One observation, with finite gains."""
        columns = [
            self._columns.setdefault((name, str(answer)), len(self._columns))
            for name, answer in choices.items()
        ]
        self._window.append((columns, gains))
        self._num_seen += 1
        if self._num_seen <= ALWAYS_UNTIL or self._num_seen % STEP == 0:
            self._shown, self._fit = tuple(self._window), None

    def shortfalls(self, children: Sequence[Mapping[str, Choice]]) -> Float[Array, "children objectives"]:
        """How far below the best observation each child is expected to be, in normal scores. Answers never seen count nothing."""
        coefficients_DM, base_M, best_M = self._fitted()
        predicted = np.empty((len(children), len(base_M)))
        for place, child in enumerate(children):
            columns = [self._columns.get((name, str(answer)), -1) for name, answer in child.items()]
            known = [column for column in columns if 0 <= column < len(coefficients_DM)]
            predicted[place] = base_M + coefficients_DM[known].sum(axis=0)
        return np.asarray(best_M - predicted)

    def _fitted(self) -> tuple[Array, Array, Array]:
        if self._fit is None:
            size = len(self._shown)
            x_ND = np.zeros((size, 1 + max(column for columns, _ in self._shown for column in columns)))
            for row, (columns, _) in enumerate(self._shown):
                x_ND[row, columns] = 1.0
            y_NM = _normal_scores(np.array([gains for _, gains in self._shown]))
            mean_D, mean_M = x_ND.mean(axis=0), y_NM.mean(axis=0)
            centred_ND = x_ND - mean_D
            gram_DD = centred_ND.T @ centred_ND + self._ridge * np.eye(x_ND.shape[1])
            coefficients_DM = np.linalg.solve(gram_DD, centred_ND.T @ (y_NM - mean_M))
            self._fit = coefficients_DM, mean_M - mean_D @ coefficients_DM, y_NM.max(axis=0)
        return self._fit


def _normal_scores(gains_NM: Float[Array, "N M"]) -> Float[Array, "N M"]:
    """The quantiles of a normal distribution at the ranks; equal gains have the middle of their ranks."""
    order = np.sort(gains_NM, axis=0)
    ranks = [
        np.searchsorted(sorted_, gains, side="left") + np.searchsorted(sorted_, gains, side="right")
        for sorted_, gains in zip(order.T, gains_NM.T, strict=True)
    ]
    return np.asarray(ndtri(np.stack(ranks, axis=1) / 2 / len(gains_NM)))
