"""Removes the checkpoints of trainings whose trials are told."""

from collections.abc import Sequence
from pathlib import Path

from nasgraph.evaluate.checkpoints import remove_checkpoints
from nasgraph.search.records import ScreenedCandidate, SearchInfo, SearchResult, TrialResult


class CheckpointCleaner:
    """Forgets a trial's trainings once its result is durable. A `SearchListener`.

    A search that was killed between the two leaves a folder behind, which the end of the search removes. Put it before listeners that
    may be slow: it is quick.

    Args:
        root: The `checkpoints` of the `TrainEvaluator` that trains the trials.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def on_start(self, info: SearchInfo) -> None:
        """Nothing."""

    def on_screened(self, screened: Sequence[ScreenedCandidate], *, total: int) -> None:
        """Nothing."""

    def on_kept(self, screened: Sequence[ScreenedCandidate]) -> None:
        """Nothing."""

    def on_trial(self, result: TrialResult) -> None:
        """Remove what is kept of the trial."""
        remove_checkpoints(self._root, result.candidate.graph.fingerprint)

    def on_end(self, result: SearchResult) -> None:
        """Remove what is kept of any trial that is told."""
        for trial in result.trials:
            remove_checkpoints(self._root, trial.candidate.graph.fingerprint)
