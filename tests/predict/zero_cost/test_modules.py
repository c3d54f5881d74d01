"""Both doors: any torch module, and graphs."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from nasgraph.ir import cost_of
from nasgraph.predict.zero_cost import PROXIES, Examples, module_scores, proxy_scores
from tests.predict.zero_cost.networks import (
    SEED,
    Linears,
    Residual,
    graph_module,
    noise_batch,
    seeded,
    some_graphs,
    two_layers,
)

NAMES = tuple(PROXIES)
TOLERANCE = {"zico": 0.02}
"""Ratios of gradients to differences that may be of the size of rounding."""


@pytest.mark.parametrize("index", range(len(some_graphs())))
def test_a_graph_and_its_network_as_a_strangers_module_have_equal_scores(index: int) -> None:
    graph, module = graph_module(index)
    batch = noise_batch()
    (ours,) = proxy_scores([graph], batch, names=NAMES, seed=SEED)
    theirs = module_scores(module, batch.inputs, batch.targets, seed=SEED)
    assert set(ours.reasons) == set(theirs.reasons)
    for name in set(NAMES) - set(ours.reasons):
        tolerance = TOLERANCE.get(name, 2e-3)
        assert theirs[name] == pytest.approx(ours[name], rel=tolerance, abs=1e-5), name


@pytest.mark.parametrize("index", [2, 3, 8])
def test_scores_of_all_together_are_those_of_each_by_itself(index: int) -> None:
    graph, batch = some_graphs()[index], noise_batch()
    (together,) = proxy_scores([graph], batch, names=NAMES, seed=SEED)
    for name, proxy in PROXIES.items():
        alone = proxy(graph, batch, seed=SEED)
        assert alone == pytest.approx(together[name], rel=2e-3, abs=1e-5, nan_ok=True), name


class WithRunningState(Residual):
    """Also draws random numbers, writes into a buffer, and counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("total", torch.zeros(()))

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        assert isinstance(self.total, Tensor)
        self.total += 1
        logits, rest = super().forward(x + 1e-3 * torch.randn(x.shape))
        return logits, rest


@pytest.mark.parametrize("is_training", [True, False])
def test_nothing_of_a_module_changes_nor_the_global_generator(is_training: bool) -> None:
    module, batch = seeded(WithRunningState).train(is_training), noise_batch(classes=3)
    calls: list[int] = []
    module.register_forward_hook(lambda *_: calls.append(1))
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    versions = [tensor._version for tensor in module.state_dict().values()]
    state, inputs = torch.get_rng_state(), batch.inputs.clone()
    first, second = (module_scores(module, batch.inputs, batch.targets, seed=SEED) for _ in range(2))
    assert not first.reasons
    assert first == second
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(batch.inputs, inputs)
    assert not batch.inputs.requires_grad
    assert module.training == is_training
    assert all(part.training == is_training for part in module.modules())
    assert all(
        bool((parameter.grad == 1).all()) for parameter in module.parameters() if parameter.grad is not None
    )
    assert all(parameter.requires_grad for parameter in module.parameters())
    assert [tensor._version for tensor in module.state_dict().values()] == versions
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_the_mode_of_a_module_and_its_running_statistics_do_not_matter() -> None:
    _, module = two_layers()
    batch = noise_batch(6, (1, 6, 6), classes=3)
    first = module_scores(module.train(), batch.inputs, batch.targets)
    assert module.norm.running_var is not None
    module.norm.running_var.mul_(9.0)
    assert module_scores(module.eval(), batch.inputs, batch.targets) == first


def test_frozen_parameters_count_like_others() -> None:
    module, batch = Linears((5, 4, 3), rectify=True), noise_batch(6, (5,), classes=3)
    first = module_scores(module, batch.inputs, batch.targets)
    assert module_scores(module.requires_grad_(False), batch.inputs, batch.targets) == first


class Recurrent(nn.Module):
    """Tokens to classes, with recurrent weights."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(11, 6)
        self.lstm = nn.LSTM(6, 8, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        hidden, _ = self.lstm(self.table(tokens))
        logits: Tensor = self.head(hidden[:, -1])
        return logits


class LanguageModel(nn.Module):
    """Tokens to one class per token."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(11, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(8, 11)

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.head(self.layers(self.table(tokens)))
        return logits


TOKENS = torch.arange(30).reshape(6, 5) % 11
FROM_REALS = {"jacov", "epe_nas", "zen", "meco", "expressivity", "progressivity", "trainability"}
"""Proxies that feed noise, or look at gradients by the inputs."""


@pytest.mark.parametrize(
    ("make", "targets", "weights", "undefined"),
    [
        (Recurrent, torch.arange(6) % 3, 3, {"nwot", "swap", "ntk"}),
        (LanguageModel, TOKENS.roll(-1, 1), 9, {"ntk"}),
    ],
)
def test_modules_that_read_tokens_have_the_scores_that_need_no_real_input(
    make: Callable[[], nn.Module], targets: Tensor, weights: int, undefined: set[str]
) -> None:
    scores = module_scores(seeded(make), TOKENS, targets)  # type: ignore[arg-type]  # a class is what makes one
    assert set(scores.reasons) == FROM_REALS | undefined
    assert scores["num_weight_layers"] == weights
    assert all(math.isfinite(scores[name]) for name in NAMES if name not in scores.reasons)


def test_recurrent_weights_have_the_gradients_of_training() -> None:
    module, targets = seeded(Recurrent), torch.arange(6) % 3
    F.cross_entropy(module(TOKENS), targets).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    names = ("lstm.weight_ih_l0", "lstm.weight_hh_l0", "head.weight")
    gradients = [dict(module.named_parameters())[name].grad for name in names]
    expected = sum(float(gradient.norm()) for gradient in gradients if gradient is not None)
    assert module_scores(module, TOKENS, targets)["grad_norm"] == pytest.approx(expected, rel=1e-4)


class TwoInputs(nn.Module):
    """Weights that are no modules, a transposed one, and a learnt query."""

    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(1, 5))
        self.first = nn.Parameter(torch.randn(4, 5))
        self.second = nn.Parameter(torch.randn(3, 5))
        self.gain = nn.Parameter(torch.ones(5, 1).T)

    def forward(self, x: Tensor, scale: Tensor) -> Tensor:
        hidden = F.relu(x @ self.first * scale * self.gain + self.query)
        return hidden @ self.second.T


def test_weights_are_the_parameters_that_data_is_multiplied_with_wherever_they_stand() -> None:
    module = seeded(TwoInputs)
    rng = torch.Generator().manual_seed(0)
    inputs = (torch.randn(6, 4, generator=rng), torch.rand(6, 1, generator=rng))
    scores = module_scores(module, inputs, torch.arange(6) % 3)
    assert scores["num_weight_layers"] == 2
    own = dict(module.named_parameters())
    assert scores["l2_norm"] == pytest.approx(
        float((own["first"].norm() + own["second"].norm()).detach()), rel=1e-6
    )
    assert scores["multiply_adds"] == 4 * 5 + 5 * 3


def test_modules_are_counted_by_torchs_counter_and_graphs_by_the_table() -> None:
    for index, graph in enumerate(some_graphs()):
        _, module = graph_module(index)
        batch = noise_batch()
        found = module_scores(module, batch.inputs, names=("multiply_adds", "num_parameters"))
        assert found["num_parameters"] == cost_of(graph).num_parameters
        assert found["multiply_adds"] == cost_of(graph).multiply_adds
    with FlopCounterMode(display=False) as counter:
        module(batch.inputs[:1])
    assert found["multiply_adds"] <= counter.get_total_flops()


def test_one_input_can_be_given_by_itself_or_as_one_of_several() -> None:
    module, batch = Linears((5, 4, 3), rectify=True), noise_batch(6, (5,), classes=3)
    alone = module_scores(module, batch.inputs, batch.targets)
    assert module_scores(module, (batch.inputs,), batch.targets) == alone
    assert {
        name: proxy(module, Examples((batch.inputs,), batch.targets)) for name, proxy in PROXIES.items()
    } == (pytest.approx(dict(alone), rel=2e-3, nan_ok=True))
