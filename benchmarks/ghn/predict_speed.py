"""CPU seconds and extra memory to predict the parameters of known networks, beside a naive reference and GHN-3.

    python -m benchmarks.ghn.predict_speed [--peers FOLDER] [--only resnet50,...]

Everything runs in one process on one thread, interleaved: round after round, each method once. Graphs are encoded
beforehand. "in place" writes to tensors that are there already (`predict(out=...)`), as the peer sets the weights of a
module that exists; "new" allocates them. The error is the largest difference to the naive reference over all
tensors, relative to the tensor's root mean square.

`--peers` is a folder outside the checkout with `ghn3/` and `ppuda/` (the repositories SamsungSAILMontreal/ghn3 and
facebookresearch/ppuda) and `site/` with what they import (torchvision, joblib, h5py, huggingface_hub, einops); the CPU
build of torch lacks two operators that torchvision expects, which are declared here without a body.
"""

import argparse
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from math import prod
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import save
from benchmarks.ghn.measure import Measured, interleaved, limits, peak_extra_mib
from benchmarks.ghn.naive import predict_naively
from benchmarks.ghn.networks import deep_convnet, gpt2, resnet50, vit_small
from nasgraph.encode import EncodedGraph, encode
from nasgraph.hyper import GHNConfig, GraphHyperNetwork, Parameters
from nasgraph.ir import ComputationalGraph

TINY = GHNConfig(dim=64, num_layers=3, num_heads=8)
TINY_CONV = GHNConfig(dim=64, num_layers=3, num_heads=8, decoder="conv", decoder_hidden=256, max_kernel=16)
LARGE = GHNConfig(dim=256, num_layers=12, num_heads=16, decoder_hidden=256, max_size=256)
LARGE_CONV = GHNConfig(
    dim=256, num_layers=12, num_heads=16, decoder="conv", decoder_hidden=1024, max_size=256, max_kernel=16
)
LOW_RANK = GHNConfig(
    dim=64, num_layers=3, num_heads=8, decoder="low_rank", rank=32, max_low_rank=32768, max_kernel=16
)


@dataclass(frozen=True)
class Case:
    """One network and one hypernetwork. `peer` is the width, heads and layers of the GHN-3 beside it."""

    graph: Callable[[], ComputationalGraph]
    num_parameters: int
    config: GHNConfig
    peer: tuple[int, int, int] | None = None
    repeats: int = 9


CASES: Mapping[str, Case] = {
    "resnet50, tiny": Case(resnet50, 25_557_032, TINY, repeats=15),
    "resnet50, tiny, conv decoder (GHN-3-T)": Case(resnet50, 25_557_032, TINY_CONV, (64, 8, 3), repeats=15),
    "resnet50, large": Case(resnet50, 25_557_032, LARGE),
    "resnet50, large, conv decoder (GHN-3-L)": Case(
        resnet50, 25_557_032, LARGE_CONV, (256, 16, 12), repeats=5
    ),
    "convnet of 800 nodes, tiny": Case(deep_convnet, 66_953_128, TINY),
    "vit-s, low rank": Case(vit_small, 22_050_664, LOW_RANK),
    "gpt2-small, low rank": Case(gpt2, 124_439_808, LOW_RANK, repeats=5),
    "gpt2-medium, low rank": Case(
        lambda: gpt2(depth=24, dim=1024, heads=16), 354_823_168, LOW_RANK, repeats=5
    ),
}


def relative_error(ours: Parameters, reference: Parameters) -> dict[str, float]:
    """Over all tensors: the largest, and the largest root mean square, relative to the tensor's root mean square."""
    assert list(ours) == list(reference)
    largest, typical = 0.0, 0.0
    for name, tensor in ours.items():
        size = reference[name].square().mean().sqrt().clamp(1e-8)
        difference = tensor - reference[name]
        largest = max(largest, float(difference.abs().max() / size))
        typical = max(typical, float(difference.square().mean().sqrt() / size))
    return {"largest": largest, "root mean square": typical}


def measure(case: Case, peer: Callable[[], object] | None) -> dict[str, object]:
    graph = case.graph()
    encoded = encode(graph)
    size = sum(prod(slot.shape) for slot in encoded.slots)
    assert size == case.num_parameters, size
    ghn = GraphHyperNetwork(case.config).eval()
    (out,) = ghn.predict([encoded])
    reference = predict_naively(ghn, encoded)
    errors = {"fp32": relative_error(out, reference)}
    for tensor in out.values():
        tensor.fill_(torch.nan)  # so that an element that is not written is found
    ghn.predict([encoded], dtype=torch.bfloat16, out=[out])
    errors["bf16"] = relative_error(out, reference)
    del reference
    methods = _methods(ghn, encoded, out)
    if peer is not None:
        methods["ghn3"] = peer
    times = interleaved(methods, repeats=case.repeats)
    memory: Measured = {name: peak_extra_mib(method) for name, method in methods.items()}
    ours = times["in place, fp32"]["median s"]
    assert ours is not None
    return {
        "nodes": len(graph),
        "parameters": size,
        "share of the elements predicted": sum(tensor.numel() for tensor in out.values()) / size,
        "hypernetwork's parameters": sum(parameter.numel() for parameter in ghn.parameters()),
        "result MiB": 4 * size / 2**20,
        "repeats": case.repeats,
        "CPU seconds": times,
        "peak extra MiB": memory,
        "relative error": errors,
        "times as fast as": {
            name: (time["median s"] or 0) / ours for name, time in times.items() if name in ("naive", "ghn3")
        },
    }


def _methods(
    ghn: GraphHyperNetwork, encoded: EncodedGraph, out: Parameters
) -> dict[str, Callable[[], object]]:
    return {
        "in place, fp32": lambda: ghn.predict([encoded], out=[out]),
        "in place, bf16": lambda: ghn.predict([encoded], out=[out], dtype=torch.bfloat16),
        "new, fp32": lambda: ghn.predict([encoded]),
        "naive": lambda: predict_naively(ghn, encoded),
    }


def load_peer(folder: Path) -> Callable[[tuple[int, int, int]], Callable[[], object]]:
    """GHN-3 of the research code, with random weights, that sets the parameters of torchvision's ResNet-50."""
    sys.path[:0] = [str(folder / name) for name in ("site", "ghn3", "ppuda")]
    library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]  # torch leaves it untyped
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")  # type: ignore[no-untyped-call]  # here too
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module: Any = import_module("torchvision.models").resnet50()
        ghn3 = import_module("ghn3.nn")

    graphs = ghn3.GraphBatch([ghn3.Graph(module)], dense=True)

    def make(shape: tuple[int, int, int]) -> Callable[[], object]:
        dim, heads, layers = shape
        ghn: Any = ghn3.GHN3(
            max_shape=(dim, dim, 16, 16), num_classes=1000, hid=dim, heads=heads, layers=layers,
            weight_norm=True, ve=True, layernorm=True,
        ).eval()  # fmt: skip

        def run() -> object:
            with torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # deprecated parts of torch
                return ghn(module, graphs, bn_track_running_stats=True)

        run.library = library  # type: ignore[attr-defined]  # the declarations live as long as this object
        return run

    return make


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peers", type=Path)
    parser.add_argument("--only", default="", help="measure cases whose name starts so, and write no file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    make_peer = load_peer(arguments.peers) if arguments.peers else None
    result: dict[str, object] = {"threads": 1, "limits before": limits()}
    for name, case in CASES.items():
        if not name.startswith(arguments.only):
            continue
        peer = make_peer(case.peer) if make_peer is not None and case.peer is not None else None
        result[name] = measure(case, peer)
        print(name, result[name], flush=True)
    result["limits after"] = limits()
    if not arguments.only:
        print(save("ghn_predict_speed", result).read_text())


if __name__ == "__main__":
    main()
