"""The curve pruner in real studies: it stops the hopeless, keeps the promising, and refuses what it cannot read."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from nasgraph.errors import ConfigError
from nasgraph.predict.curves import (
    CurveError,
    CurvePosterior,
    CurvePredictor,
    CurveScale,
    PartialCurve,
    SampledPrior,
    loss_scale,
)
from nasgraph.search import CurvePruner, open_storage
from nasgraph.search.curve_pruner import best_finished

STEPS = 20
Direction = Literal["maximize", "minimize"]


@pytest.fixture(scope="module")
def model() -> SampledPrior:
    return SampledPrior(num_draws=4000)


def curve(end: float) -> list[float]:
    """Accuracies that approach `end`."""
    return [end - 0.4 * end / step for step in range(1, STEPS + 1)]


def run(study: optuna.Study, values: Sequence[float], *, first_step: int = 0) -> FrozenTrial:
    """One trial that reports its values and stops when it is told to."""
    trial = study.ask()
    for step, value in enumerate(values, start=first_step):
        trial.report(value, step)
        if trial.should_prune():
            return study.tell(trial, state=TrialState.PRUNED)
    return study.tell(trial, values[-1])


def new_study(pruner: CurvePruner, direction: Direction = "maximize") -> optuna.Study:
    return optuna.create_study(
        direction=direction, pruner=pruner, sampler=optuna.samplers.RandomSampler(seed=0)
    )


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_a_hopeless_trial_is_stopped_and_a_promising_one_is_not(
    model: SampledPrior, direction: Direction
) -> None:
    scale = loss_scale(1.0) if direction == "minimize" else CurveScale()

    def metric(end: float) -> list[float]:
        return [1 - value for value in curve(end)] if direction == "minimize" else curve(end)

    study = new_study(CurvePruner(model, num_steps=STEPS, scale=scale), direction)
    assert run(study, metric(0.8)).state is TrialState.COMPLETE
    hopeless = run(study, metric(0.3))
    assert hopeless.state is TrialState.PRUNED
    assert len(hopeless.intermediate_values) <= STEPS // 2
    better = run(study, metric(0.9))
    assert better.state is TrialState.COMPLETE
    assert study.best_trial.number == better.number


def test_nothing_is_stopped_before_a_trial_has_finished(model: SampledPrior) -> None:
    study = new_study(CurvePruner(model, num_steps=STEPS))
    first = run(study, curve(0.05))
    assert first.state is TrialState.COMPLETE
    assert len(first.intermediate_values) == STEPS


def test_the_warm_up_is_kept(model: SampledPrior) -> None:
    study = new_study(CurvePruner(model, num_steps=STEPS, warmup_steps=7))
    run(study, curve(0.95))
    assert len(run(study, curve(0.1)).intermediate_values) == 8


def test_a_threshold_of_zero_stops_nothing(model: SampledPrior) -> None:
    study = new_study(CurvePruner(model, num_steps=STEPS, threshold=0.0))
    run(study, curve(0.95))
    assert run(study, curve(0.05)).state is TrialState.COMPLETE


def test_storage_and_a_second_process_do_not_matter(model: SampledPrior, tmp_path: Path) -> None:
    """The pruner keeps no state: a study read again decides as the first one did."""

    def lengths(study: optuna.Study) -> list[int]:
        return [len(run(study, curve(end)).intermediate_values) for end in (0.7, 0.3, 0.75, 0.6, 0.2)]

    expected = lengths(new_study(CurvePruner(model, num_steps=STEPS)))
    again = lengths(new_study(CurvePruner(SampledPrior(num_draws=4000), num_steps=STEPS)))
    storage = open_storage(tmp_path / "study.journal")
    stored = optuna.create_study(storage=storage, study_name="a", direction="maximize")
    stored.pruner = CurvePruner(model, num_steps=STEPS)
    assert again == expected == lengths(stored)
    assert expected[1] < STEPS


class Fixed(CurvePredictor):
    """Says the same of every curve, and remembers what it was asked."""

    def __init__(self, borders: Sequence[float], probabilities: Sequence[float]) -> None:
        self.posterior = CurvePosterior(np.array(borders), np.array(probabilities))
        self.asked: list[PartialCurve] = []

    def predict(
        self, curves: Sequence[PartialCurve], *, step: float | int | None = None
    ) -> list[CurvePosterior]:
        self.asked += curves
        return [self.posterior for _ in curves]


@pytest.mark.parametrize(("chance", "expected"), [(0.049, TrialState.PRUNED), (0.051, TrialState.COMPLETE)])
def test_the_rule_is_the_probability_to_beat_the_best(chance: float, expected: TrialState) -> None:
    fixed = Fixed([0.0, 0.5, 1.0], [1 - chance, chance])
    study = new_study(CurvePruner(fixed, num_steps=3))
    study.add_trial(optuna.trial.create_trial(value=0.5))
    assert run(study, [0.1, 0.2, 0.3]).state is expected


def test_only_finished_finite_trials_are_the_best() -> None:
    study = optuna.create_study(direction="minimize")
    assert best_finished(study) is None
    study.add_trial(
        optuna.trial.create_trial(value=0.1, state=TrialState.PRUNED, intermediate_values={0: 0.1})
    )
    study.add_trial(optuna.trial.create_trial(value=0.6))
    study.add_trial(optuna.trial.create_trial(value=0.4))
    assert best_finished(study) == 0.4


@pytest.mark.parametrize("first_step", [0, 1])
def test_steps_become_amounts_of_training(first_step: int) -> None:
    fixed = Fixed([0.0, 1.0], [1.0])
    study = new_study(CurvePruner(fixed, num_steps=4, first_step=first_step))
    study.add_trial(optuna.trial.create_trial(value=0.5))
    run(study, [0.1, 0.2, 0.3, 0.4], first_step=first_step)
    assert [known.steps for known in fixed.asked] == [(1.0, 2.0), (1.0, 2.0, 3.0)]
    assert fixed.asked[0].horizon == 4


def test_a_training_that_diverged_is_stopped_and_a_gap_is_passed_over() -> None:
    fixed = Fixed([0.0, 1.0], [1.0])
    study = new_study(CurvePruner(fixed, num_steps=5))
    study.add_trial(optuna.trial.create_trial(value=0.5))
    assert run(study, [0.1, math.nan, 0.3]).state is TrialState.PRUNED
    trial = study.ask()
    for step, value in enumerate([0.1, math.nan, 0.3]):
        trial.report(value, step)
    assert not trial.should_prune()
    assert fixed.asked[-1].values == (0.1, 0.3)


def refused(
    pruner: CurvePruner, direction: Direction, values: Sequence[float], *, first_step: int = 0
) -> Callable[[], object]:
    study = new_study(pruner, direction)
    study.add_trial(optuna.trial.create_trial(value=0.5))
    return lambda: run(study, values, first_step=first_step)


def test_what_does_not_fit_the_study_is_refused() -> None:
    fixed = Fixed([0.0, 1.0], [1.0])
    with pytest.raises(ConfigError, match=r"to maximize one number.*got: minimize"):
        refused(CurvePruner(fixed, num_steps=5), "minimize", [0.1])()
    with pytest.raises(ConfigError, match=r"steps from 0 to 1 \(got 2\)"):
        refused(CurvePruner(fixed, num_steps=2), "maximize", [0.1, 0.2, 0.3])()
    with pytest.raises(CurveError, match="between 0 and 1"):
        refused(CurvePruner(fixed, num_steps=5), "maximize", [10.0, 93.0])()
    several = optuna.create_study(directions=["maximize", "minimize"])
    with pytest.raises(ConfigError, match="got: maximize, minimize"):
        CurvePruner(fixed, num_steps=5).prune(several, optuna.trial.create_trial(values=[0.1, 0.2]))


def test_foolish_settings_are_refused() -> None:
    fixed = Fixed([0.0, 1.0], [1.0])
    with pytest.raises(ConfigError, match="'num_steps' of at least 1"):
        CurvePruner(fixed, num_steps=0)
    with pytest.raises(ConfigError, match="'threshold' in"):
        CurvePruner(fixed, num_steps=5, threshold=1.0)
