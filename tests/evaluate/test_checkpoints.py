"""Trainings that are killed and go on."""

import logging
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from nasgraph.data import SearchData
from nasgraph.errors import CandidateError
from nasgraph.evaluate import Evaluation, TrainConfig, TrainEvaluator, never_stop, train_graph
from nasgraph.evaluate.checkpoints import (
    Snapshot,
    TrainingCheckpoint,
    checkpoint_folder,
    digest_of,
    remove_checkpoints,
)
from nasgraph.evaluate.costs import training_flops
from nasgraph.files import read_json, write_json, write_text
from nasgraph.hyper import GraphHyperNetwork
from nasgraph.ir import ComputationalGraph, cost_of, graph_to_json
from nasgraph.modules import initial_parameters
from tests.evaluate.test_train import Asked, same
from tests.hyper.toy import tiny_config

NOISY = TrainConfig(
    epochs=6, batch_size=50, shift_pixels=1, noise_std=0.1, label_smoothing=0.1, learning_rate=0.03
)


class Killed(BaseException):
    """Stands for a process that ends."""


def kill_at(epoch: int) -> Callable[[int, float], bool]:
    def keep_going(step: int, value: float) -> bool:
        if step == epoch:
            raise Killed
        return True

    return keep_going


def evaluator(data: SearchData, folder: Path, config: TrainConfig = NOISY) -> TrainEvaluator:
    return TrainEvaluator(data, config, checkpoints=folder)


@pytest.mark.parametrize("epoch", range(6))
def test_a_training_that_is_killed_after_any_epoch_ends_as_if_it_had_not_been(
    few_digits: SearchData, small_network: ComputationalGraph, tmp_path: Path, epoch: int
) -> None:
    expected = TrainEvaluator(few_digits, NOISY)(small_network, seed=3, keep_going=never_stop)
    with pytest.raises(Killed):
        evaluator(few_digits, tmp_path)(small_network, seed=3, keep_going=kill_at(epoch))
    asked = Asked()
    result = evaluator(few_digits, tmp_path)(small_network, seed=3, keep_going=asked)
    assert same(result, expected)
    assert asked.steps == list(range(epoch, 6))
    assert asked.values == [max(expected.curve[: step + 1]) for step in range(epoch, 6)]


def test_a_training_that_is_killed_after_every_epoch_ends_as_if_it_had_not_been(
    few_digits: SearchData, convnet: ComputationalGraph, tmp_path: Path
) -> None:
    config = replace(NOISY, epochs=3)
    expected = TrainEvaluator(few_digits, config)(convnet, seed=1, keep_going=never_stop)
    for epoch in range(3):
        with pytest.raises(Killed):
            evaluator(few_digits, tmp_path, config)(convnet, seed=1, keep_going=kill_at(epoch))
    assert same(evaluator(few_digits, tmp_path, config)(convnet, seed=1, keep_going=never_stop), expected)


CHILD = """
import sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from nasgraph.data import load_dataset
from nasgraph.evaluate import TrainConfig, TrainEvaluator
from nasgraph.ir import read_graph
digits = load_dataset("digits").search.subset(200, 100, seed=0)
folder = Path(sys.argv[1])
config = TrainConfig(epochs=6, batch_size=50, shift_pixels=1, noise_std=0.1, label_smoothing=0.1, learning_rate=0.03)
def slowly(step, value):
    (folder / "steps").open("a").write(f"{step}\\n")
    time.sleep(0.3)
    return True
TrainEvaluator(digits, config, checkpoints=folder / "kept")(read_graph(folder / "graph.json"), seed=3, keep_going=slowly)
"""


def test_a_process_that_is_killed_in_the_middle_leaves_a_training_that_goes_on_bit_by_bit(
    few_digits: SearchData, small_network: ComputationalGraph, tmp_path: Path
) -> None:
    write_text(tmp_path / "graph.json", graph_to_json(small_network))
    with (tmp_path / "stderr").open("w") as stderr:
        child = subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path)], stderr=stderr)
    steps, deadline = tmp_path / "steps", time.monotonic() + 120
    while not (steps.exists() and len(steps.read_text().split()) >= 3):
        assert child.poll() is None, (tmp_path / "stderr").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait()
    asked = Asked()
    result = evaluator(few_digits, tmp_path / "kept")(small_network, seed=3, keep_going=asked)
    assert asked.steps[0] >= 2
    assert same(result, TrainEvaluator(few_digits, NOISY)(small_network, seed=3, keep_going=never_stop))


@pytest.mark.parametrize("epoch", [1, 2, 4, 5])
def test_with_two_starts_each_goes_on_where_it_was(
    few_digits: SearchData, small_network: ComputationalGraph, tmp_path: Path, epoch: int
) -> None:
    ghn = GraphHyperNetwork(tiny_config(), seed=2)
    config = replace(NOISY, epochs=3, init="both")
    expected = TrainEvaluator(few_digits, config, ghn)(small_network, seed=5, keep_going=never_stop)
    kept = TrainEvaluator(few_digits, config, ghn, checkpoints=tmp_path)
    with pytest.raises(Killed):
        kept(small_network, seed=5, keep_going=kill_at(epoch))
    assert same(kept(small_network, seed=5, keep_going=never_stop), expected)


def test_patience_and_a_late_best_epoch_survive(
    few_digits: SearchData, small_network: ComputationalGraph, tmp_path: Path
) -> None:
    config = TrainConfig(epochs=50, batch_size=50, learning_rate=1e-12, patience=2)
    expected = TrainEvaluator(few_digits, config)(small_network, seed=0, keep_going=never_stop)
    with pytest.raises(Killed):
        evaluator(few_digits, tmp_path, config)(
            small_network, seed=0, keep_going=kill_at(len(expected.curve) - 2)
        )
    result = evaluator(few_digits, tmp_path, config)(small_network, seed=0, keep_going=never_stop)
    assert same(result, expected)
    again = evaluator(few_digits, tmp_path, config)(small_network, seed=0, keep_going=kill_at(0))
    assert same(again, expected)  # the training was over: nothing is asked or trained


def test_a_training_that_was_stopped_stays_stopped(
    few_digits: SearchData, small_network: ComputationalGraph, tmp_path: Path
) -> None:
    def stop(step: int, value: float) -> bool:
        return step != 2

    expected = TrainEvaluator(few_digits, NOISY)(small_network, seed=0, keep_going=stop)
    first = evaluator(few_digits, tmp_path)(small_network, seed=0, keep_going=stop)
    again = evaluator(few_digits, tmp_path)(small_network, seed=0, keep_going=stop)
    assert same(first, expected)
    assert same(again, expected)
    assert again.stopped_early


def test_the_time_of_earlier_processes_counts(
    few_digits: SearchData, small_network: ComputationalGraph, tmp_path: Path
) -> None:
    def sleepy(step: int, value: float) -> bool:
        time.sleep(0.2)
        return kill_at(2)(step, value)

    with pytest.raises(Killed):
        evaluator(few_digits, tmp_path)(small_network, seed=0, keep_going=sleepy)
    result = evaluator(few_digits, tmp_path)(small_network, seed=0, keep_going=never_stop)
    assert result.metrics["train_seconds"] > 0.4


def test_flops_are_those_of_all_epochs_that_were_trained(
    few_digits: SearchData, small_network: ComputationalGraph
) -> None:
    result = TrainEvaluator(few_digits, NOISY)(small_network, seed=0, keep_going=Asked(stop_at=3))
    expected = training_flops(cost_of(small_network).multiply_adds, num_examples=200, epochs=4)
    assert result.metrics["train_flops"] == expected


# ---- what lies in the folder


def interrupted(data: SearchData, graph: ComputationalGraph, folder: Path) -> Path:
    """The folder of a training of seed 3 that was killed after its third epoch."""
    with pytest.raises(Killed):
        evaluator(data, folder)(graph, seed=3, keep_going=kill_at(2))
    return checkpoint_folder(folder, graph.fingerprint, 3) / "random"


def test_only_the_latest_epoch_is_kept_and_nothing_after_the_trial_is_told(
    few_digits: SearchData, small_network: ComputationalGraph, tmp_path: Path
) -> None:
    folder = interrupted(few_digits, small_network, tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == ["epoch-0003.safetensors", "training.json"]
    evaluator(few_digits, tmp_path).forget(small_network, seed=4)
    assert folder.exists()
    evaluator(few_digits, tmp_path).forget(small_network, seed=3)
    assert list(tmp_path.iterdir()) == []
    remove_checkpoints(tmp_path, small_network.fingerprint, 3)  # no error
    TrainEvaluator(few_digits, NOISY).forget(small_network, seed=3)


def truncate(folder: Path) -> None:
    path = folder / "epoch-0003.safetensors"
    path.write_bytes(path.read_bytes()[:-10])


def flip_a_byte(folder: Path) -> None:
    path = folder / "epoch-0003.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(bytes(data))


def tear_the_json(folder: Path) -> None:
    path = folder / "training.json"
    path.write_text(path.read_text()[:50])


def lose_the_tensors(folder: Path) -> None:
    (folder / "epoch-0003.safetensors").unlink()


def lose_a_field(folder: Path) -> None:
    document = read_json(folder / "training.json")
    assert isinstance(document, dict)
    del document["progress"]
    write_json(folder / "training.json", document)


def another_version(folder: Path) -> None:
    write_json(folder / "training.json", {"schema": "nasgraph/training/9"})


@pytest.mark.parametrize(
    "damage", [truncate, flip_a_byte, tear_the_json, lose_the_tensors, lose_a_field, another_version]
)
def test_a_damaged_checkpoint_is_reported_and_the_training_begins_anew(
    few_digits: SearchData,
    small_network: ComputationalGraph,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[Path], None],
) -> None:
    damage(interrupted(few_digits, small_network, tmp_path))
    asked = Asked()
    with caplog.at_level(logging.WARNING, logger="nasgraph"):
        result = evaluator(few_digits, tmp_path)(small_network, seed=3, keep_going=asked)
    assert "the training begins anew" in caplog.text
    assert asked.steps == list(range(6))
    assert same(result, TrainEvaluator(few_digits, NOISY)(small_network, seed=3, keep_going=never_stop))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda e: replace(e, config=replace(NOISY, epochs=7)), "config"),
        (lambda e: replace(e, data=e.data.subset(150, 50, seed=1)), "data"),
    ],
)
def test_a_checkpoint_of_another_training_is_not_used(
    few_digits: SearchData,
    small_network: ComputationalGraph,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    change: Callable[[TrainEvaluator], TrainEvaluator],
    named: str,
) -> None:
    interrupted(few_digits, small_network, tmp_path)
    other = change(evaluator(few_digits, tmp_path))
    with caplog.at_level(logging.WARNING, logger="nasgraph"):
        result = other(small_network, seed=3, keep_going=never_stop)
    assert f"another training ({named} differ)" in caplog.text
    assert same(result, replace(other, checkpoints=None)(small_network, seed=3, keep_going=never_stop))


def test_another_start_is_another_training(
    few_digits: SearchData,
    small_network: ComputationalGraph,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def train(start: int, checkpoint: TrainingCheckpoint | None) -> Evaluation:
        return train_graph(
            small_network,
            few_digits,
            NOISY,
            start=initial_parameters(small_network, seed=start),
            seed=0,
            keep_going=never_stop,
            checkpoint=checkpoint,
        )

    train(1, TrainingCheckpoint(tmp_path))
    with caplog.at_level(logging.WARNING, logger="nasgraph"):
        assert same(train(2, TrainingCheckpoint(tmp_path)), train(2, None))
    assert "(start differ)" in caplog.text


def test_a_folder_that_cannot_be_written_costs_a_warning_and_not_the_training(
    few_digits: SearchData,
    small_network: ComputationalGraph,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "file").write_text("in the way")
    with caplog.at_level(logging.WARNING, logger="nasgraph"):
        result = evaluator(few_digits, tmp_path / "file")(small_network, seed=3, keep_going=never_stop)
    assert "No checkpoint after epoch 1, the training goes on" in caplog.text
    assert same(result, TrainEvaluator(few_digits, NOISY)(small_network, seed=3, keep_going=never_stop))


def test_a_training_that_breaks_down_breaks_down_again(
    few_digits: SearchData, small_network: ComputationalGraph, tmp_path: Path
) -> None:
    config = TrainConfig(epochs=1, batch_size=200, learning_rate=1e38)
    for _ in range(2):
        with pytest.raises(CandidateError, match=r"The validation loss became (nan|inf) in epoch 1"):
            evaluator(few_digits, tmp_path, config)(small_network, seed=0, keep_going=never_stop)


def test_a_kill_between_the_two_files_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    checkpoint, facts = TrainingCheckpoint(tmp_path), {"seed": 1}
    checkpoint.save(Snapshot({"x": torch.ones(2)}, {"epoch": 1}), facts, epoch=1)
    later = TrainingCheckpoint(tmp_path / "later")
    later.save(Snapshot({"x": torch.zeros(2)}, {"epoch": 2}), facts, epoch=2)
    (later.folder / "epoch-0002.safetensors").rename(tmp_path / "epoch-0002.safetensors")
    known = checkpoint.load(facts)
    assert known is not None
    assert known.progress == {"epoch": 1}
    assert known.tensors["x"].tolist() == [1, 1]
    assert TrainingCheckpoint(tmp_path / "nothing").load(facts) is None


def test_a_digest_sees_names_shapes_and_values() -> None:
    x = torch.arange(6.0)
    assert digest_of({"a": x, "b": x}) == digest_of({"b": x.clone(), "a": x})
    others = [{"a": x}, {"a": x.view(2, 3)}, {"b": x}, {"a": x.double()}, {"a": x + 1}]
    assert len({digest_of(each) for each in others}) == 5
