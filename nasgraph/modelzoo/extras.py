"""What an entry has beside its facts: a thumbnail, and the vector that similar architectures are found by."""

import base64
import math
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from nasgraph.draw.thumbnail import draw_thumbnail
from nasgraph.errors import NasGraphError, ZooError
from nasgraph.files import canonical_json, parse_json
from nasgraph.ir import ComputationalGraph
from nasgraph.modelzoo.builtin import builtin_entries, document
from nasgraph.modelzoo.entry import EMBEDDING, THUMBNAIL

if TYPE_CHECKING:
    from nasgraph.retrieve import ArchitectureEncoder

Vector = npt.NDArray[np.float32]

MAX_DIMENSIONS = 4096


def extras_of(graph: ComputationalGraph) -> dict[str, bytes]:
    """The optional files of an entry that follow from its graph, by name. No embedding where no encoder is installed."""
    extras = {THUMBNAIL: draw_thumbnail(graph).encode()}
    encoder = shipped_encoder()
    if encoder is not None:
        network, name = encoder
        extras[EMBEDDING] = embedding_file(network.embed([graph])[0], encoder=name)
    return extras


@cache
def encoder_digest() -> str | None:
    """The sha256 of the weights of the encoder of architectures that an installed package ships; None if there is none."""
    folder = _encoder_folder()
    return None if folder is None else str(document(folder / "config.json").get("sha256"))


@cache
def shipped_encoder() -> "tuple[ArchitectureEncoder, str] | None":
    """The encoder of architectures that an installed package ships, and the sha256 of its weights; None if there is none."""
    folder, digest = _encoder_folder(), encoder_digest()
    if folder is None or digest is None:
        return None
    from nasgraph.retrieve import load_encoder

    return load_encoder(folder), digest


def _encoder_folder() -> Path | None:
    found = (entry.path for entry in builtin_entries().values() if entry.kind == "architecture-encoder")
    return next(found, None)


def embedding_file(vector: Vector, *, encoder: str) -> bytes:
    """The content of `embedding.json`. `encoder` is the sha256 that tells embeddings of different encoders apart."""
    return canonical_json({"encoder": encoder, "vector": [float(value) for value in vector]}).encode()


def embedding_tag(content: bytes) -> str:
    """An embedding as a short text, for a tag: the encoder's first 16 digits, and the numbers in single precision.

    Raises:
        ZooError: If the content is not that of an `embedding.json`.
    """
    try:
        value = parse_json(content, source=EMBEDDING)
    except NasGraphError as error:
        raise ZooError(str(error)) from error
    encoder, vector = (value.get("encoder"), value.get("vector")) if isinstance(value, dict) else (None, None)
    if not isinstance(encoder, str) or not isinstance(vector, list) or not 1 <= len(vector) <= MAX_DIMENSIONS:
        raise ZooError(f"Expected an encoder's hash and a vector in '{EMBEDDING}'")
    numbers = [number for number in vector if isinstance(number, int | float)]
    if len(numbers) < len(vector) or not all(math.isfinite(number) for number in numbers):
        raise ZooError(f"Expected finite numbers in '{EMBEDDING}'")
    packed = base64.b64encode(np.asarray(numbers, dtype="<f4").tobytes()).decode()
    return f"{encoder[:16]}:{packed}"


def read_embedding_tag(tag: str, *, encoder: str) -> Vector | None:
    """The vector of a tag; None if it is of another encoder, or damaged."""
    name, _, packed = tag.partition(":")
    if name != encoder[:16] or len(packed) > 8 * MAX_DIMENSIONS:
        return None
    try:
        vector = np.frombuffer(base64.b64decode(packed, validate=True), dtype="<f4").astype(np.float32)
    except ValueError:
        return None
    return vector if np.isfinite(vector).all() else None
