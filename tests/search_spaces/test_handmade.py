"""Networks designed by hand, as a space of one choice."""

import pytest
import torch

from nasgraph.errors import NasGraphError
from nasgraph.ir import ComputationalGraph, cost_of
from nasgraph.modules import build
from nasgraph.spaces import SearchSpace, enumerate_candidates, load_space
from nasgraph.testing import SearchSpaceContract
from search_spaces.handmade import NETWORKS, Handmade


def graphs(shape: tuple[int, ...]) -> dict[str, ComputationalGraph]:
    found = enumerate_candidates(Handmade(input_shape=shape, num_classes=10))
    return {str(dict(candidate.architecture.choices)["network"]): candidate.graph for candidate in found}


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32)])
class TestHandmade(SearchSpaceContract):
    @pytest.fixture
    def space(self, shape: tuple[int, ...]) -> SearchSpace:
        return load_space("handmade", input_shape=shape, num_classes=10)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 9, 23), (3, 28, 28), (3, 64, 64)])
def test_every_network_runs_on_small_images_of_any_shape(shape: tuple[int, ...]) -> None:
    found = graphs(shape)
    assert list(found) == list(NETWORKS)
    images = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    for graph in found.values():
        assert torch.isfinite(build(graph)(images)).all()


def test_no_two_networks_are_alike() -> None:
    assert len({graph.fingerprint for graph in graphs((3, 32, 32)).values()}) == len(NETWORKS)


@pytest.mark.parametrize(
    ("name", "published"),
    # Layers and widths of He et al. 2016 with projections; counted in common implementations.
    [("resnet20", 272_474), ("resnet56", 855_770)],
)
def test_residual_networks_have_the_known_number_of_parameters(name: str, published: int) -> None:
    assert cost_of(graphs((3, 32, 32))[name]).num_parameters == published


def test_other_inputs_are_refused() -> None:
    with pytest.raises(NasGraphError, match=r"sides of 8 to 64 \(got shape \(3, 224, 224\)\)"):
        Handmade(input_shape=(3, 224, 224), num_classes=10)
    with pytest.raises(NasGraphError, match="'num_classes' to be at least 1"):
        Handmade(input_shape=(3, 32, 32), num_classes=0)
