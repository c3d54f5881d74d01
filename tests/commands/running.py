"""Running the command line in this process."""

import json
from dataclasses import dataclass
from typing import Any

import pytest

from nasgraph.commands import main


@dataclass(frozen=True)
class Finished:
    """What one command line did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON object on stdout."""
        return json.loads(self.out)


class Cli:
    """Calls `main` and collects what it prints."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *words: str) -> Finished:
        self._capsys.readouterr()
        code = main(words)
        captured = self._capsys.readouterr()
        return Finished(code, captured.out, captured.err)
