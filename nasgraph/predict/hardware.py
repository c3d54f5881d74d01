"""Latency and energy of a network on a device, from a few measurements there.

Shape letters: G = graphs, C = columns of costs, D = devices that are known already, E = experts.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from nasgraph.errors import ConfigError
from nasgraph.ir import ComputationalGraph
from nasgraph.predict.costs import CostColumns
from nasgraph.predict.prediction import NotFittedError, Prediction, Predictor
from nasgraph.predict.ranks import scaled_ranks
from nasgraph.predict.regressors import gaussian_process, trees
from nasgraph.predict.surrogate import check_labels
from nasgraph.seeding import derive_seed, generator

Array = np.ndarray
Costs = Float[Array, "graphs columns"]
Devices = Float[Array, "graphs devices"]
Terms = Float[Array, "graphs terms"]
Values = Float[Array, " graphs"]
Fitted = Callable[[Costs, Devices], Values]
"""From operator costs and what known devices need (one column each) to the logarithm of the target."""
Maker = Callable[[Costs, Devices, Values], Fitted]
"""Fits one expert: from operator costs, what known devices need, and targets."""
Choice = Callable[[Costs, Devices], Terms]
"""The columns that are summed."""

SHRINKAGE = 1e-3
"""Penalty on the squared share of the target that a cost explains, per label. Small: the signs do most of the regularising."""
MIN_CORRECTED = 16
"""Labels below which no correction of the sum of costs is learnt."""
MAX_GP_LABELS = 256
"""Labels above which the correction is made by trees: a Gaussian process costs their third power."""


@dataclass(frozen=True, eq=False)
class HardwareModel:
    """What was learnt of one device, on columns rather than graphs. Made by `fit_hardware`.

    Attributes:
        names: What the experts look at.
        weights: Their shares in the prediction; the sum is 1.
        similar: Columns of the known devices that count, most similar first.
        error: Typical error of the logarithm on labelled networks that were left out.
        inflation: Factor on the spread with which nine of ten left-out labels lie within the 90 % interval.
    """

    names: tuple[str, ...]
    weights: tuple[float, ...]
    similar: tuple[int, ...]
    error: float
    inflation: float
    _experts: tuple[Fitted, ...] = field(repr=False)

    def __call__(self, costs: Costs, known: Devices | None = None) -> tuple[Values, Values]:
        """Mean and standard deviation of the logarithm of the target."""
        devices = _devices(known, len(costs))[:, list(self.similar)]
        each_EG = np.stack([expert(costs, devices) for expert in self._experts])
        mean, between = _mixed(each_EG, np.array(self.weights))
        return mean, self.inflation * np.sqrt(self.error**2 + between)


def fit_hardware(
    costs: Float[Array, "graphs columns"],
    targets: Float[Array, " graphs"],
    *,
    known: Float[Array, "graphs devices"] | None = None,
    num_similar: int = 5,
    seed: int = 0,
) -> HardwareModel:
    """Learn one device from labelled networks. See `HardwarePredictor` for the method.

    Args:
        costs: Costs of each network, at least zero, the same columns as later.
        targets: What each network needs, above zero.
        known: What each network needs on other devices, one column each, above zero: measured or predicted.
        num_similar: How many of them count at most: those whose order of the labelled networks is most alike (Spearman).
        seed: Decides the folds and the trees.

    Raises:
        ValueError: If a target is not above zero.
    """
    if not (np.isfinite(targets) & (targets > 0)).all():
        raise ValueError("Expected every target to be a number above 0. Leave networks out that did not run")
    all_devices = _devices(known, len(costs))
    similar = most_similar(all_devices, targets)[:num_similar]
    devices = all_devices[:, list(similar)]
    makers = _makers(len(targets), bool(similar), derive_seed(seed, "correction"))
    left_out_EG = _left_out(makers, costs, devices, targets, seed=seed)
    off_EG = left_out_EG - np.log(targets)
    sizes = np.abs(off_EG).mean(axis=1) + 1e-4
    weights = sizes**-4 / (sizes**-4).sum()
    mean, between = _mixed(left_out_EG, weights)
    off = mean - np.log(targets)
    error = max(1e-4, float(np.median(np.abs(off))) * 1.4826)
    ratio = np.sort(np.abs(off) / np.sqrt(error**2 + between))
    place = min(len(ratio), math.ceil(0.9 * (len(ratio) + 1))) - 1
    return HardwareModel(
        tuple(makers),
        tuple(weights.tolist()),
        similar,
        error,
        float(ratio[place]) / 1.6449,
        tuple(make(costs, devices, targets) for make in makers.values()),
    )


@dataclass(eq=False)
class HardwarePredictor(Predictor):
    """Predicts what a network needs on one device, such as milliseconds or millijoules, from a few measurements.

    The target is a *cost*: above zero, lower is better, and predictions are in its unit. Errors are taken to be relative, so everything
    is learnt in the logarithm. The prediction is a weighted mean of experts, by the inverse fourth power of their mean
    error on left-out labels:

    - *operators*: a sum of costs with coefficients of at least zero, as in a roofline model (Williams et al. 2009) whose
      terms add up: each kind of operator has a time per call, per multiply-add and per element moved. Fitted by non-negative least
      squares (Lawson and Hanson 1974) on relative errors, with weights that let outliers go.
    - *devices*, if other devices are known: a sum with coefficients of at least zero of what the most similar of them need.
    - both again with a learnt *correction* of what the sum leaves over, from 16 labels on.

    The graph must say what the device runs. A branch that does not reach the output costs time on a device that
    executes it; describe it with `zero` operators, which keep it alive.

    `mean` is the median of the predicted distribution, which is log-normal; `std` its standard deviation. The spread is scaled so
    that nine of ten left-out labels lie within the 90 % interval (cross-conformal, Vovk 2015): it covers networks that are drawn like
    the labelled ones, and promises nothing for others.

    Args:
        known: Fitted predictors of other devices by name. Their networks may be others than those labelled here.
        num_similar: How many of these count at most.
        seed: Decides the folds and the trees.

    Raises:
        ConfigError: If `num_similar` is below 1.
    """

    known: Mapping[str, Predictor] = field(default_factory=dict)
    num_similar: int = 5
    seed: int = 0
    _columns: CostColumns | None = field(default=None, init=False)
    _model: HardwareModel | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if self.num_similar < 1:
            raise ConfigError(f"Expected 'num_similar' of at least 1 (got {self.num_similar})")

    def fit(self, graphs: Sequence[ComputationalGraph], targets: Float[Tensor, " graphs"]) -> None:
        """Learn from at least eight graphs and what they need, above zero."""
        check_labels(graphs, targets)
        columns = CostColumns.of(graphs)
        self._model = fit_hardware(
            columns(graphs),
            targets.double().cpu().numpy(),
            known=self._said(graphs),
            num_similar=self.num_similar,
            seed=self.seed,
        )
        self._columns = columns

    def predict(self, graphs: Sequence[ComputationalGraph]) -> Prediction:
        """Predict, in the unit of the targets; lower is better."""
        mean, std = self._logs(graphs)
        spread = np.exp(mean + std**2 / 2) * np.sqrt(np.expm1(std**2))
        return Prediction(torch.from_numpy(np.exp(mean)), torch.from_numpy(spread))

    def interval(
        self, graphs: Sequence[ComputationalGraph], *, coverage: float = 0.9
    ) -> tuple[Float[Tensor, " graphs"], Float[Tensor, " graphs"]]:
        """Lower and upper bounds between which the target lies with a chance of `coverage`, in its unit.

        Raises:
            ValueError: If `coverage` is not between 0 and 1.
            NotFittedError: If `fit` was never called.
        """
        from scipy.stats import norm

        if not 0 < coverage < 1:
            raise ValueError(f"Expected 'coverage' between 0 and 1 (got {coverage})")
        mean, std = self._logs(graphs)
        reach = float(norm.ppf(0.5 + coverage / 2)) * std
        return torch.from_numpy(np.exp(mean - reach)), torch.from_numpy(np.exp(mean + reach))

    @property
    def similar(self) -> tuple[str, ...]:
        """The known devices that count, most similar first. Raises `NotFittedError` before `fit`."""
        names = tuple(self.known)
        return tuple(names[column] for column in self._fitted()[1].similar)

    @property
    def weights(self) -> dict[str, float]:
        """Shares of the experts in the prediction. Raises `NotFittedError` before `fit`."""
        model = self._fitted()[1]
        return dict(zip(model.names, model.weights, strict=True))

    def _fitted(self) -> tuple[CostColumns, HardwareModel]:
        if self._columns is None or self._model is None:
            raise NotFittedError("Expected 'fit' before 'predict'")
        return self._columns, self._model

    def _logs(self, graphs: Sequence[ComputationalGraph]) -> tuple[Values, Values]:
        columns, model = self._fitted()
        return model(columns(graphs), self._said(graphs))

    def _said(self, graphs: Sequence[ComputationalGraph]) -> Devices | None:
        if not self.known:
            return None
        each = [predictor.predict(graphs).mean.double().cpu().numpy() for predictor in self.known.values()]
        return np.column_stack(each)


def most_similar(known: Float[Array, "graphs devices"], targets: Float[Array, " graphs"]) -> tuple[int, ...]:
    """Columns of known devices by Spearman correlation with the targets, the most similar first.

    Devices that order the networks the other way round are left out.
    """

    def centred(values: Values) -> Values:
        ranks = scaled_ranks(values)
        result: Array = (ranks - ranks.mean()) / max(float(ranks.std()), 1e-12)
        return result

    own = centred(targets)
    alike = np.array([float((centred(column) * own).mean()) for column in known.T])
    order = np.argsort(-alike, kind="stable")
    return tuple(int(column) for column in order if alike[column] > 0)


def _devices(known: Devices | None, num_graphs: int) -> Devices:
    return np.zeros((num_graphs, 0)) if known is None else known


def _mixed(
    each_EG: Float[Array, "experts graphs"], weights: Float[Array, " experts"]
) -> tuple[Values, Values]:
    """Weighted mean, and weighted variance between the experts."""
    mean = weights @ each_EG
    return mean, weights @ (each_EG - mean) ** 2


def _makers(num_labels: int, has_devices: bool, seed: int) -> dict[str, Maker]:
    """What fits each expert, by what it looks at."""
    sums: dict[str, Choice] = {"operators": _operators}
    if has_devices:
        sums["devices"] = _similar_devices
    makers: dict[str, Maker] = {name: partial(_sum_of, choice) for name, choice in sums.items()}
    if num_labels >= MIN_CORRECTED:
        for name, choice in sums.items():
            makers[f"{name}, corrected"] = partial(_corrected, choice, seed=seed)
    return makers


def _operators(costs: Costs, devices: Devices) -> Terms:
    del devices
    return np.column_stack([np.ones(len(costs)), costs])


def _similar_devices(costs: Costs, devices: Devices) -> Terms:
    return np.column_stack([np.ones(len(costs)), devices])


def _left_out(
    makers: Mapping[str, Maker],
    costs: Costs,
    devices: Devices,
    targets: Values,
    *,
    seed: int,
) -> Float[Array, "experts graphs"]:
    """What each expert says of each labelled network when its fold is left out."""
    order = generator(seed, "folds").permutation(len(targets))
    result_EG = np.empty((len(makers), len(targets)))
    for fold in np.array_split(order, 10 if len(targets) <= 32 else 5):
        rest = np.setdiff1d(order, fold)
        for row, make in enumerate(makers.values()):
            result_EG[row, fold] = make(costs[rest], devices[rest], targets[rest])(costs[fold], devices[fold])
    return result_EG


def _sum_of(of: Choice, costs: Costs, devices: Devices, targets: Values) -> Fitted:
    """A sum of columns with coefficients of at least zero."""
    coefficients = _non_negative(of(costs, devices), targets)
    floor = 1e-2 * float(np.median(targets))  # a sum may be zero where a network has none of the costs seen
    return lambda c, d: np.log(np.maximum(of(c, d) @ coefficients, floor))


def _corrected(
    of: Choice,
    costs: Costs,
    devices: Devices,
    targets: Values,
    *,
    seed: int,
) -> Fitted:
    """A sum of columns, and what it leaves over, learnt from the logarithms of all columns. Outliers are pulled in."""
    total = _sum_of(of, costs, devices, targets)
    rest = np.log(targets) - total(costs, devices)
    centre = np.median(rest)
    reach = 4 * 1.4826 * np.median(np.abs(rest - centre))
    rest = np.clip(rest, centre - reach, centre + reach)
    features = np.column_stack([np.log1p(costs), np.log(devices)])
    mean, std = features.mean(axis=0), features.std(axis=0)
    varies = std > 1e-9
    if not varies.any() or rest.std() < 1e-9:
        return total
    fit = gaussian_process if len(targets) <= MAX_GP_LABELS else trees
    scale = float(rest.std())

    def scaled(rows: Float[Array, "others features"]) -> Float[Array, "others varying"]:
        result: Array = (rows[:, varies] - mean[varies]) / std[varies]
        return result

    predict = fit(scaled(features), rest / scale, seed=seed)

    def corrected(c: Costs, d: Devices) -> Values:
        result: Array = total(c, d) + scale * predict(scaled(np.column_stack([np.log1p(c), np.log(d)])))[0]
        return result

    return corrected


def _non_negative(columns: Terms, targets: Values, *, rounds: int = 8) -> Float[Array, " terms"]:
    """Coefficients of at least zero whose sum of columns has small relative errors. The first column is constant.

    Least squares on errors relative to the prediction, reweighted: a label far off by the measure of the others loses its weight
    (Cauchy weights). So a time of a microsecond among milliseconds does not rule the fit.
    """
    from scipy.optimize import nnls

    scale = columns.mean(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    unit = columns / scale
    typical = float(np.median(targets))
    # The solver's tolerance is absolute, and with few labels its choice of columns can hang on the last bit: neither may see the unit.
    shares = np.maximum(np.round(targets / typical, 12), 1e-12)
    shrink = math.sqrt(SHRINKAGE * len(shares)) * np.eye(unit.shape[1])
    shrink[0] = 0  # what every network needs, whatever it is, comes free
    expected, trust = np.maximum(shares, 1 / 10), np.ones(len(shares))
    coefficients = np.zeros(unit.shape[1])
    for _ in range(rounds):
        weight = np.sqrt(trust) / expected
        system = np.vstack([unit * weight[:, None], shrink])
        aim = np.concatenate([shares * weight, np.zeros(unit.shape[1])])
        coefficients, _ = nnls(system, aim, maxiter=100 * unit.shape[1])
        expected = np.maximum(unit @ coefficients, 1 / 100)
        off = np.log(shares / expected)
        trust = 1 / (1 + (off / (3 * max(0.02, 1.4826 * float(np.median(np.abs(off)))))) ** 2)
    result: Array = typical * coefficients / scale
    return result
