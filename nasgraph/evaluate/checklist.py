"""The checklist for research on architecture search, filled in for one experiment.

The questions are those of Lindauer and Hutter, "Best Practices for Scientific Research on Neural Architecture Search" (JMLR 21,
2020), section 6, in our words and in its order.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from nasgraph.draw.report import Grid


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What is true of an experiment.

    Attributes:
        yes: Whether the question can be answered with yes.
        where: Where that is seen; or what is missing.
    """

    yes: bool
    where: str


QUESTIONS: Mapping[str, tuple[str, str]] = {
    "training_code": ("released", "code of the training that evaluates the final architectures"),
    "space_code": ("released", "code of the search space"),
    "training_settings": ("released", "hyperparameters and seeds of that training"),
    "method_code": ("released", "code of the search method"),
    "method_settings": ("released", "hyperparameters and seeds of the search method"),
    "same_benchmark": (
        "compared",
        "all methods on the same benchmark: data, split, search space, training code and its hyperparameters",
    ),
    "confounders": ("compared", "confounders controlled for: hardware, versions of libraries, running time"),
    "ablations": ("compared", "ablation studies"),
    "same_protocol": ("compared", "the same evaluation protocol for all methods"),
    "over_time": ("compared", "performance over time"),
    "random_search": ("compared", "random search among the methods"),
    "several_runs": ("compared", "several runs, with their seeds"),
    "tabular": ("compared", "tabular or surrogate benchmarks for evaluation in depth"),
    "tuning": ("reported", "how hyperparameters were tuned, and what that cost"),
    "end_to_end": ("reported", "time of the whole method, from beginning to end"),
    "setup": ("reported", "all details of the experiment's set-up"),
}
"""Group and text of each question."""


def filled_checklist(answers: Mapping[str, Answer]) -> Grid:
    """The checklist as a table.

    Args:
        answers: One for each of `QUESTIONS`.

    Raises:
        ValueError: If an answer is missing, or belongs to no question.
    """
    if answers.keys() != QUESTIONS.keys():
        wrong = sorted(answers.keys() ^ QUESTIONS.keys())
        raise ValueError(f"Expected one answer to each question (got none, or an unknown one, for {wrong})")
    rows = tuple(
        (group, text, "yes" if answers[name].yes else "no", answers[name].where)
        for name, (group, text) in QUESTIONS.items()
    )
    return Grid(
        columns=("", "question", "answer", "where it is seen, or what is missing"),
        rows=rows,
        caption="NAS best-practice checklist (Lindauer and Hutter 2020), in our words",
    )
