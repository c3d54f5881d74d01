"""How much a search may spend."""

import pytest

from nasgraph.errors import ConfigError
from nasgraph.search.budget import Budget, Spent, parse_budget


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("10min", Budget(seconds=600)),
        ("2h", Budget(seconds=7200)),
        ("1h30min", Budget(seconds=5400)),
        ("1 h 30 minutes 5s", Budget(seconds=5405)),
        ("0.5 hours", Budget(seconds=1800)),
        ("1d", Budget(seconds=86_400)),
        ("90 secs", Budget(seconds=90)),
        ("100", Budget(trials=100)),
        ("100 trials", Budget(trials=100)),
        ("1 Trial", Budget(trials=1)),
        ("1e15flops", Budget(flops=1e15)),
        ("2.5E12 FLOPs", Budget(flops=2.5e12)),
        ("2h, 500 trials", Budget(seconds=7200, trials=500)),
        ("1e15flops,10min,7", Budget(seconds=600, trials=7, flops=1e15)),
    ],
)
def test_a_budget_is_read_and_written_back(text: str, budget: Budget) -> None:
    assert parse_budget(text) == budget
    assert parse_budget(str(budget)) == budget


@pytest.mark.parametrize("seconds", [0.25, 61.5, 3600.0, 90.0, 1e7, 100 * 3600.0])
def test_every_duration_is_written_so_that_it_is_read_back(seconds: float) -> None:
    assert parse_budget(str(Budget(seconds=seconds))) == Budget(seconds=seconds)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Expected a budget such as"),
        ("ten minutes", "Expected a budget such as"),
        ("10 parsecs", "Expected a budget such as"),
        ("1e3", "Expected a budget such as"),
        ("-5min", "Expected a budget such as"),
        ("10min 5", "Expected a budget such as"),
        ("10min,", "Expected a budget such as"),
        ("0", r"budget of trials above 0 \(got 0\)"),
        ("0s", "budget of seconds above 0"),
        ("1e999flops", r"finite budget of flops above 0 \(got inf\)"),
        ("10min,2h", "limits the seconds twice"),
        ("5, 6 trials", "limits the trials twice"),
    ],
)
def test_what_is_no_budget_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_budget(text)


def test_a_budget_without_any_limit_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"\(got none\)"):
        Budget()


@pytest.mark.parametrize(
    ("spent", "part"),
    [
        (Spent(), None),
        (Spent(599, 9, 99), None),
        (Spent(seconds=600), "time limit"),
        (Spent(trials=10), "trials"),
        (Spent(flops=100.5), "flops"),
        (Spent(700, 11, 100), "time limit"),
    ],
)
def test_it_is_exhausted_as_soon_as_one_part_is(spent: Spent, part: str | None) -> None:
    budget = Budget(seconds=600, trials=10, flops=100)
    assert budget.exhausted_part(spent) == part
    assert budget.is_exhausted(spent) is (part is not None)
    assert (budget.remaining(spent) is None) is (part is not None)


def test_what_is_left_is_a_budget_again() -> None:
    budget = Budget(seconds=600, trials=10)
    assert budget.remaining(Spent(60, 4, 1e30)) == Budget(seconds=540, trials=6)
    assert budget.share_spent(Spent(60, 4, 1e30)) == 0.4
    assert budget.share_spent(Spent(6000, 4)) == 1.0
