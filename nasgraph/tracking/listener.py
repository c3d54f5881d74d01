"""A search in MLflow: one run per search, one child run per really evaluated trial, a series for the screened."""

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from nasgraph.errors import TrackingError
from nasgraph.mlflow_client import (
    artifact_root,
    connect,
    ensure_experiment,
    first_line,
    resolve_tracking_uri,
    shown_uri,
)
from nasgraph.search.records import ScreenedCandidate, SearchInfo, SearchResult, TrialResult, TrialState
from nasgraph.tracking.environment import environment_tags
from nasgraph.tracking.outbox import Outbox, TrackingSummary
from nasgraph.tracking.runs import (
    PARENT_TAG,
    PREFIX,
    TrialWrite,
    metric_series,
    own_tags,
    screened_points,
    screened_table,
    trials_table,
    write_artifacts,
)

if TYPE_CHECKING:
    import mlflow
    import mlflow.entities

_logger = logging.getLogger(__name__)

_BATCH = 1000  # metrics in one request: MLflow's limit
_TRIALS_PER_WRITE = 50


class MlflowListener:
    """Records a search in MLflow. Satisfies `nasgraph.search.SearchListener`.

    The search is a parent run. The first `max_runs` really evaluated trials, and each later one that is better than all before
    it, are child runs with their choices as parameters, their metrics (the learning curve as a stepped metric), `graph.json`,
    `architecture.json` and `weights.safetensors`. All trials are series on the parent run (`trial_<metric>`, step = number of the
    trial; written 50 at a time) and, at the end, the artifact `trials.jsonl`: a run costs MLflow twenty times what a search of
    thousands of trials can spend on one. Screened candidates are series on the parent run (step = order of sampling) and the artifact `screened.jsonl`. A
    search that is resumed continues its parent run, and gets the runs of trials that an earlier process finished but
    did not record.

    A store that fails while the search runs never stops it: see `Outbox`. `summary` says what was not written. Only
    `on_start` raises, so that a wrong address is noticed before anything is computed.

    Args:
        uri: Tracking address; None: MLFLOW_TRACKING_URI, else the store in `nasgraph-runs` of the current folder.
        experiment: Name of the MLflow experiment. Created where it does not exist.
        storage: Identifies the Optuna storage, such as its absolute path or its URL: studies of equal names in
            different storages are different searches. Empty for a study in memory, whose run is never continued.
        outbox: Queue of the writes; None: a new one.
        max_runs: See above.
    """

    def __init__(
        self,
        uri: str | None = None,
        *,
        experiment: str = "nasgraph",
        storage: str = "",
        outbox: Outbox | None = None,
        max_runs: int = 100,
    ) -> None:
        self.uri = resolve_tracking_uri(uri)
        self._experiment = experiment
        self._storage = storage
        self._outbox = outbox or Outbox()
        self._run_ids: dict[int, str] = {}
        self._num_screened = 0
        self._num_tables = 0
        self._best = -math.inf
        self._max_runs = max_runs
        self._num_trials = 0
        self._points: list[tuple[str, float, int]] = []

    @property
    def run_id(self) -> str:
        """Id of the search's run. Known after `on_start`."""
        run_id: str = self._parent.info.run_id
        return run_id

    def trial_run_id(self, number: int) -> str | None:
        """Id of the child run of a trial; None if it has none (yet)."""
        return self._run_ids.get(number)

    def summary(self) -> TrackingSummary:
        """What became of the writes so far."""
        return self._outbox.summary()

    def on_start(self, info: SearchInfo) -> None:
        """Connect, and start or continue the search's run.

        Raises:
            TrackingError: If the store does not answer or refuses. The message says what to do.
        """
        self._info = info
        self._num_trials = info.resumed_trials
        self._client = connect(self.uri)
        self._experiment_id = ensure_experiment(self._client, self._experiment, root=artifact_root(self.uri))
        tags = {**own_tags(self._facts(info)), "mlflow.note.content": f"Search of {info.space} by nasgraph"}
        try:
            self._parent = self._continued(info, tags) or self._client.create_run(
                self._experiment_id, tags=tags, run_name=info.study
            )
        except Exception as error:  # MLflow's stores are plug-ins: their errors have no common base
            raise TrackingError(f"Cannot start a run in the tracking store: {first_line(error)}") from error

    def on_screened(self, screened: Sequence[ScreenedCandidate], *, total: int) -> None:  # noqa: ARG002
        """Append the scores to the series of the search's run."""
        points = screened_points(screened, self._num_screened)
        self._num_screened += len(screened)
        metrics = metric_series(points, _now_ms())
        for start in range(0, len(metrics), _BATCH):
            self._send_metrics("screened candidates", metrics[start : start + _BATCH])

    def on_kept(self, screened: Sequence[ScreenedCandidate]) -> None:
        """Write the table of all screened candidates; one for each round of a cascade."""
        table = screened_table(screened)
        self._num_tables += 1
        name = "screened.jsonl" if self._num_tables == 1 else f"screened-{self._num_tables}.jsonl"
        self._outbox.send("table of screened candidates", lambda: self._write_file(name, table))

    def on_trial(self, result: TrialResult) -> None:
        """Write the child run of a trial if it gets one, and the new best value if it is one."""
        improves = self._improves(result)
        if improves or self._num_trials < self._max_runs:
            self._outbox.send("trial", self._trial_write(result))
        self._num_trials += 1
        self._points += [
            (f"trial_{name}", value, result.number)
            for name, value in result.metrics.items()
            if math.isfinite(value)
        ]
        if self._num_trials % _TRIALS_PER_WRITE == 0:
            self._send_points()
        if improves:
            points = [(f"best_{self._info.objective}", self._best, result.number)]
            self._send_metrics("best value", metric_series(points, _now_ms()))

    def _improves(self, result: TrialResult) -> bool:
        value = result.metrics.get(self._info.objective, -math.inf)
        if result.state is not TrialState.COMPLETE or not value > self._best:
            return False
        self._best = value
        return True

    def _send_points(self) -> None:
        metrics, self._points = metric_series(self._points, _now_ms()), []
        for start in range(0, len(metrics), _BATCH):
            self._send_metrics("series of trials", metrics[start : start + _BATCH])

    def on_end(self, result: SearchResult) -> None:
        """Write what is missing, close the search's run, and warn if something could not be written."""
        if result.screened and not self._num_tables:
            self.on_kept(result.screened)
        self._send_points()
        self._outbox.flush()
        if self._info.resumed_trials:
            self._outbox.send("missing trials", lambda: self._write_missing(result.trials))
        if result.trials:
            table = trials_table(result.trials)
            self._outbox.send("table of trials", lambda: self._write_file("trials.jsonl", table))
        self._outbox.send("end of the search", lambda: self._close(result))
        self._outbox.flush()
        summary = self.summary()
        if summary.failed or summary.pending:
            _logger.warning(
                "The tracking store '%s' lacks %d writes of this search. The study has all trials. Last error: %s",
                shown_uri(self.uri),
                summary.failed + summary.pending,
                summary.last_error,
            )

    def _facts(self, info: SearchInfo) -> dict[str, object]:
        facts: dict[str, object] = {**environment_tags(), **asdict(info.config), **info.tags}
        return {
            **facts,
            "kind": "search",
            "study": info.study,
            "storage": shown_uri(self._storage),
            "search_key": self._search_key(info),
            "space": info.space,
            "objective": info.objective,
        }

    def _search_key(self, info: SearchInfo) -> str:
        return sha256(f"{self._storage}\n{info.study}".encode()).hexdigest()[:16]

    def _continued(self, info: SearchInfo, tags: dict[str, str]) -> "mlflow.entities.Run | None":
        """The run of this search if an earlier process began it.

        A run that was finished is continued only if the study has trials: otherwise it belongs to a study of the same
        name that was deleted.
        """
        if not self._storage:
            return None
        where = f"tags.`{PREFIX}search_key` = '{self._search_key(info)}'"
        found = self._client.search_runs([self._experiment_id], where, max_results=1)
        if not found or (info.resumed_trials == 0 and found[0].info.status == "FINISHED"):
            return None
        run = found[0]
        self._client.update_run(run.info.run_id, status="RUNNING")
        self._client.log_batch(run.info.run_id, tags=_run_tags(tags), synchronous=True)
        self._best = run.data.metrics.get(f"best_{info.objective}", -math.inf)
        return run

    def _trial_write(self, result: TrialResult) -> TrialWrite:
        return TrialWrite(
            self._client,
            experiment_id=self._experiment_id,
            parent_id=self.run_id,
            study=self._info.study,
            result=result,
            done=self._run_ids.__setitem__,
        )

    def _send_metrics(self, what: str, metrics: "list[mlflow.entities.Metric]") -> None:
        self._outbox.send(
            what, lambda: self._client.log_batch(self.run_id, metrics=metrics, synchronous=True)
        )

    def _write_file(self, name: str, text: str) -> None:
        def write(folder: Path) -> None:
            (folder / name).write_text(text, encoding="utf-8")

        write_artifacts(self._client, self.run_id, self._parent.info.artifact_uri, write)

    def _write_missing(self, trials: Sequence[TrialResult]) -> None:
        """Record trials that an earlier process finished but did not record, or recorded by half, where they get a run."""
        for run in self._children():
            number = int(run.data.tags.get(f"{PREFIX}trial", "-1"))
            if run.info.status == "RUNNING":  # its process was killed in the middle of the write
                self._client.delete_run(run.info.run_id)
            else:
                self._run_ids[number] = run.info.run_id
        self._best = -math.inf
        for place, result in enumerate(trials):
            if (self._improves(result) or place < self._max_runs) and result.number not in self._run_ids:
                self._trial_write(result)()

    def _children(self) -> "list[mlflow.entities.Run]":
        where = f"tags.`{PARENT_TAG}` = '{self.run_id}'"
        children: list[mlflow.entities.Run] = []
        token: str | None = None
        while True:
            page = self._client.search_runs([self._experiment_id], where, max_results=1000, page_token=token)
            children += page
            token = page.token
            if not token:
                return children

    def _close(self, result: SearchResult) -> None:
        facts: dict[str, object] = {
            "stopped_because": result.stopped_because,
            "trials": len(result.trials),
            "duplicates": result.num_duplicates,
        }
        if result.best is not None:
            facts["best_trial"] = result.best.number
            facts["best_fingerprint"] = result.best.candidate.graph.fingerprint
        metrics = metric_series([("search_seconds", result.seconds, len(result.trials))], _now_ms())
        self._client.log_batch(
            self.run_id, metrics=metrics, tags=_run_tags(own_tags(facts)), synchronous=True
        )
        status = "KILLED" if result.stopped_because == "interrupted" else "FINISHED"
        self._client.set_terminated(self.run_id, status=status)


def _run_tags(tags: dict[str, str]) -> "list[mlflow.entities.RunTag]":
    from mlflow.entities import RunTag

    return [RunTag(name, value) for name, value in tags.items()]


def _now_ms() -> int:
    return int(time.time() * 1000)
