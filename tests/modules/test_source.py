"""Graphs as Python source: it runs, computes the same with the same weights, and reads well."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from nasgraph.errors import UnsupportedOpError
from nasgraph.ir import OPS, ComputationalGraph, GraphBuilder
from nasgraph.modules import build
from nasgraph.modules.source import graph_to_source, source_parameters
from nasgraph.modules.source_format import LINE_LENGTH
from tests.modules.operator_cases import ALL_CASES, Shape
from tests.modules.samples import (
    SPACES,
    random_constants,
    random_inputs,
    sampled_graphs,
    single_op_graph,
    wide_graph,
)


def module_of(source: str) -> nn.Module:
    names: dict[str, object] = {"__name__": "written"}
    exec(compile(source, "written.py", "exec"), names)
    made = names["Network"]
    assert isinstance(made, type)
    module = made()
    assert isinstance(module, nn.Module)
    return module


def assert_computes_the_same(graph: ComputationalGraph, *, batch_size: int = 3) -> nn.Module:
    source = graph_to_source(graph)
    built = build(graph, seed=1, constants=random_constants(graph))
    names = source_parameters(graph)
    assert set(names) == set(built.state_dict())
    written = module_of(source)
    inputs = random_inputs(graph, batch_size=batch_size)
    for is_double in (False, True):
        if is_double:
            built, written = built.double(), written.double()
            inputs = random_inputs(graph, batch_size=batch_size, dtype=torch.double)
        written.load_state_dict({names[name]: tensor for name, tensor in built.state_dict().items()})
        expected, found = built.eval()(*inputs), written.eval()(*inputs)
        for one, two in zip(_all(expected), _all(found), strict=True):
            assert one.dtype == two.dtype
            tolerance = 1e-12 if is_double else 1e-6
            torch.testing.assert_close(two, one, rtol=tolerance, atol=tolerance, equal_nan=True)
    return written


def _all(result: torch.Tensor | tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return result if isinstance(result, tuple) else (result,)


PROJECTIONS_WARN = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported")


def test_every_operator_of_the_table_has_a_case() -> None:
    refused = {"input", "opaque", *(op for op, entry in OPS.items() if entry.reads_edges)}
    assert {str(case.values[0]) for case in ALL_CASES} == set(OPS) - refused


@PROJECTIONS_WARN
@pytest.mark.parametrize(("op", "input_shapes", "attrs"), ALL_CASES)
def test_every_operator_computes_the_same_in_the_source(
    op: str, input_shapes: tuple[Shape, ...], attrs: dict[str, object]
) -> None:
    assert_computes_the_same(single_op_graph(op, input_shapes, attrs))


@PROJECTIONS_WARN
@pytest.mark.parametrize(("op", "input_shapes", "attrs"), ALL_CASES)
def test_every_operator_computes_the_same_on_integers(
    op: str, input_shapes: tuple[Shape, ...], attrs: dict[str, object]
) -> None:
    reads = OPS[op].reads
    kinds = [reads[min(place, len(reads) - 1)] for place in range(len(input_shapes))]
    if "any" not in kinds or op == "power" or not OPS[op].num_inputs[1]:
        return  # torch has no negative powers of integers
    g = GraphBuilder()
    sources = [
        g("input", shape=shape, dtype="float" if kind == "float" else "int")
        for shape, kind in zip(input_shapes, kinds, strict=True)
    ]
    assert_computes_the_same(g.finish(g(op, *sources, **attrs)))


@PROJECTIONS_WARN
@pytest.mark.parametrize("kind", ["constant", "parameter", "computed"])
@pytest.mark.parametrize(("op", "input_shapes", "attrs"), ALL_CASES)
def test_every_operator_computes_the_same_with_fixed_inputs(
    op: str, input_shapes: tuple[Shape, ...], attrs: dict[str, object], kind: str
) -> None:
    """Each input in turn, and all, are the same for every example: a constant, a parameter, or what follows from one."""
    if OPS[op].num_inputs[1] == 0:
        return
    reads = OPS[op].reads
    for fixed in [(place,) for place in range(len(input_shapes))] + [tuple(range(len(input_shapes)))]:
        g = GraphBuilder()
        g("input", shape=(1,))
        sources = []
        for place, shape in enumerate(input_shapes):
            dtype = "int" if reads[min(place, len(reads) - 1)] == "int" else "float"
            if place not in fixed:
                sources.append(g("input", shape=shape, dtype=dtype))
            elif kind == "constant" or dtype == "int":
                sources.append(g("constant", shape=shape, dtype=dtype))
            else:
                sources.append(g("parameter", shape=shape))
            if place in fixed and kind == "computed":
                sources[-1] = g("abs", sources[-1])
        assert_computes_the_same(g.finish(g(op, *sources, **attrs)))


@pytest.mark.parametrize("space", SPACES)
def test_a_sampled_network_computes_the_same_in_the_source(space: str) -> None:
    for graph in sampled_graphs(space, 5):
        assert_computes_the_same(graph)


def test_a_network_with_two_inputs_and_two_outputs_computes_the_same() -> None:
    assert_computes_the_same(wide_graph())


@pytest.mark.parametrize("space", SPACES)
def test_a_network_trains_the_same_in_the_source(space: str) -> None:
    (graph,) = sampled_graphs(space, 1)
    written = assert_computes_the_same(graph).float()
    built = build(graph, seed=1, constants=random_constants(graph))
    names = source_parameters(graph)
    written.load_state_dict({names[name]: tensor for name, tensor in built.state_dict().items()})
    inputs = random_inputs(graph, batch_size=4)
    for module in (built.train(), written.train()):
        for part in module.modules():
            if isinstance(part, nn.Dropout):
                part.p = 0.0
    if any(node.op == "dropout" for node in graph.nodes):
        return
    built(*inputs).square().sum().backward()
    written(*inputs).square().sum().backward()
    for name, parameter in built.named_parameters():
        torch.testing.assert_close(
            written.get_parameter(names[name]).grad, parameter.grad, rtol=1e-4, atol=1e-4
        )
    for name, buffer in built.named_buffers():
        torch.testing.assert_close(written.get_buffer(names[name]), buffer)


def test_the_source_stands_alone() -> None:
    source = graph_to_source(wide_graph())
    code = [line for line in source.splitlines() if line.startswith(("import ", "from "))]
    assert code == ["import torch", "from torch import Tensor, nn", "from torch.nn import functional as F"]


def test_equal_graphs_give_equal_text_and_the_class_has_the_name_asked_for() -> None:
    assert graph_to_source(wide_graph()) == graph_to_source(wide_graph())
    assert "\nclass Wide(nn.Module):\n" in graph_to_source(wide_graph(), name="Wide")


@pytest.mark.parametrize("name", ["", "class", "two words", "1st", "F", "torch"])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="name of a class"):
        graph_to_source(wide_graph(), name=name)


def test_a_residual_block_reads_as_one_would_write_it() -> None:
    g = GraphBuilder()
    x = g("input", shape=(4, 8, 8))
    y = g("conv2d", x, out_channels=4, kernel_size=3, padding=1)
    y = g("relu", g("batch_norm", y))
    y = g("batch_norm", g("conv2d", y, out_channels=4, kernel_size=3, padding=1))
    x = g("relu", g("add", x, y))
    source = graph_to_source(g.finish(g("linear", g("global_avg_pool2d", x), out_features=10)))
    assert source.partition("super().__init__()\n")[2] == (
        "        self.conv1 = nn.Conv2d(4, 4, 3, padding=1, bias=False)\n"
        "        self.norm1 = nn.BatchNorm2d(4)\n"
        "        self.conv2 = nn.Conv2d(4, 4, 3, padding=1, bias=False)\n"
        "        self.norm2 = nn.BatchNorm2d(4)\n"
        "        self.linear1 = nn.Linear(4, 10)\n"
        "\n"
        "    def forward(self, x: Tensor) -> Tensor:\n"
        "        y = self.conv1(x)\n"
        "        y = self.norm1(y)\n"
        "        y = F.relu(y)\n"
        "        y = self.conv2(y)\n"
        "        y = self.norm2(y)\n"
        "        x = x + y\n"
        "        x = F.relu(x)\n"
        "        x = x.mean((2, 3))\n"
        "        x = self.linear1(x)\n"
        "        return x\n"
    )


def test_an_opaque_node_is_refused_by_name() -> None:
    g = GraphBuilder()
    graph = g.finish(g("opaque", g("input", shape=(3,)), name="fft", shape=(3,)))
    with pytest.raises(UnsupportedOpError, match=r"Cannot write 'fft' \(node 1\)"):
        graph_to_source(graph)


def long_lines() -> ComputationalGraph:
    """A graph whose signature, sum, concatenation and result do not fit on a line."""
    g = GraphBuilder()
    inputs = [g("input", shape=(1, 2)) for _ in range(40)]
    parts = [g("relu", x) for x in inputs]
    total, joined = g("add", *parts), g("concat", *parts, axis=0)
    fixed = [g("parameter", shape=(1, 2)) for _ in range(40)]
    few = g("concat", *fixed[:9], *parts[:3], axis=0)
    return g.finish(total, joined, few, g("concat", *fixed, *parts, axis=1), *parts[:30])


def test_a_formatter_leaves_the_source_unchanged(tmp_path: Path) -> None:
    ruff = shutil.which("ruff") or shutil.which("ruff", path=str(Path(sys.executable).parent))
    if ruff is None:
        pytest.skip("needs the command 'ruff'")
    graphs = [graph for space in SPACES for graph in sampled_graphs(space, 3)] + [wide_graph(), long_lines()]
    for case in ALL_CASES:
        op, input_shapes, attrs = case.values
        graphs.append(single_op_graph(op, input_shapes, attrs))  # type: ignore[arg-type]  # pytest's values are objects
    for number, graph in enumerate(graphs):
        (tmp_path / f"written{number}.py").write_text(graph_to_source(graph))
    line = [ruff, "format", "--isolated", "--diff", "--line-length", str(LINE_LENGTH), str(tmp_path)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[:2000] + done.stderr[-500:]


def test_long_lines_compute_the_same() -> None:
    assert_computes_the_same(long_lines())
