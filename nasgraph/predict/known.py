# ruff: noqa: N815  shape letters after array names, in fields too
"""What is known about performance: measured architectures as rows of features, from which a predictor is fitted anew.

No fitted model is stored, only what it learns from: rows, targets and names. So there is nothing to unpickle, the known
architectures can be shown beside a prediction, and any level of the interval can be asked for.

Shape letters: N = known rows, M = other rows, F = columns.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from nasgraph.errors import CheckpointError, DataError
from nasgraph.files import Json, canonical_json, write_bytes, write_json
from nasgraph.ir import ComputationalGraph
from nasgraph.predict.columns import NEIGHBOUR_QUANTILE, ColumnScale
from nasgraph.predict.ensemble import Blocks, EnsembleConfig, FittedEnsemble, fit_ensemble
from nasgraph.predict.graph_features import GraphFeatures
from nasgraph.predict.known_files import CONFIG, ROWS, SCHEMA, StoredRows, read_stored, read_text
from nasgraph.predict.prediction import Prediction
from nasgraph.predict.surrogate import MIN_LABELS

Array = np.ndarray
_TINY = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class PerformanceMetric:
    """What was measured of the known architectures, and so what is predicted of others.

    Attributes:
        name: Such as `test accuracy`.
        unit: Such as `percent`.
        data: The data set.
        protocol: How it was measured, in words.
        lowest: The lowest value there is; None: no limit.
        highest: The highest.
        higher_is_better: Which end is good.
    """

    name: str
    unit: str = ""
    data: str = ""
    protocol: str = ""
    lowest: float | None = None
    highest: float | None = None
    higher_is_better: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour:
    """A known architecture near another.

    Attributes:
        key: Its name.
        value: What was measured of it.
        distance: How far it is, as a multiple of what 99 in 100 known architectures have to their nearest at most.
        fingerprint: Fingerprint of its graph; empty if not known.
    """

    key: str
    value: float
    distance: float
    fingerprint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Outside:
    """A column of which a graph has more or less than any known architecture.

    Attributes:
        column: Name of the column, see `GraphFeatures.names`.
        value: What the graph has.
        low: The least of what known architectures have.
        high: The most.
    """

    column: str
    value: float
    low: float
    high: float


@dataclass(frozen=True, eq=False, kw_only=True)
class KnownPerformance:
    """Known architectures and what was measured of each. Never changed.

    Attributes:
        metric: What was measured.
        features: Describes graphs; `GraphFeatures.universal()` for what is to be asked about any network.
        rows_NF: One row per known architecture, in single precision, in the columns of `features`.
        targets_N: What was measured.
        keys: A name for each.
        fingerprints: Fingerprint of each graph; empty text where it is not known.
        input_shape: Shape of one example; None: that does not matter.
        num_classes: Length of the output; None: that does not matter.
        source: Where the numbers are from, and their licence.

    Raises:
        DataError: If there are fewer than eight rows, lengths or columns do not fit, a number is not finite, or all
            targets are equal.
    """

    metric: PerformanceMetric
    features: GraphFeatures
    rows_NF: Float[Array, "rows columns"]
    targets_N: Float[Array, " rows"]
    keys: tuple[str, ...]
    fingerprints: tuple[str, ...]
    input_shape: tuple[int, ...] | None = None
    num_classes: int | None = None
    source: str = ""
    _fitted: dict[EnsembleConfig, "FittedPerformance"] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        N = len(self.targets_N)
        if not len(self.rows_NF) == len(self.keys) == len(self.fingerprints) == N:
            raise DataError(f"Expected {N} rows, keys and fingerprints, one for each of the targets")
        if N < MIN_LABELS:
            raise DataError(f"Expected at least {MIN_LABELS} labelled graphs (got {N})")
        if self.rows_NF.shape[1] != len(self.features.names):
            raise DataError(
                f"Expected rows of {len(self.features.names)} columns (got {self.rows_NF.shape[1]})"
            )
        if not np.isfinite(self.targets_N).all() or not np.isfinite(self.rows_NF).all():
            raise DataError("Expected finite rows and targets. Leave out what could not be measured")
        if (self.targets_N == self.targets_N[0]).all():
            raise DataError(f"All {N} targets are {self.targets_N[0]:.6g}: there is nothing to learn")

    @staticmethod
    def of(
        graphs: Sequence[ComputationalGraph],
        targets: Sequence[float],
        *,
        metric: PerformanceMetric,
        keys: Sequence[str] | None = None,
        features: GraphFeatures | None = None,
        input_shape: tuple[int, ...] | None = None,
        num_classes: int | None = None,
        source: str = "",
    ) -> "KnownPerformance":
        """Know measured graphs. Keys are fingerprints if not given, features the universal ones. See the class for errors."""
        features = features or GraphFeatures.universal()
        fingerprints = tuple(graph.fingerprint for graph in graphs)
        return KnownPerformance(
            metric=metric,
            features=features,
            rows_NF=describe(features, graphs),
            targets_N=np.asarray(targets, dtype=np.float64),
            keys=fingerprints if keys is None else tuple(keys),
            fingerprints=fingerprints,
            input_shape=input_shape,
            num_classes=num_classes,
            source=source,
        )

    def __len__(self) -> int:
        return len(self.targets_N)

    def predictor(self, config: EnsembleConfig | None = None) -> "FittedPerformance":
        """The predictor that these rows make. Fitted once per configuration, then kept."""
        config = config or EnsembleConfig()
        if config not in self._fitted:
            self._fitted[config] = _fit(self, config)
        return self._fitted[config]

    def value_of(self, fingerprint: str) -> float | None:
        """What was measured of a graph; None if it is not known."""
        if not fingerprint or fingerprint not in self.fingerprints:
            return None
        return float(self.targets_N[self.fingerprints.index(fingerprint)])

    def save(self, folder: Path, *, recipe: Mapping[str, Json] | None = None) -> None:
        """Write a folder: the rows first, then the configuration that makes them valid.

        Args:
            folder: Where; created if missing.
            recipe: How rows were chosen and measured. Kept as it is.
        """
        data = StoredRows(
            rows=self.rows_NF.astype(np.float32),
            targets=self.targets_N,
            keys=self.keys,
            fingerprints=self.fingerprints,
        ).to_bytes()
        write_bytes(folder / ROWS, data)
        is_universal = self.features == GraphFeatures.universal()
        own = {"kinds": self.features.kinds, "landmarks": self.features.landmarks}
        config = {
            "schema": SCHEMA,
            "metric": asdict(self.metric),
            "features": "universal" if is_universal else own,
            "columns": self.features.names,
            "input_shape": self.input_shape,
            "num_classes": self.num_classes,
            "num_rows": len(self),
            "source": self.source,
            "recipe": dict(recipe or {}),
            "sha256": sha256(data).hexdigest(),
        }
        write_json(folder / CONFIG, config)

    @staticmethod
    def load(folder: Path) -> "KnownPerformance":
        """Read a folder that `save` wrote. It may come from a stranger: nothing in it is executed.

        Raises:
            CheckpointError: If a file is missing, damaged or foreign, the checksum differs, or the columns are not those
                of this version of nasgraph.
        """
        config, rows = read_stored(folder)
        source = f"'{folder / CONFIG}'"
        features = _features(config.get("features"), source)
        _check_columns(config.get("columns"), features.names, source)
        shape, classes = config.get("input_shape"), config.get("num_classes")
        try:
            return KnownPerformance(
                metric=_metric(config.get("metric"), source),
                features=features,
                rows_NF=rows.rows,
                targets_N=rows.targets,
                keys=rows.keys,
                fingerprints=rows.fingerprints,
                input_shape=_shape(shape, source),
                num_classes=classes if isinstance(classes, int) and not isinstance(classes, bool) else None,
                source=read_text(config, "source", source),
            )
        except DataError as error:
            raise CheckpointError(f"The rows in '{folder}' cannot be used: {error}") from error


def describe(features: GraphFeatures, graphs: Sequence[ComputationalGraph]) -> Float[Array, "graphs columns"]:
    """Rows of graphs as they are stored: in single precision, which also makes equal what differs by rounding alone."""
    result: Array = features(graphs).astype(np.float32)
    return result


@dataclass(frozen=True, eq=False)
class FittedPerformance:
    """A predictor for any graph. Made by `KnownPerformance.predictor`.

    Attributes:
        known: What it was fitted to.
        config: How.
        most_outside: Columns in which a known architecture leaves the range of the others, at most.
    """

    known: KnownPerformance
    config: EnsembleConfig
    most_outside: int
    _scale: ColumnScale
    _ensemble: FittedEnsemble
    _mean_F: Float[Array, " columns"]
    _std_F: Float[Array, " columns"]
    _usual: float

    def predict(self, graphs: Sequence[ComputationalGraph]) -> Prediction:
        """Predict, with intervals that hold `config.level` of graphs drawn as the known ones were; see `distances`."""
        return self.predict_rows(describe(self.known.features, graphs))

    def predict_rows(self, rows_MF: Float[Array, "others columns"]) -> Prediction:
        """Predict graphs that `describe` has described."""
        return self._as_measured(self._ensemble.predict(self._scale(rows_MF.astype(np.float64))))

    def left_out(self) -> Prediction:
        """What would have been predicted of each known architecture if it were not known."""
        return self._as_measured(self._ensemble.left_out)

    def distances(self, rows_MF: Float[Array, "others columns"]) -> Float[Array, "others rows"]:
        """Distance to each known architecture: root mean squared difference per column, in standard deviations.

        As a multiple of what 99 in 100 known ones have to their nearest, so that a nearest distance above 1 is unusual.
        """
        known = _standardised(self.known.rows_NF, self._mean_F, self._std_F)
        return _root_mean_squares(_standardised(rows_MF, self._mean_F, self._std_F), known) / self._usual

    def nearest(
        self, rows_MF: Float[Array, "others columns"], *, count: int = 3
    ) -> list[tuple[Neighbour, ...]]:
        """For each row the nearest known architectures, the nearest first."""
        known = self.known
        return [
            tuple(
                Neighbour(
                    key=known.keys[n],
                    value=float(known.targets_N[n]),
                    distance=float(distance_N[n]),
                    fingerprint=known.fingerprints[n],
                )
                for n in np.argsort(distance_N, kind="stable")[:count]
            )
            for distance_N in self.distances(rows_MF)
        ]

    def outside(self, rows_MF: Float[Array, "others columns"]) -> list[tuple[Outside, ...]]:
        """For each row the columns that leave the known range, the farthest first."""
        known = self.known.rows_NF.astype(np.float64)
        low, high, rows = known.min(axis=0), known.max(axis=0), rows_MF.astype(np.float64)
        beyond = np.maximum(low - rows, rows - high) / self._std_F
        names = self.known.features.names
        return [
            tuple(
                Outside(column=names[c], value=float(row[c]), low=float(low[c]), high=float(high[c]))
                for c in np.argsort(-excess, kind="stable")
                if excess[c] > _TINY
            )
            for row, excess in zip(rows, beyond, strict=True)
        ]

    def _as_measured(self, said: Prediction) -> Prediction:
        """In the direction and within the limits of the metric."""
        metric = self.known.metric
        low, high = said.interval()
        mean = said.mean
        if not metric.higher_is_better:
            mean, low, high = -mean, -high, -low
        floor = -torch.inf if metric.lowest is None else metric.lowest
        ceiling = torch.inf if metric.highest is None else metric.highest
        mean, low, high = (value.clamp(floor, ceiling) for value in (mean, low, high))
        return Prediction(mean, said.std, low=low, high=high, level=said.level)


def _fit(known: KnownPerformance, config: EnsembleConfig) -> FittedPerformance:
    rows_NF = known.rows_NF.astype(np.float64)
    scale = ColumnScale.of(rows_NF, known.features.blocks)
    targets_N = known.targets_N if known.metric.higher_is_better else -known.targets_N
    ensemble = fit_ensemble(scale(rows_NF), targets_N, config, blocks=Blocks(scale.blocks))
    std_F = rows_NF.std(axis=0)
    mean_F, std_F = rows_NF.mean(axis=0), np.where(std_F > 0, std_F, 1.0)
    own_NF = _standardised(rows_NF, mean_F, std_F)
    between_NN = _root_mean_squares(own_NF, own_NF)
    np.fill_diagonal(between_NN, np.inf)
    usual = float(np.quantile(between_NN.min(axis=1), NEIGHBOUR_QUANTILE))
    return FittedPerformance(
        known, config, _most_outside(rows_NF), scale, ensemble, mean_F, std_F, max(usual, _TINY)
    )


def _most_outside(rows_NF: Float[Array, "rows columns"]) -> int:
    """The most columns in which one row alone is the least or the greatest: where it would be outside if it were not known."""
    rising = np.sort(rows_NF, axis=0)
    is_least = (rows_NF == rising[0]) & (rising[0] < rising[1])
    is_greatest = (rows_NF == rising[-1]) & (rising[-1] > rising[-2])
    return int((is_least | is_greatest).sum(axis=1).max())


def _standardised(rows_MF: Array, mean_F: Array, std_F: Array) -> Float[Array, "others columns"]:
    result: Array = (rows_MF.astype(np.float64) - mean_F) / std_F
    return result


def _root_mean_squares(rows_MF: Array, known_NF: Array) -> Float[Array, "others rows"]:
    """Exactly 0 for equal rows, which the expanded square would not be."""
    return np.array([np.sqrt(((row - known_NF) ** 2).mean(axis=1)) for row in rows_MF]).reshape(
        len(rows_MF), len(known_NF)
    )


def _check_columns(stored: Json, names: tuple[str, ...], source: str) -> None:
    if not isinstance(stored, list):
        raise CheckpointError(f"Expected 'columns' in {source} to be a list")
    if tuple(stored) == names:
        return
    place = next(
        (i for i, (a, b) in enumerate(zip(stored, names, strict=False)) if a != b),
        min(len(stored), len(names)),
    )
    theirs = repr(stored[place])[:80] if place < len(stored) else "nothing"
    ours = repr(names[place])[:80] if place < len(names) else "nothing"
    raise CheckpointError(
        f"The columns in {source} are those of another version of nasgraph: number {place} is {theirs}, here {ours}. "
        "Make the folder anew from its measurements"
    )


def _features(value: Json, source: str) -> GraphFeatures:
    if value == "universal":
        return GraphFeatures.universal()
    if isinstance(value, dict) and set(value) == {"kinds", "landmarks"}:
        kinds, landmarks = value["kinds"], value["landmarks"]
        if (
            isinstance(kinds, list)
            and isinstance(landmarks, list)
            and all(isinstance(name, str) for name in (*kinds, *landmarks))
            and len(kinds) <= 1000
            and len(landmarks) <= 16
        ):
            return GraphFeatures(tuple(map(str, kinds)), tuple(map(str, landmarks)))
    raise CheckpointError(
        f"Expected 'features' in {source} to be 'universal' or kinds and landmarks (got {canonical_json(value):.80})"
    )


def _metric(value: Json, source: str) -> PerformanceMetric:
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        raise CheckpointError(f"Expected 'metric' in {source} to be an object with a 'name'")
    limits: dict[str, float | None] = {}
    for name in ("lowest", "highest"):
        limit = value.get(name)
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int | float)):
            raise CheckpointError(f"Expected '{name}' of the metric in {source} to be a number or null")
        limits[name] = None if limit is None else float(limit)
    direction = value.get("higher_is_better", True)
    if not isinstance(direction, bool):
        raise CheckpointError(f"Expected 'higher_is_better' of the metric in {source} to be true or false")
    texts = {name: read_text(value, name, source) for name in ("name", "unit", "data", "protocol")}
    return PerformanceMetric(
        **texts, lowest=limits["lowest"], highest=limits["highest"], higher_is_better=direction
    )


def _shape(value: Json, source: str) -> tuple[int, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not all(type(side) is int and side > 0 for side in value):
        raise CheckpointError(f"Expected 'input_shape' in {source} to be a list of positive integers or null")
    return tuple(int(str(side)) for side in value)
