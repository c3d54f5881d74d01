"""Where there is no score: NaN with a reason, never a number."""

import math

import pytest
import torch
from torch import Tensor, nn

from nasgraph.data import Split
from nasgraph.ir import ComputationalGraph, GraphBuilder
from nasgraph.predict.zero_cost import PROXIES, Examples, module_scores, proxy_scores
from tests.predict.zero_cost.networks import Linears, noise_batch

NAMES = tuple(PROXIES)
COUNTS = {"num_parameters", "multiply_adds", "num_weight_layers"}
NEED_DATA_ONLY = {"nwot", "swap", "jacov", "epe_nas"}


def test_a_graph_of_one_node_has_counts_only() -> None:
    g = GraphBuilder()
    graph = g.finish(g("input", shape=(4,)))
    (scores,) = proxy_scores([graph], noise_batch(6, (4,), classes=3), names=NAMES)
    assert [scores[name] for name in ("num_parameters", "multiply_adds", "num_weight_layers")] == [0, 0, 0]
    defined = {name for name in NAMES if not math.isnan(scores[name])}
    assert defined == COUNTS
    assert scores.reasons["snip"] == "the network has no weights"
    assert scores.reasons["nwot"] == "the network has no rectifier"


def test_a_network_without_parameters_has_no_score_that_needs_weights() -> None:
    module, batch = nn.Sequential(nn.Flatten(), nn.ReLU()), noise_batch(6, (2, 5), classes=3)
    scores = module_scores(module, batch.inputs, batch.targets)
    assert {name for name in NAMES if not math.isnan(scores[name])} == COUNTS | NEED_DATA_ONLY
    for name in ("l2_norm", "synflow", "grad_norm", "fisher", "grasp", "zico", "ntk", "zen", "meco"):
        assert scores.reasons[name] == "the network has no weights"


def test_a_network_without_rectifiers_has_no_score_from_switches() -> None:
    batch = noise_batch(6, (5,), classes=3)
    scores = module_scores(
        nn.Sequential(Linears((5, 4)), nn.Tanh(), Linears((4, 3))), batch.inputs, batch.targets
    )
    assert {name: scores.reasons[name] for name in ("nwot", "swap")} == dict.fromkeys(
        ("nwot", "swap"), "the network has no rectifier"
    )
    assert math.isfinite(scores["grad_norm"])


def test_one_class_in_the_network_leaves_no_loss_and_one_in_the_batch_nothing_to_compare() -> None:
    batch = noise_batch(6, (5,), classes=1)
    narrow = module_scores(Linears((5, 4, 1), rectify=True), batch.inputs, batch.targets)
    for name in ("grad_norm", "snip", "plain", "fisher", "grasp", "zico"):
        assert "one class" in narrow.reasons[name]
    wide = module_scores(Linears((5, 4, 3), rectify=True), batch.inputs, batch.targets)
    assert wide.reasons["epe_nas"] == "all examples are of one class"
    assert math.isfinite(wide["grad_norm"])
    alone = module_scores(Linears((5, 4, 9), rectify=True), batch.inputs, torch.arange(6))
    assert alone.reasons["epe_nas"] == "no class has two examples"


def test_a_network_that_ignores_its_input_has_no_score_that_looks_at_examples() -> None:
    g = GraphBuilder()
    x = g("zero", g("linear", g("input", shape=(4,)), out_features=4))
    graph = g.finish(g("linear", g("relu", x), out_features=3))
    (scores,) = proxy_scores([graph], noise_batch(6, (4,), classes=3), names=NAMES)
    assert {name for name in NAMES if not math.isnan(scores[name])} <= COUNTS | {"l2_norm", "swap"}
    assert scores["swap"] == 1
    assert "does not depend on the input" in scores.reasons["jacov"]


@pytest.mark.parametrize("shape", [(3, 9, 9), (7,)])
def test_a_network_that_cannot_run_on_the_inputs_says_so(shape: tuple[int, ...]) -> None:
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 10))
    batch = noise_batch(6, shape)
    scores = module_scores(module, batch.inputs, batch.targets)
    assert scores["num_parameters"] == sum(parameter.numel() for parameter in module.parameters())
    for name in set(NAMES) - {"num_parameters"}:
        assert math.isnan(scores[name])
        assert scores.reasons[name].startswith("the forward pass fails on inputs of shape (")


class Broken(nn.Module):
    """Fails in its own words."""

    def forward(self, x: Tensor) -> Tensor:
        raise KeyError("no such table")


class Endless(nn.Module):
    """Gives numbers that are not finite."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.map(x) / 0
        return y


def test_a_users_exception_and_infinite_outputs_are_reasons() -> None:
    batch = noise_batch(6, (5,), classes=3)
    failing = module_scores(Broken(), batch.inputs, batch.targets, names=("nwot",))
    assert "KeyError: 'no such table'" in failing.reasons["nwot"]
    endless = module_scores(Endless(), batch.inputs, batch.targets, names=("snip", "jacov"))
    assert endless.reasons == dict.fromkeys(("snip", "jacov"), "the output is not finite")


def test_targets_that_do_not_fit_the_outputs_are_named() -> None:
    module, batch = Linears((5, 4, 3), rectify=True), noise_batch(6, (5,))
    for targets, words in (
        (batch.targets, "a target 5, but the network has 3 classes"),
        (torch.zeros(6, 2, dtype=torch.int64), "no classes for targets of shape (6, 2)"),
        (torch.zeros(6, 2), "the outputs have shape (6, 3), the targets (6, 2)"),
        (None, "the batch has no targets"),
    ):
        assert words in module_scores(module, batch.inputs, targets, names=("snip",)).reasons["snip"]


def test_one_example_is_too_few_for_scores_that_compare() -> None:
    batch = noise_batch(1, (5,))
    scores = module_scores(Linears((5, 4, 3), rectify=True), batch.inputs, batch.targets)
    for name in ("zico", "jacov", "epe_nas", "ntk"):
        assert math.isnan(scores[name])
    assert math.isfinite(scores["snip"])


def test_a_flow_beyond_double_precision_is_no_number() -> None:
    module = Linears((64,) * 200)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(1.0)
    scores = module_scores(module, noise_batch(2, (64,)).inputs, names=("synflow",))
    assert scores.reasons == {"synflow": "the output is not finite"}


def test_examples_need_inputs_of_one_length() -> None:
    with pytest.raises(
        ValueError, match=r"one number of examples in all inputs and targets \(got \[2, 3\]\)"
    ):
        Examples((torch.zeros(2, 1),), torch.zeros(3))
    with pytest.raises(ValueError, match="at least one input"):
        Examples(())


def test_nan_in_the_batch_gives_no_score() -> None:
    batch = noise_batch(6, (5,), classes=3)
    inputs = batch.inputs.clone()
    inputs[2, 1] = math.nan
    (scores,) = proxy_scores([_small_graph()], Split(inputs, batch.targets), names=("snip", "nwot", "jacov"))
    assert scores.reasons == dict.fromkeys(("snip", "nwot", "jacov"), "the output is not finite")


def _small_graph() -> ComputationalGraph:
    g = GraphBuilder()
    x = g("relu", g("linear", g("input", shape=(5,)), out_features=4))
    return g.finish(g("linear", x, out_features=3))
