"""A data set as it looks: for each class, the mean description of its images."""

from dataclasses import dataclass

import torch
from torch import Tensor

from nasgraph.errors import DataError
from nasgraph.retrieve.behaviour.features import image_features
from nasgraph.retrieve.behaviour.records import QueryData


@dataclass(frozen=True, slots=True, eq=False)
class DataDescription:
    """What a data set's classes look like. The order of the classes has no meaning.

    Attributes:
        means: Mean description of each class's images, `[classes, NUM_FEATURES]`.
    """

    means: Tensor

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean description over classes, each with the same weight: what a candidate keeps as its `data_mean`."""
        return tuple(self.means.double().mean(0).tolist())


def describe_data(query: QueryData) -> DataDescription:
    """Describe labelled images. No model is needed, and nothing is trained.

    Raises:
        DataError: If the query is a table: only images have a description.
        CandidateError: If the images have other than 1 or 3 channels.
    """
    if query.inputs.ndim != 4:
        raise DataError(
            "Expected images: a table has no fixed description. Use a method that runs the models, such as 'linear-probe'"
        )
    return describe_classes(image_features(query.inputs), query.labels)


def describe_classes(features: Tensor, labels: Tensor) -> DataDescription:
    """The same from descriptions of images that are there already, `[n, NUM_FEATURES]`."""
    number = int(labels.max()) + 1
    indicator = torch.nn.functional.one_hot(labels, number).to(features.dtype)
    return DataDescription(indicator.T @ features / indicator.sum(0)[:, None])
