"""Zoo entries: one folder per trained model, complete, verifiable, without pickle.

MLmodel              MLflow's description, so that `mlflow.pyfunc.load_model` loads the folder
requirements.txt     what that needs
graph.json           the computational graph
weights.safetensors  parameters and buffers by the names of the built module; or packed, as weights.safetensors.packed
card.json            the model card, with the hash of the weights, unpacked
README.md            the card for people and for the Hugging Face hub
architecture.svg     a picture (optional)
thumbnail.svg        a small one (optional)
embedding.json       the vector that similar architectures are found by (optional)
"""

import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

from safetensors.torch import save
from torch import Tensor, nn

from nasgraph.errors import NasGraphError, ZooError
from nasgraph.ir import ComputationalGraph, cost_of, graph_to_json, read_graph
from nasgraph.modelzoo.card import ModelCard, card_to_json, read_card
from nasgraph.modelzoo.mlmodel import REQUIREMENTS, mlmodel_text
from nasgraph.modelzoo.packing import pack
from nasgraph.modelzoo.readme import card_markdown
from nasgraph.modelzoo.weights import read_weights
from nasgraph.modules import build

REQUIRED_FILES = ("MLmodel", "requirements.txt", "graph.json", "card.json", "README.md")
WEIGHTS = "weights.safetensors"
PACKED_WEIGHTS = "weights.safetensors.packed"
PICTURE = "architecture.svg"
THUMBNAIL = "thumbnail.svg"
EMBEDDING = "embedding.json"
OPTIONAL_FILES = (PICTURE, THUMBNAIL, EMBEDDING)
MAX_TEXT_BYTES = 64 * 2**20

_PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".pt2", ".ckpt", ".bin", ".joblib", ".dill", ".npy")


@dataclass(frozen=True, slots=True, eq=False)
class ZooEntry:
    """A checked entry: graph, weights and card fit each other, and the weights are those that the card names.

    Attributes:
        graph: The architecture.
        state: Parameters and buffers by name, on the CPU. Must not be changed.
        card: The model card.
        path: Folder that it was read from.
    """

    graph: ComputationalGraph
    state: Mapping[str, Tensor]
    card: ModelCard
    path: Path

    def module(self) -> nn.Module:
        """A new module with these weights, on the CPU, in inference mode."""
        module = build(self.graph, device="meta").to_empty(device="cpu")
        module.load_state_dict(dict(self.state), strict=True)
        return module.eval()


def write_entry(
    folder: Path,
    graph: ComputationalGraph,
    state: Mapping[str, Tensor],
    card: ModelCard,
    *,
    picture: bytes | None = None,
    extras: Mapping[str, bytes] | None = None,
    packed: bool = False,
) -> ZooEntry:
    """Write an entry: `folder` is complete afterwards, or absent.

    Args:
        folder: Where. Must not exist.
        graph: The architecture.
        state: Trained parameters and buffers, as the built module's `state_dict` has them.
        card: A draft: the hash of the weights is filled in.
        picture: An SVG of the architecture; None: none.
        extras: Further optional files by name; see `OPTIONAL_FILES`.
        packed: Whether the weights are compressed without loss; see `nasgraph.modelzoo.packing`.

    Returns:
        The entry, read back from `folder`.

    Raises:
        ZooError: If `folder` exists, an extra is none, or card, graph and weights do not fit each other.
        NasGraphError: If it cannot be written, as when the disk is full.
    """
    _check_facts(card, graph, f"the card '{card.name}'")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    weights = save(tensors, metadata={"format": "pt"})  # several would be written in random order
    card = replace(card, weights_sha256=sha256(weights).hexdigest())
    contents = {
        "MLmodel": mlmodel_text(card, graph).encode(),
        "requirements.txt": REQUIREMENTS.encode(),
        "graph.json": graph_to_json(graph).encode(),
        **stored_weights(weights, packed=packed),
        "card.json": card_to_json(card).encode(),
        "README.md": card_markdown(card, has_picture=picture is not None).encode(),
    }
    extras = {**(extras or {}), **({} if picture is None else {PICTURE: picture})}
    if unknown := sorted(set(extras) - set(OPTIONAL_FILES)):
        raise ZooError(f"Expected extras to be of {', '.join(OPTIONAL_FILES)} (got {unknown[0]!r:.80})")
    write_folder(folder, contents | extras)
    return load_entry(folder)


def stored_weights(weights: bytes, *, packed: bool) -> dict[str, bytes]:
    """The file that holds a safetensors file's bytes, by its name: as they are, or packed."""
    return {PACKED_WEIGHTS: pack(weights)} if packed else {WEIGHTS: weights}


def write_folder(folder: Path, contents: Mapping[str, bytes], *, force: bool = False) -> None:
    """Write a folder of files so that it is complete or absent.

    Args:
        folder: Where.
        contents: Bytes by file name.
        force: Whether an entry that is already there may be replaced. Only folders with a `card.json` are.

    Raises:
        ZooError: If `folder` exists and may not be replaced.
        NasGraphError: If it cannot be written.
    """
    if folder.exists() and not (force and (folder / "card.json").is_file()):
        hint = "it is no zoo entry" if force else "use --force to replace an entry"
        raise ZooError(f"'{folder}' exists, and is not replaced: {hint}")
    temporary: Path | None = None
    try:
        folder.absolute().parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(
            tempfile.mkdtemp(dir=folder.absolute().parent, prefix=f".{folder.name}.", suffix=".tmp")
        )
        for name, content in contents.items():
            _write_durably(temporary / name, content)
        temporary.chmod(0o755)
        if force and folder.exists():
            old = temporary.with_suffix(".old")
            folder.rename(old)
            temporary.rename(folder)
            shutil.rmtree(old)
        else:
            temporary.rename(folder)
    except OSError as error:
        raise NasGraphError(f"Cannot write '{folder}': {error.strerror or error}") from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def _write_durably(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def load_entry(path: Path) -> ZooEntry:
    """Read and check an entry that may come from a stranger. Runs no code from it and follows no links out of it.

    Raises:
        ZooError: If a file is missing, a link, a pickle or too large; if the weights are truncated, were changed or
            do not fit the graph; or if the card's facts are not those of the graph.
    """
    check_files(path)
    card = read_card(path / "card.json")
    try:
        graph = read_graph(path / "graph.json")
    except NasGraphError as error:
        raise ZooError(f"The graph of the entry '{path}' is refused: {error}") from error
    _check_facts(card, graph, f"'{path / 'card.json'}'")
    _check_loader(path, card, graph)
    module = build(graph, device="meta")
    state = read_weights(weights_file(path), module, sha256_expected=card.weights_sha256)
    return ZooEntry(graph, state, card, path)


def check_files(path: Path) -> None:
    """Check that a folder has the files of an entry, and nothing that could run code.

    Raises:
        ZooError: If one is missing, is a link or too large, or there is a pickle.
    """
    if not path.is_dir():
        raise ZooError(f"There is no zoo entry '{path}'. Was it moved or deleted?")
    for file in sorted(path.iterdir()):
        if file.suffix.lower() in _PICKLES:
            raise ZooError(
                f"'{file}' may hold a pickle, which can run code. Remove it: an entry never has one"
            )
        if file.is_symlink():
            raise ZooError(f"'{file}' is a link. An entry has plain files only")
    for name in REQUIRED_FILES:
        file = path / name
        if not file.is_file():
            raise ZooError(f"The zoo entry '{path}' lacks '{name}'")
    for name in (*REQUIRED_FILES, *OPTIONAL_FILES):
        file = path / name
        if file.is_file() and file.stat().st_size > MAX_TEXT_BYTES:
            raise ZooError(
                f"Expected at most {MAX_TEXT_BYTES:,} bytes in '{file}' (got {file.stat().st_size:,})"
            )
    weights_file(path)


def weights_file(path: Path) -> Path:
    """The weights in the folder of an entry, packed or not.

    Raises:
        ZooError: If there are none, or twice.
    """
    found = [path / name for name in (WEIGHTS, PACKED_WEIGHTS) if (path / name).is_file()]
    if len(found) == 2:
        raise ZooError(f"The zoo entry '{path}' has its weights twice, as they are and packed. Remove one")
    if not found:
        raise ZooError(f"The zoo entry '{path}' lacks '{WEIGHTS}'")
    return found[0]


def entry_contents(path: Path) -> dict[str, bytes]:
    """The files of a checked entry by name: what belongs to it, and nothing else that may lie there."""
    optional = [name for name in OPTIONAL_FILES if (path / name).is_file()]
    names = [*REQUIRED_FILES, weights_file(path).name, *optional]
    return {name: (path / name).read_bytes() for name in names}


def _check_loader(path: Path, card: ModelCard, graph: ComputationalGraph) -> None:
    """MLflow imports the module that `MLmodel` names and installs what the requirements name: both must be ours."""
    for name, expected in (("MLmodel", mlmodel_text(card, graph)), ("requirements.txt", REQUIREMENTS)):
        if (path / name).read_bytes() != expected.encode():
            raise ZooError(
                f"'{path / name}' was changed: it is not what the entry's card leads to. Do not use it"
            )


def _check_facts(card: ModelCard, graph: ComputationalGraph, source: str) -> None:
    cost = cost_of(graph)
    facts: dict[str, tuple[object, object]] = {
        "fingerprint": (card.fingerprint, graph.fingerprint),
        "num_parameters": (card.num_parameters, cost.num_parameters),
        "multiply_adds": (card.multiply_adds, cost.multiply_adds),
    }
    if card.data is not None:
        facts |= {
            "data.input_shape": (card.data.input_shape, graph.shapes[graph.inputs[0]]),
            "data.class_names": ((len(card.data.class_names),), graph.shapes[graph.outputs[0]]),
        }
    for name, (claimed, real) in facts.items():
        if claimed != real:
            raise ZooError(
                f"{source} does not describe its graph: '{name}' is {claimed!r}, the graph has {real!r}"
            )
