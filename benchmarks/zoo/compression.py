"""Lossless compression of weights: our packing against the zipnn library, zstd, zlib and plain copies, on real weights.

    python -m benchmarks.zoo.compression [--repeats 5] [--more FOLDER]

Weights: the networks that nasgraph ships (fp32, and cast to bf16 and fp16), convolutional candidates of the space `convnet`
trained here on the digits, and with `--more` every safetensors file below a folder (such as `nasgraph-runs`) as one row.
Large pre-trained networks, as those of timm, could not be reached from where this ran.

Every result is held against the original, bit for bit. All codecs take and give `bytes`, one thread, one process, in turns;
megabytes of the original per second of CPU time, median and quartiles over the repeats, for all files of a group together.
zipnn overwrites its input: it is given a copy, made outside the measured time.
"""

import argparse
import time
import tracemalloc
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
import zipnn
import zstandard
from safetensors.torch import load, save
from torch import Tensor
from torch.nn import functional as F

from benchmarks.common import save as save_result
from nasgraph.data import DataSet, load_dataset
from nasgraph.modelzoo.packing import pack, unpack
from nasgraph.modules import GraphModule, build
from nasgraph.seeding import derive_seed, generator
from nasgraph.spaces import load_space, sample

ZOO = Path(__file__).resolve().parents[2] / "zoo"
PLENTY = 2**32


@dataclass(frozen=True)
class Codec:
    """One way to make bytes smaller, and back."""

    name: str
    compress: Callable[[bytes | bytearray], bytes]
    decompress: Callable[[bytes], bytes]
    overwrites: bool = False


def zipnn_codec(dtype: str) -> Codec:
    """The reference implementation, on one thread."""

    def coder() -> "zipnn.ZipNN":
        return zipnn.ZipNN(bytearray_dtype=dtype, input_format="byte", threads=1)

    def decompress(data: bytes) -> bytes:
        return bytes(coder().decompress(data))

    return Codec("zipnn", lambda data: bytes(coder().compress(data)), decompress, overwrites=True)


def codecs(dtype: str) -> tuple[Codec, ...]:
    """All that are compared, for files whose floating-point tensors have a type."""

    def zstd(level: int) -> Codec:
        return Codec(
            f"zstd-{level}",
            lambda data: zstandard.ZstdCompressor(level=level).compress(data),
            lambda data: zstandard.ZstdDecompressor().decompress(data),
        )

    return (
        Codec("packing", lambda data: pack(bytes(data)), lambda data: unpack(data, most=PLENTY)),
        zipnn_codec(dtype),
        zstd(3),
        zstd(9),
        Codec("zlib-6", lambda data: zlib.compress(data, 6), zlib.decompress),
        Codec("raw", lambda data: bytes(bytearray(data)), lambda data: bytes(bytearray(data))),
    )


def compare(files: Sequence[bytes], dtype: str, *, repeats: int) -> dict[str, object]:
    """Ratio and speed of every codec on a group of files, taken in turns."""
    total = sum(map(len, files))
    everyone = codecs(dtype)
    sizes: dict[str, int] = {}
    seconds: dict[str, list[tuple[float, float]]] = {codec.name: [] for codec in everyone}
    for turn in range(repeats):
        for codec in (*everyone[turn % len(everyone) :], *everyone[: turn % len(everyone)]):
            forth, back, size = 0.0, 0.0, 0
            for data in files:
                given: bytes | bytearray = bytearray(data) if codec.overwrites else data
                started = time.process_time()
                small = codec.compress(given)
                middle = time.process_time()
                again = codec.decompress(small)
                forth, back, size = (
                    forth + middle - started,
                    back + time.process_time() - middle,
                    size + len(small),
                )
                assert again == data, f"{codec.name} is not exact"
            assert sizes.setdefault(codec.name, size) == size, f"{codec.name} is not deterministic"
            seconds[codec.name].append((forth, back))
    rows: dict[str, object] = {}
    for name, times in seconds.items():
        rates = total / 1e6 / np.array(times)
        rows[name] = {
            "ratio": sizes[name] / total,
            "compress_mb_per_s": _spread(rates[:, 0]),
            "decompress_mb_per_s": _spread(rates[:, 1]),
        }
    return {"files": len(files), "bytes": total, "codecs": rows}


def _spread(values: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> dict[str, float]:
    low, median, high = np.percentile(values, [25, 50, 75])
    return {"median": float(median), "q25": float(low), "q75": float(high)}


def cast(data: bytes, dtype: torch.dtype) -> bytes:
    """A safetensors file with its floating-point tensors in another type."""
    state = load(data)
    return save({name: t.to(dtype) if t.is_floating_point() else t for name, t in state.items()})


def trained_networks(data: DataSet, number: int = 4) -> tuple[GraphModule, ...]:
    """Candidates of `convnet` with 50,000 parameters and more after six epochs on the digits."""
    space = load_space("convnet", input_shape=data.input_shape, num_classes=data.num_classes)
    rng = generator(0, "candidates")
    found: list[GraphModule] = []
    while len(found) < number:
        module = build(sample(space, rng).graph, seed=derive_seed(0, "weights", len(found)))
        if 50_000 <= sum(p.numel() for p in module.parameters()) <= 400_000:
            train(module, data, epochs=6, rate=2e-3)
            found.append(module)
    return tuple(found)


def train(module: GraphModule, data: DataSet, *, epochs: int, rate: float) -> None:
    """Adam on the training split, in place; frozen parameters stay."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    optimiser = torch.optim.Adam(parameters, lr=rate)
    split, order = data.search.train, torch.Generator().manual_seed(0)
    module.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(split), generator=order).split(64):
            logits = module(split.inputs[rows])
            assert isinstance(logits, Tensor)
            optimiser.zero_grad()
            loss: Tensor = F.cross_entropy(logits, split.targets[rows])
            torch.autograd.backward(loss)
            optimiser.step()
    module.eval()


def lineage(parent: GraphModule, data: DataSet) -> dict[str, object]:
    """Sizes of children beside their parent: alone, against it, and what zipnn makes of the same XOR."""
    base = save(dict(parent.state_dict()))
    names = [name for name, _ in parent.named_parameters()]
    rows: dict[str, object] = {}
    for label, rate, frozen in (
        ("fine-tuned, rate 1e-5", 1e-5, 0),
        ("fine-tuned, rate 1e-3", 1e-3, 0),
        ("only the last two tensors trained", 1e-3, len(names) - 2),
    ):
        child = build(parent.graph)
        child.load_state_dict(parent.state_dict())
        for name, parameter in child.named_parameters():
            parameter.requires_grad_(name not in names[:frozen])
        train(child, data, epochs=1, rate=rate)
        for kind, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
            old, new = cast(base, dtype), cast(save(dict(child.state_dict())), dtype)
            packed = pack(new, base=old)
            assert unpack(packed, most=len(new), base=old) == new
            xored = (np.frombuffer(old, np.uint8) ^ np.frombuffer(new, np.uint8)).tobytes()
            reference = zipnn_codec(kind)
            theirs = reference.compress(bytearray(xored))
            assert reference.decompress(theirs) == xored
            rows[f"{label}, {kind}"] = {
                "bytes": len(new),
                "alone": len(pack(new)) / len(new),
                "against_parent": len(packed) / len(new),
                "zipnn_of_xor": len(theirs) / len(new),
                "zstd9_of_xor": len(zstandard.ZstdCompressor(level=9).compress(xored)) / len(new),
            }
    return rows


def exponents(files: Sequence[bytes]) -> dict[str, object]:
    """The exponent bytes of fp32 files alone: what coding without repetitions gains over codecs that look for them."""
    tensors = [t.flatten() for file in files for t in load(file).values() if t.dtype == torch.float32]
    plane = ((torch.cat(tensors).view(torch.int32) >> 23) & 255).to(torch.uint8).numpy()
    share = np.bincount(plane, minlength=256) / len(plane)
    data, rows = plane.tobytes(), {}
    deflate = {
        "deflate, Huffman only": zlib.Z_HUFFMAN_ONLY,
        "deflate, runs": zlib.Z_RLE,
        "deflate": zlib.Z_DEFAULT_STRATEGY,
    }
    for name, strategy in deflate.items():
        coder = zlib.compressobj(6, zlib.DEFLATED, -15, zlib.DEF_MEM_LEVEL, strategy)
        rows[name] = len(coder.compress(data) + coder.flush()) / len(data)
    for level in (1, 3, 9):
        rows[f"zstd-{level}"] = len(zstandard.ZstdCompressor(level=level).compress(data)) / len(data)
    entropy = float(-(share[share > 0] * np.log2(share[share > 0])).sum() / 8)
    return {"bytes": len(data), "entropy_of_the_whole": entropy, "ratio": rows}


def memory(data: bytes) -> dict[str, float]:
    """Peak memory beyond the input, in MB, of packing and unpacking."""
    tracemalloc.start()
    packed = pack(data)
    first = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    unpack(packed, most=PLENTY)
    second = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    return {
        "file": len(data) / 1e6,
        "packed": len(packed) / 1e6,
        "pack_peak": first / 1e6,
        "unpack_peak": second / 1e6,
    }


def main() -> None:
    """Compare all codecs on all groups and write the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--more", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data = load_dataset("digits")
    shipped = {path.parent.name: path.read_bytes() for path in sorted(ZOO.glob("*/weights.safetensors"))}
    networks = trained_networks(data)
    trained = [save(dict(module.state_dict())) for module in networks]
    groups: dict[str, object] = {}
    for name, files in (("shipped", list(shipped.values())), ("trained", trained)):
        for kind, dtype in (
            ("float32", torch.float32),
            ("bfloat16", torch.bfloat16),
            ("float16", torch.float16),
        ):
            groups[f"{name}, {kind}"] = compare(
                [cast(f, dtype) for f in files], kind, repeats=arguments.repeats
            )
            print(name, kind, groups[f"{name}, {kind}"], flush=True)
    rows = [path.read_bytes() for path in sorted(ZOO.glob("*/rows.safetensors"))]
    groups["tables of curves, float32"] = compare(rows, "float32", repeats=arguments.repeats)
    if arguments.more:
        found = [path.read_bytes() for path in sorted(arguments.more.rglob("weights.safetensors"))]
        files = [file for file in found if len(file) % 4 == 0]  # zipnn aborts the process on others
        groups["runs, as saved"] = compare(files, "float32", repeats=arguments.repeats)
    each = {name: len(pack(file)) / len(file) for name, file in shipped.items()}
    result: Mapping[str, object] = {
        "packages": {name: version(name) for name in ("zipnn", "zstandard", "safetensors")},
        "zlib": zlib.ZLIB_RUNTIME_VERSION,
        "note": "CPU time on a machine shared with other work; compare codecs within a group. Bit-exactness was asserted",
        "groups": groups,
        "ratio_of_each_shipped_file": each,
        "exponents": exponents(list(shipped.values())),
        "lineage": lineage(networks[0], data),
        "memory_mb": memory(max(shipped.values(), key=len)),
    }
    print(save_result("zoo_compression", result))


if __name__ == "__main__":
    main()
