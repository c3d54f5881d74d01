"""The record of searches in MLflow. Importing this package does not import MLflow; connecting to a store does."""

from nasgraph.tracking.environment import environment_tags
from nasgraph.tracking.listener import MlflowListener
from nasgraph.tracking.outbox import TrackingSummary
from nasgraph.tracking.record import record_run
from nasgraph.tracking.training import TrainingRecorder

__all__ = ["MlflowListener", "TrackingSummary", "TrainingRecorder", "environment_tags", "record_run"]
