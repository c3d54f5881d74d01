"""Seeds for parts of a run, derived from one seed. Nothing here touches a global generator."""

import hashlib

import numpy as np


def derive_seed(seed: int, *labels: str | int) -> int:
    """A seed in [0, 2**63) for the part of a run that `labels` name.

    Equal arguments give equal seeds on every machine; different labels give unrelated ones. So a run
    that stops can rebuild the generator of step 1,000 without replaying the 999 steps before.
    """
    text = "/".join([str(seed), *(f"{type(label).__name__}:{label}" for label in labels)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *labels: str | int) -> np.random.Generator:
    """A numpy generator for the part of a run that `labels` name."""
    return np.random.default_rng(derive_seed(seed, *labels))
