"""Learning curves of our own: random `convnet` architectures, validation accuracy after every epoch.

    python -m benchmarks.predictors.record_curves --data digits --count 90
    python -m benchmarks.predictors.record_curves --data fashion-mnist --image-size 16 --num-train 1000 --count 60

One line of `benchmarks/results/learning_curves_<data>.rows.jsonl` per training, written as it ends: a run that was killed goes on
where it stopped. `TrainEvaluator` trains with its defaults (AdamW, warm-up, cosine to zero), so the curves rise late, as those of
our own searches do.
"""

import argparse
import json
import time
from pathlib import Path

import torch

from benchmarks.common import RESULTS, SHARED_DATA
from nasgraph.data import load_dataset
from nasgraph.errors import CandidateError
from nasgraph.evaluate import TrainConfig, TrainEvaluator
from nasgraph.evaluate.evaluation import never_stop
from nasgraph.seeding import derive_seed, generator
from nasgraph.spaces import load_space, sample


def record(path: Path, settings: argparse.Namespace) -> None:
    """Train the architectures that `path` lacks, one line each."""
    data = load_dataset(
        settings.data, data_dir=SHARED_DATA, image_size=settings.image_size, num_train=settings.num_train
    )
    space = load_space("convnet", input_shape=data.input_shape, num_classes=data.num_classes)
    evaluate = TrainEvaluator(data.search, TrainConfig(epochs=settings.epochs))
    done = len(path.read_text().splitlines()) if path.exists() else 0
    for index in range(done, settings.count):
        graph = sample(space, generator(settings.seed, "curve", index)).graph
        started = time.process_time()
        row: dict[str, object] = {"index": index, "fingerprint": graph.fingerprint}
        try:
            seed = derive_seed(settings.seed, "train", index)
            evaluation = evaluate(graph, seed=seed, keep_going=never_stop)
            row |= {
                "val_accuracy": [round(value, 6) for value in evaluation.curve],
                "num_parameters": int(evaluation.metrics["num_parameters"]),
                "multiply_adds": int(evaluation.metrics["multiply_adds"]),
            }
        except CandidateError as error:
            row["failed"] = str(error)
        row["cpu_seconds"] = round(time.process_time() - started, 2)
        with path.open("a") as file:
            file.write(json.dumps(row) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--num-train", type=int)
    parser.add_argument("--count", type=int, default=75)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    settings = parser.parse_args()
    torch.set_num_threads(1)
    record(RESULTS / f"learning_curves_{settings.data}.rows.jsonl", settings)


if __name__ == "__main__":
    main()
