"""Pre-training: losses against their definitions, batches from the seed alone, and runs that are cut off and go on."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from nasgraph.errors import CheckpointError, ConfigError
from nasgraph.retrieve import ArchitectureEncoder, EncoderConfig
from nasgraph.retrieve.contrastive import (
    ContrastiveTraining,
    Groups,
    Trainer,
    draw_batch,
    graph_loss,
    motif_loss,
)
from nasgraph.retrieve.corpus import FamilySettings, sample_family, space_versions
from nasgraph.retrieve.inputs import read_graph

SMALL = EncoderConfig(dim=16, word_dim=16, embedding_dim=32, num_layers=1, num_motif_layers=1)


@pytest.fixture(scope="module")
def groups() -> Groups:
    return {
        name: [
            [
                read_graph(graph)
                for graph in sample_family(
                    versions, name=f"{name}/{i}", seed=0, settings=FamilySettings(size=3)
                ).graphs
            ]
            for i in range(6)
        ]
        for name in ("mlp", "vit")
        for versions in [space_versions(name)]
    }


def test_with_two_members_the_loss_is_cross_entropy() -> None:
    rows = F.normalize(torch.randn(8, 5, generator=torch.Generator().manual_seed(0)), dim=1)
    family = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
    similarity = (rows @ rows.T / 0.2).masked_fill(torch.eye(8, dtype=torch.bool), float("-inf"))
    expected = F.cross_entropy(similarity, torch.tensor([1, 0, 3, 2, 5, 4, 7, 6]))
    torch.testing.assert_close(graph_loss(rows, family, temperature=0.2), expected)


def test_a_graph_without_a_relative_is_only_pushed_away() -> None:
    rows = F.normalize(torch.randn(5, 4, generator=torch.Generator().manual_seed(1)), dim=1)
    loss = graph_loss(rows, torch.tensor([0, 0, 0, 1, 2]), temperature=0.5)
    assert torch.isfinite(loss)


def test_a_motif_that_fits_its_context_costs_little() -> None:
    rows = torch.eye(6)
    key = torch.arange(6)
    rng = np.random.default_rng(0)
    good = motif_loss(rows, rows, key, temperature=0.1, rng=rng)
    bad = motif_loss(rows, rows.roll(1, 0), key, temperature=0.1, rng=rng)
    assert good < 0.01 < 5 < bad


def test_equal_motifs_are_not_told_apart() -> None:
    rows = torch.eye(4)
    loss = motif_loss(
        rows, rows, torch.zeros(4, dtype=torch.int64), temperature=0.1, rng=np.random.default_rng(0)
    )
    assert loss == 0  # one of them is drawn, and one alone is always right


def test_a_batch_is_a_function_of_seed_and_step(groups: Groups) -> None:
    training = ContrastiveTraining(groups=2, families=3)
    one, family = draw_batch(groups, training, 4)
    same, _ = draw_batch(groups, training, 4)
    other, _ = draw_batch(groups, training, 5)
    assert torch.equal(one.name_MA, same.name_MA)
    assert not torch.equal(one.name_MA, other.name_MA) or one.num_nodes != other.num_nodes
    assert torch.bincount(family).tolist() == [2] * 6


def test_training_brings_families_together(groups: Groups) -> None:
    training = ContrastiveTraining(steps=25, groups=2, families=6)
    trainer = Trainer(ArchitectureEncoder(SMALL), training)
    losses: list[float] = []
    trainer.run(groups, until=25, report=lambda _, loss: losses.append(loss["graphs"]))
    assert len(losses) == 25
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:3])


@pytest.mark.parametrize("word_dropout", [0.0, 0.3])
def test_a_run_that_is_cut_off_goes_on_as_if_it_had_not_been(
    groups: Groups, tmp_path: Path, word_dropout: float
) -> None:
    training = ContrastiveTraining(steps=6, groups=2, families=3, word_dropout=word_dropout)
    whole = Trainer(ArchitectureEncoder(SMALL), training)
    whole.run(groups, until=6)
    first = Trainer(ArchitectureEncoder(SMALL), training)
    first.run(groups, until=3)
    first.save(tmp_path)
    second = Trainer(ArchitectureEncoder(SMALL, seed=9), training)
    assert second.resume(tmp_path)
    assert second.step == 3
    second.run(groups, until=6)
    for name, tensor in whole.encoder.state_dict().items():
        assert torch.equal(second.encoder.state_dict()[name], tensor), name


def test_a_new_run_has_nothing_to_resume(tmp_path: Path) -> None:
    assert not Trainer(ArchitectureEncoder(SMALL), ContrastiveTraining()).resume(tmp_path)


def test_a_state_of_another_encoder_is_refused(tmp_path: Path) -> None:
    Trainer(ArchitectureEncoder(SMALL), ContrastiveTraining()).save(tmp_path)
    other = Trainer(ArchitectureEncoder(EncoderConfig(dim=8)), ContrastiveTraining())
    with pytest.raises(CheckpointError):
        other.resume(tmp_path)


@pytest.mark.parametrize(
    "wrong",
    [{"steps": -1}, {"word_dropout": 1.0}, {"members": 1}, {"temperature": 0.0}, {"motif_weight": -1.0}],
)
def test_bad_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="Expected"):
        ContrastiveTraining(**wrong)  # type: ignore[arg-type]  # on purpose
