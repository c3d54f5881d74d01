"""The metanetwork that rewrites networks before they are cut."""

from pathlib import Path

import pytest
import torch

from nasgraph.errors import ConfigError
from nasgraph.meta.networks import Metanetwork, MetanetworkConfig
from nasgraph.meta.pruning import (
    EditorConfig,
    EditorStep,
    group_sparsity,
    load_editor,
    prune_by,
    rewrite,
    save_editor,
    train_editor,
)
from nasgraph.meta.pruning.rewrite import _Task
from nasgraph.modules import (
    StateError,
    initial_buffers,
    initial_parameters,
    is_statistic,
    run_network,
)
from nasgraph.symmetry import permute_units, random_orders, symmetry_table
from tests.meta.pruning.networks import digits, resnet, trained_resnet

SHAPE = MetanetworkConfig(layers=2, node_dim=12, edge_dim=8, graph_dim=8, frequencies=4)
CONFIG = EditorConfig(steps=6, batch_size=64, learning_rate=1e-2)


@pytest.fixture(scope="module")
def editor() -> Metanetwork:
    return train_editor([trained_resnet()], digits().train, config=CONFIG, shape=SHAPE)


def test_an_untrained_metanetwork_writes_what_it_reads() -> None:
    graph, state = trained_resnet()
    written = rewrite(Metanetwork(SHAPE), graph, state)
    assert all(torch.equal(written[name], state[name]) for name in state)


def test_training_by_sparsity_alone_lowers_the_sparsity_term_of_what_is_written() -> None:
    graph, state = trained_resnet()
    config = EditorConfig(steps=10, batch_size=32, learning_rate=1e-2, sparsity=1.0, cut=0.0, noise=0.0)
    editor = train_editor([(graph, state)], digits().train, config=config, shape=SHAPE)
    penalty = group_sparsity(graph, strength=1.0)
    assert float(penalty(rewrite(editor, graph, state))) < float(penalty(state))


def test_training_lowers_the_loss_of_what_is_left_after_a_cut() -> None:
    steps: list[EditorStep] = []
    config = EditorConfig(steps=30, batch_size=128, learning_rate=3e-3, sparsity=0.0, speed_ups=(3.0,))
    train_editor([trained_resnet()], digits().train, config=config, shape=SHAPE, on_step=steps.append)
    first, last = (sum(step.cut for step in part) for part in (steps[:4], steps[-4:]))
    assert last < 0.98 * first


def test_a_cut_by_zeros_computes_what_the_cut_network_computes() -> None:
    graph, state = trained_resnet()
    task = _Task(graph, state, CONFIG)
    cut = prune_by(graph, state, "l2", speed_up=3.0, min_share=0.1)
    inputs = [digits().train.inputs[:16]]
    left = run_network(graph, task.cut(state, 3.0), inputs, use_batch=True)[0]
    torch.testing.assert_close(
        left, run_network(cut.graph, cut.state, inputs, use_batch=True)[0], rtol=1e-4, atol=1e-5
    )


def test_statistics_are_measured_anew_on_what_is_written(editor: Metanetwork) -> None:
    graph, state = trained_resnet()
    written = rewrite(editor, graph, state, train=digits().train)
    assert any(not torch.equal(written[name], state[name]) for name in state if is_statistic(name))


def test_the_same_network_in_another_order_is_written_in_that_order(editor: Metanetwork) -> None:
    graph, state = trained_resnet()
    table = symmetry_table(graph)
    orders = random_orders(table, seed=1)
    first = permute_units(table, rewrite(editor, graph, state), orders)
    second = rewrite(editor, graph, permute_units(table, state, orders))
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=1e-4, atol=1e-5)


def test_networks_of_several_widths_train_one_metanetwork() -> None:
    other = resnet(width=5, blocks=1)
    state = {**initial_parameters(other, seed=0), **initial_buffers(other)}
    steps: list[EditorStep] = []
    config = EditorConfig(steps=4, batch_size=32)
    networks = [trained_resnet(), (other, state)]
    train_editor(networks, digits().train, config=config, shape=SHAPE, on_step=steps.append)
    assert sorted(step.network for step in steps) == [0, 0, 1, 1]


def test_a_metanetwork_read_from_disk_writes_the_same(editor: Metanetwork, tmp_path: Path) -> None:
    graph, state = trained_resnet()
    save_editor(editor, tmp_path / "editor", config=CONFIG, facts={"data": "digits"})
    first, second = rewrite(editor, graph, state), rewrite(load_editor(tmp_path / "editor"), graph, state)
    assert all(torch.equal(first[name], second[name]) for name in first)
    inputs = [digits().validation.inputs[:2]]
    assert run_network(graph, second, inputs)[0].shape == (2, 10)


def test_the_same_seed_trains_the_same_metanetwork(editor: Metanetwork) -> None:
    again = train_editor([trained_resnet()], digits().train, config=CONFIG, shape=SHAPE)
    assert all(torch.equal(a, b) for a, b in zip(editor.parameters(), again.parameters(), strict=True))


def test_no_networks_and_foreign_states_are_refused(editor: Metanetwork) -> None:
    with pytest.raises(ConfigError, match="at least one trained network"):
        train_editor([], digits().train)
    with pytest.raises(StateError):
        rewrite(editor, resnet(width=7), trained_resnet()[1])
    with pytest.raises(ConfigError, match="'steps' above 0"):
        EditorConfig(steps=0)
