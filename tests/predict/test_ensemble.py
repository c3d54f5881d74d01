"""An ensemble's scale of targets, weights, left-out predictions and intervals."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau

from nasgraph.errors import ConfigError, UnknownNameError
from nasgraph.predict import ensemble
from nasgraph.predict.ensemble import MEMBERS, Blocks, EnsembleConfig, Member, TargetScale, fit_ensemble

Array = np.ndarray
ALL = Blocks(((0, 4),))
PROCESS = ("gaussian_process",)
FORESTS = ("extra_trees", "random_forest")


@pytest.fixture(autouse=True)
def few_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ensemble, "NUM_TREES", 40)


def draw(count: int, *, seed: int) -> tuple[Array, Array]:
    """Rows and targets with noise and a long tail below, in percent."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((count, 4))
    clean = np.tanh(x[:, 0]) + 0.5 * np.sin(2 * x[:, 1])
    return x, 90 - 5 * np.exp(-clean + 0.3 * rng.standard_normal(count))


# ---- the scale of targets

THOUSANDTHS = st.integers(-(10**9), 10**9).map(lambda number: number / 1000)
TARGETS = st.lists(THOUSANDTHS, min_size=8, max_size=40).filter(lambda values: len(set(values)) > 1)


@given(TARGETS, st.lists(THOUSANDTHS, min_size=2, max_size=20))
def test_the_scale_rises_strictly_and_its_inverse_is_its_inverse(
    targets: list[float], others: list[float]
) -> None:
    y = np.array(targets)
    scale = TargetScale.of(y)
    known = np.unique(y)
    assert (np.diff(scale(known)) > 0).all()
    np.testing.assert_allclose(scale.inverse(scale(known)), known, rtol=1e-9, atol=1e-9)
    asked = np.sort(np.array(others))
    assert (np.diff(scale(asked)) >= -1e-12).all()
    np.testing.assert_allclose(scale.inverse(scale(asked)), asked, rtol=1e-6, atol=1e-3)


@given(TARGETS)
def test_scaled_targets_have_mean_zero_and_variance_one(targets: list[float]) -> None:
    scaled = TargetScale.of(np.array(targets))(np.array(targets))
    assert scaled.mean() == pytest.approx(0, abs=1e-9)
    assert scaled.std() == pytest.approx(1)


def test_beyond_known_targets_the_order_survives() -> None:
    _, y = draw(30, seed=0)
    scale = TargetScale.of(y)
    beyond = np.array([y.min() - 50, y.min() - 1, y.min(), y.max(), y.max() + 1, y.max() + 50])
    assert (np.diff(scale(beyond)) > 0).all()
    assert (np.diff(scale.inverse(np.linspace(-30, 30, 50))) > 0).all()


def test_the_tail_below_is_compressed() -> None:
    y = np.concatenate([np.linspace(80, 90, 90), np.linspace(10, 60, 10)])
    scale = TargetScale.of(y)
    top, tail = np.diff(scale(np.array([85.0, 90.0])))[0] / 5, np.diff(scale(np.array([10.0, 60.0])))[0] / 50
    assert top > 4 * tail


# ---- weights


def test_weights_are_shares() -> None:
    x, y = draw(50, seed=1)
    fitted = fit_ensemble(x, y, EnsembleConfig())
    assert list(fitted.weights) == ["gaussian_process", *FORESTS]
    assert all(weight >= 0 for weight in fitted.weights.values())
    assert sum(fitted.weights.values()) == pytest.approx(1)


def test_a_member_that_says_noise_has_little_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    def noise(x: Array, y: Array, blocks: Blocks, seed: int) -> Member:
        rng = np.random.default_rng(seed)
        said = (rng.standard_normal(len(x)), np.ones(len(x)))
        return Member(said, lambda rows: (np.zeros(len(rows)), np.ones(len(rows))))

    monkeypatch.setattr(ensemble, "MEMBERS", {**MEMBERS, "noise": noise})
    x, y = draw(80, seed=2)
    fitted = fit_ensemble(x, y, EnsembleConfig(members=(*PROCESS, "noise")))
    assert fitted.weights["noise"] < 0.1


def test_equal_members_share_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ensemble, "MEMBERS", {**MEMBERS, "twin": MEMBERS["gaussian_process"]})
    x, y = draw(40, seed=3)
    fitted = fit_ensemble(x, y, EnsembleConfig(members=(*PROCESS, "twin")))
    assert fitted.weights["twin"] == pytest.approx(0.5)
    alone = fit_ensemble(x, y, EnsembleConfig(members=PROCESS))
    torch.testing.assert_close(fitted.predict(x).mean, alone.predict(x).mean)
    torch.testing.assert_close(fitted.predict(x).interval(), alone.predict(x).interval())


def test_one_member_has_all_the_weight() -> None:
    x, y = draw(20, seed=4)
    for name in MEMBERS:
        assert fit_ensemble(x, y, EnsembleConfig(members=(name,))).weights == {name: 1}


# ---- left-out predictions


@pytest.mark.parametrize("name", FORESTS)
def test_left_out_predictions_of_forests_never_use_the_row(name: str) -> None:
    x, _ = draw(30, seed=5)
    y = np.sin(x[:, 0])
    y[7] = 1000
    member = MEMBERS[name](x, y, ALL, 0)
    assert member.left_out[0][7] <= 1  # no other target is above
    assert member.left_out[1][7] <= 1
    assert member.predict(x[[7]])[0][0] > 100  # what is not left out knows it


@pytest.mark.parametrize("name", FORESTS)
def test_left_out_predictions_of_forests_are_those_of_trees_that_did_not_draw_the_row(name: str) -> None:
    from sklearn.ensemble import ExtraTreesRegressor, RandomForestRegressor

    x, y = draw(25, seed=6)
    kind = {"extra_trees": ExtraTreesRegressor, "random_forest": RandomForestRegressor}[name]
    theirs = kind(40, max_features=0.4, bootstrap=True, oob_score=True, random_state=3).fit(x, y)
    member = MEMBERS[name](x, y, ALL, 3)
    np.testing.assert_allclose(member.left_out[0], theirs.oob_prediction_)
    np.testing.assert_allclose(member.predict(x)[0], theirs.predict(x))
    said = np.stack([tree.predict(x.astype(np.float32)) for tree in theirs.estimators_])
    np.testing.assert_allclose(member.predict(x)[1], said.std(axis=0), atol=1e-6)


def test_left_out_predictions_are_about_as_good_as_those_of_new_rows() -> None:
    x, y = draw(150, seed=7)
    new, truth = draw(400, seed=8)
    fitted = fit_ensemble(x, y, EnsembleConfig())
    left_out = kendalltau(fitted.left_out.mean, y).statistic
    assert left_out == pytest.approx(kendalltau(fitted.predict(new).mean, truth).statistic, abs=0.08)
    assert left_out < kendalltau(fitted.predict(x).mean, y).statistic - 0.05


# ---- intervals


def covered(fitted: ensemble.FittedEnsemble, x: Array, y: Array) -> float:
    low, high = fitted.predict(x).interval()
    return float(((low <= torch.from_numpy(y)) & (torch.from_numpy(y) <= high)).double().mean())


@pytest.mark.parametrize(("members", "draws"), [(PROCESS, 25), (EnsembleConfig().members, 12)])
def test_intervals_hold_nine_in_ten_of_rows_drawn_alike(members: tuple[str, ...], draws: int) -> None:
    shares = []
    for seed in range(draws):
        x, y = draw(40, seed=100 + seed)
        fitted = fit_ensemble(x, y, EnsembleConfig(members=members, seed=seed))
        shares.append(covered(fitted, *draw(200, seed=1000 + seed)))
    assert np.mean(shares) == pytest.approx(0.9, abs=0.05)


def test_the_left_out_targets_lie_in_their_intervals_as_often_as_promised() -> None:
    x, y = draw(99, seed=9)
    for level in (0.5, 0.8, 0.9):
        low, high = fit_ensemble(x, y, EnsembleConfig(members=PROCESS, level=level)).left_out.interval()
        inside = ((low - 1e-9 <= torch.from_numpy(y)) & (torch.from_numpy(y) <= high + 1e-9)).sum()
        assert int(inside) == round(100 * level)  # the quantile of conformal prediction: (n + 1) * level


def test_a_higher_level_gives_wider_intervals_around_the_same_mean() -> None:
    x, y = draw(60, seed=10)
    new, _ = draw(20, seed=11)
    found = [fit_ensemble(x, y, EnsembleConfig(level=level)).predict(new) for level in (0.5, 0.7, 0.9, 0.99)]
    for narrow, wide in pairwise(found):
        assert narrow.low is not None
        assert narrow.high is not None
        assert wide.low is not None
        assert wide.high is not None
        assert bool((wide.high - wide.low > narrow.high - narrow.low).all())
        assert bool(((wide.low <= narrow.low) & (narrow.high <= wide.high)).all())
        assert torch.equal(narrow.mean, wide.mean)
    assert [each.level for each in found] == [0.5, 0.7, 0.9, 0.99]


def test_the_mean_lies_within_the_interval() -> None:
    prediction = fit_ensemble(*draw(30, seed=12), EnsembleConfig()).predict(draw(50, seed=13)[0])
    low, high = prediction.interval()
    assert prediction.std is not None
    assert bool(((low < prediction.mean) & (prediction.mean < high) & (prediction.std > 0)).all())


# ---- blocks


def test_the_process_of_the_structure_looks_at_nothing_else() -> None:
    x, y = draw(60, seed=14)
    blocks = Blocks(((0, 2),), ((2, 4),))
    fitted = fit_ensemble(x, y, EnsembleConfig(members=("structure_process",)), blocks=blocks)
    changed = x.copy()
    changed[:, 2:] += 10
    assert torch.equal(fitted.predict(x).mean, fitted.predict(changed).mean)
    both = fit_ensemble(x, y, EnsembleConfig(), blocks=blocks)
    assert list(both.weights) == list(EnsembleConfig().members)


@pytest.mark.parametrize(
    ("blocks", "members"),
    [
        (Blocks(((0, 2), (2, 4)), ((4, 4),)), ["gaussian_process"]),
        (Blocks(((0, 0),), ((0, 4),)), ["gaussian_process"]),
        (Blocks(((0, 0), (0, 2)), ((2, 4),)), ["gaussian_process", "structure_process"]),
    ],
)
def test_blocks_without_columns_are_left_out(blocks: Blocks, members: list[str]) -> None:
    x, y = draw(20, seed=15)
    config = EnsembleConfig(members=("gaussian_process", "structure_process"))
    assert list(fit_ensemble(x, y, config, blocks=blocks).weights) == members


def test_rows_without_columns_are_refused() -> None:
    x, y = draw(20, seed=16)
    for members in (("structure_process",), EnsembleConfig().members):
        with pytest.raises(ValueError, match="No column tells the rows apart"):
            fit_ensemble(x[:, :0], y, EnsembleConfig(members=members))


# ---- hard cases


def test_equal_seeds_give_equal_results_and_others_differ() -> None:
    x, y = draw(30, seed=17)
    new, _ = draw(10, seed=18)
    same, again, other = (fit_ensemble(x, y, EnsembleConfig(seed=seed)).predict(new) for seed in (1, 1, 2))
    assert torch.equal(same.mean, again.mean)
    torch.testing.assert_close(same.interval(), again.interval(), rtol=0, atol=0)
    assert not torch.equal(same.mean, other.mean)


def test_global_generators_are_left_alone() -> None:
    state, numpy_state = torch.get_rng_state(), np.random.get_state(legacy=False)
    fit_ensemble(*draw(20, seed=19), EnsembleConfig())
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_equal(np.random.get_state(legacy=False), numpy_state)


@pytest.mark.parametrize(
    "targets",
    [
        [1.0] * 7 + [2.0],
        [0.0] * 4 + [1.0] * 4,
        [1e-6 * i for i in range(8)],
        [-1e9, *range(7)],
    ],
)
def test_few_and_strange_targets_give_finite_predictions(targets: list[float]) -> None:
    x, _ = draw(8, seed=20)
    prediction = fit_ensemble(x, np.array(targets), EnsembleConfig()).predict(draw(5, seed=21)[0])
    assert prediction.std is not None
    low, high = prediction.interval()
    for part in (prediction.mean, prediction.std, low, high):
        assert bool(part.isfinite().all())


def test_no_rows_have_no_predictions() -> None:
    x, y = draw(20, seed=22)
    prediction = fit_ensemble(x, y, EnsembleConfig()).predict(x[:0])
    assert len(prediction) == 0


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="at least one member"):
        EnsembleConfig(members=())
    with pytest.raises(UnknownNameError, match="No member of an ensemble named 'extra_tree'"):
        EnsembleConfig(members=("extra_tree",))
    for level in (0.4, 1.0, float("nan")):
        with pytest.raises(ConfigError, match=r"'level' from 0\.5 to below 1"):
            EnsembleConfig(level=level)
