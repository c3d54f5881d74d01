"""The shape of a hypernetwork."""

from dataclasses import dataclass

from nasgraph.errors import ConfigError

GENERATORS = ("tensor", "chunked", "recurrent", "low_rank")
CONDITIONS = ("unit", "free")


@dataclass(frozen=True, kw_only=True)
class HypernetworkConfig:
    """Shape of a hypernetwork.

    Attributes:
        condition_dim: Numbers in a conditioning vector.
        condition: "unit": numbers from 0 to 1, such as scaled hyper-parameters; "free": any numbers, such as learnt embeddings, which
            go through a sigmoid first if `mip`.
        generator: "tensor" (one output layer per tensor), "chunked" (one network for all chunks, with chunk embeddings), "recurrent" (an
            LSTM over the chunks) or "low_rank" (condition-dependent sums of learnt outer products).
        hidden_dim: Size of hidden states.
        num_layers: Hidden layers.
        chunk_size: Numbers in a chunk; without effect for "tensor" and "low_rank".
        chunk_dim: Size of a chunk embedding; likewise.
        rank: Outer products per matrix; without effect unless "low_rank".
        mip: Magnitude-invariant parametrisation (Ortiz et al. 2023): conditions enter as cosine and sine, and what is generated is added to
            learnt ordinary parameters. Without it the condition enters as it is, and nothing learnt is added.
        gain: How large what is generated is at the start, relative to ordinary initial parameters.

    Raises:
        ConfigError: If a value is out of its range.
    """

    condition_dim: int
    condition: str = "unit"
    generator: str = "tensor"
    hidden_dim: int = 50
    num_layers: int = 1
    chunk_size: int = 256
    chunk_dim: int = 16
    rank: int = 4
    mip: bool = True
    gain: float = 0.1

    def __post_init__(self) -> None:
        for name in ("condition_dim", "hidden_dim", "num_layers", "chunk_size", "chunk_dim", "rank"):
            value = getattr(self, name)
            if not 1 <= value <= 1_000_000:
                raise ConfigError(f"Expected '{name}' from 1 to 1,000,000 (got {value})")
        if self.generator not in GENERATORS:
            raise ConfigError(
                f"Expected 'generator' as one of {', '.join(GENERATORS)} (got '{self.generator}')"
            )
        if self.condition not in CONDITIONS:
            raise ConfigError(
                f"Expected 'condition' as one of {', '.join(CONDITIONS)} (got '{self.condition}')"
            )
        if not 0 <= self.gain <= 100:
            raise ConfigError(f"Expected 'gain' from 0 to 100 (got {self.gain})")
