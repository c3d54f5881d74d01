"""Where studies live: a journal file by default, a database by URL, or memory."""

import re
from pathlib import Path

import optuna
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage, RDBStorage

from nasgraph.search.journal import FileJournal
from nasgraph.search.records import StudyError

MEMORY = "memory"


def open_storage(place: str | Path) -> BaseStorage:
    """Open the storage of one or more studies, and create it if it is new.

    A journal file is the default: no server, several processes of one machine, every finished trial on
    the disk before the next is asked for, and a torn last line (power failure, full disk) repaired at opening.

    Args:
        place: Path of a journal file; a database URL such as `sqlite:///study.db` or
            `postgresql://user:password@host/name`; or `memory` for a study that ends with the process.

    Raises:
        StudyError: If it cannot be opened, or a line of the journal is damaged (the message names the line).
    """
    if place == MEMORY:
        return InMemoryStorage()
    if isinstance(place, str) and "://" in place:
        return _database(place)
    path = Path(place)
    if path.is_dir():
        raise StudyError(f"Expected a file for the study (got the folder '{path}')")
    journal = FileJournal(path)
    try:
        return JournalStorage(journal)
    except (KeyError, TypeError, ValueError, AttributeError, AssertionError) as error:
        raise journal.damaged(
            f"it is no record that Optuna understands ({type(error).__name__}: {error})"
        ) from error


def _database(url: str) -> BaseStorage:
    shown = re.sub(r"(://[^:/@]*):[^@]*@", r"\1:***@", url)
    try:
        return RDBStorage(url)
    except ImportError as error:
        raise StudyError(f"The database '{shown}' needs a driver that is not installed: {error}") from error
    except Exception as error:
        reason = str(error).replace(url, shown).splitlines()[0]
        raise StudyError(f"Cannot open the database '{shown}': {reason}") from error


def study_names(storage: BaseStorage) -> tuple[str, ...]:
    """Names of the studies in a storage, sorted."""
    return tuple(sorted(optuna.get_all_study_names(storage)))
