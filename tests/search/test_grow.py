"""Growing a space while its study runs: in memory, in a journal file and in SQLite, with Optuna's samplers and ours."""

from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from optuna.storages import BaseStorage, InMemoryStorage, RDBStorage

from nasgraph.errors import InvalidChoiceError
from nasgraph.search import (
    SearchConfig,
    SearchResult,
    StudyError,
    TrialChooser,
    create_or_resume,
    make_sampler,
    open_storage,
    run_search,
)
from nasgraph.search.architecture_sampler import ArchitectureSampler
from nasgraph.search.experience import Experience
from nasgraph.search.trial_chooser import choices_of, parameter_name
from nasgraph.seeding import generator
from nasgraph.spaces import Architecture, Candidate, SearchSpace, realise, replay, sample
from nasgraph.spaces.grow import GrownOptions, grow
from tests.search.toys import OBJECTIVE, Conditional, instant

Opener = Callable[[], BaseStorage]


def conditional() -> SearchSpace:
    return Conditional(input_shape=(4,), num_classes=3)


def stages() -> list[SearchSpace]:
    """A space, and the same grown once and twice."""
    first = conditional()
    second = grow(first, {"width0": (16,), "depth": range(1, 6)})
    return [first, second, grow(second, {"width0": (32,), "activation1": ("silu", "mish")})]


@pytest.fixture(params=["memory", "journal", "sqlite"])
def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Opener:
    """Opens the same storage again and again."""
    if request.param == "memory":
        memory = InMemoryStorage()
        return lambda: memory
    if request.param == "journal":
        return lambda: open_storage(tmp_path / "studies.log")
    return lambda: RDBStorage(f"sqlite:///{tmp_path / 'studies.db'}")


def searched(space: SearchSpace, storage: BaseStorage, *, sampler: str, trials: int) -> SearchResult:
    study = create_or_resume(
        storage,
        "study",
        space=space,
        objective=OBJECTIVE,
        resume=True,
        seed=3,
        sampler=make_sampler(sampler, seed=3, space=space),
    )
    return run_search(space, instant, study, SearchConfig(num_trials=trials, seed=3))


def assert_goes_on(opener: Opener, sampler: str, trials: int) -> None:
    known: list[Architecture] = []
    for step, space in enumerate(stages(), start=1):
        result = searched(space, opener(), sampler=sampler, trials=trials * step)
        architectures = [trial.candidate.architecture for trial in result.trials]
        assert len(architectures) == trials * step
        assert architectures[: len(known)] == known
        known = architectures
    used = {dict(architecture.choices)["width0"] for architecture in known[trials:]}
    assert used & {16, 32}


@pytest.mark.parametrize("opener", ["memory", "journal"], indirect=True)
@pytest.mark.parametrize("sampler", ["tpe", "random", "nsgaii", "evolution"])
def test_a_study_goes_on_with_more_options_and_keeps_its_trials(opener: Opener, sampler: str) -> None:
    assert_goes_on(opener, sampler, trials=14)


@pytest.mark.parametrize("opener", ["sqlite"], indirect=True)
@pytest.mark.parametrize("sampler", ["tpe", "evolution"])
def test_a_study_in_a_database_goes_on_too(opener: Opener, sampler: str) -> None:
    assert_goes_on(opener, sampler, trials=3)


def test_our_samplers_learn_from_trials_before_and_after_the_growth() -> None:
    study = optuna.create_study(direction="maximize")
    for space in stages():
        for _ in range(5):
            trial = study.ask()
            candidate, _ = realise(space, TrialChooser(trial))
            study.tell(trial, float(len(candidate.graph)))
    seen: list[int] = []

    class Watching(ArchitectureSampler):
        def propose(self, experience: Experience, *, number: int, attempt: int = 0) -> Candidate:
            seen.append(len(experience.observations))
            return sample(self.space, generator(number))

    study.sampler = Watching(stages()[-1], seed=0)
    realise(stages()[-1], TrialChooser(study.ask()))
    assert seen == [15]


def test_what_our_samplers_propose_is_taken_under_the_new_name() -> None:
    space = stages()[-1]
    study = optuna.create_study(sampler=make_sampler("evolution", seed=5, space=space))
    trial = study.ask()
    sampler = study.sampler
    assert isinstance(sampler, ArchitectureSampler)
    proposed = {question.name: question.answer for question in sampler._proposal(study, study.trials[0])}
    assert dict(realise(space, TrialChooser(trial))[0].architecture.choices) == proposed


@pytest.mark.parametrize("sampler", ["tpe", "evolution"])
def test_optuna_finds_old_and_new_answers_in_one_study(opener: Opener, sampler: str) -> None:
    for space in stages():
        study = optuna.create_study(
            storage=opener(),
            study_name="plain",
            direction="maximize",
            load_if_exists=True,
            sampler=make_sampler(sampler, seed=0, space=space),
        )
        for _ in range(3):
            trial = study.ask()
            candidate, _ = realise(space, TrialChooser(trial))
            assert choices_of(trial.params) == dict(candidate.architecture.choices)
            study.tell(trial, float(len(candidate.graph)))
    for frozen in study.trials:
        assert dict(replay(space, _architecture(space, frozen.params)).architecture.choices)


def _architecture(space: SearchSpace, parameters: dict[str, str | int]) -> Architecture:
    return Architecture(space.name, tuple(choices_of(parameters).items()))


def test_what_was_enqueued_before_the_growth_is_evaluated_after_it(opener: Opener) -> None:
    third = stages()[-1]
    study = optuna.create_study(storage=opener(), study_name="s")
    wanted = {"depth": 1, "width0": 8, "activation0": "gelu"}
    study.enqueue_trial(wanted)
    study = optuna.load_study(storage=opener(), study_name="s")
    assert dict(realise(third, TrialChooser(study.ask()))[0].architecture.choices) == wanted
    new = {"depth": 1, "width0": 32, "activation0": "gelu"}
    study.enqueue_trial(new)
    trial = study.ask()
    assert dict(realise(third, TrialChooser(trial))[0].architecture.choices) == new
    assert trial.params == {"depth": 1, "width0 (5 options)": 32, "activation0": "gelu"}


def test_a_trial_that_was_interrupted_before_the_growth_keeps_its_answers() -> None:
    first, second, third = stages()
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for space in (first, second):
        trial = study.ask()
        before, _ = realise(space, TrialChooser(trial))
        again = optuna.Trial(study, trial._trial_id)
        assert realise(third, TrialChooser(again))[0] == before


def test_tpe_keeps_what_it_knows_of_the_choices_that_did_not_grow() -> None:
    first, second, _ = stages()
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0, n_startup_trials=5))
    for space in (first, second):
        for _ in range(25):
            trial = study.ask()
            candidate, _ = realise(space, TrialChooser(trial))
            study.tell(trial, 0.0 if dict(candidate.architecture.choices)["activation0"] == "gelu" else 1.0)
    late = [trial.params["activation0"] for trial in study.trials[25:]]
    assert late.count("gelu") > 20


def test_names_of_parameters_can_be_undone() -> None:
    options = GrownOptions((("a", "b"), ("c",)))
    assert parameter_name("kernel", ("a", "b", "c")) == "kernel"
    assert parameter_name("kernel", GrownOptions((("a", "b"),))) == "kernel"
    assert parameter_name("layer 1 kernel", options) == "layer 1 kernel (3 options)"
    assert choices_of({"layer 1 kernel (3 options)": "c", "depth": 2}) == {"layer 1 kernel": "c", "depth": 2}


def test_other_options_without_growth_are_refused_with_the_way_out(opener: Opener) -> None:
    study = optuna.create_study(storage=opener())
    TrialChooser(study.ask()).categorical("kernel", (3, 5))
    with pytest.raises(
        InvalidChoiceError, match=r"the choice 'kernel' with the options 3, 5, 7.*nasgraph\.spaces\.grow"
    ):
        TrialChooser(study.ask()).categorical("kernel", (3, 5, 7))


def test_a_space_that_has_grown_less_or_otherwise_is_refused(opener: Opener) -> None:
    first, second, third = stages()
    for space in (first, second, third, third):
        _resumed(opener, space)
    for space in (first, second, grow(second, {"width0": (64,), "activation1": ("silu", "mish")})):
        with pytest.raises(StudyError, match=r"has grown by .*Grow the space in the same steps"):
            _resumed(opener, space)


def _resumed(opener: Opener, space: SearchSpace) -> None:
    create_or_resume(opener(), "grown", space=space, objective=OBJECTIVE, resume=True, seed=0)
