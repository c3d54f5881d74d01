"""The one door to MLflow for tracking and the zoo: quiet settings, a default store, a client that is known to answer.

MLflow costs 1 to 2 s of CPU to import and reads some of its settings while it is imported. So it is imported inside
functions here, after `configure_mlflow`, and importing this module costs nothing.
"""

import fcntl
import logging
import os
import re
import socket
import sqlite3
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast
from urllib.parse import unquote, urlsplit

from nasgraph.errors import TrackingError

if TYPE_CHECKING:
    import mlflow

TRACKING_URI_VARIABLE = "MLFLOW_TRACKING_URI"
DEFAULT_FOLDER = Path("nasgraph-runs")

_SETTINGS = {
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",  # bars and addresses on stdout would spoil --json
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    # MLflow's own defaults wait 120 s and retry for four minutes: longer than a whole search.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
}
_DATABASE_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}


def configure_mlflow() -> None:
    """Set MLflow's environment variables for this process: no pickle, no telemetry, no chatter, short time limits.

    Variables that the user has set keep their values. Call it before MLflow is imported.
    """
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)


def default_tracking_uri(folder: Path = DEFAULT_FOLDER) -> str:
    """Address of the SQLite store in `folder`, absolute, so that changing the directory does not scatter databases.

    Creates nothing. Artifacts of this store lie in `folder/artifacts`; see `artifact_root`.

    Raises:
        TrackingError: If the path holds a `?` or a `%`, which SQLAlchemy would read as part of the address.
    """
    path = folder.expanduser().absolute() / "nasgraph.db"
    if "?" in str(path) or "%" in str(path):
        raise TrackingError(
            f"The run store cannot lie in '{path.parent}': a path with '?' or '%' is no database address. "
            "Work in another folder, or name a store with --tracking-uri"
        )
    return f"sqlite:///{path}"


def resolve_tracking_uri(uri: str | None = None, *, folder: Path = DEFAULT_FOLDER) -> str:
    """The tracking address to use: the argument, else the variable MLFLOW_TRACKING_URI, else the store in `folder`."""
    named = uri or os.environ.get(TRACKING_URI_VARIABLE)
    if not named:
        return default_tracking_uri(folder)
    path = _sqlite_path(named)
    return named if path is None else f"sqlite:///{path.absolute()}"


def artifact_root(uri: str) -> str | None:
    """Where artifacts of new experiments go: beside an SQLite database, in the project folder for another database.

    Returns:
        A `file://` address, or None where the server decides.
    """
    path = _sqlite_path(uri)
    if path is not None:
        return (path.absolute().parent / "artifacts").as_uri()
    if urlsplit(uri).scheme.split("+")[0] in _DATABASE_PORTS:
        return (DEFAULT_FOLDER.absolute() / "artifacts").as_uri()
    return None


def shown_uri(uri: str) -> str:
    """The address without its password, for messages and records."""
    return re.sub(r"(://[^:/@]*):[^@]*@", r"\1:***@", uri)


def check_reachable(uri: str, *, timeout_s: float = 5.0) -> None:
    """Find out within seconds whether a tracking store answers. Does not import MLflow and writes nothing.

    An HTTP server is asked for `/health`; of a database server only the port is tried; a file must be an SQLite
    database, or absent in a folder that can be written.

    Args:
        uri: Tracking address.
        timeout_s: Seconds to wait.

    Raises:
        TrackingError: If it does not answer, or the address has a form that MLflow does not support. The message
            says what to do.
    """
    path = _sqlite_path(uri)
    try:
        scheme = urlsplit(uri).scheme.split("+")[0]
        if path is not None:
            _check_database_file(path)
        elif scheme in ("http", "https"):
            _check_server(uri, timeout_s)
        elif scheme in _DATABASE_PORTS:
            parts = urlsplit(uri)
            address = (parts.hostname or "localhost", parts.port or _DATABASE_PORTS[scheme])
            socket.create_connection(address, timeout=timeout_s).close()
        elif scheme not in ("databricks", "databricks-uc", "uc"):
            raise TrackingError(
                f"Expected a tracking address like 'sqlite:////path/nasgraph.db' or 'http://host:5000' "
                f"(got '{shown_uri(uri)}')"
            )
    except (OSError, ValueError, sqlite3.Error) as error:
        reason = getattr(error, "reason", None) or error
        raise TrackingError(
            f"The tracking store '{shown_uri(uri)}' does not answer: {reason}. {_hint(uri)}"
        ) from error


def _hint(uri: str) -> str:
    if _sqlite_path(uri) is not None:
        return "Name another store with --tracking-uri"
    return "Start the server, name another one with --tracking-uri, or leave it out to use a local file"


def _check_server(uri: str, timeout_s: float) -> None:
    try:
        with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=timeout_s):
            return
    except urllib.error.HTTPError as error:
        with error:  # it holds the connection
            if error.code >= 500:
                raise OSError(f"HTTP status {error.code}") from error


def _check_database_file(path: Path) -> None:
    parent = path.absolute().parent
    if "%" in str(path):
        raise ValueError("a path with '%' is no database address")
    if not path.exists():
        existing = next(folder for folder in (parent, *parent.parents) if folder.exists())
        if not existing.is_dir() or not os.access(existing, os.W_OK):
            raise OSError(f"the folder '{existing}' cannot be written")
        return
    connection = sqlite3.connect(
        f"file:{urllib.request.pathname2url(str(path.absolute()))}?mode=rw", uri=True
    )
    try:
        connection.execute("PRAGMA schema_version").fetchone()
    finally:
        connection.close()


def _sqlite_path(uri: str) -> Path | None:
    for prefix in ("sqlite:///", "sqlite+pysqlite:///"):
        if uri.startswith(prefix) and len(uri) > len(prefix):
            return Path(uri.removeprefix(prefix).partition("?")[0])
    return None


def connect(uri: str, *, timeout_s: float = 5.0) -> "mlflow.MlflowClient":
    """A client of a tracking store and its model registry that is known to answer.

    A new SQLite store is created with its folder. Several processes may do so at the same time: a file lock beside
    the database lets one go first, because MLflow's migrations do not survive a race.

    Raises:
        TrackingError: If the store does not answer or refuses; see `check_reachable`.
    """
    check_reachable(uri, timeout_s=timeout_s)
    configure_mlflow()
    from mlflow import MlflowClient

    # MLflow prints a traceback for every database error that it raises; those errors are reported by who gets them.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    path = _sqlite_path(uri)
    try:
        if path is None:
            return _opened(MlflowClient, uri)
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path.with_name(f"{path.name}.lock")):
            is_new = not path.exists()
            client = _opened(MlflowClient, uri)
            if is_new:
                _write_ahead(path)
    except Exception as error:  # MLflow's stores are plug-ins: their errors have no common base
        hint = f"Run 'mlflow db upgrade {shown_uri(uri)}'" if "out-of-date" in str(error) else _hint(uri)
        raise TrackingError(
            f"The tracking store '{shown_uri(uri)}' refuses: {first_line(error)}. {hint}"
        ) from error
    return client


def _opened(make: "type[mlflow.MlflowClient]", uri: str) -> "mlflow.MlflowClient":
    client = make(tracking_uri=uri, registry_uri=uri)
    client.search_experiments(max_results=1)  # creates the schema of a new database
    return client


def _write_ahead(path: Path) -> None:
    """Let readers and one writer work at the same time, with a third of the disk waits (31 for 97 ms per trial)."""
    connection = sqlite3.connect(path)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
    finally:
        connection.close()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def ensure_experiment(client: "mlflow.MlflowClient", name: str, *, root: str | None) -> str:
    """Id of the experiment of that name, created where it does not exist. Safe when several processes do it.

    Args:
        client: From `connect`.
        name: Name of the experiment.
        root: Where its artifacts go (see `artifact_root`); used on creation only.

    Raises:
        TrackingError: If the experiment was deleted and not yet purged, or the store refuses.
    """
    from mlflow.exceptions import MlflowException

    try:
        found = client.get_experiment_by_name(name)
        if found is None:
            try:
                return cast(str, client.create_experiment(name, artifact_location=root))
            except MlflowException:
                found = client.get_experiment_by_name(name)  # another process was faster
                if found is None:
                    raise
    except MlflowException as error:
        raise TrackingError(f"Cannot create the experiment '{name}': {first_line(error)}") from error
    if found.lifecycle_stage != "active":
        raise TrackingError(f"The experiment '{name}' was deleted. Restore it in MLflow, or use another name")
    return cast(str, found.experiment_id)


def local_path(uri: str) -> Path | None:
    """The path that an artifact address names on this machine; None if the artifacts lie elsewhere."""
    parts = urlsplit(uri)
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return Path(unquote(parts.path))
    return Path(uri) if parts.scheme == "" else None


def first_line(error: BaseException) -> str:
    """The first line of an error's text, at most 300 characters, or its type if it has no text."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
