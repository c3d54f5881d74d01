"""Small networks of a user: a `net.py` and safetensors beside it, trained on digits in a second."""

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from nasgraph.data import load_dataset

SOURCE = """
from torch import nn


def small():
    return nn.Sequential(
        nn.Conv2d(1, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(12, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(24, 10),
    )
"""


def small() -> nn.Sequential:
    """The module that `net.py` describes."""
    names: dict[str, object] = {}
    exec(SOURCE, names)  # the text above
    module = names["small"]()  # type: ignore[operator]
    assert isinstance(module, nn.Sequential)
    return module


def write_trained(
    folder: Path, name: str, *, seed: int, epochs: int = 4, start: Path | None = None
) -> tuple[str, Path]:
    """Train the network and write it.

    Args:
        folder: Where `net.py` and the weights go.
        name: Name of the weights' file.
        seed: Decides initial weights and the order of the examples.
        epochs: Passes over the training data.
        start: Weights to go on from; None: random ones.

    Returns:
        The network as the command line takes it, and the file of its weights.
    """
    from safetensors.torch import load_file

    rng = torch.Generator().manual_seed(seed)
    (folder / "net.py").write_text(SOURCE)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = small()
    if start is not None:
        module.load_state_dict(load_file(start))
    data = load_dataset("digits").search.train
    optimiser = torch.optim.Adam(module.parameters(), lr=3e-3)
    for _ in range(epochs):
        for chosen in torch.randperm(len(data), generator=rng).split(64):  # type: ignore[no-untyped-call]
            optimiser.zero_grad()
            F.cross_entropy(module(data.inputs[chosen]), data.targets[chosen]).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    path = folder / f"{name}.safetensors"
    save_file(module.state_dict(), path)
    return f"net.py:small+{path.name}", path
