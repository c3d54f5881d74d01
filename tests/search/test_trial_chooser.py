"""The chooser that lets Optuna decide."""

import optuna
import pytest

from nasgraph.errors import InvalidChoiceError
from nasgraph.search import TrialChooser
from nasgraph.spaces import realise, replay
from tests.search.toys import Chain


def test_a_trial_remembers_every_choice_of_its_candidate() -> None:
    trial = optuna.create_study().ask()
    candidate, questions = realise(Chain(), TrialChooser(trial))
    assert trial.params == dict(candidate.architecture.choices)
    assert len(questions) == 6
    assert replay(Chain(), candidate.architecture) == candidate


def test_asking_again_gives_the_same_answers() -> None:
    trial = optuna.create_study().ask()
    assert realise(Chain(), TrialChooser(trial)) == realise(Chain(), TrialChooser(trial))


def test_enqueued_choices_are_given() -> None:
    study = optuna.create_study()
    first, _ = realise(Chain(), TrialChooser(study.ask()))
    study.enqueue_trial(dict(first.architecture.choices))
    assert realise(Chain(), TrialChooser(study.ask()))[0] == first


@pytest.mark.parametrize("options", [(True, False), (0.5, 1.0), (1, 2, 4), ("a", "b")])
def test_answers_keep_their_type(options: tuple[bool, ...] | tuple[float, ...] | tuple[str, ...]) -> None:
    study = optuna.create_study()
    for option in options:
        study.enqueue_trial({"choice": option})
        answer = TrialChooser(study.ask()).categorical("choice", options)
        assert answer == option
        assert type(answer) is type(option)


def test_options_that_optuna_cannot_tell_apart_are_refused() -> None:
    with pytest.raises(InvalidChoiceError, match="different options for 'choice'"):
        TrialChooser(optuna.create_study().ask()).categorical("choice", (1, True))
