"""Graph hypernetworks: networks that read computational graphs and predict their parameters."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nasgraph.encode import EncodedGraph, GraphBatch, batch_graphs
from nasgraph.errors import ConfigError
from nasgraph.hyper.decoder import TensorDecoder
from nasgraph.hyper.encoders import GatedEncoder, TransformerEncoder
from nasgraph.ir import ComputationalGraph

Parameters = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class GHNConfig:
    """Shape of a graph hypernetwork.

    Attributes:
        encoder: "transformer" (GHN-3, Knyazev et al. 2023) or "gated" (GHN-2, Knyazev et al. 2021).
        dim: Size of a node state.
        num_layers: Attention layers, or passes of the gated network.
        num_heads: Attention heads; without effect for "gated".
        decoder_hidden: Channels per spatial position in the decoder.
        max_size: Outputs and inputs of a decoded block; wider tensors are tiled.
        max_kernel: Height and width of a decoded block.
        mip: Magnitude-invariant input of the decoder (Ortiz et al. 2023).
    """

    encoder: Literal["transformer", "gated"] = "transformer"
    dim: int = 64
    num_layers: int = 3
    num_heads: int = 8
    decoder_hidden: int = 64
    max_size: int = 64
    max_kernel: int = 7
    mip: bool = False

    def __post_init__(self) -> None:
        if self.encoder not in ("transformer", "gated"):
            raise ConfigError(f"Expected 'encoder' to be 'transformer' or 'gated' (got {self.encoder!r})")
        for name, value in asdict(self).items():
            if isinstance(value, int) and not isinstance(value, bool) and not 1 <= value <= 4096:
                raise ConfigError(f"Expected '{name}' between 1 and 4096 (got {value})")
        if self.encoder == "transformer" and self.dim % self.num_heads:
            raise ConfigError(f"Expected 'num_heads' to divide 'dim' (got {self.num_heads} and {self.dim})")


class GraphHyperNetwork(nn.Module):
    """Predicts all parameters of networks it has never seen, from their graphs.

    Guaranteed: every parameter of every graph is predicted once, with its exact shape; the order of a graph's nodes
    has no influence; a graph's prediction does not depend on the others in its batch (up to rounding).

    Args:
        config: Shape of the network.
        seed: Seed of its initial parameters. Torch's global generator is left as it was.
    """

    def __init__(self, config: GHNConfig, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        with torch.random.fork_rng(devices=[]):  # torch's layers can only draw from the global generator
            torch.default_generator.manual_seed(seed)  # `torch.manual_seed` would seed the GPUs too
            self.encoder: nn.Module
            if config.encoder == "transformer":
                self.encoder = TransformerEncoder(
                    config.dim, num_layers=config.num_layers, num_heads=config.num_heads
                )
            else:
                self.encoder = GatedEncoder(config.dim, num_rounds=config.num_layers)
            self.decoder = TensorDecoder(
                config.dim,
                hidden=config.decoder_hidden,
                max_size=config.max_size,
                max_kernel=config.max_kernel,
                mip=config.mip,
            )

    @property
    def device(self) -> torch.device:
        """Where the parameters live."""
        return next(self.parameters()).device

    def forward(self, graphs: GraphBatch) -> tuple[Parameters, ...]:
        """Predict parameters.

        Args:
            graphs: Batch of graphs on this network's device.

        Returns:
            For each graph a dictionary with the names of `ComputationalGraph.parameters`, differentiable.
        """
        state_BND = self.encoder(graphs)
        owners = [(b, slot.node) for b, slots in enumerate(graphs.slots) for slot in slots]
        if not owners:
            return tuple({} for _ in graphs.slots)
        rows = torch.tensor(owners, device=state_BND.device)
        slots = [slot for slots in graphs.slots for slot in slots]
        tensors = iter(self.decoder(state_BND[rows[:, 0], rows[:, 1]], slots))
        return tuple({slot.name: next(tensors) for slot in slots} for slots in graphs.slots)

    def embed(self, graphs: GraphBatch) -> Float[Tensor, "graphs dim"]:
        """One vector per graph: the mean of its node states."""
        state_BND = self.encoder(graphs)
        weight_BN1 = graphs.mask_BN.unsqueeze(-1).to(state_BND.dtype)
        mean_BD: Tensor = (state_BND * weight_BN1).sum(1) / weight_BN1.sum(1)
        return mean_BD

    def predict(self, graphs: Sequence[ComputationalGraph | EncodedGraph]) -> tuple[Parameters, ...]:
        """Predict parameters without gradients, on this network's device."""
        with torch.no_grad():
            result: tuple[Parameters, ...] = self(batch_graphs(graphs).to(self.device))
        return result
