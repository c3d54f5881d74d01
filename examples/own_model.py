"""Predicted weights for a network of your own, which no search space of nasgraph contains.

python examples/own_model.py
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nasgraph.data import Split, load_dataset
from nasgraph.hyper import initialise
from nasgraph.pipeline import open_ghn, shipped_ghns


class TwoPaths(nn.Module):
    """An ordinary torch module: two paths, a gate, a functional call and a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU())
        self.wide = nn.Sequential(
            nn.Conv2d(24, 24, 5, padding=2, groups=24), nn.Conv2d(24, 48, 1), nn.BatchNorm2d(48)
        )
        self.narrow = nn.Sequential(nn.Conv2d(24, 48, 1), nn.BatchNorm2d(48))
        self.gate = nn.Linear(48, 48)
        self.scale = nn.Parameter(torch.ones(48, 1, 1))
        self.head = nn.Linear(48, 10)

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images)
        x = F.relu(self.wide(x) * self.scale + self.narrow(x))
        x = x * torch.sigmoid(self.gate(x.mean((2, 3))))[:, :, None, None]
        logits: Tensor = self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))
        return logits


def accuracy(module: nn.Module, split: Split) -> float:
    """Accuracy, with batch norms that use the statistics of the split. No gradient, no change of the module's mode."""
    was_training = module.training
    module.train()
    with torch.no_grad():
        right = (module(split.inputs).argmax(1) == split.targets).float().mean()
    module.train(was_training)
    return float(right)


def train_one_epoch(module: nn.Module, split: Split, *, seed: int) -> None:
    """One pass over the data with AdamW."""
    optimizer = torch.optim.AdamW(module.parameters(), lr=2e-3)
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(seed))
    for rows in order.split(32):
        optimizer.zero_grad()
        F.cross_entropy(module(split.inputs[rows]), split.targets[rows]).backward()  # type: ignore[no-untyped-call]  # torch's
        optimizer.step()


def main() -> None:
    """Compare torch's own initial weights with predicted ones, before and after one epoch."""
    data = load_dataset("digits").search
    ghn = open_ghn(shipped_ghns()["ghn-digits"], device="cpu")
    for start in ("torch's initial", "predicted"):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            module = TwoPaths()
        if start == "predicted":
            result = initialise(ghn, module, data.validation.inputs[:2], inplace=True)
            print(
                f"{len(result.parameters)} parameters predicted, from a graph of {len(result.traced.graph)} nodes"
            )
        before = accuracy(module, data.validation)
        train_one_epoch(module, data.train, seed=0)
        print(
            f"{start} weights: accuracy {before:.3f}, after one epoch {accuracy(module, data.validation):.3f}"
        )


if __name__ == "__main__":
    main()
