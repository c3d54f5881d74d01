"""Every shipped space, at the sizes that people have, against the contract."""

import pytest

from nasgraph.spaces import SearchSpace, load_space, space_names
from nasgraph.testing import SearchSpaceContract

SHIPPED = ("convnet", "grammar", "handmade", "mlp", "nasbench201", "vit")


@pytest.mark.parametrize("name", SHIPPED)
def test_the_shipped_spaces_are_installed_under_their_names(name: str) -> None:
    assert name in space_names()
    assert load_space(name, input_shape=(1, 8, 8), num_classes=10).name == name


@pytest.mark.parametrize("name", SHIPPED)
class TestOnDigits(SearchSpaceContract):
    @pytest.fixture
    def space(self, name: str) -> SearchSpace:
        return load_space(name, input_shape=(1, 8, 8), num_classes=10)


@pytest.mark.parametrize("name", SHIPPED)
class TestOnColourImages(SearchSpaceContract):
    @pytest.fixture
    def space(self, name: str) -> SearchSpace:
        return load_space(name, input_shape=(3, 32, 32), num_classes=100)
