"""Trials as MLflow runs: names and values within MLflow's limits, artifacts, and one repeatable write per trial."""

import json
import math
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors.torch import save_file

from nasgraph.files import canonical_json
from nasgraph.ir import graph_to_json
from nasgraph.mlflow_client import local_path
from nasgraph.search.records import ScreenedCandidate, TrialResult, TrialState

if TYPE_CHECKING:
    import mlflow
    import mlflow.entities

PREFIX = "nasgraph."
PARENT_TAG = "mlflow.parentRunId"  # what MLflow's page nests runs by
_MAX_NAME = 250
_MAX_TEXT = 5000  # a little below the limits of the oldest schema for parameters (6000) and tags (5000)
_STATUS = {TrialState.COMPLETE: "FINISHED", TrialState.PRUNED: "KILLED", TrialState.FAILED: "FAILED"}

WriteFiles = Callable[[Path], None]


def safe_name(name: str) -> str:
    """A name that MLflow accepts for a parameter, metric or tag; equal to `name` where that is allowed.

    Characters other than letters, digits and `_-. :/` become `_`. Names that were changed or cut end in a hash of the
    original, so different names stay different.
    """
    allowed = re.sub(r"[^\w\-. :/]", "_", name, flags=re.ASCII)
    plain = (
        allowed == name
        and 0 < len(name) <= _MAX_NAME
        and not re.search(r"(^[./])|(/$)|(//)|(\.\.)|(/\.)|(\./)", name)
    )
    if plain:
        return name
    digest = sha256(name.encode()).hexdigest()[:8]
    return f"{re.sub(r'[./]+', '_', allowed)[: _MAX_NAME - 9]}_{digest}"


def short_text(text: str) -> str:
    """The text, cut to what MLflow stores, with `...` where something was cut."""
    return text if len(text) <= _MAX_TEXT else f"{text[: _MAX_TEXT - 3]}..."


def own_tags(values: Mapping[str, object]) -> dict[str, str]:
    """Tags with our prefix from plain names and values."""
    return {
        f"{PREFIX}{safe_name(name)}"[:_MAX_NAME]: short_text(str(value)) for name, value in values.items()
    }


def metric_series(
    points: Iterable[tuple[str, float, int]], timestamp_ms: int
) -> "list[mlflow.entities.Metric]":
    """MLflow metrics from names, values and steps."""
    from mlflow.entities import Metric

    names: dict[str, str] = {}
    return [
        Metric(names.setdefault(name, safe_name(name)), float(value), timestamp_ms, step)
        for name, value, step in points
    ]


def screened_points(screened: Sequence[ScreenedCandidate], first_step: int) -> list[tuple[str, float, int]]:
    """Scores as points, one step per candidate. A candidate that could not be scored has no point."""
    return [
        (name, value, first_step + index)
        for index, item in enumerate(screened)
        for name, value in item.scores.items()
        if math.isfinite(value)
    ]


def screened_table(screened: Sequence[ScreenedCandidate]) -> str:
    """All screened candidates as JSON lines, in their order; a score that is no number is null."""
    lines = []
    for rank, item in enumerate(screened):
        scores = {name: value if math.isfinite(value) else None for name, value in item.scores.items()}
        architecture = json.loads(item.candidate.architecture.to_json())
        fingerprint = item.candidate.graph.fingerprint
        row = {"rank": rank, "fingerprint": fingerprint, "kept": item.kept, "scores": scores, **architecture}
        lines.append(canonical_json(row) + "\n")
    return "".join(lines)


def trials_table(trials: Sequence[TrialResult]) -> str:
    """All trials as JSON lines, in their order."""
    lines = []
    for result in trials:
        row = {
            "trial": result.number,
            "state": result.state.value,
            "fingerprint": result.candidate.graph.fingerprint,
            "metrics": {name: value for name, value in result.metrics.items() if math.isfinite(value)},
            "scores": {name: value for name, value in result.scores.items() if math.isfinite(value)},
            "reason": result.reason,
            "seconds": result.seconds,
            **json.loads(result.candidate.architecture.to_json()),
        }
        lines.append(canonical_json(row) + "\n")
    return "".join(lines)


def write_artifacts(client: "mlflow.MlflowClient", run_id: str, artifact_uri: str, write: WriteFiles) -> None:
    """Let `write` fill a folder that becomes the run's artifacts.

    A run whose artifacts lie on this machine gets them without a detour, which saves most of the cost.

    Args:
        client: From `connect`.
        run_id: The run.
        artifact_uri: Where its artifacts lie, as `create_run` returned it.
        write: Called with the folder to fill.
    """
    folder = local_path(artifact_uri)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        write(folder)
        return
    temporary = Path(tempfile.mkdtemp(prefix="nasgraph-"))
    try:
        write(temporary)
        client.log_artifacts(run_id, str(temporary))
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


class TrialWrite:
    """The child run of one trial. Calling it writes the run; calling it again continues where it failed.

    Args:
        client: From `connect`.
        experiment_id: Where the run goes.
        parent_id: Run of the search.
        study: Name of the study.
        result: The trial.
        done: Called with trial number and run id when all is written.
    """

    def __init__(
        self,
        client: "mlflow.MlflowClient",
        *,
        experiment_id: str,
        parent_id: str,
        study: str,
        result: TrialResult,
        done: Callable[[int, str], None],
    ) -> None:
        self._client = client
        self._experiment_id = experiment_id
        self._parent_id = parent_id
        self._result = result
        self._tags = _trial_tags(result, study, parent_id)
        self._ended_ms = int(time.time() * 1000)
        self._done = done
        self._attempted = False
        self._run: mlflow.entities.Run | None = None

    def __call__(self) -> None:
        """Write what is missing. Raises whatever the store raises."""
        result, client = self._result, self._client
        if self._run is None:
            self._run = self._create_run()
        run_id = self._run.info.run_id
        client.log_batch(
            run_id,
            metrics=metric_series(_trial_points(result), self._ended_ms),
            params=_parameters(result),
            synchronous=True,
        )
        write_artifacts(
            client, run_id, self._run.info.artifact_uri, lambda folder: _write_trial(result, folder)
        )
        client.set_terminated(run_id, status=_STATUS[result.state], end_time=self._ended_ms)
        self._done(result.number, run_id)

    def _create_run(self) -> "mlflow.entities.Run":
        if self._attempted:  # the answer to an earlier attempt may have been lost, the run may exist
            where = f"tags.`{PARENT_TAG}` = '{self._parent_id}' AND tags.`{PREFIX}trial` = '{self._result.number}'"
            found = self._client.search_runs([self._experiment_id], where, max_results=1)
            if found:
                return found[0]
        self._attempted = True
        return self._client.create_run(
            self._experiment_id,
            start_time=self._ended_ms - int(1000 * self._result.seconds),
            tags=self._tags,
            run_name=f"trial-{self._result.number}",
        )


def _trial_tags(result: TrialResult, study: str, parent_id: str) -> dict[str, str]:
    facts: dict[str, object] = {
        "kind": "trial",
        "study": study,
        "trial": result.number,
        "state": result.state.value,
        "fingerprint": result.candidate.graph.fingerprint,
    }
    if result.reason:
        facts["reason"] = result.reason
    if result.parent is not None:
        facts["parent_trial"] = result.parent
    if result.evaluation is not None:
        facts["seed"] = result.evaluation.seed
    return {PARENT_TAG: parent_id, **own_tags(facts)}


def _parameters(result: TrialResult) -> "list[mlflow.entities.Param]":
    from mlflow.entities import Param

    return [
        Param(safe_name(name), short_text(str(choice)))
        for name, choice in result.candidate.architecture.choices
    ]


def _trial_points(result: TrialResult) -> list[tuple[str, float, int]]:
    points = [(name, value, 0) for name, value in {**result.scores, **result.metrics}.items()]
    points.append(("trial_seconds", result.seconds, 0))
    if result.evaluation is not None and len(result.evaluation.curve) > 1:
        name = f"{result.evaluation.objective}_curve"
        points += [(name, value, step) for step, value in enumerate(result.evaluation.curve)]
    return points


def _write_trial(result: TrialResult, folder: Path) -> None:
    (folder / "graph.json").write_text(graph_to_json(result.candidate.graph), encoding="utf-8")
    (folder / "architecture.json").write_text(result.candidate.architecture.to_json(), encoding="utf-8")
    if result.evaluation is not None and result.evaluation.state:
        state = {name: tensor.detach().contiguous() for name, tensor in result.evaluation.state.items()}
        save_file(
            state,
            folder / "weights.safetensors",
            metadata={"fingerprint": result.candidate.graph.fingerprint},
        )
