"""Lossless compression of safetensors files: exponents are squeezed, mantissas are left as they are.

The idea is ZipNN's (Hershcovitch et al. 2024, "ZipNN: Lossless Compression for AI Models", section 3). The exponents of
trained weights are skewed, their mantissas are noise. A value is rotated left by one bit, so that its exponent is one
byte and its sign joins the mantissa; the bytes of the values are split into planes; each plane is coded by its own
statistics, without searching for repetitions, or stored as it is where that would not help.

Why not the `zipnn` library: it needs a compiler to install, overwrites its input, even immutable `bytes`, and aborts the
process on fp32 input whose length is not a multiple of four (0.5.4); and a file that only it can read is lost to whoever
cannot build it. Why not `zstandard`: it would be one more dependency, and the repetitions that it finds among exponents by
chance cost more than they save (0.34 of their size at level 3, against 0.30 here; only its slow levels come level). Huffman
coding alone is in the standard library: deflate with `Z_HUFFMAN_ONLY`, which also fits a new table every 16,384 symbols and
so follows the scale from tensor to tensor. The files are a little smaller than ZipNN's; ZipNN is three times as fast
(`benchmarks/zoo/compression.py`). Data that really repeats itself, such as tables, is better served by zstd.

Format, little-endian. A header: magic, version, number of chunks, size and SHA-256 of the original, SHA-256 of the base (or
zeros). Then the chunks, which follow one another in the original: layout, whether the base was XORed in and from where, size;
and for each plane whether it is deflated and how long it is, then the planes. Readers need nothing of safetensors.

Memory beyond input and result: some 4 MiB, whatever the size of the file.
"""

import io
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from nasgraph.errors import NasGraphError, ZooError
from nasgraph.files import parse_json

MAGIC = b"NASGPACK"
VERSION = 1

Bytes = npt.NDArray[np.uint8]

_HEADER = struct.Struct("<8sHHIQ32s32s")  # magic, version, reserved, chunks, size, sha256, sha256 of the base
_CHUNK = struct.Struct("<BBHIQ")  # layout, whether the base is XORed in, reserved, size, offset in the base
_PLANE = struct.Struct("<BI")  # whether it is deflated, length in the file
_CHUNK_BYTES = 2**20
_MAX_SAFETENSORS_HEADER = 16 * 2**20
_NO_BASE = bytes(32)
_SAMPLE = 8192
_NOISE_BITS = 7.92  # of 8: a plane with more entropy than this is stored


class _Layout(NamedTuple):
    """How the values of a chunk are cut into planes. Floating-point values are rotated."""

    width: int
    rotated: bool


_LAYOUTS = (
    _Layout(1, False),
    _Layout(2, True),
    _Layout(4, True),
    _Layout(8, True),
    _Layout(2, False),
    _Layout(4, False),
    _Layout(8, False),
)
_OF_DTYPE = {
    "BF16": _Layout(2, True),
    "F16": _Layout(2, True),
    "F32": _Layout(4, True),
    "C64": _Layout(4, True),
    "F64": _Layout(8, True),
    "I16": _Layout(2, False),
    "U16": _Layout(2, False),
    "I32": _Layout(4, False),
    "U32": _Layout(4, False),
    "I64": _Layout(8, False),
    "U64": _Layout(8, False),
}
_TEXT = _LAYOUTS[0]


@dataclass(frozen=True, slots=True)
class _Tensor:
    """What the header of a safetensors file says about one tensor; `start` and `stop` count from the file's first byte."""

    name: str
    dtype: str
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class _Chunk:
    """A piece of the original; `base` is where the same piece starts in the base, None if there is no such piece."""

    layout: _Layout
    start: int
    size: int
    base: int | None


@dataclass(frozen=True, slots=True)
class _Plane:
    """One plane of a chunk in the packed file."""

    deflated: bool
    start: int
    length: int


@dataclass(frozen=True, slots=True)
class _Header:
    """The header of a packed file."""

    num_chunks: int
    size: int
    digest: bytes
    base_digest: bytes


def is_packed(start: bytes) -> bool:
    """Whether a file with these first bytes (8 are enough) was written by `pack`. No safetensors file starts like that."""
    return start[: len(MAGIC)] == MAGIC


def packed_base(start: bytes) -> str | None:
    """The SHA-256 of the file that a packed file needs to be unpacked.

    Args:
        start: First bytes of a packed file, at least 88.

    Returns:
        Hexadecimal hash, or None if the file needs no base.

    Raises:
        ZooError: If this is no packed file or one of another version.
    """
    digest = _read_header(start).base_digest
    return None if digest == _NO_BASE else digest.hex()


def pack(data: bytes, *, base: bytes | None = None) -> bytes:
    """Compress a safetensors file without loss.

    Deterministic. The input is only read. With a base, tensors that have the same name, type and size in both files are
    XORed with those of the base where that makes them smaller; a result in which no tensor gained needs no base again.

    Args:
        data: The whole file.
        base: A safetensors file that is close to `data`, such as the checkpoint that it was trained from. It will be
            needed again, bit for bit, to unpack.

    Returns:
        The packed file. At worst it is larger than `data` by 88 bytes, and 56 for each MiB and each change of type.

    Raises:
        ZooError: If `data` or `base` is no complete safetensors file.
    """
    tensors = _tensors(data, "The file to pack")
    other = () if base is None else _tensors(base, "The base")
    view = np.frombuffer(data, np.uint8)
    base_view = None if base is None else np.frombuffer(base, np.uint8)
    out = io.BytesIO()
    out.write(bytes(_HEADER.size))
    num_chunks, uses_base = 0, False
    for chunk in _chunks(tensors, len(data), {(t.name, t.dtype, t.stop - t.start): t.start for t in other}):
        uses_base |= _write_chunk(out, chunk, view, base_view)
        num_chunks += 1
    base_digest = sha256(base).digest() if base is not None and uses_base else _NO_BASE
    out.seek(0)
    out.write(
        _HEADER.pack(MAGIC, VERSION, 0, num_chunks, len(data), sha256(data).digest(), base_digest),
    )
    return out.getvalue()


def unpack(data: bytes, *, most: int, base: bytes | None = None) -> bytes:
    """The file that was packed, bit for bit.

    Everything that the packed file claims (its size, every length, whether lengths this small can hold what they are said to
    hold) is checked before memory is asked for; what came out is held against the SHA-256 of the original.

    Args:
        data: The packed file; may come from a stranger.
        most: Largest size of the original that the caller is ready to hold.
        base: The file that it was packed against. Not looked at if `packed_base` says that none is needed.

    Raises:
        ZooError: If the file is foreign, of another version, truncated, damaged, larger than `most` when unpacked, or needs a
            base that was not given.
    """
    header = _read_header(data)
    if header.size > most:
        raise ZooError(f"Expected weights of at most {most:,} bytes (the packed file claims {header.size:,})")
    base_view = _checked_base(header, base)
    for _ in _packed_chunks(data, header, base_view):  # the claims first: nothing is allocated yet
        pass
    out = io.BytesIO()
    out.seek(header.size - 1)
    out.write(b"\0")
    with out.getbuffer() as buffer:
        _unpack_into(np.frombuffer(buffer, np.uint8), data, header, base_view)
        if sha256(buffer).digest() != header.digest:
            raise ZooError(
                "The packed weights are damaged: what they unpack to does not have its recorded sha256"
            )
    return out.getvalue()


def _unpack_into(result: Bytes, data: bytes, header: _Header, base: Bytes | None) -> None:
    """Decode all chunks into `result`."""
    for chunk, planes in _packed_chunks(data, header, base):
        piece = result[chunk.start : chunk.start + chunk.size]
        piece[:] = _joined([_inflated(data, plane, chunk) for plane in planes], chunk.layout)
        if chunk.base is not None and base is not None:
            piece ^= base[chunk.base : chunk.base + chunk.size]


def _tensors(data: bytes, what: str) -> tuple[_Tensor, ...]:
    """The tensors of a safetensors file by position, none overlapping."""
    length = struct.unpack_from("<Q", data)[0] if len(data) >= 8 else 0
    if not 2 <= length <= min(_MAX_SAFETENSORS_HEADER, len(data) - 8):
        raise ZooError(
            f"{what} is no complete safetensors file: its header claims {length:,} of {len(data):,} bytes"
        )
    try:
        header = parse_json(
            data[8 : 8 + length], source=f"the safetensors header of {what[0].lower()}{what[1:]}"
        )
    except NasGraphError as error:
        raise ZooError(str(error)) from error
    if not isinstance(header, dict):
        raise ZooError(f"The safetensors header of {what[0].lower()}{what[1:]} is not an object")
    found = []
    for name, claim in header.items():
        if name != "__metadata__":
            match claim:
                case {"dtype": str(dtype), "data_offsets": [int(start), int(stop)]}:
                    found.append(_Tensor(name, dtype, 8 + length + start, 8 + length + stop))
                case _:
                    raise ZooError(f"{what} does not say what its tensor '{name:.80}' is")
    position = 8 + length
    for tensor in sorted(found, key=lambda t: (t.start, t.stop)):
        if not position <= tensor.start <= tensor.stop <= len(data):
            raise ZooError(
                f"{what} claims that its tensor '{tensor.name:.80}' lies where no bytes for it are"
            )
        position = tensor.stop
    return tuple(sorted(found, key=lambda t: (t.start, t.stop)))


def _chunks(
    tensors: Sequence[_Tensor], size: int, in_base: Mapping[tuple[str, str, int], int]
) -> Iterator[_Chunk]:
    """Cut a file into pieces of one layout; neighbours that also are neighbours in the base share one."""
    runs: list[_Chunk] = []

    def extend(layout: _Layout, start: int, stop: int, base: int | None) -> None:
        last = runs[-1] if runs else None
        if start == stop:
            return
        if last is not None and last.layout == layout and base == _end_in_base(last):
            runs[-1] = _Chunk(layout, last.start, stop - last.start, last.base)
            return
        runs.append(_Chunk(layout, start, stop - start, base))

    position = 0
    for tensor in tensors:
        extend(_TEXT, position, tensor.start, None)
        layout, length = _OF_DTYPE.get(tensor.dtype, _TEXT), tensor.stop - tensor.start
        base = in_base.get((tensor.name, tensor.dtype, length))
        extend(layout if length % layout.width == 0 else _TEXT, tensor.start, tensor.stop, base)
        position = tensor.stop
    extend(_TEXT, position, size, None)
    for run in runs:
        for offset in range(0, run.size, _CHUNK_BYTES):
            base = None if run.base is None else run.base + offset
            yield _Chunk(run.layout, run.start + offset, min(_CHUNK_BYTES, run.size - offset), base)


def _end_in_base(chunk: _Chunk) -> int | None:
    return None if chunk.base is None else chunk.base + chunk.size


def _write_chunk(out: io.BytesIO, chunk: _Chunk, view: Bytes, base_view: Bytes | None) -> bool:
    """Append a chunk; returns whether the base was used."""
    piece = view[chunk.start : chunk.start + chunk.size]
    planes, use_base = _split(piece, chunk.layout), False
    if chunk.base is not None and base_view is not None:
        changed = _split(piece ^ base_view[chunk.base : chunk.base + chunk.size], chunk.layout)
        use_base = sum(map(_entropy, changed)) < sum(map(_entropy, planes))
        planes = changed if use_base else planes
    coded = [_deflated(plane, chunk.layout) for plane in planes]
    offset = chunk.base if use_base and chunk.base is not None else 0
    out.write(_CHUNK.pack(_LAYOUTS.index(chunk.layout), use_base, 0, chunk.size, offset))
    for plane, code in zip(planes, coded, strict=True):
        out.write(_PLANE.pack(code is not None, len(plane) if code is None else len(code)))
    for plane, code in zip(planes, coded, strict=True):
        out.write(plane.data if code is None else code)
    return use_base


def _split(piece: Bytes, layout: _Layout) -> list[Bytes]:
    """Planes of the values in a piece, the least significant byte first."""
    if layout.width == 1:
        return [piece]
    unsigned = np.dtype(f"<u{layout.width}")
    bits = unsigned.type
    values = piece.view(unsigned)
    if layout.rotated:
        values = (values << bits(1)) | (values >> bits(8 * layout.width - 1))
    return [(values >> bits(8 * byte)).astype(np.uint8) for byte in range(layout.width)]


def _joined(planes: Sequence[Bytes], layout: _Layout) -> Bytes:
    """Undo `_split`."""
    if layout.width == 1:
        return planes[0]
    unsigned = np.dtype(f"<u{layout.width}")
    bits = unsigned.type
    interleaved = np.empty((len(planes[0]), layout.width), np.uint8)
    for byte, plane in enumerate(planes):
        interleaved[:, byte] = plane
    values = interleaved.view(unsigned)[:, 0]
    if layout.rotated:
        values = (values >> bits(1)) | (values << bits(8 * layout.width - 1))
    return values.view(np.uint8)


def _frequencies(plane: Bytes) -> npt.NDArray[np.float64]:
    """How often each byte value stands in a sample of a plane; the stride is odd, so no row length hides a pattern."""
    sample = plane[:: max(1, len(plane) // _SAMPLE) | 1]
    return np.bincount(sample, minlength=256) / max(len(sample), 1)


def _entropy(plane: Bytes) -> float:
    """Bits per byte, estimated from a sample, with the correction of Miller and Madow (1955) for its size."""
    share = _frequencies(plane)
    share = share[share > 0]
    bias = (len(share) - 1) / (2 * min(len(plane), _SAMPLE) * np.log(2)) if len(plane) else 0.0
    return min(8.0, float(-(share * np.log2(share)).sum() + bias))


def _deflated(plane: Bytes, layout: _Layout) -> bytes | None:
    """The coded plane; None if it is better stored."""
    if _entropy(plane) > _NOISE_BITS and len(plane) > _SAMPLE:
        return None
    if not layout.rotated:
        strategies = [zlib.Z_DEFAULT_STRATEGY]
    elif _frequencies(plane).max() >= 0.5:  # runs of one value, as of zeros, may cost nearly nothing
        strategies = [zlib.Z_RLE, zlib.Z_HUFFMAN_ONLY]
    else:
        strategies = [zlib.Z_HUFFMAN_ONLY]
    code = min((_coded(plane, strategy) for strategy in strategies), key=len)
    return code if len(code) < len(plane) else None


def _coded(plane: Bytes, strategy: int) -> bytes:
    """A plane by one of deflate's strategies."""
    coder = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, strategy)
    return coder.compress(plane.data) + coder.flush()


def _read_header(data: bytes) -> _Header:
    """Check and read the header."""
    if not is_packed(data):
        raise ZooError("These are no packed weights: the file does not start as one")
    if len(data) < _HEADER.size:
        raise ZooError(
            f"The packed weights are truncated: {len(data)} bytes, less than a header of {_HEADER.size}"
        )
    _, version, reserved, num_chunks, size, digest, base_digest = _HEADER.unpack_from(data)
    if version != VERSION or reserved:
        raise ZooError(
            f"Expected packed weights of version {VERSION} (got {version}). A newer nasgraph may read them"
        )
    return _Header(num_chunks, size, digest, base_digest)


def _checked_base(header: _Header, base: bytes | None) -> Bytes | None:
    """The base that the file needs, or None if it needs none."""
    if header.base_digest == _NO_BASE:
        return None
    expected = header.base_digest.hex()
    if base is None:
        raise ZooError(
            f"The weights were packed against a base, which is needed too: the file with sha256 {expected}"
        )
    got = sha256(base).hexdigest()
    if got != expected:
        raise ZooError(f"Expected the base with sha256 {expected[:16]}... (got {got[:16]}...)")
    return np.frombuffer(base, np.uint8) if base else np.empty(0, np.uint8)


def _packed_chunks(
    data: bytes, header: _Header, base: Bytes | None
) -> Iterator[tuple[_Chunk, tuple[_Plane, ...]]]:
    """The chunks of a packed file with their planes, every claim checked."""
    position, start = _HEADER.size, 0
    try:
        for _ in range(header.num_chunks):
            number, xored, reserved, size, offset = _CHUNK.unpack_from(data, position)
            position += _CHUNK.size
            if number >= len(_LAYOUTS) or xored > 1 or reserved or not 0 < size <= _CHUNK_BYTES:
                raise ZooError("The packed weights are damaged: a chunk of an unknown form")
            layout = _LAYOUTS[number]
            lengths = [_PLANE.unpack_from(data, position + i * _PLANE.size) for i in range(layout.width)]
            position += layout.width * _PLANE.size
            planes = []
            for deflated, length in lengths:
                _check_plane(deflated, length, size, layout)
                planes.append(_Plane(bool(deflated), position, length))
                position += length
            if offset + size > (len(base) if xored and base is not None else size):
                raise ZooError("The packed weights are damaged: a chunk refers to more base than there is")
            if position > len(data) or start + size > header.size:
                raise ZooError("The packed weights are damaged: a chunk is longer than the file")
            yield _Chunk(layout, start, size, offset if xored and base is not None else None), tuple(planes)
            start += size
    except struct.error as error:
        raise ZooError("The packed weights are truncated: chunks are missing") from error
    if not 0 < start == header.size or position != len(data):
        raise ZooError("The packed weights are damaged: their chunks do not add up to their size")


def _check_plane(deflated: int, length: int, size: int, layout: _Layout) -> None:
    """Refuse lengths that cannot hold a plane: deflate shrinks 1,032-fold at most."""
    plane = size // layout.width
    fits = length == plane if deflated == 0 else length < plane <= 1032 * length
    if size % layout.width or deflated > 1 or not fits:
        raise ZooError("The packed weights are damaged: a plane has an impossible length")


def _inflated(data: bytes, plane: _Plane, chunk: _Chunk) -> Bytes:
    """One plane, decoded. No more is decoded than it should hold."""
    code = memoryview(data)[plane.start : plane.start + plane.length]
    if not plane.deflated:
        return np.frombuffer(code, np.uint8)
    expected = chunk.size // chunk.layout.width
    decoder = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        decoded = decoder.decompress(code, expected + 1)
    except zlib.error as error:
        raise ZooError(f"The packed weights are damaged: {error}") from error
    if len(decoded) != expected or not decoder.eof or decoder.unused_data:
        raise ZooError("The packed weights are damaged: a plane does not have its length")
    return np.frombuffer(decoded, np.uint8)
