"""MLflow's model registry as the zoo needs it: numbered versions with files. The only module of the zoo that knows MLflow."""

import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from nasgraph.errors import ZooError
from nasgraph.mlflow_client import artifact_root, connect, ensure_experiment, first_line, local_path
from nasgraph.modelzoo.entry import write_folder
from nasgraph.modelzoo.names import Reference, check_name

if TYPE_CHECKING:
    import mlflow
    import mlflow.entities.model_registry

EXPERIMENT = "nasgraph-zoo"
KIND_TAG = "nasgraph.kind"
CARD_TAG = "nasgraph.card"
EMBEDDING_TAG = "nasgraph.embedding"

_SOURCE = re.compile(r"runs:/(?P<run>[A-Za-z0-9_-]+)/(?P<folder>zoo/[A-Za-z0-9-]+)", re.ASCII)
_OURS = f"tags.`{KIND_TAG}` = 'model'"
_ATTEMPTS = 20  # processes that add to one name compete for the next number
_PAGE = 1000
_RECENT = 100
MAX_SERIES = 50
"""Series of one run that are read; a search's own run has hundreds."""


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a registered model.

    Attributes:
        name: Name of the model.
        number: From 1.
        tags: All tags.
        source: Where its files are, in MLflow's words.
        run_id: The run that it was made in.
        changed_ms: When it was last changed, in milliseconds since 1970.
    """

    name: str
    number: int
    tags: Mapping[str, str]
    source: str
    run_id: str = ""
    changed_ms: int = 0

    def __str__(self) -> str:
        return f"version {self.number} of '{self.name}'"


class Registry:
    """Registered models of nasgraph in one MLflow store; models of others in the same store are not seen.

    Connects when it is first used. Every method raises `TrackingError` if the store does not answer, and `ZooError` if it
    refuses.

    Args:
        uri: Tracking address; the registry is the one of the same store.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._connected: mlflow.MlflowClient | None = None

    @property
    def exists(self) -> bool:
        """False for an SQLite store that was not created yet, which is then not created by looking."""
        path = self.uri.partition(":///")[2].partition("?")[0]
        return not self.uri.startswith("sqlite") or Path(path).exists()

    def newest(self) -> list[tuple[Version, tuple[tuple[str, int], ...]]]:
        """Every model at its newest version, with the aliases of all versions (name and number, sorted)."""
        aliases, newest = self.aliases(), dict[str, Version]()
        for version in self.versions():
            if version.name not in newest or version.number > newest[version.name].number:
                newest[version.name] = version
        return [(version, aliases.get(name, ())) for name, version in sorted(newest.items())]

    def versions(self, name: str | None = None) -> list[Version]:
        """All versions of one model, or of all, in no order."""
        where = _OURS if name is None else f"name = '{check_name(name)}' AND {_OURS}"
        with self._refusals() as client:
            return [_version(found) for found in _pages(client.search_model_versions, filter_string=where)]

    def changed_since(self, time_ms: int) -> list[Version]:
        """Versions that were made or changed at a time or after it, in milliseconds since 1970. Cheap where there are few."""
        found: list[Version] = []
        token: str | None = None
        with self._refusals() as client:
            while True:
                page = client.search_model_versions(
                    _OURS, max_results=_RECENT, order_by=["last_updated_timestamp DESC"], page_token=token
                )
                fresh = [v for v in map(_version, page) if v.changed_ms >= time_ms]
                found += fresh
                token = page.token
                if len(fresh) < len(page) or not token:
                    return found

    def aliases(self) -> dict[str, tuple[tuple[str, int], ...]]:
        """Aliases of all models by name: alias and number of the version, sorted."""
        with self._refusals() as client:
            models = _pages(client.search_registered_models)
        return {model.name: tuple(sorted((a, int(v)) for a, v in model.aliases.items())) for model in models}

    def find(self, wanted: Reference) -> Version | None:
        """The version that a reference names, by default the newest; None if there is none."""
        with self._refusals() as client:
            return _find(client, wanted)

    def add(
        self, name: str, contents: Mapping[str, bytes], *, run_id: str | None, tags: Mapping[str, str]
    ) -> Version:
        """Store files and register them as the next version of a model, which is created if it is new.

        Args:
            name: Name of the model.
            contents: Bytes by file name.
            run_id: Run that the files go to; None: a new one in the experiment `nasgraph-zoo`.
            tags: Tags of the version.
        """
        with self._refusals() as client:
            run = run_id or self._new_run(client, name)
            folder = f"zoo/{uuid4().hex[:16]}"
            _upload(client, run, folder, contents)
            if run_id is None:
                client.set_terminated(run)
            return _create_version(client, name, f"runs:/{run}/{folder}", run, {**tags, KIND_TAG: "model"})

    def set_alias(self, version: Version, alias: str) -> None:
        """Let an alias point at a version, and at no other."""
        with self._refusals() as client:
            client.set_registered_model_alias(version.name, alias, str(version.number))

    def remove_alias(self, name: str, alias: str) -> None:
        """Let an alias point at nothing any more."""
        with self._refusals() as client:
            client.delete_registered_model_alias(name, alias)

    def histories(self, run_id: str) -> dict[str, tuple[tuple[int, float], ...]]:
        """Series of a run by name of the metric, such as learning curves: steps and values, by step."""
        with self._refusals() as client:
            names = sorted(client.get_run(run_id).data.metrics)
            series = {name: client.get_metric_history(run_id, name) for name in names[:MAX_SERIES]}
        return {
            name: tuple(sorted((point.step, point.value) for point in points))
            for name, points in series.items()
        }

    def experiment_of(self, run_id: str) -> str:
        """The experiment of a run, by its number: part of the run's address in MLflow's pages."""
        with self._refusals() as client:
            return str(client.get_run(run_id).info.experiment_id)

    @contextmanager
    def files(self, version: Version, names: Mapping[str, int]) -> Iterator[Path]:
        """A folder with the files of a version, for the time of a `with` block. Not to be written to.

        Args:
            version: From `find`.
            names: Files to fetch, with the most bytes that each may have. Others are not fetched from a server.

        Raises:
            ZooError: If they have vanished, or one is too large.
        """
        temporary = Path(tempfile.mkdtemp(prefix="nasgraph-zoo-"))
        try:
            with self._refusals() as client:
                folder = _fetched(client, version, names, temporary)
            yield folder
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _new_run(self, client: "mlflow.MlflowClient", name: str) -> str:
        experiment_id = ensure_experiment(client, EXPERIMENT, root=artifact_root(self.uri))
        run_id: str = client.create_run(
            experiment_id, run_name=name, tags={KIND_TAG: "zoo entry"}
        ).info.run_id
        return run_id

    @contextmanager
    def _refusals(self) -> "Iterator[mlflow.MlflowClient]":
        """The client; what it refuses is an error of the zoo."""
        if self._connected is None:
            self._connected = connect(self.uri)
        from mlflow.exceptions import MlflowException

        try:
            yield self._connected
        except MlflowException as error:
            raise ZooError(f"The model registry refuses: {first_line(error)}") from error


def _version(found: "mlflow.entities.model_registry.ModelVersion") -> Version:
    return Version(
        found.name,
        int(found.version),
        dict(found.tags),
        found.source or "",
        found.run_id or "",
        int(found.last_updated_timestamp or found.creation_timestamp or 0),
    )


def _pages(search: Callable[..., Any], **conditions: str) -> list[Any]:
    """All results of one of MLflow's searches, which return a page each."""
    items: list[Any] = []
    token: str | None = None
    while True:
        page = search(max_results=_PAGE, page_token=token, **conditions)
        items += page
        token = page.token
        if not token:
            return items


def _find(client: "mlflow.MlflowClient", wanted: Reference) -> Version | None:
    from mlflow.exceptions import MlflowException

    try:
        if wanted.alias is not None:
            return _version(client.get_model_version_by_alias(wanted.name, wanted.alias))
        if wanted.version is not None:
            return _version(client.get_model_version(wanted.name, str(wanted.version)))
    except MlflowException as error:
        if error.get_http_status_code() in (400, 404):
            return None
        raise
    where = f"name = '{wanted.name}' AND {_OURS}"
    found = client.search_model_versions(where, max_results=1, order_by=["version_number DESC"])
    return _version(found[0]) if found else None


def _upload(client: "mlflow.MlflowClient", run_id: str, folder: str, contents: Mapping[str, bytes]) -> None:
    root = local_path(client.get_run(run_id).info.artifact_uri)
    if root is not None:
        write_folder(root / folder, contents)
        return
    temporary = Path(tempfile.mkdtemp(prefix="nasgraph-zoo-"))
    try:
        write_folder(temporary / "entry", contents)
        client.log_artifacts(run_id, str(temporary / "entry"), folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _create_version(
    client: "mlflow.MlflowClient", name: str, source: str, run_id: str, tags: Mapping[str, str]
) -> Version:
    """The next version. Tries again when another process was faster, which MLflow reports as an error."""
    from mlflow.exceptions import MlflowException

    for attempt in range(_ATTEMPTS):
        try:
            _create_model(client, name)
            return _version(client.create_model_version(name, source, run_id=run_id, tags=dict(tags)))
        except MlflowException as error:
            if attempt == _ATTEMPTS - 1 or error.error_code == "INVALID_PARAMETER_VALUE":
                raise
            time.sleep(0.02 * (1 + attempt))
    raise AssertionError("the last attempt returns or raises")


def _create_model(client: "mlflow.MlflowClient", name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _fetched(
    client: "mlflow.MlflowClient", version: Version, names: Mapping[str, int], temporary: Path
) -> Path:
    """The folder of a version's files: where they lie if that is this machine, else a copy in `temporary`."""
    source = _SOURCE.fullmatch(version.source)
    if source is None:
        raise ZooError(
            f"The model registry's {version} is no zoo entry: its source is {version.source!r:.200}"
        )
    run_id, folder = source["run"], source["folder"]
    root = local_path(client.get_run(run_id).info.artifact_uri)
    if root is not None:
        if not (root / folder).is_dir():
            raise ZooError(f"The files of {version} have vanished: there is no '{root / folder}'")
        return root / folder
    sizes = {
        file.path.rpartition("/")[2]: file.file_size or 0 for file in client.list_artifacts(run_id, folder)
    }
    if not sizes:
        raise ZooError(f"The files of {version} have vanished from the artifact store")
    for name in sorted(set(names) & set(sizes)):
        if sizes[name] > names[name]:
            raise ZooError(
                f"Expected '{name}' of {version} to have at most {names[name]:,} bytes (got {sizes[name]:,})"
            )
        client.download_artifacts(run_id, f"{folder}/{name}", str(temporary))
    # Depending on the kind of store they are in a folder of their own or not.
    found = (path for name in sorted(set(names) & set(sizes)) for path in temporary.rglob(name))
    return next((path.parent for path in found), temporary)
