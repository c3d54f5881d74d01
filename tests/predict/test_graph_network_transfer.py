"""Pre-training on some spaces, and few labels in another one."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

from nasgraph.errors import CheckpointError, ConfigError
from nasgraph.files import read_json, write_json
from nasgraph.ir import ComputationalGraph, GraphBuilder, cost_of
from nasgraph.predict import (
    GraphNetworkPredictor,
    NetworkTraining,
    NotFittedError,
    PathFeatures,
    PretrainedPredictor,
    Pretraining,
    TransferPredictor,
    load_pretrained,
    pretrain,
    save_pretrained,
)
from nasgraph.predict.graph_network import fit_process, process
from nasgraph.predict.transfer import fit_transfer
from nasgraph.seeding import generator
from tests.modules.samples import sampled_graphs

QUICK = Pretraining(training=NetworkTraining(steps=30, batch_size=16), num_networks=2, dim=8, num_layers=2)


def cells(width: int, *, longest: int, seed: int, count: int = 60) -> list[ComputationalGraph]:
    """A made-up space: chains of convolutions and poolings, some with a shortcut."""
    rng = generator(seed, "cells", width)
    graphs = []
    for _ in range(count):
        g = GraphBuilder()
        first = x = g("input", shape=(width, 8, 8))
        for _ in range(int(rng.integers(1, longest + 1))):
            kind = int(rng.integers(3))
            if kind == 2:
                x = g("max_pool2d", x, kernel_size=3, stride=1, padding=1)
            else:
                kernel = (1, 3)[kind]
                x = g("relu", g("conv2d", x, out_channels=width, kernel_size=kernel, padding=kernel // 2))
        graphs.append(g.finish(g("add", x, first) if rng.random() < 0.5 else x))
    return graphs


def quality(graphs: Sequence[ComputationalGraph]) -> torch.Tensor:
    """What is good in every made-up space: spatial convolutions on the mean path, no poolings."""
    columns = dict(zip(PathFeatures().names, PathFeatures()(graphs).T, strict=True))
    return torch.from_numpy(columns["mean spatial"] - 0.7 * columns["mean pool"] + 0.2 * columns["paths"])


def shifted(graphs: Sequence[ComputationalGraph]) -> torch.Tensor:
    """The same with noise, another unit and a taste of its own."""
    rng = generator(1, "noise")
    size = torch.tensor([np.log1p(cost_of(graph).num_parameters) for graph in graphs])
    noise = torch.from_numpy(rng.normal(size=len(graphs)))
    return 60 + 20 * torch.tanh(quality(graphs) + 0.02 * size + 0.1 * noise)


SOURCE, TARGET = cells(8, longest=3, seed=0), cells(16, longest=5, seed=1, count=120)
BASE = pretrain({"source": (SOURCE, quality(SOURCE))}, QUICK)


def rho(mean: torch.Tensor, graphs: Sequence[ComputationalGraph]) -> float:
    return float(spearmanr(mean, shifted(graphs)).statistic)


def rest(seed: int, count: int) -> tuple[list[ComputationalGraph], torch.Tensor, list[ComputationalGraph]]:
    """Some labelled graphs of the target, and the others."""
    order = generator(seed, "labels").permutation(len(TARGET))
    labelled = [TARGET[row] for row in order[:count]]
    return labelled, shifted(TARGET)[torch.from_numpy(order[:count])], [TARGET[row] for row in order[count:]]


def test_zero_shot_scores_rank_another_space_without_any_label() -> None:
    prediction = BASE(TARGET)
    assert rho(prediction.mean, TARGET) > 0.75
    assert prediction.std is not None
    assert bool((prediction.std > 0).all())


def test_a_zero_shot_score_does_not_depend_on_the_company() -> None:
    together, alone = BASE(TARGET[:7]).mean, torch.cat([BASE([graph]).mean for graph in TARGET[:7]])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)
    assert len(BASE([])) == 0


def test_the_base_is_less_sure_far_from_what_it_has_seen() -> None:
    far = sampled_graphs("vit", 3)
    near, away = BASE(SOURCE[:20]).std, BASE(far).std
    assert near is not None
    assert away is not None
    assert float(away.mean()) > float(near.mean())


def test_with_several_tables_the_nearest_one_is_trusted_most() -> None:
    images, texts = sampled_graphs("convnet", 20), sampled_graphs("mlp", 20)
    tables = {
        "images": (images, torch.linspace(0, 1, 20)),
        "texts": (texts, torch.linspace(1, 0, 20)),
        "cells": (SOURCE, quality(SOURCE)),
    }
    base = pretrain(tables, replace(QUICK, num_networks=0))
    assert [memory.name for memory in base.memory] == ["cells", "images", "texts"]
    alone = pretrain({"cells": (SOURCE, quality(SOURCE))}, replace(QUICK, num_networks=0))
    assert float(spearmanr(base(SOURCE).mean, alone(SOURCE).mean).statistic) > 0.8


@pytest.mark.parametrize("count", [8, 10, 40])
def test_few_labels_over_a_frozen_base_are_no_worse_than_the_base(count: int) -> None:
    fitted, alone = [], []
    for seed in range(5):
        labelled, targets, others = rest(seed, count)
        predictor = TransferPredictor(BASE)
        predictor.fit(labelled, targets)
        fitted.append(rho(predictor.predict(others).mean, others))
        alone.append(rho(BASE(others).mean, others))
    assert np.mean(fitted) > np.mean(alone) - 0.02
    assert min(fitted) > min(alone) - 0.1


def test_a_base_that_is_wrong_here_is_overruled_by_labels() -> None:
    wrong = pretrain({"source": (SOURCE, -quality(SOURCE))}, replace(QUICK, num_networks=0))
    labelled, targets, others = rest(0, 40)
    predictor = TransferPredictor(wrong)
    predictor.fit(labelled, targets)
    assert rho(wrong(others).mean, others) < -0.5
    assert rho(predictor.predict(others).mean, others) > 0.7


def test_predictions_come_in_the_unit_of_the_targets_with_a_fair_spread() -> None:
    labelled, targets, others = rest(0, 40)
    predictor = TransferPredictor(BASE)
    predictor.fit(labelled, targets)
    prediction, truth = predictor.predict(others), shifted(others)
    assert prediction.std is not None
    inside = (prediction.mean - truth).abs() < 1.64 * prediction.std
    assert 0.75 < float(inside.double().mean()) <= 1
    assert float((prediction.mean - truth).abs().mean()) < 5


def test_further_features_are_used_where_they_tell_more() -> None:
    truth = {graph.fingerprint: float(value) for graph, value in zip(TARGET, shifted(TARGET), strict=True)}

    def oracle(graphs: Sequence[ComputationalGraph]) -> np.ndarray:
        return np.array([[truth[graph.fingerprint]] for graph in graphs])

    labelled, targets, others = rest(0, 40)
    found = []
    for features in (None, oracle):
        predictor = TransferPredictor(BASE, features=features)
        predictor.fit(labelled, targets)
        found.append(rho(predictor.predict(others).mean, others))
    assert found[1] > found[0]


def test_fitting_leaves_the_base_unchanged_and_equal_fits_give_equal_predictions() -> None:
    before = [{name: tensor.clone() for name, tensor in net.state_dict().items()} for net in BASE.networks]
    state, numpy_state = torch.get_rng_state(), np.random.get_state(legacy=False)
    labelled, targets, others = rest(0, 12)
    makers: list[Callable[[], TransferPredictor | GraphNetworkPredictor]] = [lambda: TransferPredictor(BASE)]
    for tuning in ("all", "adapters", "head"):
        makers.append(
            lambda tuning=tuning: GraphNetworkPredictor(  # type: ignore[misc]  # mypy does not infer such a default
                replace(QUICK.training, steps=4), start=BASE.networks, tuning=tuning, num_members=2
            )
        )
    for make in makers:
        found = []
        for predictor in (make(), make()):
            predictor.fit(labelled, targets)
            found.append(predictor.predict(others[:20]).mean)
        assert torch.equal(*found)
    for net, tensors in zip(BASE.networks, before, strict=True):
        assert all(torch.equal(tensor, tensors[name]) for name, tensor in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert str(np.random.get_state(legacy=False)) == str(numpy_state)


def test_pretraining_is_a_function_of_the_seed() -> None:
    tables = {"source": (SOURCE, quality(SOURCE))}
    small = replace(QUICK, training=NetworkTraining(steps=3, batch_size=8), num_networks=1)
    first, again, other = (pretrain(tables, replace(small, seed=seed))(TARGET).mean for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_saving_and_loading_changes_no_bit(tmp_path: Path) -> None:
    save_pretrained(BASE, tmp_path, recipe={"tables": ["source"]})
    loaded, recipe = load_pretrained(tmp_path)
    assert recipe == {"tables": ["source"]}
    assert torch.equal(loaded(TARGET).mean, BASE(TARGET).mean)
    assert torch.equal(*(each(TARGET).std for each in (loaded, BASE)))  # type: ignore[arg-type]  # not None


def test_a_predictor_without_networks_survives_the_disk(tmp_path: Path) -> None:
    base = PretrainedPredictor((), BASE.memory)
    save_pretrained(base, tmp_path, recipe={})
    assert torch.equal(load_pretrained(tmp_path)[0](TARGET[:5]).mean, base(TARGET[:5]).mean)


def test_a_changed_or_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="No pre-trained predictor"):
        load_pretrained(tmp_path)
    save_pretrained(BASE, tmp_path, recipe={})
    weights = tmp_path / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    with pytest.raises(CheckpointError, match="checksum"):
        load_pretrained(tmp_path)
    weights.unlink()
    with pytest.raises(CheckpointError, match="Cannot read"):
        load_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("schema", "nasgraph/pretrained/9", "schema"),
        ("columns", ["paths"], "other features"),
        ("seed", "0", "whole number"),
        ("memory", [], "list of names"),
        ("memory", ["a", "b"], "Expected 'columns' and 'scores' of table 'b'"),
        ("networks", [], "unexpected tensor"),
        ("networks", [{"dim": 8}], "Expected a network"),
        (
            "networks",
            [{"vocabulary": ["add"], "dim": 8, "num_layers": 10**9, "adapter_dim": 0}],
            "at most 64 layers",
        ),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(
    tmp_path: Path, field: str, value: object, words: str
) -> None:
    save_pretrained(BASE, tmp_path, recipe={})
    document = read_json(tmp_path / "config.json")
    assert isinstance(document, dict)
    write_json(tmp_path / "config.json", {**document, field: value})
    with pytest.raises(CheckpointError, match=words):
        load_pretrained(tmp_path)


def test_graphs_of_one_node_and_of_operators_never_seen_are_scored() -> None:
    g = GraphBuilder()
    single = g.finish(g("input", shape=(3,)))
    h = GraphBuilder()
    strange = h.finish(h("opaque", h("input", shape=(4,)), name="gat", shape=(4,), dtype="float"))
    graphs = [single, strange]
    assert bool(BASE(graphs).mean.isfinite().all())
    predictor = TransferPredictor(BASE)
    predictor.fit([*TARGET[:10], *graphs], torch.linspace(0, 1, 12))
    assert bool(predictor.predict(graphs).mean.isfinite().all())
    assert len(predictor.predict([])) == 0


def test_constant_targets_are_predicted_as_they_are() -> None:
    predictor = TransferPredictor(BASE)
    predictor.fit(TARGET[:10], torch.full((10,), 0.7))
    assert float((predictor.predict(TARGET).mean - 0.7).abs().max()) < 1


def test_too_few_labels_and_no_labels_are_refused_in_words() -> None:
    with pytest.raises(ValueError, match="at least 8 labelled graphs \\(got 1\\)"):
        TransferPredictor(BASE).fit(TARGET[:1], torch.ones(1))
    with pytest.raises(NotFittedError, match="call 'base'"):
        TransferPredictor(BASE).predict(TARGET[:1])
    with pytest.raises(ValueError, match="at least one table"):
        pretrain({})
    with pytest.raises(ValueError, match="at least 8"):
        pretrain({"one": (SOURCE[:1], torch.ones(1))})
    with pytest.raises(ConfigError, match="max_memory"):
        Pretraining(max_memory=1)
    with pytest.raises(ConfigError, match="as many"):
        fit_transfer(BASE.describe(TARGET[:8]), np.zeros((3, 0)), torch.ones(8))


def test_the_process_with_one_setting_is_that_of_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"LENGTHS": (2.0,), "SCALES": (0.3,), "NOISES": (0.2,), "SLOPES": {0.0: 0.0}}.items():
        monkeypatch.setattr(process, name, value)
    rng = generator(0, "process")
    x, y, others = rng.normal(size=(20, 3)), rng.normal(size=20), rng.normal(size=(7, 3))
    mean, std = fit_process([x], np.zeros((20, 1)), y, beliefs=[0.0])([others], np.zeros((7, 1)))
    unit = np.sqrt(3)  # the process measures the mean over features, scikit-learn the sum
    kernel = 0.3 * RBF(2.0 * unit) + ConstantKernel(process.OFFSET) + WhiteKernel(0.2)
    theirs = GaussianProcessRegressor(kernel, optimizer=None).fit(x, y)
    expected_mean, expected_std = theirs.predict(others, return_std=True)
    np.testing.assert_allclose(mean, expected_mean, rtol=1e-8)
    np.testing.assert_allclose(std, expected_std, rtol=1e-6)


def test_the_process_leans_on_a_true_score_and_ignores_a_false_one() -> None:
    rng = generator(0, "scores")
    x, true, false = rng.normal(size=(12, 4)), rng.normal(size=12), rng.normal(size=12)
    others, theirs = rng.normal(size=(200, 4)), rng.normal(size=(200, 2))
    predict = fit_process(
        [x], np.stack([false, true], axis=1), true + 0.05 * rng.normal(size=12), beliefs=[0.0, 0.0]
    )
    mean, _ = predict([others], theirs)
    assert np.corrcoef(mean, theirs[:, 1])[0, 1] > 0.95
