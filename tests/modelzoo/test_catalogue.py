"""The catalogue tells of a zoo what the registry says, quickly, and notices what changes."""

import logging
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from mlflow import MlflowClient

from nasgraph.errors import ConfigError, UnknownNameError, ZooError
from nasgraph.modelzoo import LatencyFact, ModelCard, ZooEntry, write_entry
from nasgraph.modelzoo.catalogue import SORTS, Catalogue, Query, Row, ordered
from nasgraph.modelzoo.names import parse_reference
from nasgraph.modelzoo.registry import CARD_TAG
from nasgraph.modelzoo.store import Zoo


def with_accuracy(card: ModelCard, value: float) -> ModelCard:
    measurements = tuple(replace(m, value=value) if m.split == "test" else m for m in card.measurements)
    return replace(card, measurements=measurements)


def latency(milliseconds: float, *, batch_size: int = 1) -> LatencyFact:
    seconds = milliseconds / 1e3
    return LatencyFact(
        device="cpu", hardware="a processor", threads=1, batch_size=batch_size, dtype="float32",
        median_s=seconds, low_s=seconds, high_s=seconds, protocol="made up",
    )  # fmt: skip


@pytest.fixture
def zoo(entry: ZooEntry, tracking_uri: str, tmp_path: Path) -> Zoo:
    """Two models, one in two versions with an alias at the first."""
    made = Zoo(tracking_uri)
    made.add(entry.path, "plain", aliases=["champion"])
    for number, (name, accuracy, times) in enumerate(
        [("plain", 0.5, ()), ("quick", 0.25, (latency(2), latency(1, batch_size=8)))]
    ):
        card = replace(with_accuracy(entry.card, accuracy), latencies=times, licence="MIT")
        made.add(write_entry(tmp_path / f"e{number}", entry.graph, entry.state, card).path, name)
    return made


def models(rows: Iterable[Row]) -> list[str]:
    return [row.reference for row in rows if row.kind == "model"]


def test_rows_are_what_the_registry_says(zoo: Zoo, entry: ZooEntry) -> None:
    catalogue = Catalogue(zoo)
    assert models(catalogue.rows) == ["plain/2", "quick/1"]
    assert models(catalogue.all_rows) == ["plain/1", "plain/2", "quick/1"]
    first = catalogue.row("plain@champion")
    assert first is catalogue.row("plain/1")
    assert first.card == entry.card
    assert first.aliases == ("champion",)
    assert catalogue.row("plain").reference == "plain/2"
    assert (first.accuracy, first.num_parameters) == (
        entry.card.measurements[1].value,
        entry.card.num_parameters,
    )
    assert (first.data, first.space, first.fingerprint) == ("digits", "hand-made", entry.graph.fingerprint)
    assert first.latency_ms is None
    assert catalogue.row("quick").latency_ms == pytest.approx(2)  # of a single example
    assert {row.kind for row in catalogue.rows} > {"model", "ghn"}  # shipped ones stand beside them


def test_queries_filter_and_sort(zoo: Zoo) -> None:
    catalogue = Catalogue(zoo)
    assert models(catalogue.query(Query())) == ["plain/2", "quick/1"]
    assert models(catalogue.query(Query(descending=False))) == ["quick/1", "plain/2"]
    assert models(catalogue.query(Query(min_accuracy=0.3))) == ["plain/2"]
    assert models(catalogue.query(Query(max_latency_ms=2.5))) == ["quick/1"]
    assert models(catalogue.query(Query(max_latency_ms=1.5))) == []
    assert models(catalogue.query(Query(text="MIT digits quick"))) == ["quick/1"]
    assert models(catalogue.query(Query(space="convnet"))) == []
    assert {row.kind for row in catalogue.query(Query(kind="ghn"))} == {"ghn"}
    for sort in SORTS:
        for descending in (True, False):
            rows = catalogue.query(Query(sort=sort, descending=descending))
            values = [getattr(row, sort) for row in rows]
            known = [value for value in values if value not in (None, "")]
            assert known == sorted(known, reverse=descending)
            assert values[: len(known)] == known, "what is unknown comes last"
            assert rows == ordered(reversed(rows), sort, descending=descending)
    with pytest.raises(ConfigError, match="Expected 'sort' to be one of"):
        Query(sort="weights")
    with pytest.raises(ConfigError, match="finite"):
        Query(min_accuracy=float("nan"))


def test_unknown_references_are_answered(zoo: Zoo) -> None:
    catalogue = Catalogue(zoo)
    for unknown in ("quik", "quick/2", "quick@champion"):
        with pytest.raises(UnknownNameError):
            catalogue.row(unknown)
    with pytest.raises(ZooError):
        catalogue.row("../etc/passwd")


def test_what_others_add_alias_and_delete_is_noticed(zoo: Zoo, entry: ZooEntry) -> None:
    catalogue, other = Catalogue(zoo, full_every_s=1e9), Zoo(zoo.uri)
    old = catalogue.row("quick/1")
    assert catalogue.refresh() is False
    other.add(entry.path, "quick")
    other.add(entry.path, "third")
    assert catalogue.refresh() is True
    assert models(catalogue.rows) == ["plain/2", "quick/2", "third/1"]
    assert catalogue.row("quick/1") is old, "what is known is not read again"
    other.set_alias("third", "fastest")
    MlflowClient(zoo.uri, zoo.uri).delete_model_version("quick", "2")
    assert catalogue.refresh(full=True) is True
    assert catalogue.row("third@fastest").reference == "third/1"
    assert catalogue.row("quick").reference == "quick/1"
    other.remove_alias("third", "fastest")
    catalogue.refresh(full=True)
    assert catalogue.row("third").aliases == ()


def test_a_damaged_card_hides_nothing(zoo: Zoo, caplog: pytest.LogCaptureFixture) -> None:
    client = MlflowClient(zoo.uri, zoo.uri)
    client.set_model_version_tag("quick", "1", CARD_TAG, '{"schema": "nasgraph/card/1"}')
    with caplog.at_level(logging.WARNING):
        catalogue = Catalogue(zoo)
    assert "quick/1" in caplog.text
    assert models(catalogue.rows) == ["plain/2", "quick/1"]
    assert catalogue.row("quick").card is None
    with pytest.raises(ZooError, match="cannot be compared"):
        zoo.compare("plain", "quick")


def test_similar_architectures_come_with_their_score(zoo: Zoo, entry: ZooEntry) -> None:
    found = zoo.similar("quick", most=5)
    assert [similar.row.reference for similar in found] == ["plain/2"]
    assert found[0].score == pytest.approx(1, abs=1e-5)  # the same architecture
    by_graph = zoo.similar(entry.graph)
    assert [similar.row.name for similar in by_graph] == ["plain", "quick"]
    assert zoo.similar(entry.graph, data="cifar10") == ()
    assert [similar.row.name for similar in zoo.similar(entry.graph, text="mit quick")] == ["quick"]
    module = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 10)
    )
    by_module = zoo.similar(module, example_inputs=torch.zeros(2, 1, 8, 8), most=1)
    assert by_module[0].score < by_graph[0].score
    with pytest.raises(ZooError, match="example_inputs"):
        zoo.similar(module)
    for row in zoo.catalogue.rows:
        if row.embedding is not None:
            assert np.linalg.norm(row.embedding) == pytest.approx(1, abs=1e-5)


def test_comparisons_show_what_differs_first(zoo: Zoo) -> None:
    comparison = zoo.compare("plain/1", "plain/2", "quick")
    facts = dict(comparison.facts)
    assert comparison.names == ("plain/1", "plain/2", "quick/1")
    assert facts["licence"] == ("Apache-2.0", "MIT", "MIT")
    assert comparison.differs("licence")
    assert not comparison.differs("parameters")
    assert facts["test accuracy"][1:] == (0.5, 0.25)
    names = [name for name, _ in comparison.facts]
    assert names.index("licence") < names.index("space")
    with pytest.raises(ZooError, match="2 to 8"):
        zoo.compare("plain")


def test_graphs_and_small_files_come_without_the_weights(zoo: Zoo, entry: ZooEntry) -> None:
    assert zoo.graph("plain@champion") == entry.graph
    assert zoo.artifact("plain/1", "architecture.svg") == (entry.path / "architecture.svg").read_bytes()
    assert (zoo.artifact("quick", "thumbnail.svg") or b"").startswith(b"<svg")
    assert zoo.artifact("quick", "architecture.svg") is None
    with pytest.raises(ZooError, match="Expected one of"):
        zoo.artifact("quick", "../secret")
    assert zoo.versions("plain") == (1, 2)
    assert zoo.versions("nothing") == ()


def test_another_graph_than_the_registered_is_refused(zoo: Zoo, entry: ZooEntry) -> None:
    version = zoo.registry.find(parse_reference("quick"))
    assert version is not None
    with zoo.registry.files(version, {"graph.json": 10**6}) as folder:
        shutil.copy(entry.path / "graph.json", folder / "kept")
        text = (folder / "graph.json").read_text().replace('"stride":[2,2]', '"stride":[1,1]', 1)
        assert text != (folder / "kept").read_text()
        (folder / "graph.json").write_text(text)
    with pytest.raises(ZooError, match="not the one that was registered"):
        zoo.graph("quick")
