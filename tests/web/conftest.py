"""A zoo of real entries, a made catalogue of 10,000 rows, and clients that speak to the page over both."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from nasgraph.data import DataSet, load_dataset
from nasgraph.mlflow_client import default_tracking_uri
from nasgraph.modelzoo import ZooEntry
from nasgraph.modelzoo.store import Zoo
from nasgraph.spaces import load_space
from nasgraph.web.app import make_app
from nasgraph.web.context import WebContext
from tests.mlflow_stores import empty_store, pytest_configure, tracking_uri
from tests.modelzoo.making import made_entry
from tests.web.making import MadeCatalogue, fill_zoo, made_catalogue

__all__ = ["empty_store", "pytest_configure", "tracking_uri"]

ADDRESS = "http://localhost:8470"
"""What the clients of the tests call the server."""


@pytest.fixture(scope="session")
def digits() -> DataSet:
    return load_dataset("digits")


@pytest.fixture(scope="session")
def entry(digits: DataSet, tmp_path_factory: pytest.TempPathFactory) -> ZooEntry:
    """A small trained network as an entry."""
    return made_entry(tmp_path_factory.mktemp("entry") / "small", digits)


@pytest.fixture(scope="session")
def zoo(empty_store: Path, digits: DataSet, tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    """Registered: "small" in two versions, the first with the alias "champion", and two entries each of two spaces. Not to be changed."""
    folder = tmp_path_factory.mktemp("web-zoo")
    (folder / "runs").mkdir()
    shutil.copyfile(empty_store, folder / "runs" / "nasgraph.db")
    zoo = Zoo(default_tracking_uri(folder / "runs"))
    spaces = {
        name: load_space(name, input_shape=(1, 8, 8), num_classes=10) for name in ("convnet", "nasbench201")
    }
    fill_zoo(zoo, folder, spaces, digits, each=2)
    return zoo


@pytest.fixture(scope="session")
def context(zoo: Zoo) -> WebContext:
    return WebContext(zoo=zoo, catalogue=zoo.catalogue)


@pytest.fixture(scope="session")
def client(context: WebContext) -> Iterator[TestClient]:
    """A client of the page over the real entries. An error that no page foresaw is raised in the test."""
    with TestClient(make_app(context), base_url=ADDRESS) as client:
        yield client


@pytest.fixture(scope="session")
def many(entry: ZooEntry) -> MadeCatalogue:
    """10,000 rows."""
    return made_catalogue(10_000, card=entry.card)


@pytest.fixture(scope="session")
def crowded(zoo: Zoo, many: MadeCatalogue) -> Iterator[TestClient]:
    """A client of the page over the 10,000 rows."""
    with TestClient(make_app(WebContext(zoo=zoo, catalogue=many)), base_url=ADDRESS) as client:
        yield client
