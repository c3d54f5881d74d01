"""The command line as a fixture, and an empty project folder to use it in."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.commands.running import Cli
from tests.mlflow_stores import empty_store

__all__ = ["empty_store"]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(capsys)


@pytest.fixture
def project(empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that commands run in. Its MLflow store has a schema already, which takes seconds to make."""
    (tmp_path / "nasgraph-runs").mkdir()
    with (
        closing(sqlite3.connect(empty_store)) as source,
        closing(sqlite3.connect(tmp_path / "nasgraph-runs" / "nasgraph.db")) as copy,
    ):
        source.backup(copy)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("NASGRAPH_DATA", raising=False)
    return tmp_path
