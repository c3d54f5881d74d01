"""The cascade: rounds, kills, and stages that learn what they are worth."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState as OptunaState
from scipy.stats import kendalltau

from nasgraph.errors import ConfigError, NasGraphError
from nasgraph.ir import ComputationalGraph, cost_of
from nasgraph.search.cascade import Cascade
from nasgraph.search.cascade_records import CascadeConfig, Labelled, Stage
from nasgraph.search.cascade_rounds import rounds_of, stage_lines
from nasgraph.search.cascade_stages import screen_stage
from nasgraph.search.cascade_trials import ORIGIN
from nasgraph.search.constraints import parse_constraints
from nasgraph.search.experience import Experience, Observation
from nasgraph.search.history import SCORES
from nasgraph.search.records import StudyError, TrialState
from nasgraph.search.trial_chooser import TrialChooser
from nasgraph.seeding import generator
from nasgraph.spaces import ReplayChooser, SearchSpace, realise, sample
from tests.search.toys import Chain, quality

SMALL = CascadeConfig(num_candidates=40, num_kept=6, random_share=0.2, seed=3)


def noise(graph: ComputationalGraph, salt: str) -> float:
    return int(sha256((salt + graph.fingerprint).encode()).hexdigest()[:8], 16) / 2**32


def scores(function: Callable[[ComputationalGraph], float], name: str = "score") -> Callable[..., Any]:
    return lambda graphs: [{name: function(graph)} for graph in graphs]


def stage(name: str, function: Callable[[ComputationalGraph], float], keep: float = 0.5) -> Stage:
    return Stage(name=name, keep=keep, rank_by=("score",), score=scores(function))


def blurred(salt: str, share: float) -> Callable[[ComputationalGraph], float]:
    return lambda graph: (1 - share) * quality(graph) + share * noise(graph, salt)


TWO = (
    stage("rough", blurred("a", 0.5), keep=0.5),
    stage("fine", blurred("b", 0.1), keep=0.2),
)


class Search:
    """A search of one process, reduced to what a cascade sees of it."""

    def __init__(
        self, space: SearchSpace | None = None, study: optuna.Study | None = None, **known: Any
    ) -> None:
        self.study = study or optuna.create_study(
            direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0)
        )
        self.space = space or Chain()
        self.observations: list[Observation] = []
        self.known: set[str] = set()
        self.experience = Experience(self.space, observations=self.observations, known=self.known, **known)
        for trial in self.study.get_trials(deepcopy=False):
            if trial.state.is_finished():
                self._note(trial)

    def _note(self, trial: optuna.trial.FrozenTrial) -> None:
        candidate, _ = realise(self.space, ReplayChooser(trial.params))
        self.known.add(candidate.graph.fingerprint)
        gains = tuple(trial.values) if trial.state == OptunaState.COMPLETE else ()
        state = TrialState.COMPLETE if gains else TrialState.FAILED
        self.observations.append(Observation(trial.number, candidate, state, gains))

    @property
    def num_trials(self) -> int:
        return len(self.study.get_trials(deepcopy=False))

    def run(self, cascade: Cascade, until: int) -> None:
        """Trials until there are so many: those that wait first, then a round if one is due, then the sampler's."""
        while len(self.observations) < until:
            waiting = self.study.get_trials(deepcopy=False, states=(OptunaState.WAITING,))
            if not waiting:
                cascade.step(self.study, self.experience, num_trials=self.num_trials)
            trial = self.study.ask()
            candidate, _ = realise(self.space, TrialChooser(trial))
            self.study.tell(trial, quality(candidate.graph))
            self._note(self.study.get_trials(deepcopy=False)[trial.number])

    def waiting(self) -> list[Mapping[str, Any]]:
        trials = self.study.get_trials(deepcopy=False, states=(OptunaState.WAITING,))
        return [trial.system_attrs["fixed_params"] for trial in trials]


def trial_attrs(study: optuna.Study) -> list[dict[str, Any]]:
    return [trial.user_attrs for trial in study.get_trials(deepcopy=False)]


def test_each_stage_keeps_its_best_and_the_round_its_number() -> None:
    search, config = Search(), replace(SMALL, random_share=0.0)
    found = Cascade(TWO, config).step(search.study, search.experience, num_trials=0)
    assert found is not None
    assert (found.num_candidates, found.num_kept) == (40, 6)
    by_rough = sorted(found.screened, key=lambda each: -each.scores["rough.score"])
    passed = [each for each in by_rough if "fine.score" in each.scores]
    assert passed == by_rough[:20]
    best = sorted(passed, key=lambda each: -each.scores["fine.score"])[:6]
    assert list(found.screened[:6]) == best
    assert [each.kept for each in found.screened] == [True] * 6 + [False] * 34
    assert search.waiting() == [dict(each.candidate.architecture.choices) for each in best]
    rough, fine = found.stages
    assert (rough.num_scored, rough.num_passed, rough.state) == (40, 20, "active")
    assert (fine.num_scored, fine.num_passed) == (20, 6)
    assert min(rough.cpu_s, fine.cpu_s) > 0


def test_the_trial_keeps_what_every_stage_said_under_its_name() -> None:
    search = Search()
    Cascade(TWO, SMALL).step(search.study, search.experience, num_trials=0)
    for attrs, choices in zip(trial_attrs(search.study), search.waiting(), strict=True):
        graph = realise(search.space, ReplayChooser(choices))[0].graph
        assert set(attrs[SCORES]) == {"rough.score", "rough.rank", "fine.score", "fine.rank"}
        assert attrs[SCORES]["fine.score"] == blurred("b", 0.1)(graph)
        assert attrs[ORIGIN]["round"] == 0


def test_a_prefix_is_not_said_twice() -> None:
    own = screen_stage(scores(quality, "ghn_accuracy"), keep=0.5, rank_by=("ghn_accuracy",), name="ghn")
    search = Search()
    found = Cascade([own], SMALL).step(search.study, search.experience, num_trials=0)
    assert found is not None
    assert set(found.screened[0].scores) == {"ghn.accuracy", "ghn.rank"}


def test_chance_passes_some_on_whatever_the_stages_say_and_all_stages_score_them() -> None:
    config = CascadeConfig(num_candidates=60, num_kept=10, random_share=0.5, seed=1)
    others = (stage("rough", lambda graph: -quality(graph)), TWO[1])
    chosen = []
    for stages in (TWO, others):
        search = Search()
        found = Cascade(stages, config).step(search.study, search.experience, num_trials=0)
        assert found is not None
        attrs = trial_attrs(search.study)
        lucky = [place for place, each in enumerate(attrs) if each[ORIGIN]["is_random"]]
        assert len(lucky) == 5
        assert len(attrs) == found.num_kept == 10
        chosen.append({found.screened[place].candidate.graph.fingerprint for place in lucky})
        assert all("fine.score" in each[SCORES] for each in attrs)
        weights = {each[ORIGIN]["weight"] for each in attrs}
        assert weights == {1.0, 60 / 5}
        by_merit = [each for each in attrs if each[ORIGIN]["weight"] == 1.0]
        assert all(each[ORIGIN]["reached"] == ["rough", "fine"] for each in by_merit)
    assert chosen[0] == chosen[1]


def test_rounds_follow_each_other_and_bring_new_graphs() -> None:
    search, cascade = Search(), Cascade(TWO, SMALL)
    search.run(cascade, 24)
    assert [each.number for each in rounds_of(search.study)] == [0, 1, 2, 3]
    assert len(search.known) == 24
    assert [attrs[ORIGIN]["round"] for attrs in trial_attrs(search.study)] == [n // 6 for n in range(24)]


def test_between_rounds_the_sampler_has_its_turn_and_rounds_end() -> None:
    search = Search()
    search.run(Cascade(TWO, replace(SMALL, every=10, max_rounds=2)), 32)
    origins = [attrs.get(ORIGIN, {}).get("round") for attrs in trial_attrs(search.study)]
    assert origins == [0] * 6 + [None] * 4 + [1] * 6 + [None] * 16


def test_survivors_are_better_than_random_candidates() -> None:
    search, cascade = Search(), Cascade(TWO, SMALL)
    search.run(cascade, 30)
    random = [quality(sample(search.space, generator(9, draw)).graph) for draw in range(200)]
    kept = [observation.gain for observation in search.observations]
    assert sum(kept) / len(kept) > sum(random) / len(random) + 0.1


def test_equal_seeds_give_equal_rounds_and_others_others() -> None:
    trials = []
    for seed in (3, 3, 4):
        search = Search()
        search.run(Cascade(TWO, replace(SMALL, seed=seed)), 18)
        trials.append([trial.params for trial in search.study.get_trials(deepcopy=False)])
    assert trials[0] == trials[1] != trials[2]


# ---- kills


def test_a_search_that_is_killed_anywhere_goes_on_as_if_it_had_not_been(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reference = Search()
    reference.run(Cascade(TWO, SMALL), 24)
    expected = [(t.params, t.user_attrs[SCORES]) for t in reference.study.get_trials(deepcopy=False)]

    search, rng, kills = Search(), generator(0, "kills"), 0
    original_enqueue, original_attr = optuna.Study.enqueue_trial, optuna.Study.set_user_attr

    def perhaps(call: Callable[..., None]) -> Callable[..., None]:
        def wrapped(*arguments: Any, **named: Any) -> None:
            nonlocal kills
            if rng.random() < 0.3:
                kills += 1
                raise KeyboardInterrupt
            call(*arguments, **named)
            if rng.random() < 0.2:
                kills += 1
                raise KeyboardInterrupt

        return wrapped

    monkeypatch.setattr(optuna.Study, "enqueue_trial", perhaps(original_enqueue))
    monkeypatch.setattr(optuna.Study, "set_user_attr", perhaps(original_attr))
    while len(search.observations) < 24:
        search = Search(study=search.study)  # a new process: nothing is remembered
        try:
            search.run(Cascade(TWO, SMALL), 24)
        except KeyboardInterrupt:
            continue
    assert kills > 5
    assert [(t.params, t.user_attrs[SCORES]) for t in search.study.get_trials(deepcopy=False)] == expected


def test_a_round_that_runs_out_of_time_leaves_nothing_behind() -> None:
    search, cascade = Search(), Cascade(TWO, SMALL)
    answers = iter([False, False, True])
    assert (
        cascade.step(search.study, search.experience, num_trials=0, out_of_time=lambda: next(answers)) is None
    )
    assert search.num_trials == 0
    assert rounds_of(search.study) == ()
    assert cascade.is_due(search.study, 0)
    assert cascade.step(search.study, search.experience, num_trials=0) is not None


def test_a_round_is_done_once() -> None:
    search, calls = Search(), []

    def counting(graphs: Sequence[ComputationalGraph]) -> list[dict[str, float]]:
        calls.append(len(graphs))
        return [{"score": quality(graph)} for graph in graphs]

    own = Stage(name="own", keep=0.5, rank_by=("score",), score=counting, batch=16)
    cascade = Cascade([own], SMALL)
    assert cascade.step(search.study, search.experience, num_trials=0) is not None
    assert not cascade.is_due(search.study, 5)
    assert cascade.is_due(search.study, 6)
    assert cascade.step(search.study, search.experience, num_trials=5) is None
    assert Cascade([own], SMALL).step(search.study, search.experience, num_trials=5) is None
    assert calls == [16, 16, 8]
    assert search.num_trials == 6


def test_a_study_that_was_begun_with_other_stages_is_refused() -> None:
    search = Search()
    Cascade(TWO, SMALL).step(search.study, search.experience, num_trials=0)
    with pytest.raises(StudyError, match="begun with other stages"):
        Cascade(TWO[:1], SMALL).step(search.study, search.experience, num_trials=0)


# ---- free signals


def test_no_candidate_is_known_or_breaks_a_constraint() -> None:
    constraints = parse_constraints("num_parameters<=40")
    search = Search(admits=constraints)
    found = Cascade(TWO, SMALL).step(search.study, search.experience, num_trials=0)
    assert found is not None
    assert all(cost_of(each.candidate.graph).num_parameters <= 40 for each in found.screened)
    assert len({each.candidate.graph.fingerprint for each in found.screened}) == 40


def test_a_small_space_is_screened_as_far_as_it_goes(caplog: pytest.LogCaptureFixture) -> None:
    search = Search(Chain(num_layers=1, widths=2))
    with caplog.at_level(logging.WARNING, logger="nasgraph"):
        found = Cascade(TWO, SMALL).step(search.study, search.experience, num_trials=0)
    assert found is not None
    assert found.num_candidates == 8
    assert "draws 8 candidates, not 40" in caplog.text


def test_a_space_without_anything_new_gives_no_trials() -> None:
    search = Search(admits=lambda _: False)
    found = Cascade(TWO, SMALL).step(search.study, search.experience, num_trials=0)
    assert found is not None
    assert (found.num_candidates, found.num_kept, search.num_trials) == (0, 0, 0)


def test_candidates_can_come_from_a_sampler() -> None:
    search = Search()
    asked: list[int] = []

    def propose(experience: Experience, draw: int) -> Any:
        asked.append(draw)
        return sample(experience.space, generator(77, draw))

    Cascade(TWO, SMALL).step(search.study, search.experience, num_trials=0, propose=propose)
    assert asked == list(range(len(asked)))
    assert len(asked) >= 40


# ---- reliability


def test_a_stage_that_does_not_help_is_given_up_and_one_that_does_is_kept(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stages = (
        stage("noise", lambda graph: -blurred("n", 0.3)(graph), keep=0.5),
        stage("fine", blurred("b", 0.1), keep=0.2),
    )
    config = CascadeConfig(num_candidates=40, num_kept=8, random_share=0.4, seed=0)
    search = Search(Chain(num_layers=4))
    with caplog.at_level(logging.WARNING, logger="nasgraph"):
        search.run(Cascade(stages, config), 80)
    assert caplog.text.count("goes on without the stage 'noise'") == 1
    rounds = rounds_of(search.study)
    first = next(each.number for each in rounds if "noise" in each.given_up)
    assert 0 < first < 9
    for each in rounds:
        assert each.given_up == (("noise",) if each.number >= first else ())
        assert each.num_candidates == (20 if each.number >= first else 40)
        noise_report, fine_report = each.stages
        assert (noise_report.num_scored == 0) == (each.number >= first)
        assert fine_report.state == "active"
        assert each.num_kept == 8
    last = rounds[-1].stages
    assert last[0].with_result is not None
    assert last[0].with_result.high < 0.1
    assert last[1].with_result is not None
    assert last[1].with_result.low > 0.1
    later = [attrs for attrs in trial_attrs(search.study) if attrs[ORIGIN]["round"] >= first]
    assert all("noise.score" not in attrs[SCORES] for attrs in later)


def test_the_stages_can_be_told_in_words() -> None:
    stages = (stage("noise", lambda graph: -quality(graph)), stage("fine", quality))
    config = CascadeConfig(num_candidates=40, num_kept=8, random_share=0.4, seed=0)
    search = Search(Chain(num_layers=4))
    search.run(Cascade(stages, config), 48)
    noise_line, fine_line = stage_lines(rounds_of(search.study))
    assert noise_line.startswith("noise: given up; ")
    assert "ms CPU each; agreement with the next stage -" in noise_line
    assert fine_line.startswith("fine: active; ")
    assert "agreement with the next stage unknown; with the results 1.00 [1.00, 1.00] of" in fine_line
    assert stage_lines([]) == []


def test_what_was_given_up_stays_given_up_after_a_restart() -> None:
    stages = (stage("noise", lambda graph: -quality(graph)), stage("fine", quality))
    config = CascadeConfig(num_candidates=40, num_kept=8, random_share=0.4, seed=0)
    search = Search(Chain(num_layers=4))
    search.run(Cascade(stages, config), 48)
    assert rounds_of(search.study)[-1].given_up == ("noise",)
    again = Search(Chain(num_layers=4), study=search.study)
    again.observations.clear()  # as if nothing of it were known
    found = Cascade(stages, config).run_round(search.study, again.experience, number=20)
    assert found is not None
    assert found.given_up == ("noise",)


@pytest.mark.parametrize("change", [{"random_share": 0.0}, {"min_trials": 1000}, {"min_random": 1000}])
def test_without_enough_to_judge_by_no_stage_is_given_up(change: dict[str, Any]) -> None:
    stages = (stage("noise", lambda graph: -quality(graph)), stage("fine", quality))
    config = CascadeConfig(num_candidates=40, num_kept=8, random_share=0.4, seed=0)
    search = Search(Chain(num_layers=4))
    search.run(Cascade(stages, replace(config, **change)), 48)
    assert rounds_of(search.study)[-1].given_up == ()


def test_a_stage_that_may_not_be_given_up_stays() -> None:
    useless = replace(stage("noise", lambda graph: -quality(graph)), may_give_up=False)
    config = CascadeConfig(num_candidates=40, num_kept=8, random_share=0.4, seed=0)
    search = Search(Chain(num_layers=4))
    search.run(Cascade([useless, stage("fine", quality)], config), 48)
    assert rounds_of(search.study)[-1].given_up == ()


def test_with_every_stage_given_up_chance_decides() -> None:
    config = CascadeConfig(num_candidates=40, num_kept=8, random_share=0.4, seed=0)
    search = Search(Chain(num_layers=4))
    search.run(Cascade([stage("noise", lambda graph: -quality(graph), keep=0.2)], config), 64)
    last = rounds_of(search.study)[-1]
    assert last.given_up == ("noise",)
    assert (last.num_candidates, last.num_kept) == (8, 8)


def test_agreement_with_the_next_stage_is_that_of_all_that_reach_it() -> None:
    held = 0
    for seed in range(12):
        search = Search(Chain(num_layers=4))
        config = CascadeConfig(num_candidates=100, num_kept=30, random_share=0.5, seed=seed)
        found = Cascade(TWO, config).step(search.study, search.experience, num_trials=0)
        assert found is not None
        agreement = found.stages[0].with_next
        graphs = [each.candidate.graph for each in found.screened]
        truth = kendalltau([blurred("a", 0.5)(g) for g in graphs], [blurred("b", 0.1)(g) for g in graphs])
        assert agreement is not None
        held += agreement.low <= truth.statistic <= agreement.high
        assert agreement.high - agreement.low < 1
        assert found.stages[1].with_next is None
    assert held >= 9  # nine in ten, give or take


# ---- learnt stages


def remember(trials: Sequence[Labelled]) -> Any:
    """Learns nothing but that there are trials."""
    if len(trials) < 6:
        return None
    assert all(set(trial.scores) >= {"rough.score"} for trial in trials)
    return lambda graphs, said: [
        {"score": quality(graph), "earlier": each["rough.score"]}
        for graph, each in zip(graphs, said, strict=True)
    ]


def test_a_learnt_stage_waits_until_there_is_enough_to_learn_from() -> None:
    learnt = Stage(name="learnt", keep=0.5, rank_by=("score", "rough.score"), learn=remember)
    search = Search()
    search.run(Cascade([TWO[0], learnt], SMALL), 12)
    first, second = rounds_of(search.study)
    assert [report.state for report in first.stages] == ["active", "not ready"]
    assert [report.state for report in second.stages] == ["active", "active"]
    assert first.stages[0].num_passed == 6 - sum(
        attrs[ORIGIN]["weight"] > 1 for attrs in trial_attrs(search.study)[:6]
    )
    assert second.stages[0].num_passed == 20
    attrs = trial_attrs(search.study)[-1]
    assert attrs[SCORES]["learnt.earlier"] == attrs[SCORES]["rough.score"]


# ---- bad input


@pytest.mark.parametrize(
    ("screen", "message"),
    [
        (
            lambda graphs: [{"other": 1.0} for _ in graphs],
            r"stage 'own' to give 'own.score' \(got own.other\)",
        ),
        (lambda graphs: [{"score": 1.0} for _ in graphs[1:]], "stage 'own' to score 16 graphs"),
    ],
)
def test_a_stage_that_breaks_its_contract_stops_the_search(screen: Any, message: str) -> None:
    search = Search()
    own = Stage(name="own", keep=0.5, rank_by=("score",), score=screen)
    with pytest.raises(NasGraphError, match=message):
        Cascade([own], SMALL).step(search.study, search.experience, num_trials=0)


def test_who_cannot_be_scored_stands_last() -> None:
    search = Search()
    own = stage("own", lambda graph: math.nan if graph.fingerprint < "8" else quality(graph))
    found = Cascade([own], replace(SMALL, random_share=0.0)).step(
        search.study, search.experience, num_trials=0
    )
    assert found is not None
    assert not any(math.isnan(each.scores["own.score"]) for each in found.screened[:6])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Cascade([]), "at least one"),
        (lambda: Cascade([TWO[0], TWO[0]]), "different names"),
        (lambda: replace(TWO[0], name="a.b"), "without a point"),
        (lambda: replace(TWO[0], keep=0.0), "'keep' of the stage 'rough'"),
        (lambda: replace(TWO[0], score=None), "'score' or 'learn'"),
        (lambda: replace(TWO[0], rank_by=()), "something to rank by"),
        (lambda: CascadeConfig(num_candidates=4, num_kept=5), r"from 1 to 'num_candidates' \(got 5 and 4\)"),
        (lambda: CascadeConfig(random_share=1.0), "'random_share'"),
        (lambda: CascadeConfig(every=3), "'every' of at least 'num_kept'"),
        (lambda: CascadeConfig(max_rounds=0), "'max_rounds'"),
        (lambda: CascadeConfig(min_trials=2), "'min_trials'"),
    ],
)
def test_impossible_settings_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()
