"""Write the list of evaluation splits of the space `convnet` to nasgraph/hyper/split_lists.

    python -m benchmarks.ghn.make_splits --version 1

A version that was published is never written again: a change of the space, of the graph language or of a split
is a new version.
"""

import argparse
from collections.abc import Mapping

from nasgraph.files import Json, write_json
from nasgraph.hyper.splits import FOLDER, SCHEMA, SPLIT_SEED, TRAINING_SIZE, EvaluationSplit, checksums

INPUT_SHAPE, NUM_CLASSES, COUNT = (3, 32, 32), 10, 500
SPLITS: list[dict[str, Json]] = [
    {
        "name": "id_val",
        "summary": "drawn like the training architectures; the first hundred are those of 'held_out_candidates'",
        "label": "held-out",
        "in_distribution": True,
    },
    {
        "name": "id_test",
        "summary": "drawn like the training architectures, from other seeds",
        "label": "id_test",
        "in_distribution": True,
    },
    {
        "name": "wide",
        "summary": "the stem has 72 to 96 channels, later stages up to 128; in training no stage has more than 64",
        "label": "wide",
        "settings": {"widths": [72, 80, 96], "max_width": 128},
    },
    {
        "name": "deep",
        "summary": "every stage has 4 to 6 blocks; in training none has more than 3",
        "label": "deep",
        "settings": {"max_blocks": 6},
        "answers": {"stage*_blocks": [4, 6]},
    },
    {
        "name": "dense",
        "summary": "every stage has 5 or 6 blocks, all of them cells with an added input or dense blocks, all with squeeze-"
        "and-excitation: more independent paths between input and output than any training architecture has",
        "label": "dense",
        "settings": {"max_blocks": 6},
        "answers": {
            "squeeze_excite": ["some"],
            "stage*_blocks": [5, 6],
            "stage*_kind": ["cell", "dense"],
            "stage*_skip": [True],
            "stage*_excite": [True],
        },
    },
    {
        "name": "norm_free",
        "summary": "no norm anywhere, as in a quarter of the training architectures",
        "label": "norm_free",
        "answers": {"norm": ["none"]},
        "in_distribution": True,
    },
    {
        "name": "predefined",
        "summary": "networks designed by hand: ResNet, VGG, MobileNet, DenseNet, ConvNeXt, ViT, MLP-Mixer and others",
        "space": "handmade",
        "label": "",
        "count": None,
        "in_distribution": True,
    },
]


def filled(item: Mapping[str, Json]) -> dict[str, Json]:
    """A split with its defaults and with the checksums of its architectures."""
    defaults: dict[str, Json] = {"space": "convnet", "settings": {}, "answers": {}, "count": COUNT}
    whole = {**defaults, "in_distribution": False, **item}
    split = EvaluationSplit(**whole, fingerprints=(), sha256="")  # type: ignore[arg-type]  # plain JSON values
    found = split.candidates(input_shape=INPUT_SHAPE, num_classes=NUM_CLASSES)
    assert len({candidate.graph.fingerprint for candidate in found}) == len(found), split.name
    return {**whole, **checksums(found)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", type=int, required=True)
    version = parser.parse_args().version
    path = FOLDER / f"convnet-{version}.json"
    write_json(
        path,
        {
            "schema": SCHEMA,
            "version": version,
            "space": "convnet",
            "training": {
                "function": "nasgraph.hyper.training_candidate(space, i)",
                "seed": SPLIT_SEED,
                "count": TRAINING_SIZE,
            },
            "reference": {"input_shape": list(INPUT_SHAPE), "num_classes": NUM_CLASSES},
            "splits": [filled(item) for item in SPLITS],
        },
    )
    print(path, path.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
