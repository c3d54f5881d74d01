"""Error distributions of AnyNet and RegNet on digits: does the narrower space hold the better networks?

Radosavovic et al. 2020 narrow AnyNet down to RegNet on ImageNet. Here both are drawn within one range of multiply-adds and trained
alike. Rows are written as they come; a rerun goes on. Run from the root: `python -m benchmarks.search.design_space_digits`.
"""

import argparse
from dataclasses import asdict
from pathlib import Path

from benchmarks.common import RESULTS, save
from nasgraph.data import load_dataset
from nasgraph.draw.report import write_report
from nasgraph.evaluate import TrainConfig, TrainEvaluator
from nasgraph.evaluate.design_space import analyse_design_spaces
from nasgraph.evaluate.design_space_models import SampledModel
from nasgraph.evaluate.design_space_report import design_space_report
from nasgraph.evaluate.design_space_sampling import (
    ModelRecord,
    SampleConfig,
    draw_candidates,
    train_candidates,
)
from nasgraph.pipeline import pick_device
from nasgraph.spaces import SearchSpace
from search_spaces.regnet import AnyNet, RegNet

LIMITS = {"multiply_adds": (100_000, 1_000_000)}


def spaces(input_shape: tuple[int, ...], num_classes: int) -> list[SearchSpace]:
    """Both with bottleneck ratio 1 and the same group widths, so that they differ in depths and widths alone."""
    return [
        AnyNet(
            input_shape=input_shape, num_classes=num_classes, bottlenecks=(1,), group_widths=(4, 8, 16),
            num_stages=3, max_depth=4, widths=tuple(8 * step for step in range(1, 13)), blocks=("x",),
        ),
        RegNet(input_shape=input_shape, num_classes=num_classes, blocks=("x",)),
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS / "design_space_digits")
    arguments = parser.parse_args()
    data = load_dataset("digits")
    training = TrainConfig(epochs=arguments.epochs)
    evaluate = TrainEvaluator(data.search.to(pick_device("cpu")), training)
    config = SampleConfig(num_models=arguments.count, seed=arguments.seed, limits=LIMITS)
    facts = {"data": "digits", "training": asdict(training), "seed": config.seed, "limits": LIMITS}
    record = ModelRecord(arguments.out, facts)
    populations: dict[str, tuple[SampledModel, ...]] = {}
    for space in spaces(data.input_shape, data.num_classes):
        candidates = draw_candidates(space, config)
        known = record.known(space.name)
        populations[space.name] = train_candidates(
            candidates, evaluate, seed=config.seed, known=known, on_model=record.add
        )
        print(space.name, len(known), "known of", len(candidates), flush=True)
    analysis = analyse_design_spaces(populations, seed=config.seed)
    result = {"settings": {**facts, "count": arguments.count}, **analysis.to_json()}
    save(arguments.out.name, result)
    command = "python -m benchmarks.search.design_space_digits"
    stated = {
        "data": "digits",
        "networks per space": str(arguments.count),
        "training": repr(training),
        "limits": str(LIMITS),
    }
    write_report(
        design_space_report(analysis, populations, command=command, facts=stated),
        arguments.out / "report.md",
    )
    for each in analysis.comparisons:
        print(each)


if __name__ == "__main__":
    main()
