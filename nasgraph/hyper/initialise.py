"""Predicted parameters for a user's own module."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from nasgraph.modules import TracedGraph, trace
from nasgraph.modules.trace import ExampleInputs

if TYPE_CHECKING:
    from nasgraph.hyper.ghn import GraphHyperNetwork


@dataclass(frozen=True)
class Initialisation:
    """What a hypernetwork predicted for a module.

    Attributes:
        parameters: Every parameter that an output depends on, by the module's names and in its shapes and types.
        kept: Parameters that no output depends on; they keep the values that they had.
        traced: The graph that the prediction was made from.
    """

    parameters: dict[str, Tensor]
    kept: tuple[str, ...]
    traced: TracedGraph


@torch.no_grad()
def initialise(
    ghn: "GraphHyperNetwork",
    module: nn.Module,
    example_inputs: ExampleInputs,
    *,
    inplace: bool = False,
    orthogonal: bool = False,
    noise: float = 0.0,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Initialisation:
    """Predict the parameters of any module from its graph.

    Each parameter that an output depends on is predicted once, with its exact shape; tied parameters once for all
    their names. Buffers (running statistics among them) are left alone.

    Args:
        ghn: The hypernetwork, on any device.
        module: Any module that `trace` can read.
        example_inputs: See `trace`.
        inplace: Write the parameters into the module, in its types and on its devices. Otherwise it is not touched.
        orthogonal: Replace weights by the nearest (semi-)orthogonal matrices of the same norm, see `orthogonalise`.
        noise: Standard deviation of normal noise added to weights, relative to each weight's root mean square. Tiled
            weights repeat themselves; noise lets training tell the copies apart.
        seed: Seed of the noise.
        dtype: Precision of the decoder's large products, see `GraphHyperNetwork.predict`.

    Raises:
        TraceError, UnsupportedOpError: If the module cannot be traced. Nothing has been changed then.
        ValueError: If `noise` is negative.
    """
    if noise < 0:
        raise ValueError(f"Expected 'noise' of at least 0 (got {noise})")
    traced = trace(module, example_inputs)
    targets = traced.from_module(module) if inplace else None
    (predicted,) = ghn.predict([traced.graph], dtype=dtype, out=None if targets is None else [targets])
    if orthogonal or noise:
        generator = torch.Generator().manual_seed(seed)
        for name, spec in traced.graph.parameters.items():
            if spec.role == "weight" and len(spec.shape) > 1:
                changed = _diversify(predicted[name], orthogonal=orthogonal, noise=noise, generator=generator)
                predicted[name].copy_(changed)
    own = dict(module.named_parameters())
    parameters = {
        name: tensor.to(own[name].dtype).contiguous() for name, tensor in traced.to_module(predicted).items()
    }
    return Initialisation(parameters=parameters, kept=traced.unused, traced=traced)


def _diversify(weight: Tensor, *, orthogonal: bool, noise: float, generator: torch.Generator) -> Tensor:
    result = orthogonalise(weight.float()) if orthogonal else weight.float()
    if noise:
        scale = noise * result.square().mean().sqrt()
        drawn = torch.randn(result.shape, generator=generator)  # on the CPU: the same on every device
        result = result + scale * drawn.to(result.device)
    return result


def orthogonalise(weight: Tensor) -> Tensor:
    """The (semi-)orthogonal matrix nearest to a weight, scaled to the weight's Frobenius norm.

    A weight `[outputs, ...]` counts as the matrix `[outputs, inputs x positions]`. Its polar factor `U V^T`, from the
    singular value decomposition `U S V^T`, is the nearest in Frobenius norm (Higham 1986, "Computing the polar
    decomposition"). Predicted weights are tiled or of low rank: their singular values are few, and this spreads them.
    Where the rank is deficient, the singular vectors of the value zero complete the basis.
    """
    matrix = weight.flatten(1)
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    factor = left @ right
    result: Tensor = (factor * (matrix.norm() / factor.norm().clamp(min=1e-12))).reshape(weight.shape)
    return result
