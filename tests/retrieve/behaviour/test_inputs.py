"""Images of one data set as inputs for a model of another."""

import pytest
import torch
from torch.nn import functional as F

from nasgraph.data import Normalisation
from nasgraph.errors import CandidateError
from nasgraph.retrieve.behaviour import fit_images

NO_CHANGE = Normalisation(1.0, (0.0,), (1.0,))
GREY = torch.rand((4, 1, 8, 8), generator=torch.Generator().manual_seed(0))
COLOUR = torch.rand((4, 3, 8, 8), generator=torch.Generator().manual_seed(1))


def test_grey_becomes_colour_by_repetition() -> None:
    fitted = fit_images(GREY, (3, 8, 8), normalisation=Normalisation(1.0, (0.0,) * 3, (1.0,) * 3))
    assert torch.equal(fitted, GREY.repeat(1, 3, 1, 1))


def test_a_grey_picture_in_colour_has_the_luminance_of_the_grey_one() -> None:
    fitted = fit_images(GREY.repeat(1, 3, 1, 1), (1, 8, 8), normalisation=NO_CHANGE)
    torch.testing.assert_close(fitted, GREY)


def test_the_size_is_changed_as_the_loader_of_data_sets_changes_it() -> None:
    expected = F.interpolate(GREY, size=(5, 6), mode="bilinear", antialias=True, align_corners=False)
    assert torch.equal(fit_images(GREY, (1, 5, 6), normalisation=NO_CHANGE), expected)


def test_the_models_own_normalisation_is_applied_after_the_conversion() -> None:
    normal = Normalisation(1 / 255, (0.5,), (0.25,))
    fitted = fit_images(COLOUR, (1, 8, 8), normalisation=normal)
    plain = fit_images(COLOUR, (1, 8, 8), normalisation=NO_CHANGE)
    torch.testing.assert_close(fitted, (plain - 0.5) / 0.25)


def test_without_a_normalisation_the_images_get_mean_zero_and_variance_one_per_channel() -> None:
    fitted = fit_images(COLOUR, (3, 8, 8), normalisation=None)
    torch.testing.assert_close(fitted.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(fitted.std((0, 2, 3), correction=0), torch.ones(3))


def test_a_constant_channel_stays_finite() -> None:
    assert bool(fit_images(torch.ones(3, 1, 8, 8), (1, 8, 8), normalisation=None).isfinite().all())


@pytest.mark.parametrize(("channels", "wanted"), [(4, 3), (2, 1), (3, 5), (1, 2)])
def test_other_channel_counts_are_refused_by_name(channels: int, wanted: int) -> None:
    with pytest.raises(CandidateError, match=f"{channels} channels cannot become images of {wanted}"):
        fit_images(torch.rand(2, channels, 8, 8), (wanted, 8, 8), normalisation=None)


def test_a_table_fits_a_model_of_the_same_width_only() -> None:
    table = torch.rand(5, 7)
    assert fit_images(table, (7,), normalisation=None).shape == (5, 7)
    with pytest.raises(CandidateError, match="features"):
        fit_images(table, (8,), normalisation=None)
    with pytest.raises(CandidateError, match="no conversion"):
        fit_images(table, (1, 8, 8), normalisation=None)


def test_statistics_of_another_number_of_channels_are_refused() -> None:
    with pytest.raises(CandidateError, match="has 1 channels, its input 3"):
        fit_images(COLOUR, (3, 8, 8), normalisation=NO_CHANGE)
