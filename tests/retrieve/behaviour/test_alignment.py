"""One space for models and data sets."""

from pathlib import Path

import pytest
import torch

from nasgraph.errors import CheckpointError, ConfigError
from nasgraph.files import write_json
from nasgraph.retrieve.behaviour import (
    AlignConfig,
    Alignment,
    AlignmentConfig,
    DataDescription,
    Episode,
    EpisodeConfig,
    ModelDescription,
    draw_episodes,
    load_alignment,
    save_alignment,
    train_alignment,
)
from nasgraph.retrieve.behaviour.alignment_files import CONFIG, WEIGHTS
from tests.retrieve.behaviour.toy import knowing_candidate, linear_candidate, planted, stripes

QUICK = AlignConfig(steps=60, batch_size=16)
SMALL = AlignmentConfig(hidden_dim=16, vector_dim=8)


@pytest.fixture(scope="module")
def trained() -> Alignment:
    models, episodes = planted(6, seed=0)
    return train_alignment(models, episodes, config=SMALL, train=QUICK)


@pytest.mark.parametrize("loss", [{}, {"triplet": 1.0, "listwise": 0.0}])
def test_training_leads_each_query_to_the_model_of_its_classes(loss: dict[str, float]) -> None:
    models, episodes = planted(8, seed=1)
    alignment = train_alignment(models, episodes, train=AlignConfig(steps=80, batch_size=16, **loss))
    cosine = alignment.encode_data([each.data for each in episodes]) @ alignment.encode_models(models).T
    right = torch.tensor([each.scores for each in episodes]).argmax(1)
    assert float((cosine.argmax(1) == right).double().mean()) > 0.9


def test_the_order_of_classes_does_not_matter(trained: Alignment) -> None:
    models, episodes = planted(3, seed=5)
    order = torch.tensor([2, 0, 3, 1])
    turned = [
        ModelDescription(each.anchors[order], each.borders[order], each.confidence[order]) for each in models
    ]
    torch.testing.assert_close(trained.encode_models(turned), trained.encode_models(models))
    data = [each.data for each in episodes]
    mixed = [DataDescription(each.means[order]) for each in data]
    torch.testing.assert_close(trained.encode_data(mixed), trained.encode_data(data))


def test_what_else_is_in_the_batch_does_not_matter(trained: Alignment) -> None:
    (small,), _ = planted(1, seed=2, classes=2)
    (large,), _ = planted(1, seed=3, classes=7)
    together = trained.encode_models([small, large])
    torch.testing.assert_close(together[0], trained.encode_models([small])[0])
    torch.testing.assert_close(together[1], trained.encode_models([large])[0])


def test_vectors_have_length_one(trained: Alignment) -> None:
    models, episodes = planted(4, seed=4)
    for vectors in (trained.encode_models(models), trained.encode_data([each.data for each in episodes])):
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(len(vectors)))


def test_training_twice_gives_the_same_weights_and_touches_no_global_generator(trained: Alignment) -> None:
    before = torch.random.get_rng_state()
    models, episodes = planted(6, seed=0)
    again = train_alignment(models, episodes, config=SMALL, train=QUICK)
    assert again.digest == trained.digest
    assert torch.equal(torch.random.get_rng_state(), before)
    assert train_alignment(models, episodes, config=SMALL, train=QUICK, seed=1).digest != trained.digest


def test_a_stored_alignment_comes_back_with_its_digest_and_recipe(trained: Alignment, tmp_path: Path) -> None:
    save_alignment(trained, tmp_path / "a", recipe={"zoo": "test"})
    again, recipe = load_alignment(tmp_path / "a")
    assert again.digest == trained.digest
    assert recipe == {"zoo": "test"}
    (model,), _ = planted(1, seed=9)
    assert again.model_vector(model) == trained.model_vector(model)


def test_damaged_and_foreign_files_are_refused(trained: Alignment, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="No alignment in"):
        load_alignment(tmp_path / "nothing")
    save_alignment(trained, tmp_path, recipe={})
    config = (tmp_path / CONFIG).read_text()
    for old, new, message in (
        ("nasgraph/alignment/1", "other/1", "schema"),
        ("nasgraph/scattering/1", "other/1", "train it anew"),
        ('"hidden_dim": 16', '"hidden_dim": 17', "shape"),
        ('"hidden_dim": 16', '"hidden_dim": "x"', "to be of type int"),
        ('"hidden_dim": 16', '"hidden_dim": 0', "hidden_dim"),
        ('"hidden_dim": 16', '"other": 16', "exactly the fields"),
    ):
        (tmp_path / CONFIG).write_text(config.replace(old, new))
        with pytest.raises(CheckpointError, match=message):
            load_alignment(tmp_path)
    (tmp_path / CONFIG).write_text(config)
    content = bytearray((tmp_path / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (tmp_path / WEIGHTS).write_bytes(content)
    with pytest.raises(CheckpointError, match="checksum"):
        load_alignment(tmp_path)
    write_json(tmp_path / CONFIG, [])
    with pytest.raises(CheckpointError, match="schema"):
        load_alignment(tmp_path)


def test_episodes_score_the_model_that_knows_the_classes_best_and_are_the_same_again() -> None:
    candidates = [linear_candidate("dim", classes=1), knowing_candidate("knowing")]
    config = EpisodeConfig(count=4, num_classes=3, shots=(3,), taught=6)
    first, again = (draw_episodes(candidates, [stripes(12)], config=config) for _ in range(2))
    assert all(each.scores[1] > each.scores[0] for each in first)
    for one, other in zip(first, again, strict=True):
        assert one.scores == other.scores
        assert torch.equal(one.data.means, other.data.means)


def test_what_cannot_be_learnt_from_is_refused() -> None:
    models, episodes = planted(3, seed=0)
    with pytest.raises(ConfigError, match="at least 2 models"):
        train_alignment(models[:1], episodes)
    with pytest.raises(ConfigError, match="3 scores per episode"):
        train_alignment(models, [Episode(episodes[0].data, (1.0,))])
    with pytest.raises(ConfigError, match="nothing to learn"):
        AlignConfig(listwise=0)
    with pytest.raises(ValueError, match="more than 40 images of every class"):
        draw_episodes([knowing_candidate("a")], [stripes(5)])
    with pytest.raises(ConfigError, match="class sets for each of 1"):
        draw_episodes([knowing_candidate("a")], [stripes(50)], class_sets=[])
