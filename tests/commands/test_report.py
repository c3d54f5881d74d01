"""`nasgraph report` compares studies of a project folder."""

from pathlib import Path

import pytest

from nasgraph.pipeline import SearchSettings, Workspace
from nasgraph.search import SearchConfig, create_or_resume, make_sampler, open_storage, run_search
from tests.commands.running import Cli
from tests.search.toys import OBJECTIVE, Chain, instant


def searched(folder: Path, name: str, *, sampler: str, seed: int, layers: int = 4) -> None:
    space = Chain(num_layers=layers)
    workspace = Workspace(folder, name)
    workspace.begin(SearchSettings(sampler=sampler, seed=seed, trials=9, screened=0, kept=0))
    study = create_or_resume(
        open_storage(workspace.journal), name, space=space, objective=OBJECTIVE, resume=False, seed=seed, data="none",
        sampler=make_sampler(sampler, seed=seed),
    )  # fmt: skip
    run_search(space, instant, study, SearchConfig(num_trials=9, seed=seed))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder with two studies of each of two samplers."""
    monkeypatch.chdir(tmp_path)
    for seed in range(2):
        for sampler in ("tpe", "random"):
            searched(tmp_path / "nasgraph-runs", f"{sampler}-{seed}", sampler=sampler, seed=seed)
    return tmp_path


def test_all_studies_of_a_folder_are_grouped_by_strategy(cli: Cli, folder: Path) -> None:
    done = cli("report", "--json")
    assert done.code == 0, done.err
    assert done.json["strategies"] == {"tpe": ["tpe-0", "tpe-1"], "random search": ["random-0", "random-1"]}
    assert list(done.json["strategies"]) == ["tpe", "random search"]  # random search last
    html = (folder / "report.html").read_text()
    for said in (
        "Lindauer and Hutter 2020",
        "Yang et al. 2020",
        "tpe (2 seeds, mean ± std)",
        "random search",
        "logical cores",
    ):
        assert said in html, said
    assert html.count("<svg") == 3


def test_named_studies_are_reported_as_markdown_with_pictures_beside_it(cli: Cli, folder: Path) -> None:
    done = cli("report", "tpe-0", "nasgraph-runs/random-1.journal", "-o", "out/mine.md", "--json")
    assert done.code == 0, done.err
    assert sorted(path.name for path in (folder / "out").iterdir()) == [
        "mine-time.svg", "mine-trials.svg", "mine-values.svg", "mine.md",
    ]  # fmt: skip
    assert "take more seeds for any claim" in (folder / "out" / "mine.md").read_text()


def test_studies_of_a_database_are_compared_too(cli: Cli, folder: Path) -> None:
    address = f"sqlite:///{folder / 'studies.db'}"
    for sampler in ("tpe", "random"):
        space = Chain(num_layers=4)
        study = create_or_resume(
            open_storage(address), f"{sampler}-db", space=space, objective=OBJECTIVE, resume=False, seed=0,
            sampler=make_sampler(sampler, seed=0),
        )  # fmt: skip
        settings = SearchSettings(sampler=sampler, screened=0, kept=0)
        study.set_user_attr("settings", settings.model_dump(mode="json"))
        run_search(space, instant, study, SearchConfig(num_trials=4))
    done = cli("report", "--storage", address, "--json")
    assert done.code == 0, done.err
    assert done.json["strategies"] == {"tpe": ["tpe-db"], "random search": ["random-db"]}
    assert cli("report", "tpe-dc", "--storage", address).code == 2


def test_reading_leaves_the_studies_as_they_were(cli: Cli, folder: Path) -> None:
    before = {path: path.read_bytes() for path in (folder / "nasgraph-runs").iterdir()}
    assert cli("report").code == 0
    assert {path: path.read_bytes() for path in (folder / "nasgraph-runs").iterdir()} == before


def test_mistakes_are_one_clear_line(cli: Cli, folder: Path) -> None:
    searched(folder / "nasgraph-runs", "other", sampler="tpe", seed=0, layers=2)
    (folder / "nasgraph-runs" / "empty.journal").write_text("")
    for words, code, reason in (
        (("report", "tpe-9"), 2, "Close: 'tpe-1'"),
        (("report", "-o", "a.pdf"), 2, "Expected the name of the report to end in"),
        (("report", "--folder", "none"), 2, "There is no study in 'none'"),
        (("report", "empty"), 2, "There is no study in"),
    ):
        done = cli(*words)
        assert done.code == code, (words, done.err)
        assert reason in done.err, (words, done.err)
        assert "this is a bug" not in done.err
