"""Training a hypernetwork: it learns, it continues bit by bit, it survives what is not finite, it refuses what is damaged."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from nasgraph.data import Split
from nasgraph.errors import CheckpointError, ConfigError, NasGraphError
from nasgraph.hyper import GHNTrainConfig, GraphHyperNetwork, TrainStep, train_ghn
from nasgraph.hyper.progress import PROGRESS, STATE
from nasgraph.hyper.schedule import learning_rate_factor
from nasgraph.hyper.train import MAX_BAD_STEPS
from nasgraph.spaces import enumerate_candidates, load_space
from tests.hyper.disks import full_disk
from tests.hyper.toy import ENCODERS, Encoder, ToySpace, tiny_config, toy_data, toy_training
from tests.hyper.trainings import KilledError, assert_equal, train, train_until_killed


@pytest.mark.parametrize("encoder", ENCODERS)
def test_the_loss_falls_and_the_predicted_networks_become_right(tmp_path: Path, encoder: Encoder) -> None:
    steps: list[TrainStep] = []
    ghn = train(tmp_path, toy_training(steps=60, checkpoint_every=100), encoder=encoder, on_step=steps.append)
    assert [step.step for step in steps] == list(range(60))
    first, last = steps[:10], steps[-10:]
    assert sum(step.loss for step in last) < 0.5 * sum(step.loss for step in first)
    assert sum(step.accuracy for step in last) / 10 > 0.85
    assert all(step.skipped == 0 and step.seconds > 0 for step in steps)
    assert not ghn.training


# ---- checkpoints and their continuation


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("after", [6, 8])
def test_a_training_that_was_stopped_continues_bit_by_bit(
    tmp_path: Path, encoder: Encoder, after: int
) -> None:
    config = toy_training(steps=12, checkpoint_every=3)
    straight = train(tmp_path / "straight", config, encoder=encoder)
    train_until_killed(tmp_path / "stopped", config, after=after, encoder=encoder)
    steps: list[TrainStep] = []
    resumed = train(tmp_path / "stopped", config, encoder=encoder, resume=True, on_step=steps.append)
    assert [step.step for step in steps] == list(range(6, 12))  # from the last checkpoint
    assert_equal(resumed.state_dict(), straight.state_dict())
    assert_equal(load_file(tmp_path / "stopped" / STATE), load_file(tmp_path / "straight" / STATE))


STRENGTHS: dict[str, dict[str, Any]] = {
    "average": {"ema_decay": 0.9},
    "bf16": {"precision": "bf16"},
    "all": {"ema_decay": 0.9, "precision": "bf16", "label_smoothing": 0.1, "norm_penalty": 1e-3},
}


@pytest.mark.parametrize("name", STRENGTHS)
def test_every_option_continues_bit_by_bit(tmp_path: Path, name: str) -> None:
    config = replace(toy_training(steps=12, checkpoint_every=3), **STRENGTHS[name])
    straight = train(tmp_path / "straight", config)
    train_until_killed(tmp_path / "stopped", config, after=7)
    resumed = train(tmp_path / "stopped", config, resume=True)
    assert_equal(resumed.state_dict(), straight.state_dict())
    assert_equal(load_file(tmp_path / "stopped" / STATE), load_file(tmp_path / "straight" / STATE))
    assert_equal(train(tmp_path / "stopped", config, resume=True).state_dict(), straight.state_dict())
    plain = train(tmp_path / "plain", toy_training(steps=12, checkpoint_every=3)).state_dict()
    assert any(not torch.equal(tensor, plain[key]) for key, tensor in straight.state_dict().items())


def test_with_all_options_the_loss_falls_too(tmp_path: Path) -> None:
    config = replace(toy_training(steps=60, checkpoint_every=100), **STRENGTHS["all"])
    steps: list[TrainStep] = []
    train(tmp_path, config, on_step=steps.append)
    assert sum(step.loss for step in steps[-10:]) < 0.7 * sum(step.loss for step in steps[:10])
    assert sum(step.accuracy for step in steps[-10:]) / 10 > 0.85


def test_the_network_that_is_given_is_the_average_and_the_checkpoint_keeps_both(tmp_path: Path) -> None:
    config = replace(toy_training(steps=12), ema_decay=0.9)
    ghn = train(tmp_path / "average", config)
    last = train(tmp_path / "last", replace(config, ema_decay=0.0))
    tensors = load_file(tmp_path / "average" / STATE)
    for name, parameter in ghn.named_parameters():
        assert torch.equal(parameter, tensors[f"ema.{name}"])
    assert_equal(
        {name: tensors[f"ghn.{name}"] for name in last.state_dict()},
        {name: tensor.contiguous() for name, tensor in last.state_dict().items()},
    )


def test_a_checkpoint_of_a_version_with_fewer_settings_is_refused_by_name(tmp_path: Path) -> None:
    config = toy_training(steps=6)
    train(tmp_path, config)
    document = json.loads((tmp_path / PROGRESS).read_text())
    del document["config"]["ema_decay"]
    (tmp_path / PROGRESS).write_text(json.dumps(document))
    with pytest.raises(CheckpointError, match=r"'config' differs: ema_decay"):
        train(tmp_path, config, resume=True)


def test_a_damaged_average_is_refused(tmp_path: Path) -> None:
    config = replace(toy_training(steps=6), ema_decay=0.9)
    train_until_killed(tmp_path, config, after=4)
    change_state(lambda tensors: tensors.pop("ema.decoder.gain.bias"))(tmp_path)
    with pytest.raises(CheckpointError, match=r"no whole moving average: 'ema\.decoder\.gain\.bias'"):
        train(tmp_path, config, resume=True)


KILLED_PROCESS = """
import os, signal, sys
from pathlib import Path
import torch
from tests.hyper.trainings import train
from tests.hyper.toy import toy_training

torch.set_num_threads(1)
def kill(step):
    if step.step == 7:
        os.kill(os.getpid(), signal.SIGKILL)
train(Path(sys.argv[1]), toy_training(steps=12, checkpoint_every=3), on_step=kill)
"""


def test_a_process_that_was_killed_continues_bit_by_bit(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    process = subprocess.run(
        [sys.executable, "-c", KILLED_PROCESS, str(tmp_path / "killed")],
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == -signal.SIGKILL, process.stderr
    config = toy_training(steps=12, checkpoint_every=3)
    resumed = train(tmp_path / "killed", config, resume=True)
    assert_equal(resumed.state_dict(), train(tmp_path / "straight", config).state_dict())


@pytest.mark.parametrize("before", [0, 3])
def test_a_training_continues_that_was_killed_while_it_wrote_a_checkpoint(
    tmp_path: Path, before: int
) -> None:
    config = toy_training(steps=12, checkpoint_every=3)
    straight = train(tmp_path / "straight", config)
    train_until_killed(tmp_path / "stopped", config, after=6)
    later = (tmp_path / "stopped" / PROGRESS).read_bytes()
    if before:  # the settings of the second checkpoint are written, its tensors are not
        train_until_killed(tmp_path / "again", config, after=before)
    (tmp_path / "again").mkdir(exist_ok=True)
    (tmp_path / "again" / PROGRESS).write_bytes(later)
    steps: list[TrainStep] = []
    resumed = train(tmp_path / "again", config, resume=True, on_step=steps.append)
    assert steps[0].step == before
    assert_equal(resumed.state_dict(), straight.state_dict())


def test_a_finished_training_is_only_loaded(tmp_path: Path) -> None:
    config = toy_training(steps=3)
    trained = train(tmp_path, config)
    steps: list[TrainStep] = []
    assert_equal(
        train(tmp_path, config, resume=True, on_step=steps.append).state_dict(), trained.state_dict()
    )
    assert steps == []


def test_a_resumed_training_starts_at_once_where_there_is_no_checkpoint(tmp_path: Path) -> None:
    config = toy_training(steps=3)
    assert_equal(
        train(tmp_path / "a", config, resume=True).state_dict(), train(tmp_path / "b", config).state_dict()
    )


def test_a_checkpoint_is_never_overwritten_by_mistake(tmp_path: Path) -> None:
    train(tmp_path, toy_training(steps=3))
    before = (tmp_path / STATE).read_bytes()
    with pytest.raises(
        NasGraphError, match=r"holds the checkpoint of a training\. Continue it with 'resume'"
    ):
        train(tmp_path, toy_training(steps=3))
    assert (tmp_path / STATE).read_bytes() == before


@pytest.mark.parametrize(
    ("config", "encoder", "part"),
    [
        (toy_training(steps=24), "transformer", "config"),
        (replace(toy_training(steps=6), learning_rate=1e-4), "transformer", "config"),
        (toy_training(steps=6), "gated", "ghn"),
    ],
)
def test_a_checkpoint_of_other_settings_is_refused(
    tmp_path: Path, config: GHNTrainConfig, encoder: Encoder, part: str
) -> None:
    train(tmp_path, toy_training(steps=6))
    with pytest.raises(CheckpointError, match=rf"other settings \('{part}' differs: "):
        train(tmp_path, config, encoder=encoder, resume=True)


def truncate(folder: Path) -> None:
    data = (folder / STATE).read_bytes()
    (folder / STATE).write_bytes(data[: len(data) // 2])


def change_state(change: Callable[[dict[str, Tensor]], Any]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        tensors = load_file(folder / STATE)
        change(tensors)
        save_file(tensors, folder / STATE)

    return apply


DAMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "truncated": (truncate, "Cannot read tensors"),
    "no tensors": (lambda folder: (folder / STATE).write_text("PK"), "Cannot read tensors"),
    "foreign tensors": (
        lambda folder: save_file({"a": torch.zeros(2)}, folder / STATE),
        "lacks tensor",
    ),
    "no step": (change_state(lambda t: t.pop("step")), "not the checkpoint of a training"),
    "odd step": (change_state(lambda t: t.update(step=torch.zeros(3))), "not the checkpoint of a training"),
    "one more": (change_state(lambda t: t.update(other=torch.zeros(3))), "not the checkpoint of a training"),
    "weight missing": (
        change_state(lambda t: t.pop("ghn.decoder.gain.bias")),
        r"lacks tensor 'decoder\.gain\.bias'",
    ),
    "other shape": (
        change_state(lambda t: t.update({"ghn.decoder.gain.bias": torch.zeros(7)})),
        r"'decoder\.gain\.bias' .* to have shape \(1,\) \(got \(7,\)\)",
    ),
    "moment missing": (
        change_state(lambda t: t.pop("optimizer.exp_avg.decoder.gain.bias")),
        r"no whole optimizer state for 'decoder\.gain\.bias'",
    ),
    "moment of other shape": (
        change_state(lambda t: t.update({"optimizer.exp_avg.decoder.gain.bias": torch.zeros(7)})),
        r"no whole optimizer state for 'decoder\.gain\.bias'",
    ),
    "settings missing": (lambda folder: (folder / PROGRESS).unlink(), r"is damaged: Cannot read"),
    "settings no json": (lambda folder: (folder / PROGRESS).write_text("{"), r"is damaged: Not valid JSON"),
    "settings no object": (lambda folder: (folder / PROGRESS).write_text("[]"), "other settings"),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_checkpoint_is_refused_in_words_and_changes_nothing(tmp_path: Path, kind: str) -> None:
    damage, message = DAMAGES[kind]
    config = toy_training(steps=6)
    train_until_killed(tmp_path, config, after=4)
    damage(tmp_path)
    ghn = GraphHyperNetwork(tiny_config(), seed=0)
    before = {name: tensor.clone() for name, tensor in ghn.state_dict().items()}
    with pytest.raises(CheckpointError, match=message):
        train_ghn(ghn, [ToySpace()], toy_data(), config, folder=tmp_path, resume=True)
    assert_equal(ghn.state_dict(), before)


def test_a_full_disk_leaves_the_old_checkpoint_and_says_so(tmp_path: Path) -> None:
    config = toy_training(steps=6)
    train_until_killed(tmp_path, config, after=4)
    before = (tmp_path / STATE).read_bytes()
    with full_disk(2000), pytest.raises(NasGraphError, match=r"Cannot write .*state\.safetensors"):
        train(tmp_path, config, resume=True)
    assert (tmp_path / STATE).read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [PROGRESS, STATE]
    assert_equal(
        train(tmp_path, config, resume=True).state_dict(), train(tmp_path / "b", config).state_dict()
    )


# ---- what is not finite


def test_architectures_that_overflow_are_left_out_and_the_others_go_on_learning(tmp_path: Path) -> None:
    steps: list[TrainStep] = []
    weights: list[Tensor] = []
    ghn = GraphHyperNetwork(tiny_config(), seed=0)

    def note(step: TrainStep) -> None:
        steps.append(step)
        weights.append(ghn.decoder.gain.weight.detach().clone())

    config = replace(toy_training(steps=60, checkpoint_every=100), meta_batch=4)
    train_ghn(ghn, [ToySpace(may_overflow=True)], toy_data(), config, folder=tmp_path, on_step=note)
    assert 60 < sum(step.skipped for step in steps) < 180  # half of 240
    mixed = [step.step for step in steps[1:] if 0 < step.skipped < 4]
    assert len(mixed) > 30
    assert all(not torch.equal(weights[index], weights[index - 1]) for index in mixed)
    assert all(torch.isfinite(tensor).all() for tensor in ghn.state_dict().values())
    finite = [step.loss for step in steps if step.skipped < 4]
    assert sum(finite[-10:]) < 0.7 * sum(finite[:10])
    assert all(step.loss != step.loss for step in steps if step.skipped == 4)


def test_a_training_that_is_lost_stops_and_leaves_the_last_good_checkpoint(tmp_path: Path) -> None:
    config = toy_training(steps=200, checkpoint_every=3)
    ghn = GraphHyperNetwork(tiny_config(), seed=0)
    steps: list[TrainStep] = []

    def poison(step: TrainStep) -> None:
        steps.append(step)
        if step.step == 3:
            with torch.no_grad():
                ghn.decoder.gain.weight.fill_(float("nan"))

    with pytest.raises(
        NasGraphError, match=rf"No finite loss or gradient in {MAX_BAD_STEPS} steps .*checkpoint is in"
    ):
        train_ghn(ghn, [ToySpace()], toy_data(), config, folder=tmp_path, on_step=poison)
    assert len(steps) == 3 + MAX_BAD_STEPS
    assert [step.skipped for step in steps[:5]] == [0, 0, 0, 0, 3]
    assert steps[-1].loss != steps[-1].loss  # NaN

    reached: list[int] = []

    def stop(step: TrainStep) -> None:
        reached.append(step.step)
        raise KilledError

    resumed = GraphHyperNetwork(tiny_config(), seed=0)
    with pytest.raises(KilledError):
        train_ghn(resumed, [ToySpace()], toy_data(), config, folder=tmp_path, resume=True, on_step=stop)
    assert reached == [3]
    assert all(torch.isfinite(tensor).all() for tensor in resumed.state_dict().values())


def test_an_absurd_learning_rate_stops_with_advice(tmp_path: Path) -> None:
    config = replace(toy_training(steps=200, checkpoint_every=100), learning_rate=1e30)
    with pytest.raises(
        NasGraphError, match=r"No checkpoint was written\. Lower 'learning_rate' \(now 1e\+30\)"
    ):
        train(tmp_path, config)


# ---- what is drawn, and what is not touched


def test_a_training_sees_no_architecture_that_is_held_out(tmp_path: Path) -> None:
    space = ToySpace()
    candidates = list(enumerate_candidates(space))
    with pytest.raises(NasGraphError, match="none is left to train on"):
        train_ghn(
            GraphHyperNetwork(tiny_config()),
            [space],
            toy_data(),
            toy_training(),
            folder=tmp_path,
            held_out=frozenset(candidate.graph.fingerprint for candidate in candidates),
        )


def test_validation_data_and_the_global_generator_are_not_touched(tmp_path: Path) -> None:
    data = toy_data()
    ruined = replace(
        data, validation=Split(torch.full((5, 4), float("nan")), torch.zeros(5, dtype=torch.int64))
    )
    before = torch.get_rng_state()
    ours, theirs = (
        train(tmp_path / str(index), toy_training(steps=4), data=data)
        for index, data in enumerate((data, ruined))
    )
    assert_equal(ours.state_dict(), theirs.state_dict())
    assert torch.equal(torch.get_rng_state(), before)


def test_the_learning_rate_warms_up_and_falls_to_zero() -> None:
    config = GHNTrainConfig(steps=110, warmup_steps=10)
    factors = [learning_rate_factor(step, config) for step in range(111)]
    assert factors[:10] == pytest.approx([0.1 * step for step in range(1, 11)])
    assert factors[10] == 1.0
    assert factors[60] == pytest.approx(0.5)
    assert factors[110] == pytest.approx(0.0)
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert learning_rate_factor(0, GHNTrainConfig(warmup_steps=0)) == 1.0


def test_the_settings_are_written_beside_the_tensors(tmp_path: Path) -> None:
    train(tmp_path, toy_training(steps=3))
    document = json.loads((tmp_path / PROGRESS).read_text())
    assert document["step"] == 3
    assert document["config"]["learning_rate"] == 5e-3
    assert document["ghn"]["encoder"] == "transformer"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, r"'steps' above 0 \(got 0\)"),
        ({"meta_batch": -1}, "'meta_batch' above 0"),
        ({"learning_rate": 0.0}, "'learning_rate' above 0"),
        ({"clip_norm": -1.0}, "'clip_norm' above 0"),
        ({"checkpoint_every": 0}, "'checkpoint_every' above 0"),
        ({"warmup_steps": -1}, "'warmup_steps'"),
        ({"weight_decay": -0.1}, "'weight_decay'"),
        ({"norm_penalty": float("nan")}, "'norm_penalty' of at least 0"),
        ({"learning_rate": float("nan")}, "'learning_rate' above 0"),
        ({"label_smoothing": 1.0}, r"'label_smoothing' from 0 to below 1 \(got 1\.0\)"),
        ({"ema_decay": 1.5}, "'ema_decay' from 0 to below 1"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        GHNTrainConfig(**settings)


def test_a_training_needs_a_space(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least one search space"):
        train_ghn(GraphHyperNetwork(tiny_config()), [], toy_data(), toy_training(), folder=tmp_path)


def test_a_space_of_sequences_is_refused_where_the_data_has_no_integers(tmp_path: Path) -> None:
    space = load_space("gpt", input_shape=(4,), num_classes=3)
    with pytest.raises(ConfigError, match="'gpt' read int numbers, but the inputs of 'toy' are float"):
        train(tmp_path, toy_training(), spaces=[space])
