"""Small models and data that tests of retrieval share."""

import torch
from torch import Tensor

from nasgraph.retrieve.behaviour import (
    NUM_FEATURES,
    Candidate,
    DataDescription,
    Episode,
    ModelDescription,
    QueryData,
)


def stripes(per_class: int, *, seed: int = 0, size: int = 8, channels: int = 1) -> QueryData:
    """Three classes that differ in the direction of their stripes."""
    rng = torch.Generator().manual_seed(seed)
    axis = torch.arange(size) / size
    rows, columns = torch.meshgrid(axis, axis, indexing="ij")
    patterns = torch.stack([torch.cos(12 * rows), torch.cos(12 * columns), torch.cos(9 * (rows + columns))])
    labels = torch.arange(3).repeat_interleave(per_class)
    noise = 0.3 * torch.rand((3 * per_class, channels, size, size), generator=rng)
    return QueryData((0.35 + 0.3 * patterns[labels][:, None] + noise).clamp(0, 1), labels)


def linear_candidate(
    name: str, *, classes: int = 3, size: int = 8, seed: int = 0, **more: object
) -> Candidate:
    """A model whose logits are a random linear map of the pixels."""
    rng = torch.Generator().manual_seed(seed)
    weight = torch.randn((size * size, classes), generator=rng)

    def forward(x: Tensor) -> Tensor:
        return x.flatten(1) @ weight / size

    return Candidate(
        reference=name,
        forward=forward,
        input_shape=(1, size, size),
        num_classes=classes,
        **more,  # type: ignore[arg-type]  # tests pass fields of the record
    )


def knowing_candidate(name: str, *, size: int = 8) -> Candidate:
    """A model that tells the directions of stripes apart."""
    prototypes = stripes(1, size=size).inputs.flatten(1)
    prototypes = prototypes - prototypes.mean(1, keepdim=True)

    def forward(x: Tensor) -> Tensor:
        return x.flatten(1) @ prototypes.T

    return Candidate(reference=name, forward=forward, input_shape=(1, size, size), num_classes=3)


def planted(number: int, *, seed: int, classes: int = 4) -> tuple[list[ModelDescription], list[Episode]]:
    """Models around random centres, and queries around the same centres that fit the model of their centre best."""
    rng = torch.Generator().manual_seed(seed)
    centres = torch.randn((number, classes, NUM_FEATURES), generator=rng)

    def near(centre: Tensor) -> Tensor:
        return centre + 0.3 * torch.randn(centre.shape, generator=rng)

    models = [ModelDescription(near(centre), near(centre), torch.full((classes,), 0.9)) for centre in centres]
    episodes = [
        Episode(
            DataDescription(near(centres[place])), tuple(float(place == other) for other in range(number))
        )
        for place in range(number)
        for _ in range(4)
    ]
    return models, episodes
