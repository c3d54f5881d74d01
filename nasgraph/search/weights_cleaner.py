"""Removes trained weights that no child will start from any more."""

from collections import deque
from collections.abc import Sequence
from pathlib import Path

from nasgraph.evaluate.heirs import remove_weights
from nasgraph.search.records import ScreenedCandidate, SearchInfo, SearchResult, TrialResult

KEPT = 64
"""Networks whose weights are kept: more than a population holds."""


class WeightsCleaner:
    """Keeps the trained weights of the latest trials only, and none when the search is finished. A `SearchListener`.

    A search that is interrupted keeps them, for when it goes on. Parents are among the latest trials: a population of regularised
    evolution holds the last observations.

    Args:
        root: The `weights` of the `TrainEvaluator` that trains the trials.
        kept: Trials whose weights are kept.
    """

    def __init__(self, root: Path, *, kept: int = KEPT) -> None:
        self._root = root
        self._latest: deque[str] = deque(maxlen=kept)

    def on_start(self, info: SearchInfo) -> None:
        """Nothing."""

    def on_screened(self, screened: Sequence[ScreenedCandidate], *, total: int) -> None:
        """Nothing."""

    def on_kept(self, screened: Sequence[ScreenedCandidate]) -> None:
        """Nothing."""

    def on_trial(self, result: TrialResult) -> None:
        """Remove what is kept of older trials."""
        is_full = len(self._latest) == self._latest.maxlen
        self._latest.append(result.candidate.graph.fingerprint)
        if is_full:
            remove_weights(self._root, keep=self._latest)

    def on_end(self, result: SearchResult) -> None:
        """Remove everything, if no trial will follow."""
        if result.stopped_because == "finished":
            remove_weights(self._root)
