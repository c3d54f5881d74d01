"""Trainings that go on where they were: one folder per training, written anew after each epoch.

    <root>/<fingerprint>-<seed>/<start>/training.json            what the training is, how far it got, which tensors
    <root>/<fingerprint>-<seed>/<start>/epoch-0003.safetensors   parameters, buffers, optimiser, generator

The tensors are written first and under a new name, then the JSON that names them and holds their sha256: whenever the process is killed,
there is a whole checkpoint, the new one or the one before.
"""

import glob
import hashlib
import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from nasgraph.errors import NasGraphError
from nasgraph.files import Json, read_json, sha256_of, write_json
from nasgraph.hyper.checkpoint import load_tensors, save_tensors

logger = logging.getLogger(__name__)

SCHEMA = "nasgraph/training/1"
NAME = "training.json"


@dataclass(frozen=True)
class Snapshot:
    """A training after some epoch.

    Attributes:
        tensors: Every tensor that it carries on, by name.
        progress: What else it carries on.
    """

    tensors: Mapping[str, Tensor]
    progress: Mapping[str, Json]


@dataclass(frozen=True)
class TrainingCheckpoint:
    """Where one training is kept.

    Attributes:
        folder: Its own folder; created at the first save.
    """

    folder: Path

    def save(self, snapshot: Snapshot, facts: Mapping[str, Json], *, epoch: int) -> None:
        """Write a training, in place of what was there. A disk that cannot be written costs a warning, not the training.

        Args:
            snapshot: The training.
            facts: What decides its course. A checkpoint is good only for a training of the same facts.
            epoch: Epochs that are done.
        """
        tensors = self.folder / f"epoch-{epoch:04d}.safetensors"
        try:
            save_tensors(tensors, snapshot.tensors)
            document = {
                "schema": SCHEMA,
                "facts": dict(facts),
                "progress": dict(snapshot.progress),
                "tensors": tensors.name,
                "sha256": sha256_of(tensors),
            }
            write_json(self.folder / NAME, document)
            for old in self.folder.glob("*.safetensors"):
                if old.name != tensors.name:
                    old.unlink(missing_ok=True)
        except (NasGraphError, OSError) as error:
            logger.warning("No checkpoint after epoch %d, the training goes on: %s", epoch, error)

    def load(self, facts: Mapping[str, Json]) -> Snapshot | None:
        """Read a training. None if there is none, or it is damaged or another one: the last two with a warning.

        Args:
            facts: What decides the course of the training that shall go on.
        """
        if not (self.folder / NAME).exists():
            return None
        try:
            return self._read(facts)
        except (NasGraphError, OSError) as error:
            logger.warning("Cannot use the checkpoint '%s', the training begins anew: %s", self.folder, error)
            return None

    def _read(self, facts: Mapping[str, Json]) -> Snapshot:
        document = read_json(self.folder / NAME)
        if not isinstance(document, dict) or document.get("schema") != SCHEMA:
            raise NasGraphError("it is no checkpoint of a training, or one of another version")
        known, progress, name = document.get("facts"), document.get("progress"), document.get("tensors")
        if not isinstance(known, dict) or not isinstance(progress, dict) or not isinstance(name, str):
            raise NasGraphError("it is damaged: 'facts', 'progress' or 'tensors' are missing")
        different = [key for key in sorted({*known, *facts}) if known.get(key) != facts.get(key)]
        if different:
            raise NasGraphError(f"it is of another training ({', '.join(different)} differ)")
        path = self.folder / Path(name).name
        if sha256_of(path) != document.get("sha256"):
            raise NasGraphError(f"it is damaged: the checksum of '{path.name}' does not fit")
        return Snapshot(load_tensors(path), progress)


def checkpoint_folder(root: Path, fingerprint: str, seed: int) -> Path:
    """The folder of a candidate's trainings."""
    return root / f"{fingerprint}-{seed}"


def remove_checkpoints(root: Path, fingerprint: str, seed: int | None = None) -> None:
    """Forget a candidate's trainings: of one seed, or of all. Call it when the result is durable. It is no error if there are none."""
    if seed is not None:
        shutil.rmtree(checkpoint_folder(root, fingerprint, seed), ignore_errors=True)
    elif root.is_dir():
        for folder in root.glob(f"{glob.escape(fingerprint)}-*"):
            shutil.rmtree(folder, ignore_errors=True)


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """Hexadecimal SHA-256 of names, types, shapes and bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        array = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {array.dtype} {tuple(array.shape)}\n".encode())
        digest.update(array.numpy().tobytes())
    return digest.hexdigest()
