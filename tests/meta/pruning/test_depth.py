"""Residual stages and networks with fewer blocks."""

import pytest
import torch

from nasgraph.edits import EditError
from nasgraph.ir import GraphBuilder
from nasgraph.meta.pruning import residual_stages, shorten, width_cost
from nasgraph.meta.pruning.supernet import MixedNetwork, Sampled
from nasgraph.modules import RunContext, run_network
from nasgraph.symmetry import symmetry_table
from tests.meta.pruning.networks import flat_convnet, inverted, random_state, resnet


def test_stages_are_the_blocks_without_a_layer_on_the_shortcut() -> None:
    stages = residual_stages(resnet(blocks=3))
    assert [len(stage.ends) - 1 for stage in stages] == [3, 2]
    assert [stage.depths for stage in stages] == [(0, 1, 2, 3), (0, 1, 2)]
    assert residual_stages(flat_convnet()) == ()
    assert len(residual_stages(inverted())) == 1


def test_a_network_shortened_by_its_last_blocks_equals_the_one_built_without_them() -> None:
    long, short = resnet(blocks=3), resnet(blocks=2)
    state = random_state(long)
    first, second = residual_stages(long)
    cut = shorten(long, state, {first: 2, second: 1})
    assert cut.graph.fingerprint == short.fingerprint
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    expected = run_network(short, {name: cut.state[name] for name in cut.state}, [x])[0]
    torch.testing.assert_close(run_network(cut.graph, cut.state, [x])[0], expected)


def test_leaving_out_a_block_whose_branch_is_zero_changes_nothing() -> None:
    graph = resnet(blocks=2)
    stage = residual_stages(graph)[0]
    state = random_state(graph)
    last = stage.ends[-1]
    total = graph.nodes[last].inputs[0]  # the sum before the activation
    for source in graph.nodes[total].inputs:
        if graph.nodes[source].op == "batch_norm":
            state[f"n{source}.weight"] = torch.zeros_like(state[f"n{source}.weight"])
            state[f"n{source}.bias"] = torch.zeros_like(state[f"n{source}.bias"])
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    cut = shorten(graph, state, {stage: 1})
    torch.testing.assert_close(run_network(cut.graph, cut.state, [x])[0], run_network(graph, state, [x])[0])


def test_blocks_read_from_outside_are_no_stage() -> None:
    g = GraphBuilder()
    x = g("linear", g("input", shape=(6,)), out_features=6)
    inner = g("relu", g("linear", x, out_features=6))
    y = g("add", x, inner)
    graph = g.finish(g("add", y, g("tanh", inner)))
    assert residual_stages(graph) == ()


def test_more_blocks_than_there_are_are_refused() -> None:
    graph = resnet(blocks=2)
    stage = residual_stages(graph)[0]
    with pytest.raises(EditError, match="from 0 to 2 blocks"):
        shorten(graph, random_state(graph), {stage: 3})
    with pytest.raises(EditError, match="residual_stages"):
        shorten(resnet(blocks=1), random_state(resnet(blocks=1)), {stage: 1})


def test_a_stage_whose_weight_lies_on_one_depth_computes_what_the_shortened_network_computes() -> None:
    graph = resnet(blocks=3)
    state, stage = random_state(graph), residual_stages(graph)[0]
    table, cost = symmetry_table(graph), width_cost(graph)
    network = MixedNetwork(graph, [table.group(name) for name in cost.groups], num_ratios=2)
    full = [Sampled((size, size), (1, 1), torch.tensor([0.5, 0.5])) for size in cost.sizes]
    x = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    context = RunContext(batch_size=4, training=True)
    weights = ((stage.ends[1], torch.tensor(1.0)), (stage.ends[3], torch.tensor(0.0)))
    found = network(network.initial(state), [x], full, context, stages={stage.ends[-1]: weights})
    cut = shorten(graph, state, {stage: 1})
    expected = run_network(cut.graph, cut.state, [x], use_batch=True)[0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
