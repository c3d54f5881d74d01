"""Many proxies of many graphs: seeds, plug-ins, published values."""

import math
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from statistics import median

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch.nn import functional as F

from nasgraph import plugins
from nasgraph.data import Split
from nasgraph.errors import UnknownNameError
from nasgraph.ir import ComputationalGraph, cost_of
from nasgraph.modules import build
from nasgraph.predict import PROXIES, Proxy, proxy_scores
from nasgraph.predict.zero_cost import Examples, UndefinedScoreError, load_proxy, module_scores, proxy_names
from nasgraph.spaces import replay
from search_spaces.nasbench201 import NASBench201, architecture_from_string
from tests.modules.samples import sampled_graphs
from tests.predict.zero_cost.networks import SEED, Linears, noise_batch, some_graphs, weight_parameters


def test_counts_are_those_of_the_cost_table() -> None:
    names = ("num_parameters", "multiply_adds", "num_weight_layers", "l2_norm")
    for graph, scores in zip(
        some_graphs(), proxy_scores(some_graphs(), noise_batch(), names=names), strict=True
    ):
        module = build(graph)
        weights = weight_parameters(module).values()
        assert scores["num_parameters"] == sum(parameter.numel() for parameter in module.parameters())
        assert scores["multiply_adds"] == cost_of(graph).multiply_adds
        assert scores["num_weight_layers"] == len(weights)
        assert scores["l2_norm"] == pytest.approx(
            sum(float(weight.detach().norm()) for weight in weights), rel=1e-5
        )


def test_scores_are_reproducible_and_touch_neither_batch_nor_graph_nor_the_global_generator() -> None:
    batch, state = noise_batch(), torch.get_rng_state()
    before = batch.inputs.clone()
    for graph in some_graphs()[2::3]:
        fingerprint = graph.fingerprint
        first, second = (proxy_scores([graph], batch, names=tuple(PROXIES), seed=SEED) for _ in range(2))
        assert dict(first[0]) == pytest.approx(dict(second[0]), rel=0, abs=0, nan_ok=True)
        assert all(math.isfinite(value) or name in first[0].reasons for name, value in first[0].items())
        assert graph.fingerprint == fingerprint
    assert torch.equal(batch.inputs, before)
    assert not batch.inputs.requires_grad
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    "name", sorted(set(PROXIES) - {"num_parameters", "multiply_adds", "num_weight_layers"})
)
def test_another_seed_draws_other_weights(name: str) -> None:
    graph, batch = sampled_graphs("nasbench201", 3)[2], noise_batch(20)
    assert PROXIES[name](graph, batch, seed=0) != PROXIES[name](graph, batch, seed=1)


def test_the_score_of_several_draws_is_their_median() -> None:
    graphs, batch, names = sampled_graphs("nasbench201", 2), noise_batch(), ("nwot", "snip", "num_parameters")
    for graph, scores in zip(
        graphs, proxy_scores(graphs, batch, names=names, seed=4, num_seeds=3), strict=True
    ):
        for name in names:
            assert scores[name] == pytest.approx(
                median(PROXIES[name](graph, batch, seed=s) for s in (4, 5, 6))
            )


def test_scores_are_a_mapping_in_the_order_of_the_names() -> None:
    names = ("snip", "num_parameters", "nwot")
    (scores,) = proxy_scores(sampled_graphs("mlp", 1), noise_batch(), names=names)
    assert tuple(scores) == names
    assert {**scores, "more": 1.0}["snip"] == scores["snip"]
    assert scores == dict(scores)
    assert proxy_scores([], noise_batch(), names=names) == []


def test_an_unknown_proxy_is_refused_with_its_neighbours() -> None:
    with pytest.raises(UnknownNameError, match=r"zero-cost proxy named 'sinflow'.* Close: 'synflow'"):
        proxy_scores([], noise_batch(), names=("sinflow",))
    with pytest.raises(UnknownNameError, match="of modules named 'depth'"):
        module_scores(Linears((5, 3)), torch.zeros(2, 5), names=("depth",))


def depth(graph: ComputationalGraph, batch: Split, /, *, seed: int) -> float:
    """What a third party offers."""
    if seed == 13:
        raise UndefinedScoreError("unlucky")
    if seed == 14:
        raise RuntimeError("a bug of theirs")
    return math.inf if seed == 15 else float(cost_of(graph).depth + len(batch))


@pytest.fixture
def plug_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An installed package that offers `depth`."""
    point = EntryPoint("depth", f"{__name__}:depth", "nasgraph.proxies")
    plugins._entry_points.cache_clear()
    monkeypatch.setattr(plugins, "entry_points", lambda *, group: [point] if group == point.group else [])
    yield
    plugins._entry_points.cache_clear()


@pytest.mark.usefixtures("plug_in")
def test_a_plug_in_is_found_by_its_name_and_scores_beside_ours() -> None:
    graph, batch = sampled_graphs("mlp", 1)[0], noise_batch()
    assert proxy_names() == (*PROXIES, "depth")
    assert load_proxy("depth") is depth
    (scores,) = proxy_scores([graph], batch, names=("depth", "snip"))
    assert scores["depth"] == cost_of(graph).depth + len(batch)
    assert scores["snip"] == pytest.approx(PROXIES["snip"](graph, batch, seed=0))
    with pytest.raises(UnknownNameError, match="Close: 'depth'"):
        load_proxy("dept")


@pytest.mark.usefixtures("plug_in")
@pytest.mark.parametrize(
    ("seed", "reason"),
    [
        (13, "unlucky"),
        (14, "the plug-in fails: RuntimeError: a bug of theirs"),
        (15, "the plug-in gives inf"),
    ],
)
def test_a_plug_in_without_a_score_gives_nan_and_its_reason(seed: int, reason: str) -> None:
    (scores,) = proxy_scores(sampled_graphs("mlp", 1), noise_batch(), names=("depth", "snip"), seed=seed)
    assert math.isnan(scores["depth"])
    assert scores.reasons == {"depth": reason}
    batch = noise_batch()
    examples = Examples((batch.inputs,), batch.targets)
    (scores,) = proxy_scores(sampled_graphs("mlp", 1), examples, names=("depth",))
    assert "one real-valued input" in scores.reasons["depth"]


@pytest.mark.usefixtures("plug_in")
def test_one_draw_without_a_score_leaves_none() -> None:
    (scores,) = proxy_scores(sampled_graphs("mlp", 1), noise_batch(), names=("depth",), seed=11, num_seeds=3)
    assert scores.reasons == {"depth": "unlucky"}
    assert math.isnan(scores["depth"])


def test_every_proxy_is_documented_and_satisfies_the_protocol() -> None:
    for proxy in PROXIES.values():
        assert isinstance(proxy, Proxy)
        assert proxy.__doc__ is not None
        text = " ".join(proxy.__doc__.split())
        assert "igher is better" in text or proxy in (PROXIES["plain"], PROXIES["trainability"])


COUNT = 40
"""Cells of the published table to compare with."""


@pytest.fixture(scope="module")
def published(shared_data: Path) -> tuple[list[str], dict[str, np.ndarray]]:
    """Strings of some NAS-Bench-201 cells, and the proxies of NAS-Bench-Suite-Zero on CIFAR-10 for them."""
    table, cells = (np.load(shared_data / f"nasbench201{part}.npz") for part in ("_zero_cost", ""))
    rows = np.random.default_rng(0).choice(len(table["index"]), COUNT, replace=False)
    columns = {str(name): table["cifar10"][rows, k] for k, name in enumerate(table["proxy_names"])}
    return [str(cells["arch_str"][index]) for index in table["index"][rows]], columns


@pytest.fixture(scope="module")
def photographs(shared_data: Path) -> Split:
    """64 training images of CIFAR-10, scaled to about unit variance."""
    table = np.load(shared_data / "cifar10_tiny.npz")
    images, labels = (torch.from_numpy(table[name][:64]) for name in ("x_train", "y_train"))
    return Split(((images.permute(0, 3, 1, 2) / 255 - 0.47) / 0.25).contiguous(), labels.long())


@pytest.mark.parametrize(
    ("ours", "theirs", "side", "count", "least"),
    [
        ("num_parameters", "params", 32, COUNT, 0.999),
        ("multiply_adds", "flops", 32, COUNT, 0.99),
        ("synflow", "synflow", 32, 12, 0.97),
        ("synflow", "synflow", 16, 20, 0.98),
        ("nwot", "nwot", 16, 20, 0.9),
    ],
)
def test_proxies_rank_cells_as_the_published_ones_do(
    published: tuple[list[str], dict[str, np.ndarray]],
    photographs: Split,
    ours: str,
    theirs: str,
    side: int,
    count: int,
    least: float,
) -> None:
    strings, columns = published
    space = NASBench201(input_shape=(3, side, side), num_classes=10)
    images = F.adaptive_avg_pool2d(photographs.inputs, side)
    batch = Split(images, photographs.targets)
    cells = [replay(space, architecture_from_string(text)).graph for text in strings[:count]]
    found = [PROXIES[ours](cell, batch, seed=0) for cell in cells]
    assert spearmanr(found, columns[theirs][:count]).statistic >= least


def test_parameter_counts_are_the_published_ones(
    published: tuple[list[str], dict[str, np.ndarray]],
) -> None:
    strings, columns = published
    space = NASBench201(input_shape=(3, 32, 32), num_classes=10)
    for text, millions in zip(strings, columns["params"], strict=True):
        graph = replay(space, architecture_from_string(text)).graph
        assert cost_of(graph).num_parameters == pytest.approx(1e6 * millions, abs=0.5)


def test_nwot_has_the_size_of_the_published_one(
    published: tuple[list[str], dict[str, np.ndarray]], photographs: Split
) -> None:
    """Same number of images; theirs saw others, with other weights."""
    strings, columns = published
    space = NASBench201(input_shape=(3, 32, 32), num_classes=10)
    for text, expected in list(zip(strings, columns["nwot"], strict=True))[:2]:
        graph = replay(space, architecture_from_string(text)).graph
        assert PROXIES["nwot"](graph, photographs, seed=0) == pytest.approx(expected, rel=0.05)
