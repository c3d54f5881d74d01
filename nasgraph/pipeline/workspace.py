"""The files of one search in the project folder: its journal, its settings, and what became of it."""

import re
import time
from dataclasses import dataclass
from pathlib import Path

from nasgraph.errors import ConfigError, NasGraphError, UnknownNameError
from nasgraph.files import Json, read_json, write_json
from nasgraph.pipeline.settings import SearchSettings, settings_from_json

SCHEMA = "nasgraph/search/1"


@dataclass(frozen=True)
class Workspace:
    """Where one study keeps its files: `<folder>/<study>.journal` and `<folder>/<study>.json`.

    Attributes:
        folder: Project folder, such as `nasgraph-runs`.
        study: Name of the study.
    """

    folder: Path
    study: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", self.study):
            raise ConfigError(
                f"Expected a study name of letters, digits, '.', '_' and '-' (got '{self.study:.100}')"
            )

    @property
    def journal(self) -> Path:
        """Optuna's journal file."""
        return self.folder / f"{self.study}.journal"

    @property
    def checkpoints(self) -> Path:
        """Trainings that are not over: a folder, which is empty or gone when the search is."""
        return self.folder / f"{self.study}.checkpoints"

    @property
    def state_file(self) -> Path:
        """Settings and result."""
        return self.folder / f"{self.study}.json"

    def begin(self, settings: SearchSettings) -> None:
        """Write the settings of a new search.

        Raises:
            NasGraphError: If a search of that name exists, or the folder cannot be written.
        """
        if self.state_file.exists():
            raise NasGraphError(
                f"The study '{self.study}' exists. Continue it with --resume, or choose another name"
            )
        write_json(
            self.state_file, {"schema": SCHEMA, "settings": settings.model_dump(mode="json"), "result": None}
        )

    def settings(self) -> SearchSettings:
        """The settings that the search was begun with. Raises `NasGraphError` if there is no such search."""
        return settings_from_json(self._state().get("settings"), source=f"'{self.state_file}'")

    def result(self) -> dict[str, Json] | None:
        """What `end` wrote; None while the search is not over."""
        result = self._state().get("result")
        return result if isinstance(result, dict) else None

    def end(self, result: dict[str, Json]) -> None:
        """Write the result of the search: it is over, and need not be done again."""
        write_json(self.state_file, {**self._state(), "result": result})

    def _state(self) -> dict[str, Json]:
        if not self.state_file.exists():
            raise UnknownNameError(
                "study", self.study, studies_in(self.folder), hint=f"Looked in '{self.folder}'."
            )
        state = read_json(self.state_file)
        if not isinstance(state, dict) or state.get("schema") != SCHEMA:
            raise NasGraphError(f"Expected '{self.state_file}' to have schema '{SCHEMA}'")
        return state


def studies_in(folder: Path) -> tuple[str, ...]:
    """Names of the searches in a project folder, the newest first."""
    files = sorted(folder.glob("*.journal"), key=lambda path: (path.stat().st_mtime, path.name), reverse=True)
    return tuple(file.stem for file in files)


def new_study_name(settings: SearchSettings) -> str:
    """A fresh name: space, data and the time to the second."""
    data = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(settings.data).stem).strip("-.") or "data"
    space = (
        re.sub(r"[^A-Za-z0-9._-]+", "-", Path(settings.around.partition(":")[0]).stem)
        if settings.around
        else settings.space
    )
    return f"{space}-{data}-{time.strftime('%Y%m%d-%H%M%S')}"[:100]
