"""What a cascade learns from: the trials of the search so far, with what the stages said of them."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import optuna

from nasgraph.errors import NasGraphError
from nasgraph.ir import ComputationalGraph
from nasgraph.search.cascade_records import Labelled, LearntScreen, Scores, Stage
from nasgraph.search.experience import Experience
from nasgraph.search.history import SCORES

ORIGIN = "cascade"
"""User attribute of a trial from a cascade: the round, its place there, the stages it reached, whether chance passed it on, and how
many candidates of the round it stands for."""


@dataclass(frozen=True, slots=True)
class SeenTrial:
    """A trial from a round that ended with a number.

    Attributes:
        round: Number of the round.
        gain: The first objective, higher is better. Of a pruned trial what it last reported.
        scores: What the stages said of it.
        reached: Stages that it reached by merit.
        is_random: Whether chance passed it on, whatever the stages said.
        weight: Candidates that it stands for.
    """

    round: int
    gain: float
    scores: Scores
    reached: tuple[str, ...]
    is_random: bool
    weight: float


class SeenTrials:
    """The trials that a round may know.

    Trials that failed count for nothing: nobody knows what they are worth. A pruned one counts with what it last
    reported, which is at most what it would have reached.

    Args:
        study: Holds the trials.
        experience: Says which of them may be seen.

    Attributes:
        labelled: Every trial that ended with a number.
        from_rounds: Those of them that a round chose.
        learning_s: CPU seconds that learning a stage took, by name.
    """

    def __init__(self, study: optuna.Study, experience: Experience) -> None:
        self.labelled: list[Labelled] = []
        self.from_rounds: list[SeenTrial] = []
        self.learning_s: dict[str, float] = {}
        self._learnt: dict[str, LearntScreen | None] = {}
        trials = study.get_trials(deepcopy=False)
        for seen in experience.observations:
            gain = seen.gain if seen.gains else seen.last_report
            if gain is None:
                continue
            attrs = trials[seen.number].user_attrs
            scores, origin = attrs.get(SCORES, {}), attrs.get(ORIGIN)
            self.labelled.append(Labelled(seen.candidate.graph, gain, scores))
            if origin is not None:
                self.from_rounds.append(
                    SeenTrial(
                        int(origin["round"]),
                        gain,
                        scores,
                        tuple(origin["reached"]),
                        bool(origin["is_random"]),
                        float(origin["weight"]),
                    )
                )

    def is_ready(self, stage: Stage) -> bool:
        """Whether a stage can score: it need not learn, or there is enough to learn from."""
        return stage.learn is None or self._screen(stage) is not None

    def score(
        self, stage: Stage, graphs: Sequence[ComputationalGraph], scores: Sequence[Scores]
    ) -> Sequence[Scores]:
        """What a stage that is ready says of graphs, of which earlier stages said `scores`.

        Raises:
            NasGraphError: If it leaves a graph out.
        """
        if stage.score is not None:
            said = stage.score(graphs)
        else:
            screen = self._screen(stage)
            assert screen is not None
            said = screen(graphs, scores)
        if len(said) != len(graphs):
            raise NasGraphError(
                f"Expected the stage '{stage.name}' to score {len(graphs)} graphs (got {len(said)})"
            )
        return said

    def _screen(self, stage: Stage) -> LearntScreen | None:
        if stage.name not in self._learnt:
            assert stage.learn is not None
            began = time.process_time()
            self._learnt[stage.name] = stage.learn(self.labelled)
            self.learning_s[stage.name] = time.process_time() - began
        return self._learnt[stage.name]
