"""A search as MLflow sees it afterwards. Every store is a real one."""

import json
import logging
import math
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient
from mlflow.entities import Run
from safetensors.torch import load_file

from nasgraph.errors import TrackingError
from nasgraph.ir import read_graph
from nasgraph.mlflow_client import local_path
from nasgraph.search.records import TrialState
from nasgraph.spaces import Architecture
from nasgraph.tracking import MlflowListener
from tests.tracking.searches import end, info, restored, screened, trial


def children(uri: str, run_id: str) -> list[Run]:
    """The child runs of a search in the order of their trials."""
    client = MlflowClient(uri)
    experiment = client.get_run(run_id).info.experiment_id
    found = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{run_id}'")
    return sorted(found, key=lambda run: int(run.data.tags["nasgraph.trial"]))


def test_a_trial_becomes_one_child_run_with_all_that_is_known(tracking_uri: str) -> None:
    listener = MlflowListener(tracking_uri)
    listener.on_start(info())
    result = trial(0, accuracy=0.75)
    listener.on_trial(result)
    (run,) = children(tracking_uri, listener.run_id)
    assert run.info.run_id == listener.trial_run_id(0)
    assert run.info.status == "FINISHED"
    assert run.data.params == {
        "width": "4",
        "act": "relu",
        **{k: "True" for k in run.data.params if "edge" in k},
    }
    assert run.data.metrics["val_accuracy"] == 0.75
    assert run.data.metrics["screen_score"] == 0.25
    assert run.data.tags["nasgraph.fingerprint"] == result.candidate.graph.fingerprint
    assert run.data.tags["nasgraph.seed"] == "7"
    curve = MlflowClient(tracking_uri).get_metric_history(run.info.run_id, "val_accuracy_curve")
    assert [(point.step, point.value) for point in curve] == [(0, 0.375), (1, 0.75 * 0.8), (2, 0.75)]
    folder = local_path(run.info.artifact_uri)
    assert folder is not None
    assert read_graph(folder / "graph.json") == result.candidate.graph
    assert result.evaluation is not None
    torch.testing.assert_close(load_file(folder / "weights.safetensors"), dict(result.evaluation.state))
    names = {file.path for file in MlflowClient(tracking_uri).list_artifacts(run.info.run_id)}
    assert names == {"graph.json", "architecture.json", "weights.safetensors"}


def test_a_failed_and_a_pruned_trial_are_told_apart_from_a_complete_one(tracking_uri: str) -> None:
    listener = MlflowListener(tracking_uri)
    listener.on_start(info())
    for number, state in enumerate(TrialState):
        listener.on_trial(trial(number, state=state))
    runs = children(tracking_uri, listener.run_id)
    assert [run.info.status for run in runs] == ["FINISHED", "KILLED", "FAILED"]
    assert runs[2].data.tags["nasgraph.reason"] == "loss is NaN"


def test_the_search_run_has_facts_best_values_and_its_end(tracking_uri: str) -> None:
    listener = MlflowListener(tracking_uri)
    listener.on_start(info())
    results = [trial(0, accuracy=0.5), trial(1, accuracy=0.25), trial(2, accuracy=0.875)]
    for result in results:
        listener.on_trial(result)
    listener.on_end(end(results))
    client = MlflowClient(tracking_uri)
    run = client.get_run(listener.run_id)
    assert run.info.status == "FINISHED"
    tags = run.data.tags
    assert tags["nasgraph.study"] == "it's a study"
    assert tags["nasgraph.data_sha256"] == "ab" * 32
    assert tags["nasgraph.seed"] == "3"
    assert tags["nasgraph.best_trial"] == "2"
    assert {"nasgraph.torch_version", "nasgraph.optuna_version", "nasgraph.python_version"} <= set(tags)
    best = client.get_metric_history(listener.run_id, "best_val_accuracy")
    assert [(point.step, point.value) for point in best] == [(0, 0.5), (2, 0.875)]
    summary = listener.summary()
    assert (summary.failed, summary.pending) == (0, 0)


def test_screened_candidates_are_one_series_and_one_table(tracking_uri: str) -> None:
    listener = MlflowListener(tracking_uri)
    listener.on_start(info())
    candidates = screened(1200)
    listener.on_screened(candidates[:16], total=1200)
    listener.on_screened(candidates[16:], total=1200)
    listener.on_kept(candidates)
    client = MlflowClient(tracking_uri)
    points = client.get_metric_history(listener.run_id, "screen_score")
    assert [point.step for point in points] == [step for step in range(1200) if step % 10 != 9]
    assert all(point.value == point.step for point in points)
    assert children(tracking_uri, listener.run_id) == []
    folder = local_path(client.get_run(listener.run_id).info.artifact_uri)
    assert folder is not None
    rows = [json.loads(line) for line in (folder / "screened.jsonl").read_text().splitlines()]
    assert len(rows) == 1200
    assert rows[9]["scores"] == {"screen_score": None, "loss": 2.0}
    assert rows[3]["fingerprint"] == candidates[3].candidate.graph.fingerprint


def test_a_search_that_stops_while_screening_still_writes_the_table(tracking_uri: str) -> None:
    listener = MlflowListener(tracking_uri)
    listener.on_start(info())
    result = end([], stopped_because="interrupted")
    listener.on_end(type(result)(**{**vars(result), "screened": tuple(screened(3))}))
    client = MlflowClient(tracking_uri)
    assert [file.path for file in client.list_artifacts(listener.run_id)] == ["screened.jsonl"]
    assert client.get_run(listener.run_id).info.status == "KILLED"


def test_choices_beyond_mlflows_limits_are_recorded(tracking_uri: str) -> None:
    listener = MlflowListener(tracking_uri)
    listener.on_start(info())
    result = trial(0)
    choices = tuple((f"choice <{index}>", "x" * 9000) for index in range(250))
    wide = type(result.candidate)(Architecture("toy", choices), result.candidate.graph)
    listener.on_trial(type(result)(**{**vars(result), "candidate": wide}))
    (run,) = children(tracking_uri, listener.run_id)
    assert len(run.data.params) == 250
    assert listener.summary().failed == 0
    folder = local_path(run.info.artifact_uri)
    assert folder is not None
    assert (folder / "architecture.json").read_text() == wide.architecture.to_json()


def test_metrics_that_are_not_finite_do_not_stop_the_record(tracking_uri: str) -> None:
    listener = MlflowListener(tracking_uri)
    listener.on_start(info())
    result = trial(0)
    metrics = {"val_accuracy": 0.1, "val_loss": math.nan, "norm": math.inf}
    listener.on_trial(type(result)(**{**vars(result), "metrics": metrics}))
    (run,) = children(tracking_uri, listener.run_id)
    assert math.isnan(run.data.metrics["val_loss"])
    assert listener.summary().failed == 0


def test_a_resumed_search_continues_its_run_and_adds_what_was_not_recorded(tracking_uri: str) -> None:
    first = MlflowListener(tracking_uri, storage="/studies/journal.log")
    first.on_start(info())
    done = [trial(0, accuracy=0.9), trial(1, accuracy=0.5)]
    first.on_trial(
        done[0]
    )  # killed here: trial 1 is in the study, but not in MLflow; trial 2 is half written
    client = MlflowClient(tracking_uri)
    experiment = client.get_run(first.run_id).info.experiment_id
    client.create_run(experiment, tags={"mlflow.parentRunId": first.run_id, "nasgraph.trial": "2"})
    second = MlflowListener(tracking_uri, storage="/studies/journal.log")
    second.on_start(info(resumed_trials=3, num_trials=20))
    assert second.run_id == first.run_id
    assert client.get_run(second.run_id).info.status == "RUNNING"
    later = trial(3, accuracy=0.6)
    second.on_trial(later)
    second.on_end(end([restored(done[0]), restored(done[1]), restored(trial(2)), later]))
    runs = children(tracking_uri, second.run_id)
    assert [run.data.tags["nasgraph.trial"] for run in runs] == ["0", "1", "2", "3"]
    assert {run.info.status for run in runs} == {"FINISHED"}
    best = client.get_metric_history(second.run_id, "best_val_accuracy")
    assert [point.value for point in best] == [0.9], "a worse value after the resume is no new best"
    assert client.get_run(second.run_id).data.tags["nasgraph.num_trials"] == "20"
    assert [second.trial_run_id(number) is not None for number in range(4)] == [True] * 4


@pytest.mark.parametrize(
    ("storage", "resumed"), [("/other/journal.log", 1), ("/studies/journal.log", 0), ("", 1)]
)
def test_another_search_of_that_name_gets_its_own_run(tracking_uri: str, storage: str, resumed: int) -> None:
    first = MlflowListener(tracking_uri, storage="/studies/journal.log")
    first.on_start(info())
    first.on_end(end([trial(0)]))
    second = MlflowListener(tracking_uri, storage=storage)
    second.on_start(info(resumed_trials=resumed))
    assert second.run_id != first.run_id


def test_an_unreachable_server_is_a_clear_error_within_seconds() -> None:
    started = time.monotonic()
    with pytest.raises(TrackingError, match=r"does not answer.*--tracking-uri"):
        MlflowListener("http://127.0.0.1:9").on_start(info())
    assert time.monotonic() - started < 10


def test_a_store_that_vanishes_does_not_stop_the_search(
    tracking_uri: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("mlflow"), "propagate", False)
    listener = MlflowListener(tracking_uri)
    listener.on_start(info())
    listener.on_trial(trial(0))
    artifacts = tmp_path / "runs" / "artifacts"
    artifacts.rename(tmp_path / "away")
    artifacts.write_text("a file where the folder was: artifacts cannot be written")
    for number in range(1, 4):
        listener.on_trial(trial(number))
    summary = listener.summary()
    assert summary.pending >= 1
    assert "trial" in summary.last_error
    warnings = [record for record in caplog.records if record.name.startswith("nasgraph")]
    assert len(warnings) == 1, "once per kind"
    artifacts.unlink()
    (tmp_path / "away").rename(artifacts)
    listener.on_end(end([trial(number) for number in range(4)]))
    assert listener.summary().pending == 0
    runs = children(tracking_uri, listener.run_id)
    assert [run.data.tags["nasgraph.trial"] for run in runs] == ["0", "1", "2", "3"], "each once, none twice"
    assert {run.info.status for run in runs} == {"FINISHED"}


def test_what_cannot_be_written_to_the_end_is_reported(
    tracking_uri: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    listener = MlflowListener(tracking_uri)
    listener.on_start(info())
    (tmp_path / "runs" / "artifacts").write_text("in the way")
    result = trial(0)
    listener.on_trial(result)
    listener.on_end(end([result]))
    assert listener.summary().pending == 2  # the trial, and the table of trials
    assert "lacks 2 writes" in caplog.text


def test_in_a_long_search_the_first_and_the_best_trials_have_runs_and_all_are_series(
    tracking_uri: str,
) -> None:
    listener = MlflowListener(tracking_uri, max_runs=3)
    listener.on_start(info())
    accuracies = [0.5, 0.4, 0.3, 0.45, 0.6, 0.55, *([0.1] * 60), 0.7]
    results = [trial(number, accuracy=accuracy) for number, accuracy in enumerate(accuracies)]
    for result in results[:52]:
        listener.on_trial(result)
    client = MlflowClient(tracking_uri)
    assert len(client.get_metric_history(listener.run_id, "trial_val_accuracy")) == 50, "not one by one"
    for result in results[52:]:
        listener.on_trial(result)
    listener.on_end(end(results))
    runs = children(tracking_uri, listener.run_id)
    assert [run.data.tags["nasgraph.trial"] for run in runs] == ["0", "1", "2", "4", "66"]
    series = client.get_metric_history(listener.run_id, "trial_val_accuracy")
    assert [point.value for point in sorted(series, key=lambda point: point.step)] == accuracies
    table = Path(client.download_artifacts(listener.run_id, "trials.jsonl")).read_text().splitlines()
    rows = [json.loads(line) for line in table]
    assert [row["metrics"]["val_accuracy"] for row in rows] == accuracies
    assert rows[4]["fingerprint"] == results[4].candidate.graph.fingerprint


def test_importing_the_package_loads_no_mlflow() -> None:
    code = "import sys, nasgraph.tracking, nasgraph.mlflow_client; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
