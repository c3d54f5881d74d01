"""`nasgraph spaces analyse`."""

import json
from pathlib import Path

import pytest

from nasgraph.commands.design_space import analyse
from nasgraph.commands.options import WrongUsageError
from nasgraph.errors import ConfigError


def test_two_spaces_are_compared_and_a_second_call_trains_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"count": 4, "epochs": 1, "num_train": 60, "out": tmp_path / "found", "json": True}
    analyse(["mlp", "vit"], **settings)  # type: ignore[arg-type]  # of several types
    first = json.loads(capsys.readouterr().out)
    assert [each["name"] for each in first["populations"]] == ["mlp", "vit"]
    assert all(0 <= each["min_error"] <= each["mean_error"] <= 1 for each in first["populations"])
    assert 0 <= first["comparisons"][0]["ks"] <= 1
    names = {Path(file).name for file in first["files"]}
    assert {"analysis.json", "report.html", "report.md", "report-errors.svg"} <= names
    assert all(Path(file).is_file() for file in first["files"])
    monkeypatch.setattr("nasgraph.evaluate.train.train_graph", None)  # would raise if it were called
    analyse(["mlp", "vit"], **settings)  # type: ignore[arg-type]  # of several types
    assert json.loads(capsys.readouterr().out) == first
    with pytest.raises(ConfigError, match="other settings"):
        analyse(["mlp"], **{**settings, "epochs": 2})  # type: ignore[arg-type]  # of several types


def test_a_table_needs_no_training(capsys: pytest.CaptureFixture[str]) -> None:
    analyse(table=["nasbench201"], count=40, multiply_adds="1e6,1e9", json=True)
    (found,) = json.loads(capsys.readouterr().out)["populations"]
    assert found["num_models"] == 40
    assert {each["name"] for each in found["good_ranges"]} == {"num_parameters", "multiply_adds", "depth"}


def test_people_get_tables(capsys: pytest.CaptureFixture[str]) -> None:
    analyse(table=["nasbench201"], count=20)
    assert "mean error" in capsys.readouterr().out


def test_wrong_usage_is_said() -> None:
    with pytest.raises(WrongUsageError, match="at least one search space"):
        analyse()
    with pytest.raises(WrongUsageError, match="'--multiply-adds' as two numbers such as 1e5,2e6"):
        analyse(["mlp"], multiply_adds="many")
