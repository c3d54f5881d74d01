"""Where studies live: a journal file by default, a database by URL, or memory."""

import re
import time
import warnings
import weakref
from pathlib import Path

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage, RDBStorage

from nasgraph.search.journal import FileJournal
from nasgraph.search.records import StudyError

MEMORY = "memory"
MAX_ATTEMPTS = 8
PAUSE_S = 0.25


def open_storage(place: str | Path) -> BaseStorage:
    """Open the storage of one or more studies, and create it if it is new.

    A journal file is the default: no server, several processes of one machine, every finished trial on
    the disk before the next is asked for, and a torn last line (power failure, full disk) repaired at opening.

    Args:
        place: Path of a journal file; a database URL such as `sqlite:///study.db` or
            `postgresql://user:password@host/name`; `grpc://host:port`, where `optuna.storages.run_grpc_proxy_server` stands
            before a database; or `memory` for a study that ends with the process.

    Raises:
        StudyError: If it cannot be opened, or a line of the journal is damaged (the message names the line).
    """
    if place == MEMORY:
        return InMemoryStorage()
    if isinstance(place, str) and "://" in place:
        return _proxy(place) if place.startswith("grpc://") else _database(place)
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


def is_shared(place: str | Path) -> bool:
    """Whether processes of other machines can open the same storage."""
    return isinstance(place, str) and "://" in place and not place.startswith("sqlite:")


def _database(url: str) -> BaseStorage:
    shown = shown_url(url)
    # A connection that broke while it lay idle is noticed before it is used.
    options = None if url.startswith("sqlite:") else {"pool_pre_ping": True}
    for attempt in range(MAX_ATTEMPTS):
        try:
            storage = RDBStorage(url, engine_kwargs=options)
            weakref.finalize(
                storage, storage.engine.dispose
            )  # drivers complain of connections that nobody closed
            return storage
        except ImportError as error:
            raise StudyError(
                f"The database '{shown}' needs a driver that is not installed: {error}. "
                "For PostgreSQL: pip install 'nasgraph[postgres]'"
            ) from error
        except Exception as error:
            # Two processes that make the tables of a new database at once: the later one fails, and finds them when it looks again.
            if attempt + 1 < MAX_ATTEMPTS and _made_by_another(error):
                time.sleep(PAUSE_S * (attempt + 1))
                continue
            reason = str(error).replace(url, shown).splitlines()[0]
            raise StudyError(f"Cannot open the database '{shown}': {reason}") from error
    raise AssertionError("the last attempt returns or raises")


def _made_by_another(error: Exception) -> bool:
    text = f"{error} {error.__cause__ or ''}".lower()
    return any(
        words in text
        for words in ("already exists", "duplicate key", "unique constraint", "no such table", "is locked")
    )


def shown_url(url: str) -> str:
    """A database URL without its password."""
    return re.sub(r"(://[^:/@]*):[^@]*@", r"\1:***@", url)


def _proxy(url: str) -> BaseStorage:
    host, _, port = url.removeprefix("grpc://").rstrip("/").rpartition(":")
    if not host or not port.isdigit():
        raise StudyError(f"Expected a proxy as grpc://host:port (got '{url}')")
    try:
        from optuna.storages import GrpcStorageProxy

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            proxy = GrpcStorageProxy(host=host, port=int(port))
            proxy.wait_server_ready(timeout=10)
        return proxy
    except ImportError as error:
        raise StudyError(
            f"The proxy '{url}' needs packages that are not installed: {error}. pip install grpcio protobuf"
        ) from error
    except Exception as error:
        raise StudyError(f"The proxy '{url}' does not answer: {type(error).__name__}") from error


def study_names(storage: BaseStorage) -> tuple[str, ...]:
    """Names of the studies in a storage, sorted."""
    return tuple(sorted(optuna.get_all_study_names(storage)))
