"""What a traced graph holds: owners, routes, what it is specialised to, opaque nodes, outputs, bounded time and memory."""

# mypy: disable-error-code="no-any-return"

import resource
import subprocess
import sys
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nasgraph.errors import TraceError, UnsupportedOpError
from nasgraph.modules import TracedGraph, trace
from nasgraph.modules.tracing import recorder
from tests.modules.trace_cases import Call, First, Packed, randomised


def roles(traced: TracedGraph) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Role and shape in the graph of each of the module's parameters."""
    specs = traced.graph.parameters
    return {owner.name: (specs[name].role, specs[name].shape) for name, owner in traced.owners.items()}


def ops(traced: TracedGraph) -> list[str]:
    return [node.op for node in traced.graph.nodes]


# ---- owners


def test_a_linear_layer_owns_its_weight_and_bias() -> None:
    traced = trace(nn.Linear(6, 3), torch.zeros(2, 6))
    assert ops(traced) == ["input", "linear"]
    assert roles(traced) == {"weight": ("weight", (3, 6)), "bias": ("bias", (3,))}
    assert traced.route == "meta"


@pytest.mark.parametrize(
    ("function", "order"),
    [
        (lambda x, w: x @ w, (1, 0)),
        (lambda x, w: torch.mm(x, w), (1, 0)),
        (lambda x, w: x @ w.T.T, (1, 0)),
        (lambda x, w: F.linear(x, w.mT), (1, 0)),
    ],
)
def test_a_matrix_that_is_used_transposed_is_owned_transposed(
    function: object, order: tuple[int, ...]
) -> None:
    module = Call(function, (6, 3))  # type: ignore[arg-type]  # pytest loses the type of the table
    traced = trace(module, torch.zeros(2, 6))
    (owner,) = traced.owners.values()
    assert (owner.name, owner.order, owner.shape) == ("weights.0", order, (6, 3))
    (name,) = traced.owners
    assert traced.graph.parameters[name].shape == (3, 6)


@pytest.mark.parametrize(
    "module",
    [
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.ConvTranspose2d(4, 2, 2)),
        Call(lambda x, v, w, s: (x.flatten(1)[:, :6] @ v + w) * s, (6, 5), (5,), ()),
    ],
    ids=["layers", "transposed"],
)
def test_to_module_undoes_from_module(module: nn.Module) -> None:
    randomised(module, seed=0)
    traced = trace(module, torch.zeros(2, 3, 8, 8))
    own = dict(module.named_parameters())
    there = traced.from_module(module)
    assert {name: tuple(tensor.shape) for name, tensor in there.items()} == {
        name: spec.shape for name, spec in traced.graph.parameters.items()
    }
    back = traced.to_module(there)
    assert back.keys() == own.keys()
    for name, tensor in back.items():
        torch.testing.assert_close(tensor, own[name].detach(), rtol=0, atol=0)


class Tied(nn.Module):
    """A language model whose last matrix is its table of words."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.body, self.head = nn.Embedding(11, 6), nn.Linear(6, 6), nn.Linear(6, 11, bias=False)
        self.head.weight = self.words.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.body(self.words(ids)).relu())


def test_tied_weights_stand_once() -> None:
    module, ids = randomised(Tied(), seed=1), torch.tensor([[1, 2, 3], [4, 5, 10]])
    traced = trace(module, ids)
    assert roles(traced)["words.weight"] == ("embedding", (11, 6))
    assert len(traced.owners) == 3
    assert traced.graph.nodes[-1].op == "apply_linear"
    with torch.no_grad():
        torch.testing.assert_close(traced.build(module)(*traced.inputs_of(ids)), module(ids))


def test_each_parameter_is_owned_once_or_unused() -> None:
    class Partly(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used = nn.ParameterList([nn.Parameter(torch.ones(4)), nn.Parameter(torch.ones(4))])
            self.lost, self.layer, self.discarded = (
                nn.Parameter(torch.ones(2)),
                nn.Linear(4, 3),
                nn.Linear(4, 2),
            )

        def forward(self, x: Tensor) -> Tensor:
            self.discarded(x)
            return self.layer(x * self.used[0] + self.used[1])

    traced = trace(Partly(), torch.zeros(2, 4))
    assert traced.unused == ("lost", "discarded.weight", "discarded.bias")
    assert roles(traced) == {
        "used.0": ("scale", (4,)),
        "used.1": ("shift", (4,)),
        "layer.weight": ("weight", (3, 4)),
        "layer.bias": ("bias", (3,)),
    }


def test_weight_norm_owns_direction_and_length() -> None:
    module = nn.utils.parametrizations.weight_norm(nn.Linear(6, 3))
    traced = trace(module, torch.zeros(2, 6))
    assert {name: shape for name, (_, shape) in roles(traced).items()} == {
        "bias": (3,),
        "parametrizations.weight.original0": (3, 1),
        "parametrizations.weight.original1": (3, 6),
    }


def test_packed_attention_is_projections_attention_and_an_output_map() -> None:
    traced = trace(Packed(batch_first=True, need_weights=False), torch.zeros(2, 5, 8))
    assert ops(traced).count("attention") == 1
    assert roles(traced)["attention.in_proj_weight"] == ("weight", (24, 8))


def test_a_recurrent_layer_is_a_node_for_each_layer_and_direction() -> None:
    traced = trace(First(nn.LSTM(8, 5, 2, batch_first=True, bidirectional=True)), torch.zeros(2, 7, 8))
    assert ops(traced).count("lstm") == 4
    assert roles(traced)["layer.weight_hh_l1_reverse"] == ("weight", (20, 5))


# ---- routes and what a graph is specialised to


class Branches(nn.Module):
    """Which layer runs depends on the content of the input."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.first(x) if x.sum() > 0 else self.second(x)


def test_a_module_that_branches_on_real_numbers_is_traced_with_real_tensors_and_says_so() -> None:
    module, x = Branches(), torch.ones(2, 4)
    traced, other = trace(module, x), trace(module, -x)
    assert traced.route == other.route == "real"
    assert traced.unused == ("second.weight", "second.bias")
    assert other.unused == ("first.weight", "first.bias")
    assert len(traced.specialised) == 1
    assert "__bool__" in traced.specialised[0]


class Masked(nn.Module):
    """Asks whether a token of padding is among the integers."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.padding = nn.Embedding(9, 4), nn.Parameter(torch.zeros(4))

    def forward(self, ids: Tensor) -> Tensor:
        y = self.words(ids)
        return y + self.padding if (ids == 0).any() else y


def test_a_question_about_integer_inputs_is_answered_on_the_meta_route_and_reported() -> None:
    without, padded = (
        trace(Masked(), torch.tensor([[1, 2], [3, 4]])),
        trace(Masked(), torch.tensor([[1, 2], [3, 0]])),
    )
    assert without.route == padded.route == "meta"
    assert without.unused == ("padding",)
    assert padded.unused == ()
    assert len(padded.specialised) == 1


def test_a_module_without_questions_is_specialised_to_nothing() -> None:
    assert trace(nn.Sequential(nn.Linear(4, 3), nn.Dropout()), torch.zeros(2, 4)).specialised == ()


def test_a_random_number_is_reported() -> None:
    traced = trace(Call(lambda x: x + torch.randn(4)), torch.zeros(2, 4))
    assert len(traced.specialised) == 1
    assert "randn" in traced.specialised[0]


@pytest.mark.parametrize("route", ["meta", "real", "export"])
def test_all_routes_write_the_same_graph(route: str) -> None:
    module = randomised(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2)),
        seed=0,
    )
    x = torch.randn(2, 3, 8, 8)
    expected = trace(module, x)
    traced = trace(module, x, route=route)  # type: ignore[arg-type]  # pytest's parameter is a string
    assert traced.route == route
    assert traced.graph.fingerprint == expected.graph.fingerprint
    assert {o.name for o in traced.owners.values()} == {o.name for o in expected.owners.values()}
    with torch.no_grad():
        torch.testing.assert_close(traced.build(module)(x), module(x), rtol=1e-5, atol=1e-5)


def test_vmap_over_parameters_is_followed() -> None:
    module = Call(lambda x, w: torch.vmap(F.linear, in_dims=(None, 0))(x, w).mean(0), (3, 2, 4))
    traced = trace(module, torch.zeros(2, 4))
    assert [owner.name for owner in traced.owners.values()] == ["weights.0"]
    assert set(traced.opaque) == {"vmap"}


# ---- opaque nodes


def test_an_operator_without_counterpart_is_named_with_its_reason() -> None:
    traced = trace(nn.Sequential(nn.Linear(4, 4), Call(lambda x: torch.sort(x).values)), torch.zeros(2, 4))
    assert traced.opaque == {"sort": 1}
    assert "no counterpart" in traced.reasons["sort"]
    assert not traced.graph.is_executable
    with pytest.raises(UnsupportedOpError, match="sort"):
        traced.build(nn.Linear(4, 4))


def test_mixing_the_examples_of_a_batch_is_opaque() -> None:
    traced = trace(Call(lambda x: x - x.mean(0)), torch.zeros(2, 4))
    assert traced.opaque["mean"] == 1
    assert "examples" in traced.reasons["mean"]


@torch.library.custom_op("nasgraph_tests::twist", mutates_args=())
def twist(x: Tensor, weight: Tensor) -> Tensor:
    return x * weight.flip(0)


@twist.register_fake
def _(x: Tensor, weight: Tensor) -> Tensor:
    return torch.empty_like(x)


def test_an_unknown_operator_that_reads_a_parameter_is_refused_by_name() -> None:
    module = Call(lambda x, w: torch.ops.nasgraph_tests.twist(x, w), (4,))
    with pytest.raises(UnsupportedOpError, match=r"twist.*weights\.0"):
        trace(module, torch.zeros(2, 4))
    traced = trace(module, torch.zeros(2, 4), allow_unknown=True)
    assert [owner.name for owner in traced.owners.values()] == ["weights.0"]
    assert len(traced.opaque) == 1


def test_an_unknown_operator_without_parameters_is_opaque() -> None:
    traced = trace(Call(lambda x: torch.ops.nasgraph_tests.twist(x, torch.ones(4))), torch.zeros(2, 4))
    assert sum(traced.opaque.values()) == 1


# ---- inputs and outputs


@dataclass
class Answer:
    """An output that torch's tree functions do not know."""

    score: Tensor
    parts: tuple[Tensor, ...]


class Several(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor, *, scale: Tensor, deep: bool = True) -> dict[str, object]:
        y = self.layer(x) * scale
        return {"y": y, "rest": [y.relu(), Answer(y.sum(1), (y[:, 0],))], "name": "several"}


def test_several_inputs_and_nested_outputs_are_found_by_their_paths() -> None:
    module, x = Several(), torch.randn(2, 4)
    given = {"x": x, "scale": torch.randn(2, 3), "deep": False}
    traced = trace(module, given)
    assert [output.path for output in traced.outputs] == [
        "['y']",
        "['rest'][0]",
        "['rest'][1].score",
        "['rest'][1].parts[0]",
    ]
    with torch.no_grad():
        found, expected = traced.build(module)(*traced.inputs_of(given)), traced.outputs_of(module(**given))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_a_tensor_without_the_batch_axis_is_a_constant() -> None:
    offset = torch.arange(4.0)
    traced = trace(Call(lambda x, y: x + y), (torch.zeros(2, 4), offset))
    assert len(traced.graph.inputs) == 1
    (constant,) = traced.constants.values()
    torch.testing.assert_close(constant, offset)


def test_sizes_equal_to_a_batch_size_of_the_tracer_do_not_confuse_it() -> None:
    for size in (107, 109, 11, 13):
        module = randomised(nn.Sequential(nn.Linear(size, size), nn.ReLU(), nn.Linear(size, 107)), seed=0)
        x = torch.randn(2, 3, size)
        traced = trace(module, x)
        assert traced.graph.shapes[traced.graph.outputs[0]] == (3, 107)
        with torch.no_grad():
            torch.testing.assert_close(traced.build(module)(x), module(x))


def test_a_buffer_that_is_written_to_is_followed() -> None:
    class Cache(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.key = nn.Linear(4, 4)
            self.register_buffer("cache", torch.zeros(1, 3, 4))
            self.register_buffer("steps", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            cache, steps = self.get_buffer("cache"), self.get_buffer("steps")
            steps += 1
            cache[:, 1] = self.key(x).mean(0)
            return x[:, None] + cache * steps

    module = Cache()
    traced = trace(module, torch.randn(2, 4))
    assert traced.unused == ()
    assert not module.get_buffer("cache").any()
    assert module.get_buffer("steps") == 0


def test_a_parameter_that_is_written_to_is_followed_and_keeps_its_content() -> None:
    module = Call(lambda x, w: F.linear(x, w.data.mul_(2)), (3, 4))
    before = module.weights[0].detach().clone()
    for route in ("meta", "real"):
        traced = trace(module, torch.randn(2, 4), route=route)
        assert "affine" in ops(traced)
        torch.testing.assert_close(module.weights[0].detach(), before, rtol=0, atol=0)


# ---- time and memory


CHAIN = """
import time, torch
from nasgraph.modules import trace

class Chain(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)

    def forward(self, x):
        for _ in range(10_000):
            x = self.layer(x).relu()
        return x

start = time.process_time()
print(len(trace(Chain(), torch.zeros(2, 2)).graph), time.process_time() - start)
"""


def test_a_chain_of_twenty_thousand_nodes_takes_seconds() -> None:
    """In a process of its own, since the tests' checks of types take far longer than tracing."""
    done = subprocess.run([sys.executable, "-c", CHAIN], capture_output=True, text=True, check=True)
    num_nodes, cpu_seconds = done.stdout.split()
    assert int(num_nodes) == 20_003
    assert float(cpu_seconds) < 20


def test_an_endless_forward_pass_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "MAX_CALLS", 1_000)

    def endless(x: Tensor) -> Tensor:
        while True:
            x = x + 1

    with pytest.raises(TraceError, match="more than 1,000 torch functions"):
        trace(Call(endless), torch.zeros(2, 2))


def test_activations_take_no_memory() -> None:
    """Ten activations of 2.3 GB each, and a weight matrix of 4 GB that is on the meta device."""
    module = nn.Sequential(
        *(nn.Conv2d(64, 64, 3, padding=1) for _ in range(10)),
        nn.Flatten(),
        nn.Linear(64 * 512**2, 64, device="meta"),
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    traced = trace(module, torch.zeros(1, 64, 512, 512, device="meta"))
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert len(traced.graph) == 13
    assert grown * (1 if sys.platform == "darwin" else 1024) < 50e6
