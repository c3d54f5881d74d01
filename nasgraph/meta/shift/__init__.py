"""How wrong a trained network is on new data without labels: from its confidence, and from training it again."""

from nasgraph.meta.shift.confidence import (
    average_confidence,
    average_thresholded_confidence,
    confidence,
    difference_of_confidences,
    label_free_estimates,
    mean_entropy,
    negative_entropy,
    source_error,
)
from nasgraph.meta.shift.retraining import Discrepancy, RetrainConfig, ShiftError, retraining_discrepancy
from nasgraph.meta.shift.shifts import shift_images, shift_nodes

__all__ = [
    "Discrepancy",
    "RetrainConfig",
    "ShiftError",
    "average_confidence",
    "average_thresholded_confidence",
    "confidence",
    "difference_of_confidences",
    "label_free_estimates",
    "mean_entropy",
    "negative_entropy",
    "retraining_discrepancy",
    "shift_images",
    "shift_nodes",
    "source_error",
]
