"""A model as it behaves: for each class, what it is sure of and what lies at the border to other classes.

Know2Vec (Shang et al., "Know2Vec: A Black-Box Proxy for Neural Network Retrieval", 2025) describes a model by anchors of high
confidence and by samples between anchors where the decision flips. Weights and architecture are not looked at. What departs
from the paper: the description of an image is fixed (`image_features`), and classes form a set, not a sequence.

Shape letters: N = images, C = classes, P = partners, D = features.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from nasgraph.errors import ConfigError
from nasgraph.retrieve.behaviour.features import NUM_FEATURES, image_features
from nasgraph.retrieve.behaviour.inputs import fit_images
from nasgraph.retrieve.behaviour.probes import probe_images
from nasgraph.retrieve.behaviour.records import Candidate, outputs_of, run_in_batches


@dataclass(frozen=True, kw_only=True)
class DescribeConfig:
    """How models are asked.

    Attributes:
        anchors: Images per class that stand for it: those that the model gives to it with the most confidence.
        partners: Other classes per class to look for the border with: those that it is confused with most.
        bisections: Steps towards a border: the place is known to 2 to the minus so many of the way.
        max_classes: Of more classes, those with the most confident anchors.

    Raises:
        ConfigError: If a number is below 1.
    """

    anchors: int = 8
    partners: int = 3
    bisections: int = 6
    max_classes: int = 64

    def __post_init__(self) -> None:
        for name in ("anchors", "partners", "bisections", "max_classes"):
            if getattr(self, name) < 1:
                raise ConfigError(f"Expected '{name}' of at least 1 (got {getattr(self, name)})")


@dataclass(frozen=True, slots=True, eq=False)
class ModelDescription:
    """What a model's answers say of its classes. The order of the classes has no meaning.

    Attributes:
        anchors: Mean description of each class's anchors, `[classes, NUM_FEATURES]`.
        borders: Mean description of the images at its borders, the same shape.
        confidence: Mean probability that the model gives to its anchors, `[classes]`.
    """

    anchors: Tensor
    borders: Tensor
    confidence: Tensor


def describe_model(
    candidate: Candidate, images: Tensor | None = None, *, config: DescribeConfig | None = None
) -> ModelDescription:
    """Ask a model and describe its answers. Deterministic; the model's outputs are all that is used.

    Args:
        candidate: The model.
        images: What to ask it with, `[n, channels, height, width]` in [0, 1]: unlabelled images like those that it was trained
            on give the sharpest picture. None: the fixed probes (`probe_images`).
        config: How; None: the defaults.

    Raises:
        CandidateError: If the model cannot read images, fails, or gives numbers that are not finite.
    """
    config = config or DescribeConfig()
    asked = probe_images() if images is None else images
    probability_NC = outputs_of(candidate, asked).softmax(1).float()
    count = min(config.anchors, len(asked))
    confidence_AC, index_AC = torch.sort(probability_NC, dim=0, descending=True, stable=True)
    confidence_AC, index_AC = confidence_AC[:count], index_AC[:count]
    order = torch.sort(confidence_AC.mean(0), descending=True, stable=True).indices
    chosen = order[: config.max_classes].sort().values
    features_ND = _features_of(asked, index_AC[:, chosen])
    anchors_CD = features_ND[index_AC[:, chosen]].mean(0)
    borders_CD = _borders(candidate, asked, probability_NC, index_AC, chosen, config)
    return ModelDescription(anchors_CD, borders_CD, confidence_AC[:, chosen].mean(0))


def _features_of(images: Tensor, index: Tensor) -> Tensor:
    """Descriptions of the images that `index` names, at their places; the rest is not computed."""
    needed = torch.tensor(sorted(set(index.flatten().tolist())))
    features = images.new_zeros(len(images), NUM_FEATURES)
    features[needed] = image_features(images[needed])
    return features


def _borders(
    candidate: Candidate,
    images: Tensor,
    probability_NC: Tensor,
    index_AC: Tensor,
    chosen: Tensor,
    config: DescribeConfig,
) -> Tensor:
    """Mean description of the images where the decision for a class flips, on the way to its nearest classes.

    The way leads from the best anchor of the class to that of the other. Where the model gives the start to another class
    already, the flip that is found may be of a third class, or the start itself: it is a border all the same.
    """
    partners = _partners(probability_NC, index_AC, chosen, config.partners)
    if partners.shape[1] == 0:  # one class: no border
        return image_features(images[index_AC[0, chosen]])
    start = images[index_AC[0, chosen]].repeat_interleave(partners.shape[1], 0)
    end = images[index_AC[0, partners.flatten()]]
    own = chosen.repeat_interleave(partners.shape[1])
    low, high = torch.zeros(len(own)), torch.ones(len(own))
    shape = (-1,) + (1,) * (images.ndim - 1)
    for _ in range(config.bisections):
        middle = ((low + high) / 2).reshape(shape)
        fitted = fit_images(
            start + (end - start) * middle, candidate.input_shape, normalisation=candidate.normalisation
        )
        stays = run_in_batches(candidate, candidate.forward, fitted).argmax(1) == own
        low = torch.where(stays, middle.flatten(), low)
        high = torch.where(stays, high, middle.flatten())
    border = start + (end - start) * ((low + high) / 2).reshape(shape)
    return image_features(border).reshape(len(chosen), -1, NUM_FEATURES).mean(1)


def _partners(probability_NC: Tensor, index_AC: Tensor, chosen: Tensor, number: int) -> Tensor:
    """For each chosen class, the other chosen classes that its anchors are given to most, `[classes, partners]`."""
    mean_CC = probability_NC[index_AC[:, chosen]].mean(0)[:, chosen]
    mean_CC = mean_CC - 2 * torch.eye(len(chosen))
    order = torch.sort(mean_CC, dim=1, descending=True, stable=True).indices
    return chosen[order[:, : min(number, len(chosen) - 1)]]
