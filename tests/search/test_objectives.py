"""What a search optimises."""

import pytest

from nasgraph.errors import ConfigError, NasGraphError, UnknownNameError
from nasgraph.search.objectives import (
    Objective,
    are_finite,
    gains,
    parse_objective,
    parse_objectives,
    values_of,
)


@pytest.mark.parametrize(
    ("text", "name", "maximise"),
    [
        ("val_accuracy", "val_accuracy", True),
        ("max:val_accuracy", "val_accuracy", True),
        ("val_loss", "val_loss", False),
        ("-latency_ms", "latency_ms", False),
        ("min:num_parameters", "num_parameters", False),
        (" num_parameters ", "num_parameters", False),
        ("max:multiply_adds", "multiply_adds", True),
        ("latency:pixel3", "latency:pixel3", False),
        ("min:energy:edge gpu", "energy:edge gpu", False),
        ("max:my_score", "my_score", True),
    ],
)
def test_an_objective_is_read_and_written_back(text: str, name: str, maximise: bool) -> None:
    objective = parse_objective(text)
    assert objective == Objective(name, maximise)
    assert parse_objective(str(objective)) == objective
    assert objective.direction == ("maximize" if maximise else "minimize")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Expected the name of a metric"),
        ("min:", "Expected the name of a metric"),
        ("my_score", "Expected 'max:my_score' or 'min:my_score'"),
        ("-val_accuracy", "Of 'val_accuracy' higher is better"),
        ("max:val_loss", "Of 'val_loss' lower is better"),
        ("val_accuracy,val_accuracy", "contradict each other: 'val_accuracy' is wanted twice"),
        ("max:depth,val_accuracy,-depth", "'depth' is wanted as large and as small as can be"),
        ("val_accuracy,,depth", "Expected the name of a metric"),
    ],
)
def test_what_is_no_objective_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_objectives(text)


def test_no_objective_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least one"):
        parse_objectives([])


def test_a_metric_that_nobody_measures_is_refused_at_the_start() -> None:
    assert parse_objectives("val_accuracy,depth", known=["val_accuracy", "depth", "x"])
    with pytest.raises(UnknownNameError, match="Close: 'val_accuracy'"):
        parse_objectives("max:val_acuracy", known=["val_accuracy", "depth"])


def test_gains_point_upwards_and_values_stay_as_measured() -> None:
    objectives = parse_objectives("val_accuracy,-latency_ms,max:depth")
    metrics = {"val_accuracy": 0.9, "latency_ms": 5.0, "depth": 7.0, "other": 1.0}
    assert values_of(objectives, metrics) == (0.9, 5.0, 7.0)
    assert gains(objectives, metrics) == (0.9, -5.0, 7.0)


def test_a_missing_metric_is_named_with_those_that_are_there() -> None:
    with pytest.raises(NasGraphError, match=r"metric 'latency_ms', .* \(got depth, val_accuracy\)"):
        gains(parse_objectives("-latency_ms"), {"val_accuracy": 0.5, "depth": 3.0})


def test_only_finite_numbers_count() -> None:
    assert are_finite((1.0, -2.0))
    assert not are_finite((1.0, float("nan")))
    assert not are_finite((float("inf"),))
