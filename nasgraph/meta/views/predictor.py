"""Predicting a number from a view: boosted trees or ridge regression behind one interface.

Shape letters: N = networks, C = columns of a view.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

Kind = Literal["trees", "ridge"]
Array = NDArray[np.float64]
ALPHAS = tuple(10.0**power for power in range(-3, 7))
"""Penalties that ridge regression chooses from by leaving out one network at a time."""


@dataclass(frozen=True, eq=False)
class ViewPredictor:
    """A fitted predictor.

    Attributes:
        kind: What it is.
        num_columns: Columns of the view that it was fitted on.
    """

    kind: Kind
    num_columns: int
    _model: Any  # scikit-learn has no types
    _centre: Array
    _scale: Array

    def predict(self, view: Float[Tensor, "networks columns"]) -> Float[Tensor, " networks"]:
        """The number of each network.

        Raises:
            ValueError: If the view has another number of columns, or a number in it is not finite.
        """
        x = _matrix(view)
        if x.shape[1] != self.num_columns:
            raise ValueError(f"Expected a view of {self.num_columns} columns (got {x.shape[1]})")
        return torch.from_numpy(np.asarray(self._model.predict((x - self._centre) / self._scale)))


def fit_view_predictor(
    view: Float[Tensor, "networks columns"],
    targets: Float[Tensor, " networks"],
    *,
    kind: Kind = "trees",
    seed: int = 0,
) -> ViewPredictor:
    """Fit a predictor of one number per network. Deterministic; columns are standardised first, constant ones are kept at zero.

    Args:
        view: One row per network.
        targets: What is to be predicted.
        kind: `trees`: gradient-boosted trees (scikit-learn's histogram trees, 300 of at most 31 leaves, rate 0.05). `ridge`: linear, with
            the penalty that predicts left-out networks best.
        seed: Decides the ties of the trees.

    Raises:
        ValueError: If there are fewer than 5 networks, the lengths differ, or a number is not finite.
    """
    x, y = _matrix(view), targets.detach().double().cpu().numpy()
    if len(x) < 5 or y.shape != (len(x),):
        raise ValueError(f"Expected a target for each of at least 5 networks (got {y.shape} for {x.shape})")
    if not np.isfinite(y).all():
        raise ValueError(f"The target of network {int(np.argmin(np.isfinite(y)))} is not finite")
    centre, spread = x.mean(axis=0), x.std(axis=0)
    scale = np.where(spread > 1e-12 * np.maximum(1.0, np.abs(centre)), spread, np.inf)
    model: Any
    if kind == "trees":
        from sklearn.ensemble import HistGradientBoostingRegressor

        model = HistGradientBoostingRegressor(max_iter=300, learning_rate=0.05, random_state=seed)
    elif kind == "ridge":
        from sklearn.linear_model import RidgeCV

        model = RidgeCV(alphas=ALPHAS)
    else:
        raise ValueError(f"Expected 'kind' of 'trees' or 'ridge' (got '{kind}')")
    model.fit((x - centre) / scale, y)
    return ViewPredictor(kind, x.shape[1], model, centre, scale)


def agreement(predicted: Float[Tensor, " networks"], truth: Float[Tensor, " networks"]) -> dict[str, float]:
    """R squared (against the mean of `truth`, so below zero where that mean would be better) and Kendall's tau-b."""
    from scipy.stats import kendalltau

    p, t = (each.detach().double().cpu().numpy() for each in (predicted, truth))
    if p.shape != t.shape or len(t) < 2:
        raise ValueError(f"Expected two rows of one length of at least 2 (got {p.shape} and {t.shape})")
    total = float(((t - t.mean()) ** 2).sum())
    r2 = 1 - float(((t - p) ** 2).sum()) / total if total > 0 else float("nan")
    return {"r2": r2, "tau": float(kendalltau(p, t).statistic)}


def _matrix(view: Tensor) -> Array:
    x: Array = view.detach().double().cpu().numpy()
    if x.ndim != 2 or 0 in x.shape:
        raise ValueError(f"Expected a view as [networks, columns] (got shape {x.shape})")
    if not np.isfinite(x).all():
        row, column = np.argwhere(~np.isfinite(x))[0]
        raise ValueError(f"Column {column} of network {row} is not finite")
    return x
