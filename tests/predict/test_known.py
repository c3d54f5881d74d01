"""Known performance: what is stored comes back, damage is noticed, and the predictor is that of the measured graphs."""

from pathlib import Path

import numpy as np
import pytest
import torch

from nasgraph.errors import CheckpointError, DataError
from nasgraph.files import read_json, write_json
from nasgraph.ir import ComputationalGraph
from nasgraph.predict import (
    EnsembleConfig,
    Familiarity,
    GraphFeatures,
    GraphPredictor,
    KnownPerformance,
    PerformanceMetric,
)
from nasgraph.predict.known import describe
from nasgraph.seeding import generator
from nasgraph.spaces import load_space, sample

METRIC = PerformanceMetric(name="accuracy", unit="percent", data="made up", lowest=0.0, highest=100.0)


def sampled(count: int, label: str) -> list[ComputationalGraph]:
    """Distinct networks of a small space."""
    space = load_space("mlp", input_shape=(8,), num_classes=3)
    rng, found = generator(0, label), dict[str, ComputationalGraph]()
    while len(found) < count:
        graph = sample(space, rng).graph
        found[graph.fingerprint] = graph
    return list(found.values())


def accuracies(graphs: list[ComputationalGraph]) -> list[float]:
    """A made-up accuracy that rises with size."""
    sizes = [sum(np.prod(spec.shape) for spec in graph.parameters.values()) for graph in graphs]
    return [float(50 + 5 * np.log(size) % 40) for size in sizes]


@pytest.fixture(scope="module")
def graphs() -> list[ComputationalGraph]:
    return sampled(28, "known")


@pytest.fixture(scope="module")
def known(graphs: list[ComputationalGraph]) -> KnownPerformance:
    return KnownPerformance.of(
        graphs, accuracies(graphs), metric=METRIC, input_shape=(8,), num_classes=3, source="a test"
    )


def test_what_is_saved_is_loaded(known: KnownPerformance, tmp_path: Path) -> None:
    known.save(tmp_path, recipe={"seed": 3})
    again = KnownPerformance.load(tmp_path)
    for name in ("metric", "features", "keys", "fingerprints", "input_shape", "num_classes", "source"):
        assert getattr(again, name) == getattr(known, name)
    np.testing.assert_array_equal(again.rows_NF, known.rows_NF)
    np.testing.assert_array_equal(again.targets_N, known.targets_N)
    assert again.rows_NF.dtype == np.float32
    others = sampled(5, "others")
    first, second = (each.predictor().predict(others) for each in (known, again))
    torch.testing.assert_close(first.mean, second.mean, rtol=0, atol=0)
    torch.testing.assert_close(first.interval(), second.interval(), rtol=0, atol=0)


def test_features_of_one_space_are_stored_too(graphs: list[ComputationalGraph], tmp_path: Path) -> None:
    own = GraphFeatures.of(graphs)
    KnownPerformance.of(graphs, accuracies(graphs), metric=METRIC, features=own).save(tmp_path)
    assert KnownPerformance.load(tmp_path).features == own


def test_saving_twice_gives_the_same_bytes(known: KnownPerformance, tmp_path: Path) -> None:
    for name in ("a", "b"):
        known.save(tmp_path / name)
    for file in ("rows.safetensors", "config.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_it_predicts_what_a_predictor_of_the_graphs_predicts(
    known: KnownPerformance, graphs: list[ComputationalGraph]
) -> None:
    others = sampled(6, "others")
    predictor = GraphPredictor(universal=True)
    predictor.fit(graphs, torch.tensor(accuracies(graphs), dtype=torch.float64))
    expected, found = predictor.predict(others), known.predictor().predict(others)
    torch.testing.assert_close(found.mean, expected.mean, rtol=1e-2, atol=0.3)


def test_distances_and_columns_are_those_of_familiarity(known: KnownPerformance) -> None:
    rows = describe(known.features, sampled(12, "others"))
    fitted, independent = known.predictor(), Familiarity.of(known.rows_NF.astype(np.float64))
    np.testing.assert_allclose(
        fitted.distances(rows).min(axis=1), independent.distance(rows.astype(np.float64)), rtol=1e-6
    )
    names = known.features.names
    expected = [[names[c] for c in row] for row in independent.outside(rows.astype(np.float64))]
    assert [[each.column for each in row] for row in fitted.outside(rows)] == expected


def test_a_known_graph_has_itself_as_nearest(
    known: KnownPerformance, graphs: list[ComputationalGraph]
) -> None:
    fitted = known.predictor()
    for place, nearest in enumerate(fitted.nearest(describe(known.features, graphs), count=2)):
        assert nearest[0].distance == 0
        assert nearest[0].distance <= nearest[1].distance
        assert nearest[0].value == known.value_of(nearest[0].fingerprint)
        assert known.value_of(graphs[place].fingerprint) == known.targets_N[place]
    assert known.value_of("0" * 16) is None


def test_left_out_rows_leave_the_range_as_often_as_counted(known: KnownPerformance) -> None:
    rows = known.rows_NF
    counts = []
    for row in range(len(rows)):
        rest = np.delete(rows, row, axis=0)
        counts.append(int(((rows[row] < rest.min(axis=0)) | (rows[row] > rest.max(axis=0))).sum()))
    assert known.predictor().most_outside == max(counts)


def test_a_predictor_is_fitted_once_per_configuration(known: KnownPerformance) -> None:
    assert known.predictor() is known.predictor(EnsembleConfig())
    assert known.predictor(EnsembleConfig(level=0.8)) is not known.predictor()


def test_predictions_stay_within_the_limits_of_the_metric(graphs: list[ComputationalGraph]) -> None:
    narrow = PerformanceMetric(name="accuracy", lowest=60.0, highest=61.0)
    fitted = KnownPerformance.of(graphs, accuracies(graphs), metric=narrow).predictor()
    said = fitted.predict(graphs)
    for values in (said.mean, *said.interval()):
        assert float(values.min()) >= 60
        assert float(values.max()) <= 61


def test_where_less_is_better_intervals_are_still_in_order(graphs: list[ComputationalGraph]) -> None:
    values = accuracies(graphs)
    errors = PerformanceMetric(name="error", higher_is_better=False)
    said = KnownPerformance.of(graphs, [100 - v for v in values], metric=errors).predictor().predict(graphs)
    mirrored = KnownPerformance.of(
        graphs, [v - 100 for v in values], metric=PerformanceMetric(name="minus error")
    ).predictor()
    expected = mirrored.predict(graphs)
    torch.testing.assert_close(said.mean, -expected.mean)
    torch.testing.assert_close(said.interval()[0], -expected.interval()[1])
    assert bool((said.interval()[0] <= said.interval()[1]).all())


# ---- bad input


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ([1.0] * 28, "All 28 targets are 1: there is nothing to learn"),
        ([float(i) for i in range(27)] + [float("nan")], "Expected finite rows and targets"),
    ],
)
def test_targets_that_teach_nothing_are_refused(
    graphs: list[ComputationalGraph], targets: list[float], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        KnownPerformance.of(graphs, targets, metric=METRIC)


@pytest.mark.parametrize("count", [0, 1, 7])
def test_too_few_graphs_are_refused(graphs: list[ComputationalGraph], count: int) -> None:
    with pytest.raises(DataError, match=f"at least 8 labelled graphs \\(got {count}\\)"):
        KnownPerformance.of(graphs[:count], [float(i) for i in range(count)], metric=METRIC)


def test_a_changed_byte_is_noticed(known: KnownPerformance, tmp_path: Path) -> None:
    known.save(tmp_path)
    file = tmp_path / "rows.safetensors"
    data = bytearray(file.read_bytes())
    data[-5] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(CheckpointError, match="checksum"):
        KnownPerformance.load(tmp_path)


def test_columns_of_another_version_are_refused_by_name(known: KnownPerformance, tmp_path: Path) -> None:
    known.save(tmp_path)
    config = read_json(tmp_path / "config.json")
    assert isinstance(config, dict)
    columns = config["columns"]
    assert isinstance(columns, list)
    columns[7] = "number of something else"
    write_json(tmp_path / "config.json", config)
    with pytest.raises(
        CheckpointError, match="number 7 is 'number of something else', here 'number of merge'"
    ):
        KnownPerformance.load(tmp_path)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("schema", "nasgraph/performance/9", "schema 'nasgraph/performance/1'"),
        ("metric", {"unit": "percent"}, "'metric' in .* with a 'name'"),
        ("metric", {"name": "a", "lowest": "0"}, "'lowest' of the metric"),
        ("features", {"kinds": ["a"], "landmarks": ["a"] * 99}, "'features'"),
        ("input_shape", [3, -1], "'input_shape'"),
        ("columns", None, "'columns'"),
        ("source", 3, "'source'"),
        ("sha256", None, "checksum"),
    ],
)
def test_a_foreign_configuration_is_refused(
    known: KnownPerformance, tmp_path: Path, field: str, value: object, message: str
) -> None:
    known.save(tmp_path)
    config = read_json(tmp_path / "config.json")
    assert isinstance(config, dict)
    write_json(tmp_path / "config.json", {**config, field: value})
    with pytest.raises(CheckpointError, match=message):
        KnownPerformance.load(tmp_path)


def test_a_missing_folder_is_an_error_of_one_line(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="No known performance in"):
        KnownPerformance.load(tmp_path / "nothing")
