"""The one call that makes a network smaller."""

import pytest
import torch

from nasgraph.errors import ConfigError
from nasgraph.ir import cost_of
from nasgraph.meta.networks import Metanetwork, MetanetworkConfig
from nasgraph.meta.pruning import FineTuneConfig, ShrinkConfig, WidthConfig, shrink
from nasgraph.modules import check_state, run_network
from tests.meta.pruning.networks import digits, trained_resnet

TUNING = FineTuneConfig(batch_size=64, learning_rate=5e-3)
EDITOR = MetanetworkConfig(layers=1, node_dim=8, edge_dim=4, graph_dim=4, frequencies=2)


@pytest.mark.parametrize("way", ["group", "meta", "width"])
def test_every_way_gives_a_faster_network_that_runs(way: str) -> None:
    graph, state = trained_resnet()
    width = WidthConfig(epochs=1, batch_size=64)
    config = ShrinkConfig(way=way, speed_up=2.0, steps=4, tuning=TUNING, width=width)  # type: ignore[arg-type]  # parametrised
    small = shrink(graph, state, digits(), config=config, editor=Metanetwork(EDITOR))
    assert small.speed_up == pytest.approx(cost_of(graph).multiply_adds / cost_of(small.graph).multiply_adds)
    assert small.speed_up >= (1.9 if way == "width" else 2.0)
    check_state(small.graph, small.state)
    assert run_network(small.graph, small.state, [digits().validation.inputs[:2]])[0].shape == (2, 10)
    assert 0 <= small.val_accuracy_before <= 1


def test_a_metanetwork_that_changes_nothing_gives_what_group_pruning_gives() -> None:
    graph, state = trained_resnet()
    config = ShrinkConfig(way="group", speed_up=2.0, steps=0)
    first = shrink(graph, state, digits(), config=config)
    second = shrink(
        graph, state, digits(), config=ShrinkConfig(way="meta", steps=0), editor=Metanetwork(EDITOR)
    )
    assert first.graph == second.graph
    for name in first.state:
        torch.testing.assert_close(first.state[name], second.state[name])


def test_bad_settings_are_refused_in_words() -> None:
    graph, state = trained_resnet()
    with pytest.raises(ConfigError, match="needs a metanetwork"):
        shrink(graph, state, digits(), config=ShrinkConfig(way="meta"))
    with pytest.raises(ConfigError, match="'speed_up' above 1"):
        ShrinkConfig(speed_up=1.0)
    with pytest.raises(ConfigError, match="'criterion' among l2"):
        ShrinkConfig(criterion="lottery")
    with pytest.raises(ConfigError, match="'way' among group, meta, width"):
        ShrinkConfig(way="best")  # type: ignore[arg-type]  # what is tested
