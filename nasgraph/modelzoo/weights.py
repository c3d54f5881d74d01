"""Reading safetensors that may come from a stranger: every claim is checked before a tensor is made."""

import json
import struct
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

import safetensors
import torch
from safetensors.torch import load
from torch import Tensor, nn

from nasgraph.errors import NasGraphError, ZooError
from nasgraph.files import parse_json
from nasgraph.modelzoo.packing import is_packed, unpack

MAX_WEIGHTS_BYTES = 16 * 2**30
MAX_HEADER_BYTES = 16 * 2**20

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
}


def read_weights(path: Path, module: nn.Module, *, sha256_expected: str) -> dict[str, Tensor]:
    """Read the state of a module from a safetensors file, packed or not.

    Guaranteed: the bytes that were hashed, unpacked, are the bytes that were read; names, shapes and types are exactly those of
    `module.state_dict()`; nothing is unpickled; no more memory is used than three times what the module needs.

    Args:
        path: The file.
        module: What the weights must fit; may be on the meta device.
        sha256_expected: Hash of the file, from the card.

    Returns:
        Tensors by name, on the CPU.

    Raises:
        ZooError: If the file is missing, has another hash, is a pickle, is truncated, lies about its size, or does
            not fit.
    """
    state = module.state_dict()
    expected_bytes = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    most = min(expected_bytes + MAX_HEADER_BYTES + 8, MAX_WEIGHTS_BYTES)
    data = _bytes(path, most=most)
    if is_packed(data[:16]):
        data = unpack(data, most=most)
    _refuse_pickle(data[:8], path)
    digest = sha256(data).hexdigest()
    if digest != sha256_expected:
        raise ZooError(
            f"'{path}' was changed: expected sha256 {sha256_expected[:16]}... as in its card (got {digest[:16]}...)"
        )
    _check_header(data, state, path)
    try:
        tensors: dict[str, Tensor] = load(data)
    except safetensors.SafetensorError as error:
        raise ZooError(f"'{path}' is no complete safetensors file: {error}") from error
    return tensors


def _bytes(path: Path, *, most: int) -> bytes:
    try:
        size = path.stat().st_size
        if size > most:
            raise ZooError(f"Expected at most {most:,} bytes in '{path}', by its graph (got {size:,})")
        return path.read_bytes()
    except OSError as error:
        raise ZooError(f"Cannot read the weights '{path}': {error.strerror or error}") from error


def _refuse_pickle(start: bytes, path: Path) -> None:
    if (
        start[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
        and len(start) > 2
        and start[2:3] in b"}c(]XK\x95\x8a"
    ):
        raise ZooError(f"'{path}' is a pickle, not safetensors. Pickles can run code and are never loaded")
    if start[:4] == b"PK\x03\x04":
        raise ZooError(f"'{path}' is a zip archive with a pickle, as torch.save writes it, not safetensors")


def _check_header(data: bytes, state: Mapping[str, Tensor], path: Path) -> None:
    """Compare what the file claims to hold with what the module has."""
    length = struct.unpack("<Q", data[:8])[0] if len(data) >= 8 else 0
    if not 2 <= length <= min(MAX_HEADER_BYTES, len(data) - 8):
        raise ZooError(
            f"'{path}' is no complete safetensors file: its header claims {length:,} of {len(data):,} bytes"
        )
    try:
        header = parse_json(data[8 : 8 + length], source=f"the header of '{path}'")
    except NasGraphError as error:
        raise ZooError(str(error)) from error
    if not isinstance(header, dict):
        raise ZooError(f"The header of '{path}' is not an object")
    header.pop("__metadata__", None)
    missing, unknown = sorted(set(state) - set(header)), sorted(set(header) - set(state))
    if missing or unknown:
        problem = (
            f"lacks '{missing[0]}'" if missing else f"has '{unknown[0]:.80}', which the graph does not have"
        )
        raise ZooError(f"The weights in '{path}' do not fit the graph: the file {problem}")
    for name, tensor in state.items():
        claim = header[name]
        shape, dtype = (claim.get("shape"), claim.get("dtype")) if isinstance(claim, dict) else (None, None)
        if shape != list(tensor.shape) or not isinstance(dtype, str) or _DTYPES.get(dtype) != tensor.dtype:
            got = json.dumps([dtype, shape])[:120]
            raise ZooError(
                f"The weights in '{path}' do not fit the graph: expected '{name}' as {tensor.dtype} of shape "
                f"{list(tensor.shape)} (got {got})"
            )
