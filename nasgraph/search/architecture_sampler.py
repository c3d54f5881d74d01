"""Samplers that propose whole architectures.

Optuna's samplers see names and values. Ours see the graphs and the space that makes them. They serve through two doors:
`run_search` asks `propose` and writes a trial in one record; everybody else uses them as any `optuna.samplers.BaseSampler`.
"""

import threading
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from optuna import Study
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from nasgraph.errors import InvalidChoiceError, InvalidGraphError
from nasgraph.search.experience import Experience, Observation
from nasgraph.search.history import STATES
from nasgraph.search.trial_chooser import choices_of
from nasgraph.seeding import derive_seed
from nasgraph.spaces import Candidate, Question, ReplayChooser, SearchSpace, realise


class ArchitectureSampler(BaseSampler):
    """Proposes architectures of one space. Subclasses write `propose`.

    As an Optuna sampler, an objective that calls `space.build(TrialChooser(trial))` gets the answers of the proposal;
    parameters that the space does not ask for are drawn at random.

    Args:
        space: What is searched.
        seed: Decides everything random, together with the number of the trial.

    Attributes:
        parents: A strategy whose proposal for a trial is a mutation writes the number of the mutated trial here, by the number of
            the trial. `run_search` takes it into the trial's record, and lets evaluators start from what the parent learnt.
    """

    def __init__(self, space: SearchSpace, *, seed: int) -> None:
        self.space = space
        self.seed = seed
        self.parents: dict[int, int] = {}
        self._rest = RandomSampler(seed=0)
        self._study_id: int | None = None
        self._reader = _StudyReader(space)
        self._proposals: dict[int, tuple[Question, ...]] = {}
        self._lock = threading.Lock()

    @abstractmethod
    def propose(self, experience: Experience, *, number: int, attempt: int = 0) -> Candidate:
        """The candidate that trial `number` should evaluate.

        A pure function of the space, the seed, the arguments, and what `experience` holds: a search that was killed and
        goes on asks a new object the same and must get the same. An object may remember what it computed from the
        observations that it has seen already; `experience.observations` only grows.

        Args:
            experience: What was seen so far. The same object, grown, at every call for one study.
            number: Number of the trial, rising.
            attempt: How many proposals for this trial were refused, as their graphs were known or broke a constraint. A sampler
                that looks at `experience.is_new` itself sees few of them.
        """

    # ---- the door for Optuna

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """What the space asks for in the architecture that is proposed for this trial."""
        return {question.name: distribution_of(question) for question in self._proposal(study, trial)}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: Mapping[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The answers of the proposal, where they fit; else random ones."""
        answers = {question.name: question.answer for question in self._proposal(study, trial)}
        self._proposals.pop(trial.number, None)
        return {
            name: answers[name]
            if name in answers and _fits(distribution, answers[name])
            else self.sample_independent(study, trial, name, distribution)
            for name, distribution in search_space.items()
        }

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A random value."""
        self._rest._rng.rng.seed(derive_seed(self.seed, "independent", trial.number, param_name) & 0xFFFFFFFF)
        return self._rest.sample_independent(study, trial, param_name, param_distribution)

    def _proposal(self, study: Study, trial: FrozenTrial) -> tuple[Question, ...]:
        with self._lock:  # `optimize` may ask from several threads
            return self._locked_proposal(study, trial)

    def _locked_proposal(self, study: Study, trial: FrozenTrial) -> tuple[Question, ...]:
        if self._study_id != study._study_id:
            self._study_id, self._reader = study._study_id, _StudyReader(self.space)
            self._proposals.clear()
        if trial.number not in self._proposals:
            candidate = self.propose(self._reader.read(study), number=trial.number)
            answers = dict(candidate.architecture.choices)
            self._proposals[trial.number] = realise(self.space, ReplayChooser(answers))[1]
        return self._proposals[trial.number]


def distribution_of(question: Question) -> BaseDistribution:
    """The Optuna distribution from which a question's answer comes, the same as `TrialChooser` asks for."""
    options = question.options
    if isinstance(options, range):
        return IntDistribution(options[0], options[-1])
    return CategoricalDistribution(tuple(options))


def _fits(distribution: BaseDistribution, answer: object) -> bool:
    try:
        return bool(distribution._contains(distribution.to_internal_repr(answer)))
    except (TypeError, ValueError):
        return False


class _StudyReader:
    """Brings an `Experience` up to date with a study that anything may have written."""

    def __init__(self, space: SearchSpace) -> None:
        self._observations: list[Observation] = []
        self._known: set[str] = set()
        self._read: set[int] = set()
        self._experience = Experience(space, observations=self._observations, known=self._known)

    def read(self, study: Study) -> Experience:
        signs = [1.0 if d == StudyDirection.MAXIMIZE else -1.0 for d in study.directions]
        self._experience.num_objectives = len(signs)
        for trial in study.get_trials(deepcopy=False):
            if not trial.state.is_finished() or trial.number in self._read:
                continue
            self._read.add(trial.number)
            try:
                candidate, _ = realise(self._experience.space, ReplayChooser(choices_of(trial.params)))
            except (InvalidChoiceError, InvalidGraphError):
                continue  # of another space, or cut off before all was asked
            gains: tuple[float, ...] = ()
            if trial.state == OptunaState.COMPLETE:
                gains = tuple(sign * value for sign, value in zip(signs, trial.values, strict=True))
            step = trial.last_step
            last = None if step is None else signs[0] * trial.intermediate_values[step]
            self._observations.append(Observation(trial.number, candidate, STATES[trial.state], gains, last))
            self._known.add(candidate.graph.fingerprint)
        return self._experience
