"""Writes a bank of real features for the prior of the prior-fitted network: architectures without any label.

    nice -n 5 python -m benchmarks.predictors.feature_bank --folder /tmp/pfn-bank --graphs 400

For each installed search space the features of random architectures, in the kinds of the space (`GraphFeatures.of`) and in the
words that all spaces share (`GraphFeatures.universal`), as `.npz` files with one array `features`.
"""

import argparse
from pathlib import Path

import numpy as np

from nasgraph.files import write_atomically
from nasgraph.predict.graph_features import GraphFeatures
from nasgraph.seeding import generator
from nasgraph.spaces import load_space, sample, space_names

SHAPES = {"gpt": (64,)}
IMAGE = (3, 32, 32)


def main() -> None:
    """Sample, describe, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--graphs", type=int, default=400)
    parser.add_argument("--leave-out", nargs="*", default=[])
    arguments = parser.parse_args()
    for name in space_names():
        if name in arguments.leave_out:
            continue
        space = load_space(name, input_shape=SHAPES.get(name, IMAGE), num_classes=10)
        rng = generator(0, "feature bank", name)
        graphs = [sample(space, rng).graph for _ in range(arguments.graphs)]
        for kind, describe in (("own", GraphFeatures.of(graphs)), ("universal", GraphFeatures.universal())):
            features = np.asarray(describe(graphs), dtype=np.float64)
            write_atomically(
                arguments.folder / f"{name}-{kind}.npz",
                lambda path, features=features: _write(path, features),  # type: ignore[misc]  # bound now
            )
            print(name, kind, features.shape, flush=True)


def _write(path: Path, features: np.ndarray) -> None:
    with path.open("wb") as file:
        np.savez_compressed(file, features=features)


if __name__ == "__main__":
    main()
