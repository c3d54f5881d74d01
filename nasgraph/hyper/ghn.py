"""Graph hypernetworks: networks that read computational graphs and predict their parameters."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nasgraph.encode import EncodedGraph, GraphBatch, ParameterSlot, batch_graphs, encode
from nasgraph.errors import ConfigError
from nasgraph.hyper.decoder import TensorDecoder
from nasgraph.hyper.encoders import GatedEncoder, TransformerEncoder
from nasgraph.hyper.initialise import Initialisation, initialise
from nasgraph.hyper.layout import WORKSPACE_BYTES
from nasgraph.hyper.low_rank import LowRankDecoder
from nasgraph.ir import ComputationalGraph
from nasgraph.modules.trace import ExampleInputs

Parameters = dict[str, Tensor]
DECODERS = ("tiled", "conv", "low_rank")
MAX_BATCH_PAIRS = 2**23
"""Pairs of nodes, padding included, that one batch of `predict` holds; a larger graph is a batch of its own."""


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
        decoder: "tiled" (one product gives a block), "conv" (one more layer between, as in GHN-2 and GHN-3) or
            "low_rank" (LoGAH, Zhou et al. 2024), which tiles nothing up to `max_low_rank` outputs and inputs.
        rank: Rank of the matrices; without effect unless the decoder is "low_rank".
        max_low_rank: Largest width that "low_rank" does not tile.
        virtual_edges: Whether "gated" passes messages along virtual edges (GHN-2) or not (GHN-1, Zhang et al. 2019).
            A transformer attends to all nodes anyway.
    """

    encoder: Literal["transformer", "gated"] = "transformer"
    dim: int = 64
    num_layers: int = 3
    num_heads: int = 8
    decoder_hidden: int = 64
    max_size: int = 64
    max_kernel: int = 7
    mip: bool = False
    decoder: Literal["tiled", "conv", "low_rank"] = "tiled"
    rank: int = 32
    max_low_rank: int = 8192
    virtual_edges: bool = True

    def __post_init__(self) -> None:
        if self.encoder not in ("transformer", "gated"):
            raise ConfigError(f"Expected 'encoder' to be 'transformer' or 'gated' (got {self.encoder!r})")
        if self.encoder == "transformer" and not self.virtual_edges:
            raise ConfigError("'virtual_edges' can be left out of the encoder 'gated' only")
        if self.decoder not in DECODERS:
            raise ConfigError(
                f"Expected 'decoder' to be one of {', '.join(map(repr, DECODERS))} (got {self.decoder!r})"
            )
        for name, value in asdict(self).items():
            largest = 2**20 if name == "max_low_rank" else 4096
            if isinstance(value, int) and not isinstance(value, bool) and not 1 <= value <= largest:
                raise ConfigError(f"Expected '{name}' between 1 and {largest} (got {value})")
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
                self.encoder = GatedEncoder(
                    config.dim, num_rounds=config.num_layers, virtual_edges=config.virtual_edges
                )
            self.decoder = _make_decoder(config)

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

    @torch.no_grad()
    def predict(
        self,
        graphs: Sequence[ComputationalGraph | EncodedGraph],
        *,
        dtype: torch.dtype = torch.float32,
        max_bytes: int | None = None,
        out: Sequence[Mapping[str, Tensor]] | None = None,
    ) -> tuple[Parameters, ...]:
        """Predict parameters without gradients, on this network's device.

        Beyond the parameters it needs a few MiB, whatever their size: graphs are batched by their number of nodes, and
        blocks are tiled where they are written. Memory and time are proportional to the nodes, also of a graph of
        50,000: about 10 KiB per node and, with a small hypernetwork, seconds (see `TransformerEncoder` for what is exact).

        Args:
            graphs: Any number of graphs.
            dtype: Precision of the decoder's large products; `torch.bfloat16` is two to three times as fast for wide
                decoders and adds a relative error of about 0.5 %. Parameters have this network's precision.
            max_bytes: Memory for products before they are written; default 8 MiB. One block is always made whole.
            out: For each graph tensors to write to, by name: of the right shape, of any floating type, on any
                device, contiguous or not. So weights can be predicted into a module that is there already.

        Returns:
            For each graph a dictionary with the names of `ComputationalGraph.parameters`, in their order; of the
            tensors in `out` where these are given.

        Raises:
            ValueError: If `out` lacks a parameter or has it in another shape.
        """
        if out is not None and len(out) != len(graphs):
            raise ValueError(
                f"Expected as many mappings in 'out' as graphs (got {len(out)} and {len(graphs)})"
            )
        encoded = [graph if isinstance(graph, EncodedGraph) else encode(graph) for graph in graphs]
        results: list[Parameters] = [{} for _ in encoded]
        for rows in _batches([len(graph) for graph in encoded]):
            batch = batch_graphs([encoded[row] for row in rows])
            wanted = [None if out is None else out[row] for row in rows]
            for row, parameters in zip(rows, self._write(batch, wanted, dtype, max_bytes), strict=True):
                results[row] = parameters
        return tuple(results)

    def initialise(
        self,
        module: nn.Module,
        example_inputs: ExampleInputs,
        *,
        inplace: bool = False,
        orthogonal: bool = False,
        noise: float = 0.0,
        seed: int = 0,
    ) -> Initialisation:
        """Predict the parameters of any module. See `nasgraph.hyper.initialise`."""
        return initialise(
            self, module, example_inputs, inplace=inplace, orthogonal=orthogonal, noise=noise, seed=seed
        )

    def _write(
        self,
        batch: GraphBatch,
        wanted: Sequence[Mapping[str, Tensor] | None],
        dtype: torch.dtype,
        max_bytes: int | None,
    ) -> list[Parameters]:
        own = next(self.parameters())
        slots = [slot for of_graph in batch.slots for slot in of_graph]
        targets = [
            _target(slot, given)
            for of_graph, given in zip(batch.slots, wanted, strict=True)
            for slot in of_graph
        ]
        # What cannot be written to directly is written beside and copied.
        tensors = [
            target
            if target is not None
            and target.is_contiguous()
            and (target.dtype, target.device) == (own.dtype, own.device)
            else own.new_empty(slot.shape)
            for target, slot in zip(targets, slots, strict=True)
        ]
        if slots:
            owners = [(b, slot.node) for b, of_graph in enumerate(batch.slots) for slot in of_graph]
            rows = torch.tensor(owners, device=own.device)
            state_TD = self.encoder(batch.to(own.device))[rows[:, 0], rows[:, 1]]
            self.decoder.write(
                state_TD,
                slots,
                tensors,
                dtype=dtype,
                max_bytes=WORKSPACE_BYTES if max_bytes is None else max_bytes,
            )
        for target, tensor in zip(targets, tensors, strict=True):
            if target is not None and target is not tensor:
                target.copy_(tensor)
        written = iter(
            tensor if target is None else target for target, tensor in zip(targets, tensors, strict=True)
        )
        return [{slot.name: next(written) for slot in of_graph} for of_graph in batch.slots]


def _make_decoder(config: GHNConfig) -> TensorDecoder | LowRankDecoder:
    if config.decoder == "low_rank":
        return LowRankDecoder(
            config.dim,
            hidden=config.decoder_hidden,
            rank=config.rank,
            max_size=config.max_low_rank,
            max_kernel=config.max_kernel,
            mip=config.mip,
        )
    return TensorDecoder(
        config.dim,
        hidden=config.decoder_hidden,
        max_size=config.max_size,
        max_kernel=config.max_kernel,
        mip=config.mip,
        has_conv=config.decoder == "conv",
    )


def _batches(num_nodes: Sequence[int]) -> Iterator[list[int]]:
    """Which graphs go together: those of like size, as many as keep the padded pairs of nodes within a limit."""
    batch: list[int] = []
    for row in sorted(range(len(num_nodes)), key=lambda row: num_nodes[row]):
        if batch and (len(batch) + 1) * num_nodes[row] ** 2 > MAX_BATCH_PAIRS:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _target(slot: ParameterSlot, given: Mapping[str, Tensor] | None) -> Tensor | None:
    if given is None:
        return None
    if slot.name not in given:
        raise ValueError(f"'out' lacks the parameter '{slot.name}' of shape {slot.shape}")
    if tuple(given[slot.name].shape) != slot.shape:
        raise ValueError(
            f"Expected '{slot.name}' in 'out' to have shape {slot.shape} (got {tuple(given[slot.name].shape)})"
        )
    return given[slot.name]
