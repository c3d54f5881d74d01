"""Do combinations rank the architectures of `ghn_quality` better than the single scores there?

    python -m benchmarks.ghn.ranking_convnet

Reads the rows of `benchmarks.ghn_quality` (scores and accuracy after real training of held-out `convnet` architectures), computes
zero-cost proxies of the same architectures, and sums ranks. The sums are those chosen on NAS-Bench-201
(`benchmarks.ghn.ranking_nb201`); nothing is chosen here.
"""

import argparse
import json

import numpy as np
import torch

from benchmarks.common import RESULTS, SHARED_DATA, cpu_seconds, save, tau_difference, tau_with_interval
from benchmarks.ghn_quality import perturbed
from nasgraph.data import Split, load_dataset
from nasgraph.hyper import held_out_candidates
from nasgraph.predict import mean_of_ranks, proxy_scores
from nasgraph.spaces import load_space

PROXIES = ("num_parameters", "multiply_adds", "synflow", "nwot", "jacov")
SUMS = {
    "parameters + GHN loss": ("num_parameters", "GHN loss"),
    "parameters + nwot + jacov": ("num_parameters", "nwot", "jacov"),
    "parameters + nwot + jacov + GHN loss": ("num_parameters", "nwot", "jacov", "GHN loss"),
    "parameters + nwot + jacov + GHN after 16 steps": ("num_parameters", "nwot", "jacov", "GHN + 16 steps"),
    "parameters + nwot + jacov + GHN init, 1 epoch": (
        "num_parameters",
        "nwot",
        "jacov",
        "GHN init + 1 epoch",
    ),
}


def one(name: str) -> dict[str, object]:
    """All scores of one result of `ghn_quality`."""
    settings = json.loads((RESULTS / f"{name}.json").read_text())["settings"]
    rows = [json.loads(line) for line in (RESULTS / f"{name}.rows.jsonl").read_text().splitlines()]
    size = None if settings["image_size"] == "None" else int(settings["image_size"])
    data = load_dataset(settings["data"], data_dir=SHARED_DATA, image_size=size)
    noise = argparse.Namespace(
        shift_pixels=int(settings.get("shift_pixels", 0)), noise_std=float(settings.get("noise_std", 0))
    )
    if noise.shift_pixels or noise.noise_std:
        data = perturbed(data, noise)
    space = load_space(settings["space"], input_shape=data.input_shape, num_classes=data.num_classes)
    graphs = [candidate.graph for candidate in held_out_candidates([space], count=len(rows))]
    batch = Split(data.search.train.inputs[:64], data.search.train.targets[:64])
    proxies, seconds = cpu_seconds(lambda: proxy_scores(graphs, batch, names=PROXIES, num_seeds=3))
    for row, scores in zip(rows, proxies, strict=True):
        assert row["num_parameters"] == scores["num_parameters"], "other architectures than in the rows"
    columns = {key: np.array([scores[key] for scores in proxies]) for key in PROXIES}
    columns["GHN loss"] = -np.array([row["ghn_loss"] for row in rows])
    columns["GHN + 16 steps"] = np.array([row["tuned16_accuracy"] for row in rows])
    columns["GHN init + 1 epoch"] = np.array([row["ghn_1epoch_accuracy"] for row in rows])
    columns["random init + 1 epoch"] = np.array([row["random_1epoch_accuracy"] for row in rows])
    truth = np.array([row["trained_accuracy"] for row in rows]).mean(axis=1)
    scores = dict(columns)
    for label, parts in SUMS.items():
        scores[label] = mean_of_ranks([columns[part] for part in parts]).mean.numpy()
    better = truth >= np.median(truth)
    return {
        "architectures": len(rows),
        "CPU seconds of the proxies per architecture": seconds / len(rows),
        "tau": {
            label: {
                "all": tau_with_interval(values, truth),
                "better half": tau_with_interval(values[better], truth[better]),
                "less parameter count": tau_difference(values, columns["num_parameters"], truth),
            }
            for label, values in scores.items()
        },
    }


def main() -> None:
    torch.set_num_threads(1)
    names = sorted(path.stem for path in RESULTS.glob("ghn_quality_*_convnet.json"))
    result = {name.removeprefix("ghn_quality_"): one(name) for name in names}
    for name, case in result.items():
        print(name)
        for label, values in case["tau"].items():
            print(f"  {label:50s} {values['all']['tau']:.3f} {values['better half']['tau']:.3f}")
    save("ranking_convnet", result)


if __name__ == "__main__":
    main()
