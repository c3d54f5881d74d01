"""The encoder that the zoo ships: it loads, is small, is quick, and finds the variants of designs it has not seen."""

from pathlib import Path

import numpy as np
import pytest

import zoo
from nasgraph.files import read_json
from nasgraph.retrieve import ArchitectureEncoder, load_encoder
from nasgraph.retrieve.corpus import FamilySettings, sample_family, space_versions
from nasgraph.retrieve.measures import reciprocal_rank
from tests.retrieve.making import residual_network, staged_network

FOLDER = Path(zoo.__file__).parent / "architecture-encoder"


@pytest.fixture(scope="module")
def encoder() -> ArchitectureEncoder:
    return load_encoder(FOLDER)


def test_it_is_small_and_says_how_it_was_made() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 5_000_000
    document = read_json(FOLDER / "config.json")
    assert isinstance(document, dict)
    recipe = document["recipe"]
    assert isinstance(recipe, dict)
    assert {"training", "families", "graphs", "corpus", "cpu_seconds", "versions"} <= set(recipe)


def test_variants_of_unseen_designs_come_first(encoder: ArchitectureEncoder) -> None:
    settings = FamilySettings(size=4)
    families = [
        sample_family(versions, name=f"{name}/test/{i}", seed=1, settings=settings)
        for name in ("convnet", "vit", "regnet")
        for versions in [space_versions(name)]
        for i in range(4)
    ]
    owner = np.repeat(np.arange(len(families)), [len(family) for family in families])
    rows = encoder.embed([graph for family in families for graph in family.graphs])
    similarity = rows @ rows.T
    np.fill_diagonal(similarity, -np.inf)
    ranked = np.argsort(-similarity, axis=1)[:, :-1]
    assert reciprocal_rank(owner[ranked] == owner[:, None], k=20).mean() > 0.85


def test_width_and_data_matter_little(encoder: ArchitectureEncoder) -> None:
    base, wide, other = residual_network(8), residual_network(8, width=48, classes=100), staged_network()
    a, b, c = encoder.embed([base, wide, other])
    assert a @ b > 0.9
    assert a @ b > a @ c
