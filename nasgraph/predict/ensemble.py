"""An ensemble of a Gaussian process and trees whose weights and intervals rest on what it has not seen.

Every member says what it would have predicted for each labelled row had the row been left out: the Gaussian process in
closed form, trees by the ones that did not draw the row. So nothing is held back, nothing is fitted twice, and no label
beyond the given ones plays a part.

Shape letters: N = labelled rows, M = other rows, F = columns, K = members.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import nnls
from scipy.stats import norm

from nasgraph.errors import ConfigError, UnknownNameError
from nasgraph.predict.gaussian_process import Block, GaussianProcess, MeanAndStd
from nasgraph.predict.prediction import Prediction
from nasgraph.predict.ranks import NormalScores

Array = np.ndarray
MIN_SPREAD = 1e-3
"""Smallest standard deviation of a prediction, for targets of variance 1."""
SHRINKAGE = 8.0
"""How strongly weights are drawn towards an even share: as strongly as by this many labelled rows."""
TAIL = 0.25
"""Share of the targets, from below, that `TargetScale` compresses."""


@dataclass(frozen=True)
class Member:
    """One fitted member.

    Attributes:
        left_out: What it says of each labelled row without having seen it.
        predict: What it says of other rows.
    """

    left_out: MeanAndStd
    predict: Callable[[Float[Array, "others columns"]], MeanAndStd]


@dataclass(frozen=True)
class Blocks:
    """Which columns belong together.

    Attributes:
        structure: Blocks that describe the graph itself.
        further: Blocks of what else is known, such as zero-cost scores.
    """

    structure: tuple[Block, ...]
    further: tuple[Block, ...] = ()


MemberFit = Callable[[Float[Array, "rows columns"], Float[Array, " rows"], Blocks, int], Member]
"""Fits a member to rows, scaled targets and blocks of columns, with a seed."""


@dataclass(frozen=True, kw_only=True)
class EnsembleConfig:
    """Settings of an ensemble.

    Attributes:
        members: Names in `MEMBERS`. `structure_process` takes part where there are columns that it does not look at.
        level: Share of the truth that intervals shall hold.
        seed: Seed of the trees.

    Raises:
        ConfigError: If there is no member, or the level is not between 0.5 and 1.
        UnknownNameError: If there is no member of a name.
    """

    members: tuple[str, ...] = ("gaussian_process", "structure_process", "extra_trees", "random_forest")
    level: float = 0.9
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.members:
            raise ConfigError("Expected at least one member")
        for name in self.members:
            if name not in MEMBERS:
                raise UnknownNameError("member of an ensemble", name, MEMBERS)
        if not 0.5 <= self.level < 1:
            raise ConfigError(f"Expected 'level' from 0.5 to below 1 (got {self.level})")


@dataclass(frozen=True, eq=False)
class TargetScale:
    """A strictly rising map of targets onto a scale that suits regression: the mean of two others.

    One is the normal quantile of the rank, the other the target itself with its lowest quarter compressed
    logarithmically: accuracies crowd at the top, where it matters, and have a long tail below, where it does not.
    """

    _known: Float[Array, " distinct"]
    _scaled: Float[Array, " distinct"]

    @staticmethod
    def of(targets: Float[Array, " rows"]) -> "TargetScale":
        """Of finite targets, two of which differ."""
        low, high = np.quantile(targets, [TAIL, 1 - TAIL])
        unit = high - low if high > low else targets.std()
        below = np.maximum(low - targets, 0)
        compressed = np.where(targets < low, low - unit * np.log1p(below / unit), targets)
        scaled = (NormalScores.of(targets)(targets) + (compressed - compressed.mean()) / compressed.std()) / 2
        known, first = np.unique(targets, return_index=True)
        return TargetScale(known, ((scaled - scaled.mean()) / scaled.std())[first])

    def __call__(self, targets: Float[Array, " rows"]) -> Float[Array, " rows"]:
        """Scaled targets."""
        return _line(targets, self._known, self._scaled)

    def inverse(self, scaled: Float[Array, " rows"]) -> Float[Array, " rows"]:
        """Targets at places of the scale."""
        return _line(scaled, self._scaled, self._known)


def _line(x: Float[Array, " rows"], known: Array, value: Array) -> Float[Array, " rows"]:
    """Interpolate between rising points; beyond them go on with the mean slope of all, so that the order survives."""
    slope = (value[-1] - value[0]) / (known[-1] - known[0])
    inside = np.clip(x, known[0], known[-1])
    result: Array = np.interp(inside, known, value) + slope * (x - inside)
    return result


@dataclass(frozen=True, eq=False)
class FittedEnsemble:
    """A fitted ensemble. See `fit_ensemble`.

    Attributes:
        weights: Share of each member that takes part, in the order of `EnsembleConfig.members`.
        stretch: Factor by which leaving out showed the spread to be too small (above 1) or too large.
        left_out: What it says of the labelled rows without having seen them.
    """

    weights: Mapping[str, float]
    stretch: float
    left_out: Prediction
    _members: tuple[Member, ...]
    _scale: TargetScale
    _level: float

    def predict(self, x_MF: Float[Array, "others columns"]) -> Prediction:
        """Predict other rows, in the units of the targets."""
        share = np.array(list(self.weights.values()))
        mean, std = _mixed([member.predict(x_MF) for member in self._members], share)
        return _prediction(mean, std * self.stretch, self._scale, self._level)


def fit_ensemble(
    x_NF: Float[Array, "rows columns"],
    targets: Float[Array, " rows"],
    config: EnsembleConfig,
    *,
    blocks: Blocks | None = None,
) -> FittedEnsemble:
    """Fit an ensemble to finite rows near standard normal, column by column.

    Weights are those, not negative and drawn towards an even share, whose mean of left-out predictions is nearest to the
    targets (stacking, Wolpert 1992). Intervals are stretched so that they would have held the wanted share of the
    left-out targets (conformal prediction with normalised residuals; Vovk et al. 2005, Barber et al. 2021). For rows that
    are drawn as the labelled ones were, they hold that share but for the small number of labels; for others nothing is
    promised.

    Args:
        x_NF: Labelled rows.
        targets: One finite number per row. At least eight, and not all equal: checked by the caller.
        config: Settings.
        blocks: Columns that belong together. All in one if not given. Blocks without columns are left out.

    Raises:
        ValueError: If there is no column for any member.
    """
    scale = TargetScale.of(targets)
    y = scale(targets)
    parts = _filled(blocks or Blocks(((0, x_NF.shape[1]),)))
    names = _taking_part(config.members, parts)
    if not names:
        raise ValueError("No column tells the rows apart: there is nothing to learn from")
    members = tuple(MEMBERS[name](x_NF, y, parts, config.seed) for name in names)
    left_out_KN = np.stack([member.left_out[0] for member in members])
    share = _shares(left_out_KN, y)
    mean, std = _mixed([member.left_out for member in members], share)
    ratios = np.sort(np.abs(y - mean) / std)
    place = min(len(y), ceil((len(y) + 1) * config.level)) - 1
    stretch = float(ratios[place] / norm.ppf((1 + config.level) / 2))
    return FittedEnsemble(
        dict(zip(names, share.tolist(), strict=True)),
        stretch,
        _prediction(mean, std * stretch, scale, config.level),
        members,
        scale,
        config.level,
    )


def _filled(blocks: Blocks) -> Blocks:
    """The blocks that have columns."""
    return Blocks(
        *(
            tuple((low, high) for low, high in part if high > low)
            for part in (blocks.structure, blocks.further)
        )
    )


def _taking_part(names: Sequence[str], blocks: Blocks) -> list[str]:
    """Members that have columns to look at, and are not the same as another one."""
    if not blocks.structure and not blocks.further:
        return []
    wanted = bool(blocks.structure) and (bool(blocks.further) or len(names) == 1)
    return [name for name in names if name != STRUCTURE or wanted]


def _shares(left_out_KN: Float[Array, "members rows"], y: Float[Array, " rows"]) -> Float[Array, " members"]:
    K = len(left_out_KN)
    pull = np.sqrt(SHRINKAGE)
    weights, _ = nnls(np.vstack([left_out_KN.T, pull * np.eye(K)]), np.concatenate([y, np.full(K, pull / K)]))
    total = weights.sum()
    result: Array = weights / total if total > 0 else np.full(K, 1 / K)
    return result


def _mixed(said: Sequence[MeanAndStd], share: Float[Array, " members"]) -> MeanAndStd:
    """Mean and spread of a mixture of members."""
    mean_KM, std_KM = (np.stack(part) for part in zip(*said, strict=True))
    mean = share @ mean_KM
    variance = share @ (std_KM**2 + (mean_KM - mean) ** 2)
    return mean, np.sqrt(np.maximum(variance, MIN_SPREAD**2))


def _prediction(mean: Array, std: Array, scale: TargetScale, level: float) -> Prediction:
    width = norm.ppf((1 + level) / 2)
    low, high = scale.inverse(mean - width * std), scale.inverse(mean + width * std)
    spread = (high - low) / (2 * width)
    middle = scale.inverse(mean)
    return Prediction(
        torch.from_numpy(middle),
        torch.from_numpy(spread),
        low=torch.from_numpy(low),
        high=torch.from_numpy(high),
        level=level,
    )


def _gaussian_process(
    x_NF: Float[Array, "rows columns"], y: Float[Array, " rows"], blocks: Blocks, seed: int
) -> Member:
    """A process over all blocks."""
    del seed
    process = GaussianProcess.fit(x_NF, y, (*blocks.structure, *blocks.further))
    return Member(process.leave_one_out(), process.predict)


def _structure_process(
    x_NF: Float[Array, "rows columns"], y: Float[Array, " rows"], blocks: Blocks, seed: int
) -> Member:
    """A process that looks at the graph itself only: with few labels further columns can lead the other astray."""
    del seed
    process = GaussianProcess.fit(x_NF, y, blocks.structure)
    return Member(process.leave_one_out(), process.predict)


def _extra_trees(
    x_NF: Float[Array, "rows columns"], y: Float[Array, " rows"], blocks: Blocks, seed: int
) -> Member:
    from sklearn.ensemble import ExtraTreesRegressor

    del blocks
    forest = ExtraTreesRegressor(
        NUM_TREES, max_features=COLUMN_SHARE, bootstrap=True, random_state=seed % 2**32
    )
    return _forest(forest, x_NF, y)


def _random_forest(
    x_NF: Float[Array, "rows columns"], y: Float[Array, " rows"], blocks: Blocks, seed: int
) -> Member:
    from sklearn.ensemble import RandomForestRegressor

    del blocks
    forest = RandomForestRegressor(NUM_TREES, max_features=COLUMN_SHARE, random_state=seed % 2**32)
    return _forest(forest, x_NF, y)


STRUCTURE = "structure_process"
NUM_TREES = 200
COLUMN_SHARE = 0.4
"""Share of the columns that a split chooses from."""

MEMBERS: Mapping[str, MemberFit] = {
    "gaussian_process": _gaussian_process,
    STRUCTURE: _structure_process,
    "extra_trees": _extra_trees,
    "random_forest": _random_forest,
}
"""Every member by its name."""


def _forest(forest, x_NF: Float[Array, "rows columns"], y: Float[Array, " rows"]) -> Member:  # type: ignore[no-untyped-def]  # sklearn has no types
    """Trees on bootstrap draws; a row is left out by the trees that did not draw it.

    The spread is that between trees, which also holds the noise, since leaves hold one row each.
    """
    x = x_NF.astype(np.float32)
    forest.fit(x, y)
    said_TN = np.stack([tree.predict(x, check_input=False) for tree in forest.estimators_])
    drawn_TN = np.zeros(said_TN.shape, dtype=bool)
    for row, sample in enumerate(forest.estimators_samples_):
        drawn_TN[row, sample] = True
    unseen_TN = np.ma.masked_array(said_TN, drawn_TN)
    left_out = (
        np.ma.filled(unseen_TN.mean(axis=0), y.mean()),
        np.maximum(np.ma.filled(unseen_TN.std(axis=0), y.std()), MIN_SPREAD),
    )

    def predict(x_MF: Float[Array, "others columns"]) -> MeanAndStd:
        rows = x_MF.astype(np.float32)
        total, square = np.zeros(len(rows)), np.zeros(len(rows))
        for tree in forest.estimators_:
            said = tree.predict(rows, check_input=False)
            total += said
            square += said**2
        mean = total / len(forest.estimators_)
        return mean, np.sqrt(np.maximum(square / len(forest.estimators_) - mean**2, MIN_SPREAD**2))

    return Member(left_out, predict)
