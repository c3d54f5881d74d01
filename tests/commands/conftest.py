"""The command line as a fixture."""

import pytest

from tests.commands.running import Cli


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(capsys)
