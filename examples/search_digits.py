"""A small search on digits from Python: score 24 networks without training, train three, test the best once.

    python examples/search_digits.py

Takes some seconds. A second call finds the study in `nasgraph-runs` and has only the winner left to train.
"""

from pathlib import Path

from nasgraph.pipeline import (
    SearchSettings,
    TrainingSettings,
    Workspace,
    finish,
    load_ingredients,
    open_study,
    search,
)

SETTINGS = SearchSettings(
    space="mlp",
    trials=3,
    screened=24,
    kept=2,
    train=TrainingSettings(epochs=2),
    final=TrainingSettings(epochs=8),
)


def main() -> None:
    """Search, train the winner, print what came out."""
    parts = load_ingredients(SETTINGS)
    study = open_study(parts, Workspace(Path("nasgraph-runs"), "example-mlp"), resume=True)
    result = search(parts, study)
    for trial in result.trials:
        print(f"trial {trial.number}: validation accuracy {trial.metrics['val_accuracy']:.3f}")
    final = finish(parts, result)
    print(f"winner: {dict(final.candidate.architecture.choices)}")
    print(f"test accuracy: {final.test_accuracy:.3f} (measured once, after the search)")


if __name__ == "__main__":
    main()
