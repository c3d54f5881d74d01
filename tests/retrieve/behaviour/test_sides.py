"""Descriptions of models by what they answer, and of data by what it looks like."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from nasgraph.data import Normalisation
from nasgraph.errors import CandidateError, ConfigError, DataError
from nasgraph.retrieve.behaviour import (
    NUM_FEATURES,
    DescribeConfig,
    QueryData,
    describe_data,
    describe_model,
    image_features,
)
from tests.retrieve.behaviour.toy import knowing_candidate, linear_candidate, stripes


def test_the_anchors_of_a_model_that_knows_the_classes_are_images_of_these_classes() -> None:
    data = stripes(6)
    described = describe_model(knowing_candidate("a"), data.inputs, config=DescribeConfig(anchors=4))
    means = describe_data(data).means
    assert torch.cdist(described.anchors, means).argmin(1).tolist() == [0, 1, 2]


def test_the_order_of_a_models_classes_changes_the_order_of_the_rows_and_nothing_else() -> None:
    candidate, order = linear_candidate("a", classes=5), torch.tensor([3, 1, 4, 0, 2])
    turned = replace(candidate, forward=lambda x: candidate.forward(x)[:, order])
    first, other = describe_model(candidate), describe_model(turned)
    for name in ("anchors", "borders", "confidence"):
        torch.testing.assert_close(getattr(other, name), getattr(first, name)[order])


def test_a_border_is_where_the_decision_flips() -> None:
    # A model that looks at brightness: above one half it says class 1. The border between black and white is grey.
    def forward(x: Tensor) -> Tensor:
        bright = x.mean((1, 2, 3)) - 0.5
        return torch.stack([-10 * bright, 10 * bright], 1)

    flat = torch.linspace(0, 1, 11)[:, None, None, None].expand(-1, 1, 8, 8)
    candidate = replace(
        linear_candidate("a", classes=2), forward=forward, normalisation=_plain_normalisation()
    )
    described = describe_model(candidate, flat, config=DescribeConfig(anchors=1, bisections=10))
    grey = image_features(torch.full((1, 1, 8, 8), 0.5))[0]
    torch.testing.assert_close(described.borders, grey.expand(2, -1), atol=2e-3, rtol=0)


def _plain_normalisation() -> Normalisation:
    return Normalisation(1.0, (0.0,), (1.0,))


def test_asking_twice_gives_the_same_numbers() -> None:
    candidate = linear_candidate("a")
    first, again = describe_model(candidate), describe_model(candidate)
    assert torch.equal(first.anchors, again.anchors)
    assert torch.equal(first.borders, again.borders)


def test_of_many_classes_the_surest_are_kept() -> None:
    candidate = linear_candidate("a", classes=9)
    everything = describe_model(candidate)
    few = describe_model(candidate, config=DescribeConfig(max_classes=4))
    assert len(few.anchors) == 4
    surest = everything.confidence.topk(4).values.sort().values
    torch.testing.assert_close(few.confidence.sort().values, surest)


def test_a_model_of_one_class_has_its_anchor_for_a_border() -> None:
    described = describe_model(linear_candidate("a", classes=1), config=DescribeConfig(anchors=1))
    torch.testing.assert_close(described.anchors, described.borders)


def test_a_model_that_gives_nan_is_refused_with_its_name() -> None:
    broken = replace(linear_candidate("broken"), forward=lambda x: torch.full((len(x), 3), float("nan")))
    with pytest.raises(CandidateError, match="'broken' gives NaN"):
        describe_model(broken)


@pytest.mark.parametrize("field", ["anchors", "partners", "bisections", "max_classes"])
def test_settings_below_one_are_refused(field: str) -> None:
    with pytest.raises(ConfigError, match=field):
        DescribeConfig(**{field: 0})


def test_a_class_is_the_mean_of_its_images_and_their_order_does_not_matter() -> None:
    data = stripes(5)
    described = describe_data(data)
    assert described.means.shape == (3, NUM_FEATURES)
    torch.testing.assert_close(described.means[1], image_features(data.inputs[data.labels == 1]).mean(0))
    order = torch.randperm(15, generator=torch.Generator().manual_seed(0))
    mixed = describe_data(QueryData(data.inputs[order], data.labels[order]))
    torch.testing.assert_close(mixed.means, described.means)


def test_the_mean_of_a_data_set_weighs_its_classes_alike() -> None:
    data = stripes(4)
    uneven = torch.tensor([0, 1, 2, 3, 4, 8])
    described = describe_data(QueryData(data.inputs[uneven], data.labels[uneven]))
    expected = described.means.double().mean(0)
    torch.testing.assert_close(torch.tensor(described.mean, dtype=torch.double), expected)


def test_a_table_has_no_description() -> None:
    with pytest.raises(DataError, match="no fixed description"):
        describe_data(QueryData(torch.rand(4, 3), torch.tensor([0, 1, 0, 1])))
