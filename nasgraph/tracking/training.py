"""The training of a graph hypernetwork in MLflow: one run, its curve in batches, its weights as artifacts."""

import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nasgraph.errors import TrackingError
from nasgraph.mlflow_client import artifact_root, connect, ensure_experiment, first_line, resolve_tracking_uri
from nasgraph.tracking.environment import environment_tags
from nasgraph.tracking.outbox import Outbox, TrackingSummary
from nasgraph.tracking.runs import metric_series, own_tags, write_artifacts

if TYPE_CHECKING:
    from nasgraph.hyper import TrainStep

_STEPS_PER_WRITE = 100


class TrainingRecorder:
    """Records one training. A store that fails while the training runs does not stop it; see `summary`.

    Args:
        uri: Tracking address; None: as in `MlflowListener`.
        name: Name of the run.
        facts: Settings for the record.
        experiment: Name of the MLflow experiment.

    Raises:
        TrackingError: If the store does not answer or refuses.
    """

    def __init__(
        self,
        uri: str | None,
        *,
        name: str,
        facts: Mapping[str, object],
        experiment: str = "nasgraph-ghn",
    ) -> None:
        self.uri = resolve_tracking_uri(uri)
        self._client = connect(self.uri)
        self._outbox = Outbox()
        experiment_id = ensure_experiment(self._client, experiment, root=artifact_root(self.uri))
        tags = own_tags({**environment_tags(), **facts, "kind": "ghn"})
        try:
            run = self._client.create_run(experiment_id, tags=tags, run_name=name)
        except Exception as error:  # MLflow's stores are plug-ins: their errors have no common base
            raise TrackingError(f"Cannot start a run in the tracking store: {first_line(error)}") from error
        self.run_id: str = run.info.run_id
        self._artifact_uri: str = run.info.artifact_uri
        self._steps: list[TrainStep] = []

    def on_step(self, step: "TrainStep") -> None:
        """Remember a step; every hundred are written as one point of the curve, their mean."""
        self._steps.append(step)
        if len(self._steps) == _STEPS_PER_WRITE:
            self._write_point()

    def end(self, files: Sequence[Path], *, status: str) -> None:
        """Write what is left, and close the run.

        Args:
            files: Files of the finished hypernetwork, which become artifacts.
            status: MLflow's word for how it ended: FINISHED, FAILED or KILLED.
        """
        if self._steps:
            self._write_point()
        if files:
            self._outbox.send("hypernetwork", lambda: self._write_files(files))
        self._outbox.send(
            "end of the training", lambda: self._client.set_terminated(self.run_id, status=status)
        )
        self._outbox.flush()

    def summary(self) -> TrackingSummary:
        """What became of the writes so far."""
        return self._outbox.summary()

    def _write_point(self) -> None:
        steps, self._steps = self._steps, []
        finite = [step for step in steps if step.loss == step.loss]
        points = [
            ("skipped", float(sum(step.skipped for step in steps)), steps[-1].step),
            ("seconds_per_step", sum(step.seconds for step in steps) / len(steps), steps[-1].step),
        ]
        if finite:
            points.append(("train_loss", sum(step.loss for step in finite) / len(finite), steps[-1].step))
            points.append(
                ("train_accuracy", sum(step.accuracy for step in finite) / len(finite), steps[-1].step)
            )
        metrics = metric_series(points, int(time.time() * 1000))
        self._outbox.send(
            "training curve",
            lambda: self._client.log_batch(self.run_id, metrics=metrics, synchronous=True),
        )

    def _write_files(self, files: Sequence[Path]) -> None:
        def copy(folder: Path) -> None:
            for file in files:
                shutil.copyfile(file, folder / file.name)

        write_artifacts(self._client, self.run_id, self._artifact_uri, copy)
