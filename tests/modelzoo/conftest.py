"""A small trained model as a zoo entry. Training takes a fraction of a second; the entry is made once per process."""

import shutil
from pathlib import Path

import pytest

from nasgraph.data import DataSet, load_dataset
from nasgraph.modelzoo import ZooEntry
from tests.mlflow_stores import empty_store, pytest_configure, tracking_uri
from tests.modelzoo.making import made_entry

__all__ = ["empty_store", "pytest_configure", "tracking_uri"]


@pytest.fixture(scope="session")
def digits() -> DataSet:
    return load_dataset("digits")


@pytest.fixture(scope="session")
def entry(digits: DataSet, tmp_path_factory: pytest.TempPathFactory) -> ZooEntry:
    """A convolutional network with batch norms, trained a little, with its recorded accuracies."""
    return made_entry(tmp_path_factory.mktemp("entry") / "small", digits)


@pytest.fixture
def folder(entry: ZooEntry, tmp_path: Path) -> Path:
    """A copy of the entry's folder that a test may damage."""
    return Path(shutil.copytree(entry.path, tmp_path / "damaged"))
