"""The curve network: causal, a distribution, trainable, and whole on disk."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from nasgraph.errors import CheckpointError, ConfigError
from nasgraph.predict.curves import (
    PAPER_PRIOR,
    CurveNetwork,
    CurveNetworkConfig,
    CurveTrainConfig,
    NetworkCurves,
    PartialCurve,
    load_curve_network,
    loss_scale,
    save_curve_network,
    train_step,
)
from nasgraph.predict.curves.network import bar_borders, bar_loss, possible_bars
from nasgraph.predict.curves.train import batch_loss, learning_rate_factor, make_batch

SMALL = CurveNetworkConfig(dim=16, num_layers=2, num_heads=2, hidden_dim=24, num_bars=64, max_points=16)
TRAIN = CurveTrainConfig(
    steps=120,
    points_per_step=600,
    first_max_points=8,
    full_length_from=60,
    learning_rate=4e-3,
    warmup_steps=10,
    max_epochs=40,
)


def network(config: CurveNetworkConfig = SMALL) -> CurveNetwork:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return CurveNetwork(config).eval()


@pytest.fixture(scope="module")
def trained() -> CurveNetwork:
    """A small network after a few seconds of training."""
    model = network().train()
    optimizer = torch.optim.AdamW(model.parameters())
    for step in range(TRAIN.steps):
        train_step(model, optimizer, step, TRAIN, prior=PAPER_PRIOR)
    return model.eval()


def test_later_points_do_not_change_earlier_predictions() -> None:
    model = network().double()
    batch = make_batch(1, TRAIN, max_points=16)
    times, heights, targets = batch.times.double(), batch.heights.double(), batch.target_times.double()
    whole = model(times, heights, targets)
    for known in (1, times.shape[1] // 2, times.shape[1] - 1):
        changed = heights.clone()
        changed[:, known:] = torch.rand_like(changed[:, known:])
        torch.testing.assert_close(model(times, changed, targets)[:, :known], whole[:, :known])
        short = model(times[:, :known], heights[:, :known], targets[:, :known])
        torch.testing.assert_close(short, whole[:, :known])


@pytest.mark.parametrize("height", [0.0, 0.3, 0.999, 1.0])
def test_no_mass_lies_outside_the_unit_interval(height: float) -> None:
    (posterior,) = NetworkCurves(network()).predict([PartialCurve((0.5, height), horizon=7)])
    assert posterior.borders[0] >= 0
    assert posterior.borders[-1] <= 1
    assert posterior.probabilities.sum() == pytest.approx(1, abs=1e-12)
    assert (np.diff([posterior.quantile(share) for share in np.linspace(0, 1, 21)]) >= 0).all()


def test_borders_divide_the_changes_and_are_narrow_near_none() -> None:
    borders = bar_borders(256).numpy()
    widths = np.diff(borders)
    assert (borders[0], borders[128], borders[-1]) == (-1, 0, 1)
    assert (widths > 0).all()
    assert widths.min() < 0.001 < 0.03 < widths.max()
    np.testing.assert_allclose(borders, -borders[::-1], atol=1e-15)


def test_the_loss_is_the_negative_log_density_of_the_answer() -> None:
    model = network()
    curve = PartialCurve((0.2, 0.35, 0.4), horizon=6)
    (posterior,) = NetworkCurves(model).predict([curve])
    for value in (0.41, 0.55, 0.2):
        times, heights = (torch.tensor(x, dtype=torch.float)[None] for x in (curve.times, curve.heights))
        logits = model(times, heights, torch.ones(1, 3, 1))[:, -1:]
        loss = bar_loss(logits, heights[:, -1:], torch.full((1, 1, 1), value))
        assert -float(loss.detach()) == pytest.approx(posterior.log_density(value), abs=1e-4)


def test_values_at_the_ends_belong_to_possible_bars() -> None:
    heights = torch.tensor([[0.0, 0.25, 1.0]])
    values = torch.tensor([[[0.0, 1.0]] * 3])
    logits = torch.zeros(1, 3, 2, 64).masked_fill(~possible_bars(heights, 64).unsqueeze(2), float("-inf"))
    assert torch.isfinite(bar_loss(logits, heights, values))


def test_curves_of_different_lengths_in_one_call_do_not_disturb_each_other() -> None:
    model = NetworkCurves(network())
    curves = [PartialCurve(tuple(np.linspace(0.1, 0.8, n)), horizon=40) for n in (1, 5, 16, 33)]
    together = model.predict(curves)
    for curve, posterior in zip(curves, together, strict=True):
        (alone,) = model.predict([curve])
        assert alone.mean == pytest.approx(posterior.mean, abs=1e-5)
        assert alone.quantile(0.9) == pytest.approx(posterior.quantile(0.9), abs=1e-4)
    assert model.predict([]) == []


def test_a_loss_and_its_height_are_predicted_alike() -> None:
    model = NetworkCurves(network())
    (height,) = model.predict([PartialCurve((0.25, 0.5), horizon=9)])
    (loss,) = model.predict([PartialCurve((3.0, 2.0), horizon=9, scale=loss_scale(4.0))])
    assert loss.mean == pytest.approx(4 - 4 * height.mean, abs=1e-5)
    assert loss.probability_below(1.0) == pytest.approx(height.probability_above(0.75), abs=1e-6)


def test_training_lowers_the_loss_on_curves_never_seen(trained: CurveNetwork) -> None:
    batches = [make_batch(step, TRAIN, max_points=16, prior=PAPER_PRIOR) for step in range(5000, 5010)]
    with torch.no_grad():
        before = np.mean([float(batch_loss(network(), batch)) for batch in batches])
        after = np.mean([float(batch_loss(trained, batch)) for batch in batches])
    assert after < before - 0.3


def test_what_is_known_narrows_the_answer_and_moves_it(trained: CurveNetwork) -> None:
    model = NetworkCurves(trained)
    flat = tuple(0.6 + 0.002 * np.sin(np.arange(14)))
    early, late = model.predict([PartialCurve(flat[:1], horizon=15), PartialCurve(flat, horizon=15)])
    assert late.std < early.std / 2
    assert late.mean == pytest.approx(0.6, abs=0.05)


def test_a_step_of_training_depends_on_its_number_only() -> None:
    first, again, other = (make_batch(step, TRAIN, max_points=16) for step in (7, 7, 8))
    assert torch.equal(first.heights, again.heights)
    assert first.heights.shape != other.heights.shape or not torch.equal(first.heights, other.heights)
    assert (first.target_times > first.times.unsqueeze(-1)).all()
    assert (first.target_times[:, :, 0] == 1).all()


def test_training_leaves_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    model = network().train()
    train_step(model, torch.optim.AdamW(model.parameters()), 0, TRAIN)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_learning_rate_rises_stays_and_falls_to_zero() -> None:
    factors = [learning_rate_factor(step, TRAIN) for step in range(TRAIN.steps + 1)]
    assert factors[0] == 0.1
    assert factors[40] == 1
    assert factors[-1] == 0
    fewer = CurveTrainConfig(steps=100, warmup_steps=10)
    assert [learning_rate_factor(step, fewer) for step in range(70)] == factors[:70]


def test_a_network_comes_back_from_disk_bit_by_bit(tmp_path: Path) -> None:
    model = network()
    save_curve_network(model, tmp_path, recipe={"seed": 0})
    found = load_curve_network(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), found.parameters(), strict=True))
    assert found.config == model.config


def test_a_damaged_or_foreign_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="No curve network"):
        load_curve_network(tmp_path)
    save_curve_network(network(), tmp_path, recipe={})
    path = tmp_path / "config.json"
    document = json.loads(path.read_text())
    for change, message in (
        ({"schema": "other"}, "schema"),
        ({"config": {"dim": 16}}, "exactly the fields"),
        ({"config": document["config"] | {"dim": "16"}}, "to be of type int"),
        ({"config": document["config"] | {"num_heads": 3}}, "divide"),
        ({"config": document["config"] | {"dim": 32}}, "shape"),
        ({"sha256": "0" * 64}, "checksum"),
    ):
        path.write_text(json.dumps(document | change))
        with pytest.raises(CheckpointError, match=message):
            load_curve_network(tmp_path)


def test_foolish_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="'num_heads' to divide 'dim'"):
        CurveNetworkConfig(dim=10, num_heads=4)
    with pytest.raises(ConfigError, match="even 'num_bars'"):
        CurveNetworkConfig(num_bars=7)
    with pytest.raises(ConfigError, match="'steps' above 0"):
        CurveTrainConfig(steps=0)
    with pytest.raises(ConfigError, match="'falling_share'"):
        CurveTrainConfig(falling_share=0.0)
