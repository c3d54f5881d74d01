"""What changes from step to step: the learning rate."""

import math

from nasgraph.hyper.training_config import GHNTrainConfig


def learning_rate_factor(step: int, config: GHNTrainConfig) -> float:
    """Share of the peak learning rate at a step: linear warm-up, then half a cosine to zero."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * progress))
