"""The fixed description of an image, and the fixed probes."""

import hashlib

import pytest
import torch

from nasgraph.retrieve.behaviour import NUM_FEATURES, image_features, probe_images
from nasgraph.retrieve.behaviour.features import GRID, ORIENTATIONS, SCALES

IMAGES = torch.rand((5, 3, 32, 32), generator=torch.Generator().manual_seed(0))


def test_an_image_is_described_by_itself_whatever_stands_beside_it() -> None:
    together = image_features(IMAGES)
    assert together.shape == (5, NUM_FEATURES)
    torch.testing.assert_close(torch.cat([image_features(image[None]) for image in IMAGES]), together)


def test_a_grey_image_is_described_as_the_colour_image_of_three_equal_channels() -> None:
    grey = IMAGES[:, :1]
    torch.testing.assert_close(image_features(grey), image_features(grey.repeat(1, 3, 1, 1)))


def test_a_plain_image_has_colour_and_no_edges() -> None:
    features = image_features(torch.full((1, 3, 20, 24), 0.25))[0]
    torch.testing.assert_close(features[: 3 * GRID**2], torch.full((3 * GRID**2,), 0.5))
    torch.testing.assert_close(
        features[3 * GRID**2 :], torch.zeros(NUM_FEATURES - 3 * GRID**2), atol=2e-3, rtol=0
    )


@pytest.mark.parametrize("scale", range(len(SCALES)))
@pytest.mark.parametrize("turn", [0, ORIENTATIONS // 2])
def test_a_wave_answers_most_to_the_filter_of_its_frequency_and_direction(scale: int, turn: int) -> None:
    axis = torch.arange(32) * (2 * torch.pi * SCALES[scale])
    wave = 0.5 + 0.4 * torch.cos(axis)
    image = wave.expand(32, 32) if turn == 0 else wave[:, None].expand(32, 32)
    features = image_features(image[None, None].clone())[0]
    edges = features[3 * GRID**2 :][: len(SCALES) * ORIENTATIONS * GRID**2]
    assert int(edges.reshape(-1, GRID**2).sum(1).argmax()) == scale * ORIENTATIONS + turn


def test_second_order_numbers_do_not_change_when_the_image_is_shifted_around_the_edge() -> None:
    grey = IMAGES[:, :1]
    second = 3 * GRID**2 + len(SCALES) * ORIENTATIONS * GRID**2
    shifted = grey.roll((5, -7), dims=(2, 3))
    torch.testing.assert_close(image_features(grey)[:, second:], image_features(shifted)[:, second:])


def test_more_probes_begin_with_the_fewer_ones() -> None:
    assert torch.equal(probe_images(20)[:7], probe_images(7))


def test_probes_are_pixels_in_colour_and_every_third_is_grey() -> None:
    probes = probe_images(30)
    assert probes.shape == (30, 3, 32, 32)
    assert float(probes.min()) >= 0
    assert float(probes.max()) <= 1
    assert torch.equal(probes[::3, 0], probes[::3, 1])
    assert not torch.equal(probes[1::3, 0], probes[1::3, 1])


def test_probes_are_the_ones_that_stored_vectors_were_made_with() -> None:
    # To 8 bits, so that the last bit of a sum may differ between machines. Another value means another set: rename it.
    bytes_ = (probe_images(50) * 255).round().to(torch.uint8).numpy().tobytes()
    assert hashlib.sha256(bytes_).hexdigest()[:16] == "875c88712a9ecdd7"


def test_no_probes_are_refused() -> None:
    with pytest.raises(ValueError, match="'count' of at least 1"):
        probe_images(0)
