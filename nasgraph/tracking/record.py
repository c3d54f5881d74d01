"""One finished piece of work as one run in MLflow: settings, numbers, curves and files."""

import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from nasgraph.errors import TrackingError
from nasgraph.mlflow_client import artifact_root, connect, ensure_experiment, first_line, resolve_tracking_uri
from nasgraph.tracking.environment import environment_tags
from nasgraph.tracking.runs import metric_series, own_tags, write_artifacts

_PER_REQUEST = 1000  # MLflow takes no more metrics at once


def record_run(
    uri: str | None,
    *,
    name: str,
    kind: str,
    facts: Mapping[str, object],
    metrics: Mapping[str, float],
    series: Mapping[str, Sequence[float]] | None = None,
    files: Sequence[Path] = (),
    experiment: str = "nasgraph-meta",
) -> str:
    """Write a run and end it. Numbers that are not finite are left out.

    Args:
        uri: Tracking address; None: as everywhere.
        name: Name of the run.
        kind: What was done, such as `prune`.
        facts: Settings; they become tags.
        metrics: Numbers of the result.
        series: Curves: one value per step.
        files: Files that become artifacts.
        experiment: Name of the MLflow experiment.

    Returns:
        The id of the run.

    Raises:
        TrackingError: If the store does not answer or refuses.
    """
    client = connect(resolve_tracking_uri(uri))
    points = [(key, float(value), 0) for key, value in metrics.items()]
    points += [
        (key, float(value), step)
        for key, values in (series or {}).items()
        for step, value in enumerate(values)
    ]
    finite = [point for point in points if abs(point[1]) < float("inf")]
    try:
        experiment_id = ensure_experiment(client, experiment, root=artifact_root(resolve_tracking_uri(uri)))
        tags = own_tags({**environment_tags(), **facts, "kind": kind})
        run = client.create_run(experiment_id, tags=tags, run_name=name)
        written = metric_series(finite, int(time.time() * 1000))
        for start in range(0, len(written), _PER_REQUEST):
            batch = written[start : start + _PER_REQUEST]
            client.log_batch(run.info.run_id, metrics=batch, synchronous=True)
        if files:

            def copy(folder: Path) -> None:
                for file in files:
                    shutil.copyfile(file, folder / file.name)

            write_artifacts(client, run.info.run_id, run.info.artifact_uri, copy)
        client.set_terminated(run.info.run_id, status="FINISHED")
    except TrackingError:
        raise
    except Exception as error:  # MLflow's stores are plug-ins: their errors have no common base
        raise TrackingError(f"The tracking store refuses the run '{name}': {first_line(error)}") from error
    run_id: str = run.info.run_id
    return run_id
