"""Views: what they hold, what changes them and what does not, and that they tell how accurate a network is."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from nasgraph.errors import CheckpointError, ConfigError, UnsupportedOpError
from nasgraph.ir import ComputationalGraph, GraphBuilder
from nasgraph.meta.views import (
    POOLED_COLUMNS,
    LearnedProbes,
    LearnedProbesConfig,
    agreement,
    check_stack,
    data_probes,
    fit_learned_probes,
    fit_view_predictor,
    flat,
    load_learned_probes,
    low_rank_singular_values,
    noise_probes,
    pooled_statistics,
    pooled_statistics_of_stack,
    probe_responses,
    run_stack,
    save_learned_probes,
    stack_states,
    statistics,
    statistics_columns,
    statistics_of_stack,
    tokens,
    tokens_of_stack,
    unstack_states,
)
from nasgraph.modules import StateError, initial_buffers, initial_parameters, run_network
from nasgraph.seeding import generator
from nasgraph.spaces import load_space, sample
from nasgraph.symmetry import permute_units, random_orders, symmetry_table

torch.set_num_threads(1)


def mlp(width: int = 6, *, inputs: int = 5, classes: int = 3, depth: int = 1) -> ComputationalGraph:
    g = GraphBuilder()
    x = g("input", shape=(inputs,))
    for _ in range(depth):
        x = g("relu", g("linear", x, out_features=width))
    return g.finish(g("linear", x, out_features=classes))


def convnet() -> ComputationalGraph:
    g = GraphBuilder()
    x = g("conv2d", g("input", shape=(2, 6, 6)), out_channels=4, kernel_size=3, padding=1)
    x = g("relu", g("batch_norm", x))
    x = g("conv2d", x, out_channels=5, kernel_size=3, bias=False)
    return g.finish(g("linear", g("flatten", g("relu", x)), out_features=3))


def random_states(
    graph: ComputationalGraph, count: int, *, dtype: torch.dtype = torch.float64
) -> list[dict[str, Tensor]]:
    states = []
    for seed in range(count):
        rng = torch.Generator().manual_seed(seed)
        state = {
            name: (tensor + 0.1 * torch.randn(tensor.shape, generator=rng)).to(dtype)
            for name, tensor in initial_parameters(graph, seed=seed).items()
        }
        for name, tensor in initial_buffers(graph).items():
            state[name] = (0.5 + torch.rand(tensor.shape, generator=rng)).to(dtype)
        states.append(state)
    return states


def test_a_stack_holds_the_states_and_gives_them_back() -> None:
    states = random_states(convnet(), 3)
    stacked = stack_states(states)
    assert check_stack(convnet(), stacked) == 3
    for state, again in zip(states, unstack_states(stacked), strict=True):
        assert state.keys() == again.keys()
        assert all(torch.equal(state[name], again[name]) for name in state)


@pytest.mark.parametrize("space", ["convnet", "gpt", "mlp", "nasbench201", "regnet", "vit"])
def test_running_a_stack_is_running_each_network(space: str) -> None:
    shape = (8,) if space == "gpt" else (3, 8, 8)
    graph = sample(load_space(space, input_shape=shape, num_classes=5), generator(3, space)).graph
    states = random_states(graph, 3)
    rng = torch.Generator().manual_seed(0)
    inputs = [
        torch.randint(0, 5, (2, *graph.shapes[index]), generator=rng)
        if graph.dtypes[index] == "int"
        else torch.randn(2, *graph.shapes[index], generator=rng, dtype=torch.float64)
        for index in graph.inputs
    ]
    (together,) = run_stack(graph, stack_states(states), inputs, max_values=1)
    for each, state in zip(together, states, strict=True):
        torch.testing.assert_close(each, run_network(graph, state, inputs)[0], rtol=1e-9, atol=1e-9)


def test_statistics_are_those_of_numpy() -> None:
    graph, (state,) = convnet(), random_states(convnet(), 1)
    row, columns = statistics(graph, state), statistics_columns(graph, state)
    assert len(row) == len(columns) == 7 * 8
    for number, name in enumerate(columns[::7]):
        values = state[name.split("/")[0]].numpy().ravel()
        wanted = [values.mean(), values.var(), *np.quantile(values, [0, 0.25, 0.5, 0.75, 1])]
        np.testing.assert_allclose(row[7 * number : 7 * number + 7], wanted, rtol=1e-12, atol=1e-14)


def test_statistics_of_weights_that_diverged_are_finite() -> None:
    (state,) = random_states(mlp(), 1, dtype=torch.float32)
    state = {name: tensor * 1e25 for name, tensor in state.items()}
    assert torch.isfinite(statistics(mlp(), state)).all()
    assert torch.isfinite(pooled_statistics(mlp(), state)).all()


def test_permuting_units_changes_neither_statistics_nor_answers_but_the_flat_vector() -> None:
    graph, (state,) = convnet(), random_states(convnet(), 1)
    table = symmetry_table(graph)
    other = permute_units(table, state, random_orders(table, seed=1))
    pair = stack_states([state, other])
    probes = [probe.double() for probe in noise_probes(graph, 4, seed=0)]
    for view in (
        statistics_of_stack(graph, pair),
        pooled_statistics_of_stack(graph, pair),
        probe_responses(graph, pair, probes),
    ):
        torch.testing.assert_close(view[0], view[1], rtol=1e-10, atol=1e-10)
    assert not torch.allclose(flat(graph, state), flat(graph, other))


def test_a_swap_on_one_layer_alone_keeps_statistics_and_changes_answers() -> None:
    """The negative control, and what statistics cannot see: they are blind to how layers are joined."""
    graph, (state,) = mlp(), random_states(mlp(), 1)
    name = next(iter(graph.parameters))
    broken = {**state, name: state[name].roll(1, 0)}
    pair = stack_states([state, broken])
    rows = statistics_of_stack(graph, pair)
    torch.testing.assert_close(rows[0], rows[1], rtol=1e-12, atol=1e-12)
    answers = probe_responses(graph, pair, noise_probes(graph, 4, seed=0)[0].double())
    assert (answers[0] - answers[1]).abs().max() > 1e-2


def test_pooled_statistics_have_the_same_columns_for_every_architecture() -> None:
    graphs = [mlp(), mlp(20, depth=3), convnet()]
    rows = [pooled_statistics(graph, random_states(graph, 1)[0]) for graph in graphs]
    assert {len(row) for row in rows} == {len(POOLED_COLUMNS)}
    place = POOLED_COLUMNS.index("running_var/first/mean")
    assert rows[0][place] == 0
    assert rows[2][place] > 0


def test_scaling_by_fan_in_makes_initial_weights_of_two_widths_alike() -> None:
    column = POOLED_COLUMNS.index("weight/last/variance")
    variances = []
    for by_fan_in in (False, True):
        rows = [
            pooled_statistics(graph, initial_parameters(graph, seed=0), by_fan_in=by_fan_in)
            for graph in (mlp(64), mlp(1024))
        ]
        variances.append(float(rows[0][column] / rows[1][column]))
    assert variances[0] > 10
    assert variances[1] == pytest.approx(1.0, abs=0.2)


def test_probe_responses_are_the_outputs_probe_by_probe() -> None:
    graph, states = convnet(), random_states(convnet(), 2)
    probes = noise_probes(graph, 5, seed=3)[0].double()
    view = probe_responses(graph, stack_states(states), probes)
    assert view.shape == (2, 5 * 3)
    for row, state in zip(view, states, strict=True):
        torch.testing.assert_close(row.reshape(5, 3), run_network(graph, state, [probes])[0])


def test_more_probes_begin_with_the_fewer() -> None:
    graph = mlp()
    assert torch.equal(noise_probes(graph, 8, seed=1)[0][:3], noise_probes(graph, 3, seed=1)[0])
    data = torch.randn(20, 5, generator=torch.Generator().manual_seed(0))
    chosen = data_probes(data, 20, seed=1)
    assert torch.equal(chosen[:4], data_probes(data, 4, seed=1))
    assert torch.equal(chosen.sort(0).values, data.sort(0).values)


@pytest.mark.parametrize("token_dim", [None, 7, 64])
def test_tokens_give_the_network_back_bit_by_bit(token_dim: int | None) -> None:
    graph, states = convnet(), random_states(convnet(), 2)
    stacked = stack_states(states)
    view = tokens_of_stack(graph, stacked, token_dim=token_dim)
    again = view.to_states()
    assert again.keys() == stacked.keys()
    assert all(torch.equal(again[name], stacked[name]) for name in stacked)
    assert int(view.mask.sum()) == sum(tensor[0].numel() for tensor in stacked.values())
    assert not view.values[:, ~view.mask].any()


def test_a_token_is_a_unit_with_its_weights_then_its_bias() -> None:
    graph, (state,) = mlp(4), random_states(mlp(4), 1)
    view = tokens(graph, state)
    weight, bias = (state[name] for name in list(graph.parameters)[:2])
    assert torch.equal(view.values[0, 2, :6], torch.cat([weight[2], bias[2:3]]))
    assert view.positions[2].tolist() == [2, 0, 2]
    assert view.positions[5].tolist() == [5, 1, 1]


def test_singular_values_of_a_low_rank_update_are_those_of_the_product() -> None:
    rng = torch.Generator().manual_seed(0)
    up, down = (torch.randn(5, *shape, generator=rng, dtype=torch.float64) for shape in ((9, 4), (4, 7)))
    turn = torch.randn(5, 4, 4, generator=rng, dtype=torch.float64)
    found = low_rank_singular_values(up, down)
    torch.testing.assert_close(found, torch.linalg.svdvals(up @ down)[:, :4])
    torch.testing.assert_close(found, low_rank_singular_values(up @ turn, torch.linalg.solve(turn, down)))


@pytest.mark.parametrize("kind", ["trees", "ridge"])
def test_a_predictor_finds_a_linear_rule_and_does_not_find_one_in_noise(kind: str) -> None:
    rng = torch.Generator().manual_seed(0)
    view = torch.randn(400, 6, generator=rng)
    view[:, 5] = 3.0  # a constant column
    target = view[:, 0] - 2 * view[:, 1]
    fitted = fit_view_predictor(view[:300], target[:300], kind=kind)  # type: ignore[arg-type]  # a text from pytest
    assert agreement(fitted.predict(view[300:]), target[300:])["r2"] > 0.85
    noise = torch.randn(400, generator=rng)
    blind = fit_view_predictor(view[:300], noise[:300], kind=kind)  # type: ignore[arg-type]  # a text from pytest
    assert agreement(blind.predict(view[300:]), noise[300:])["r2"] < 0.1


def test_agreement_is_that_of_scikit_learn_and_scipy() -> None:
    from scipy.stats import kendalltau
    from sklearn.metrics import r2_score

    rng = torch.Generator().manual_seed(0)
    truth = torch.randn(50, generator=rng)
    guess = truth + torch.randn(50, generator=rng)
    found = agreement(guess, truth)
    assert found["r2"] == pytest.approx(r2_score(truth.numpy(), guess.numpy()), abs=1e-6)
    assert found["tau"] == pytest.approx(kendalltau(guess.numpy(), truth.numpy()).statistic)


def scaled_networks(graph: ComputationalGraph, count: int) -> tuple[dict[str, Tensor], Tensor]:
    """Networks whose last layer is multiplied by a number, and the logarithm of that number."""
    stacked = stack_states(random_states(graph, count, dtype=torch.float32))
    log = torch.linspace(-2, 2, count)[torch.randperm(count, generator=torch.Generator().manual_seed(1))]
    last = list(graph.parameters)[-2:]
    for name in last:
        stacked[name] = stacked[name] * log.exp().reshape(-1, *[1] * (stacked[name].dim() - 1))
    return stacked, log.unsqueeze(1)


QUICK = LearnedProbesConfig(num_probes=8, generator_dim=16, hidden_dim=32, depth=2, epochs=60, batch_size=32)


def test_learned_probes_read_networks_of_several_architectures_and_of_an_unseen_one(tmp_path: Path) -> None:
    graphs = [mlp(8), mlp(12), mlp(10)]
    stacks, targets = zip(*(scaled_networks(graph, 96) for graph in graphs), strict=True)
    groups = list(zip(graphs, stacks, strict=True))
    model = fit_learned_probes(groups[:2], targets[:2], config=QUICK)
    found = model.predict(groups[2:])[0]
    assert agreement(found[:, 0], targets[2][:, 0])["tau"] > 0.6
    assert model.probes().shape == (8, 5)
    assert model.probes().abs().max() <= 1
    save_learned_probes(tmp_path, model, recipe={"seed": 0})
    assert torch.equal(load_learned_probes(tmp_path).predict(groups[2:])[0], found)
    (tmp_path / "weights.safetensors").write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match="checksum"):
        load_learned_probes(tmp_path)


def test_learned_probes_cannot_tell_permuted_networks_apart() -> None:
    graph = mlp(8)
    (state,) = random_states(graph, 1)
    table = symmetry_table(graph)
    pair = stack_states([state, permute_units(table, state, random_orders(table, seed=2))])
    model = LearnedProbes(input_shape=(5,), output_size=3, config=QUICK).double()
    first, second = model.predict([(graph, pair)])[0]
    torch.testing.assert_close(first, second, rtol=1e-10, atol=1e-10)


def test_a_network_that_diverged_gets_a_finite_prediction() -> None:
    graph = mlp(8)
    stacked, target = scaled_networks(graph, 32)
    config = LearnedProbesConfig(num_probes=2, epochs=2, hidden_dim=8)
    model = fit_learned_probes([(graph, stacked)], [target], config=config)
    huge = {name: tensor * 1e30 for name, tensor in stacked.items()}
    assert torch.isfinite(model.predict([(graph, huge)])[0]).all()


def test_training_learned_probes_is_deterministic_and_leaves_the_global_generator_alone() -> None:
    graph = mlp(8)
    stacked, target = scaled_networks(graph, 32)
    config = LearnedProbesConfig(num_probes=2, epochs=2, hidden_dim=8)
    before = torch.random.get_rng_state()
    runs = [fit_learned_probes([(graph, stacked)], [target], config=config).state_dict() for _ in range(2)]
    assert all(torch.equal(runs[0][name], runs[1][name]) for name in runs[0])
    assert torch.equal(before, torch.random.get_rng_state())


def test_what_cannot_be_viewed_is_named() -> None:
    graph, states = mlp(), random_states(mlp(), 2)
    name = next(iter(graph.parameters))
    stacked = stack_states(states)
    bad = stacked[name].clone()
    bad[1, 0, 0] = float("nan")
    with pytest.raises(StateError, match=rf"'{name}' of network 1 .* not finite"):
        statistics_of_stack(graph, {**stacked, name: bad})
    with pytest.raises(StateError, match="shape"):
        statistics_of_stack(mlp(7), stacked)
    with pytest.raises(StateError, match="two architectures"):
        stack_states([states[0], random_states(mlp(7), 1)[0]])
    with pytest.raises(StateError, match="quantised"):
        flat(graph, {**states[0], name: states[0][name].to(torch.int8)})
    g = GraphBuilder()
    empty = g.finish(g("relu", g("input", shape=(3,))))
    with pytest.raises(StateError, match="no parameters"):
        statistics_of_stack(empty, {"n0.value": torch.zeros(1, 1)})
    text = sample(load_space("gpt", input_shape=(8,), num_classes=5), generator(0)).graph
    with pytest.raises(UnsupportedOpError, match="pass data"):
        noise_probes(text, 2, seed=0)
    with pytest.raises(UnsupportedOpError, match="Train others"):
        LearnedProbes(input_shape=(4,), output_size=3).predict([(graph, stacked)])
    with pytest.raises(ConfigError, match="'epochs' above 0"):
        LearnedProbesConfig(epochs=0)
