"""ONNX written from graphs: every operator, every search space and every batch size, held against torch by onnxruntime."""

import pytest
import torch
from torch import Tensor

from nasgraph.errors import UnsupportedOpError, ZooError
from nasgraph.ir import OPS, ComputationalGraph, GraphBuilder
from nasgraph.modelzoo.export_onnx import onnx_model, run_onnx
from nasgraph.modules import build
from nasgraph.spaces import space_names
from tests.modules.operator_cases import ALL_CASES, CASES, Shape
from tests.modules.samples import random_constants, random_inputs, sampled_graphs, single_op_graph, wide_graph

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

GRAPH_SPACES = ("gnn", "nasbench-graph")


def made(graph: ComputationalGraph) -> tuple[torch.nn.Module, dict[str, Tensor]]:
    """A network with running statistics that are not those of a start."""
    module = build(graph, seed=1, constants=random_constants(graph)).eval()
    rng = torch.Generator().manual_seed(3)
    for name, buffer in module.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(std=0.3, generator=rng)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5, generator=rng)
    return module, module.state_dict()


def assert_computes_the_same(graph: ComputationalGraph, *, tolerance: float = 1e-5) -> None:
    module, state = made(graph)
    model = onnx_model(graph, state).SerializeToString()
    for batch_size in (1, 4):
        inputs = random_inputs(graph, batch_size=batch_size)
        with torch.inference_mode():
            expected = module(*inputs)
        expected = expected if isinstance(expected, tuple) else (expected,)
        for one, two in zip(run_onnx(model, inputs), expected, strict=True):
            assert one.dtype == two.dtype
            torch.testing.assert_close(one, two, rtol=tolerance, atol=tolerance, equal_nan=True)


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported")
@pytest.mark.parametrize(("op", "input_shapes", "attrs"), ALL_CASES)
def test_every_operator_computes_the_same_in_onnxruntime_or_is_named(
    op: str, input_shapes: tuple[Shape, ...], attrs: dict[str, object]
) -> None:
    graph = single_op_graph(op, input_shapes, attrs)
    if (op.startswith("apply_") and op != "apply_layer_norm") or attrs.get("proj_size"):
        with pytest.raises(
            UnsupportedOpError, match=f"Cannot write '{op}' .*(differs from example|no projected)"
        ):
            onnx_model(graph, made(graph)[1])
        return
    assert_computes_the_same(graph)


@pytest.mark.parametrize(("op", "input_shapes", "attrs"), ALL_CASES)
def test_every_operator_computes_the_same_with_fixed_inputs(
    op: str, input_shapes: tuple[Shape, ...], attrs: dict[str, object]
) -> None:
    """All inputs but the first, and all but the last, are the same for every example."""
    if len(input_shapes) < 2 or OPS[op].num_inputs == (0, 0) or attrs.get("proj_size"):
        return
    last = len(input_shapes) - 1 if op != "attention" else 2  # torch wants as many queries as masks
    for free in {0} if op.startswith("apply_") else {0, last}:
        g = GraphBuilder()
        reads = OPS[op].reads
        kinds = [
            "int" if reads[min(place, len(reads) - 1)] == "int" else "float"
            for place in range(len(input_shapes))
        ]
        sources = [
            g("input" if place == free else "constant", shape=shape, dtype=kind)
            for place, (shape, kind) in enumerate(zip(input_shapes, kinds, strict=True))
        ]
        assert_computes_the_same(g.finish(g(op, *sources, **attrs)))


@pytest.mark.parametrize("op", [op for op in CASES if "any" in OPS[op].reads and OPS[op].num_inputs[1]])
def test_every_operator_that_reads_integers_computes_the_same_on_them(op: str) -> None:
    shapes, attrs = CASES[op][0]
    if op in ("power", "attention"):
        return  # torch has no negative powers of integers
    g = GraphBuilder()
    reads = OPS[op].reads
    kinds = [
        "float" if reads[min(place, len(reads) - 1)] == "float" else "int" for place in range(len(shapes))
    ]
    sources = [g("input", shape=shape, dtype=kind) for shape, kind in zip(shapes, kinds, strict=True)]
    assert_computes_the_same(g.finish(g(op, *sources, **attrs)))


@pytest.mark.parametrize("op", ["add", "mul", "maximum", "where", "compare", "concat", "power"])
def test_integers_that_meet_real_numbers_become_real(op: str) -> None:
    g = GraphBuilder()
    words, image = g("input", shape=(3, 4), dtype="int"), g("input", shape=(3, 4))
    sources = [words, image, words] if op == "where" else [words, image]
    assert_computes_the_same(g.finish(g(op, *sources, **({"kind": "lt"} if op == "compare" else {}))))


@pytest.mark.parametrize("space", [name for name in space_names() if name not in GRAPH_SPACES])
def test_every_search_space_of_independent_examples_exports(space: str) -> None:
    shape = (12,) if space == "gpt" else (3, 32, 32)
    for graph in sampled_graphs(space, 3, input_shape=shape):
        assert_computes_the_same(graph, tolerance=1e-4)


@pytest.mark.parametrize("space", GRAPH_SPACES)
def test_message_passing_is_named_in_the_refusal(space: str) -> None:
    refused = 0
    for graph in sampled_graphs(space, 5, input_shape=(12,)):
        passing = [node.op for node in graph.nodes if OPS[node.op].reads_edges]
        if passing:
            refused += 1
            with pytest.raises(UnsupportedOpError, match=f"'{passing[0]}' .*passes messages"):
                onnx_model(graph, made(graph)[1])
    assert refused


def test_several_inputs_and_outputs_export() -> None:
    assert_computes_the_same(wide_graph(), tolerance=1e-4)


def test_an_output_that_is_an_input_or_the_same_for_all_examples_exports() -> None:
    g = GraphBuilder()
    x = g("input", shape=(3,))
    assert_computes_the_same(g.finish(g("identity", x), g("parameter", shape=(2,)), g("dropout", x)))


def test_the_file_reads_back_as_a_graph_that_computes_the_same(tmp_path: object) -> None:
    from pathlib import Path

    import onnx

    from nasgraph.modules.onnx import load_onnx

    for space in ("convnet", "vit", "nasbench201"):
        graph = sampled_graphs(space, 1, input_shape=(3, 16, 16))[0]
        module, state = made(graph)
        path = Path(str(tmp_path)) / f"{space}.onnx"
        onnx.save(onnx_model(graph, state), path)
        inputs = random_inputs(graph, batch_size=3)
        with torch.inference_mode():
            torch.testing.assert_close(load_onnx(path)(*inputs), module(*inputs), rtol=1e-4, atol=1e-4)


def test_missing_weights_and_other_precisions_are_refused() -> None:
    graph = sampled_graphs("nasbench201", 1)[0]
    _, state = made(graph)
    name = next(name for name in state if name.endswith("running_var"))
    with pytest.raises(ZooError, match=f"lacks '{name}'"):
        onnx_model(graph, {key: tensor for key, tensor in state.items() if key != name})
    with pytest.raises(ZooError, match="single precision"):
        onnx_model(graph, {key: tensor.double() for key, tensor in state.items()})


def test_what_onnxruntime_cannot_read_is_an_error_of_ours() -> None:
    with pytest.raises(ZooError, match=r"onnxruntime .* refuses"):
        run_onnx(b"no model", [])
