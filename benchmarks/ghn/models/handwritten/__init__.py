"""Networks in the styles people write PyTorch in, by kind; every docstring says what is special about its network."""

from benchmarks.ghn.models import Model

__all__ = ["models"]


def models() -> list[Model]:
    """All of them, in the order of their families."""
    from benchmarks.ghn.models.handwritten import (  # the classes are defined only when they are asked for
        attention,
        convolution,
        dense,
        experts,
        kernels,
        recurrent,
        unusual,
        unusual_parameters,
        vectors,
    )

    parts = (convolution, kernels, dense, attention, experts, recurrent, vectors, unusual, unusual_parameters)
    return [model for part in parts for model in part.models()]
