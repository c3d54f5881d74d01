"""MLflow stores for tests: real SQLite files, copied from one whose schema was made once per process."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from nasgraph.mlflow_client import connect, default_tracking_uri


def pytest_configure(config: pytest.Config) -> None:
    """Let MLflow 3.17 use what SQLAlchemy 2.1 deprecates; nothing in nasgraph can change that."""
    config.addinivalue_line(
        "filterwarnings", "ignore:The ..noload.. loader strategy is deprecated:DeprecationWarning"
    )


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database file with MLflow's schema and nothing in it. Making the schema takes seconds; copying does not."""
    folder = tmp_path_factory.mktemp("mlflow")
    connect(default_tracking_uri(folder))
    return folder / "nasgraph.db"


@pytest.fixture
def tracking_uri(empty_store: Path, tmp_path: Path) -> str:
    """Address of a store of one's own, in the folder `tmp_path / "runs"`."""
    folder = tmp_path / "runs"
    folder.mkdir()
    with (
        closing(sqlite3.connect(empty_store)) as source,
        closing(sqlite3.connect(folder / "nasgraph.db")) as copy,
    ):
        source.backup(copy)
    return default_tracking_uri(folder)
