"""Entries as folders that the Hugging Face hub's client accepts, and their upload.

Writing the folder needs no network and nothing but nasgraph. `check_hub_folder` and `push_folder` need the extra `hub`:
`pip install 'nasgraph[hub]'`.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from nasgraph.errors import NasGraphError, ZooError
from nasgraph.modelzoo.card import ModelCard, read_card
from nasgraph.modelzoo.entry import PICTURE, ZooEntry, write_folder
from nasgraph.modelzoo.export import check_source
from nasgraph.modelzoo.export_source import CLASS_NAME, source_contents
from nasgraph.modelzoo.readme import card_markdown

_PART = re.compile(r"[A-Za-z0-9_]([\w.-]*[A-Za-z0-9_])?", re.ASCII)
MAX_NAME = 96


@dataclass(frozen=True, slots=True, kw_only=True)
class HubFolder:
    """A folder to upload.

    Attributes:
        path: The folder.
        repo_id: Where it belongs: `user/name`.
        files: Names of its files, sorted.
        num_bytes: Bytes of all files.
    """

    path: Path
    repo_id: str
    files: tuple[str, ...]
    num_bytes: int


def write_hub_folder(entry: ZooEntry, folder: Path, *, repo_id: str, force: bool = False) -> HubFolder:
    """Write the folder of a model repository: card, safetensors, configuration, and source that runs without nasgraph.

    The card's metadata are those of the hub's convention, with all measurements as evaluation results. The class in `model.py` joined with
    `huggingface_hub.PyTorchModelHubMixin` loads the repository by `from_pretrained`.

    Args:
        entry: A checked entry.
        folder: Where. Must not exist, unless `force`.
        repo_id: Name of the repository, `user/name`.
        force: Whether a folder with a `card.json` may be replaced.

    Raises:
        ZooError: If `repo_id` is no name of a repository, the folder exists, or the source computes something else.
        UnsupportedOpError: If an operator cannot be written in plain torch; the message names it.
        NasGraphError: If it cannot be written.
    """
    check_repo_id(repo_id)
    check_source(entry)
    picture = entry.path / PICTURE
    has_picture = picture.is_file()
    text = card_markdown(entry.card, has_picture=has_picture, usage=_usage(entry.card, repo_id), for_hub=True)
    contents = source_contents(entry, readme=text)
    if has_picture:
        contents[PICTURE] = picture.read_bytes()
    write_folder(folder, contents, force=force)
    return _hub_folder(folder, repo_id)


def _hub_folder(folder: Path, repo_id: str) -> HubFolder:
    files = sorted(path for path in folder.iterdir() if path.is_file())
    num_bytes = sum(path.stat().st_size for path in files)
    return HubFolder(
        path=folder, repo_id=repo_id, files=tuple(path.name for path in files), num_bytes=num_bytes
    )


def _usage(card: ModelCard, repo_id: str) -> str:
    shape = "..." if card.data is None else ", ".join(map(str, card.data.input_shape))
    return f"""\
```python
import sys

from huggingface_hub import snapshot_download

folder = snapshot_download("{repo_id}")
sys.path.insert(0, folder)  # runs the source of this repository: read `model.py` and `load.py` first

from load import load, normalise

logits = load()(normalise(raw))  # raw inputs of the published range, [batch, {shape}]
```

Or as a class of the hub's client:

```python
from huggingface_hub import PyTorchModelHubMixin
from model import {CLASS_NAME}


class Hub{CLASS_NAME}({CLASS_NAME}, PyTorchModelHubMixin):
    pass


network = Hub{CLASS_NAME}.from_pretrained("{repo_id}").eval()
```

`python load.py` in the folder runs the network on stored inputs and compares what comes out with what the original gave.
"""


def check_repo_id(repo_id: str) -> str:
    """Check the name of a repository and return it. The rules are those of the hub's client.

    Raises:
        ZooError: If it is not `user/name` of letters, digits, `_`, `-` and `.`, at most 96 characters each, without `--` and `..`.
    """
    parts = repo_id.split("/")
    fits = (
        len(parts) == 2
        and all(_PART.fullmatch(part) for part in parts)
        and max(map(len, parts)) <= MAX_NAME
        and not any(wrong in repo_id for wrong in ("--", ".."))
        and not repo_id.endswith(".git")
    )
    if not fits:
        raise ZooError(
            f"Expected 'repo_id' as 'user/name' of letters, digits, '_', '-' and '.', at most {MAX_NAME} characters each, "
            f"neither '--' nor '..' in it (got {repo_id!r:.120})"
        )
    return repo_id


def check_hub_folder(folder: Path, *, repo_id: str) -> HubFolder:
    """Check a folder by the hub's own client, without network: its card, its evaluation results and every file of the upload.

    Raises:
        ZooError: If `huggingface_hub` is missing, or the client refuses something. The message says what.
    """
    _require_hub()
    from huggingface_hub import CommitOperationAdd, ModelCardData
    from huggingface_hub import ModelCard as HubCard
    from huggingface_hub.utils import validate_repo_id
    from yaml import YAMLError  # which the client needs, too

    check_repo_id(repo_id)
    if not (folder / "README.md").is_file() or not (folder / "card.json").is_file():
        raise ZooError(
            f"'{folder}' is no folder that 'write_hub_folder' wrote: it lacks README.md or card.json"
        )
    try:
        validate_repo_id(repo_id)
        data = HubCard.load(folder / "README.md").data
        results = data.eval_results if isinstance(data, ModelCardData) else None
        for path in sorted(folder.iterdir()):
            CommitOperationAdd(path_in_repo=path.name, path_or_fileobj=path)  # reads and hashes it
    except (ValueError, TypeError, OSError, YAMLError) as error:  # the client's own errors are ValueErrors
        raise ZooError(f"The Hugging Face client refuses '{folder}': {error}") from error
    results = results or []
    own = read_card(folder / "card.json")
    if len(results) != len(own.measurements):
        raise ZooError(
            f"Expected {len(own.measurements)} evaluation results in '{folder / 'README.md'}', as in its card (got {len(results)})"
        )
    return _hub_folder(folder, repo_id)


def push_folder(
    folder: Path, *, repo_id: str, token: str | None = None, private: bool = True, message: str = ""
) -> str:
    """Upload a folder of `write_hub_folder`, after `check_hub_folder`. The repository is created if there is none.

    This is the only function of nasgraph that sends a model anywhere.

    Args:
        folder: The folder.
        repo_id: Name of the repository, `user/name`.
        token: A token with the right to write; None: the one that `hf auth login` or HF_TOKEN gives to the client.
        private: Whether a new repository is private. One that exists stays as it is.
        message: Of the commit; empty: one that names the entry.

    Returns:
        Address of the commit.

    Raises:
        ZooError: If the folder or the name is refused, `huggingface_hub` is missing, or the upload fails.
    """
    check_hub_folder(folder, repo_id=repo_id)
    from huggingface_hub import HfApi

    name = read_card(folder / "card.json").name
    api = HfApi(token=token, library_name="nasgraph")
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo_id, folder_path=folder, commit_message=message or f"Publish {name} from nasgraph"
        )
    except NasGraphError:
        raise
    except Exception as error:  # the client raises its own, httpx's and OSErrors
        raise ZooError(f"Cannot upload '{folder}' to '{repo_id}': {error}") from error
    return str(commit.commit_url)


def _require_hub() -> None:
    from importlib.util import find_spec

    if find_spec("huggingface_hub") is None:
        raise ZooError("The Hugging Face hub needs 'huggingface_hub': pip install 'nasgraph[hub]'")


__all__ = ["HubFolder", "check_hub_folder", "check_repo_id", "push_folder", "write_hub_folder"]
