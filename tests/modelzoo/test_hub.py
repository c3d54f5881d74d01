"""Hub folders: the Hugging Face client reads them, without network, and loads the network by its own means."""

import importlib
import socket
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nasgraph.data import DataSet
from nasgraph.errors import ZooError
from nasgraph.modelzoo import Lineage, Measurement, ModelCard, ZooEntry, read_card
from nasgraph.modelzoo.card import LatencyFact
from nasgraph.modelzoo.export_source import example_inputs, run
from nasgraph.modelzoo.facts import measure_facts
from nasgraph.modelzoo.hub import check_hub_folder, check_repo_id, push_folder, write_hub_folder
from nasgraph.modelzoo.readme import card_markdown, hub_licence

hub = pytest.importorskip("huggingface_hub")

REPO = "someone/small-net"
LATENCY = LatencyFact(
    device="cpu",
    hardware="A | processor",
    threads=1,
    batch_size=1,
    dtype="float32",
    median_s=0.0012345,
    low_s=0.001,
    high_s=0.002,
    protocol="median of 10",
)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever opens a connection fails."""

    def refuse(self: object, address: object) -> None:
        raise AssertionError(f"a connection to {address} was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(scope="module")
def full(entry: ZooEntry, digits: DataSet) -> ZooEntry:
    """The entry with every measured fact."""
    facts = measure_facts(entry.graph, entry.state, {"test": digits.test}, latency=None)
    return replace(entry, card=replace(entry.card, measurements=facts.measurements, latencies=(LATENCY,)))


@pytest.fixture
def written(full: ZooEntry, tmp_path: Path) -> Path:
    write_hub_folder(full, tmp_path / "hub", repo_id=REPO)
    return tmp_path / "hub"


@pytest.fixture
def network_class(written: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The class in the folder's `model.py`."""
    monkeypatch.syspath_prepend(str(written))
    importlib.invalidate_caches()
    sys.modules.pop("model", None)
    yield importlib.import_module("model").Network
    sys.modules.pop("model", None)


def test_the_client_reads_the_card_and_all_evaluation_results(full: ZooEntry, written: Path) -> None:
    card = hub.ModelCard.load(written / "README.md")
    data = card.data
    assert (data.license, data.library_name) == ("apache-2.0", "nasgraph")
    assert data.pipeline_tag == "image-classification"
    assert data.datasets == ["digits"]
    assert set(data.metrics) == {"accuracy", "ece", "nll", "brier"}
    assert data.model_name == full.card.name
    found = {(r.dataset_split, r.metric_name or r.metric_type): r.metric_value for r in data.eval_results}
    assert found == {(m.split, m.metric): m.value for m in full.card.measurements}


def test_the_metadata_survive_the_client_writing_them(written: Path) -> None:
    before = hub.metadata_load(written / "README.md")
    hub.ModelCard.load(written / "README.md").save(written / "again.md")
    assert hub.metadata_load(written / "again.md") == before
    assert before["tags"][:2] == ["nasgraph", "neural-architecture-search"]


def test_the_clients_mixin_loads_the_written_class_from_the_folder(
    full: ZooEntry, written: Path, network_class: Any
) -> None:
    mixed: Any = type("HubNetwork", (network_class, hub.PyTorchModelHubMixin), {})
    network = mixed.from_pretrained(written).eval()
    inputs = example_inputs(full.graph, batch_size=4, seed=2)
    assert torch.equal(run(network, inputs)[0], run(full.module(), inputs)[0])


def test_the_client_prepares_every_file_for_upload(written: Path) -> None:
    folder = check_hub_folder(written, repo_id=REPO)
    assert folder.files == tuple(sorted(path.name for path in written.iterdir()))
    assert {
        "README.md",
        "config.json",
        "model.py",
        "model.safetensors",
        "load.py",
        "architecture.svg",
    } <= set(folder.files)
    assert folder.num_bytes == sum(path.stat().st_size for path in written.iterdir())
    assert not [name for name in folder.files if name.endswith((".bin", ".pt", ".pkl"))]


def test_the_card_of_the_entry_is_kept_whole(full: ZooEntry, written: Path) -> None:
    assert read_card(written / "card.json") == full.card


def test_the_readme_has_calibration_robustness_latency_and_how_to_use_the_repository(written: Path) -> None:
    text = (written / "README.md").read_text()
    for part in (
        "| test | ece |",
        "accuracy@noise=0.1",
        "1.234 ms",
        "A \\| processor",
        f'snapshot_download("{REPO}")',
    ):
        assert part in text
    assert "load_entry" not in text


def test_a_folder_whose_card_was_changed_is_refused(written: Path) -> None:
    readme = written / "README.md"
    text = readme.read_text()
    readme.write_text(text.replace("model-index:", "other-index:"))
    with pytest.raises(ZooError, match="Expected 7 evaluation results"):
        check_hub_folder(written, repo_id=REPO)
    readme.write_text(text.replace("library_name: nasgraph", "library_name: [nasgraph"))
    with pytest.raises(ZooError, match=r"(?s)client refuses"):
        check_hub_folder(written, repo_id=REPO)
    readme.unlink()
    with pytest.raises(ZooError, match="lacks"):
        check_hub_folder(written, repo_id=REPO)


def test_nothing_is_sent_where_the_check_fails(written: Path) -> None:
    (written / "README.md").unlink()
    with pytest.raises(ZooError, match="lacks"):
        push_folder(written, repo_id=REPO, token="hf_none")


def test_an_upload_without_network_is_one_clear_error(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def create(self: object, *args: object, **kwargs: object) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(hub.HfApi, "create_repo", create)  # the edge of the machine
    with pytest.raises(ZooError, match=r"Cannot upload .* to 'someone/small-net': no route"):
        push_folder(written, repo_id=REPO, token="hf_none")


def test_what_is_there_is_kept_unless_forced(full: ZooEntry, written: Path) -> None:
    with pytest.raises(ZooError, match="exists"):
        write_hub_folder(full, written, repo_id=REPO)
    assert write_hub_folder(full, written, repo_id="other/name", force=True).repo_id == "other/name"
    assert "other/name" in (written / "README.md").read_text()


@pytest.mark.parametrize(
    "repo_id",
    [
        *(
            "a/b",
            "some-one/x.y_z",
            "A1/b-2",
            "a/" + "b" * 94,
            "a/" + "b" * 95,
            "a//b",
            "/a",
            "a/",
            "",
            "a/b/c",
            "a b/c",
            "a/b.git",
        ),
        *(
            "a/-b",
            "a/b-",
            "a/.b",
            "a/b.",
            "a--b/c",
            "a/b..c",
            "a/ü",
            "../b",
            "a/b\n",
            "a/_b",
            "a/b_",
            "_a/b",
            "http://a/b",
        ),
    ],
)
def test_names_of_repositories_are_those_that_the_client_accepts(repo_id: str) -> None:
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(repo_id)
        accepted = "/" in repo_id
    except HFValidationError:
        accepted = False
    if accepted:
        assert check_repo_id(repo_id) == repo_id
    else:
        with pytest.raises(ZooError, match="repo_id"):
            check_repo_id(repo_id)


@pytest.mark.parametrize(
    ("licence", "expected"),
    [
        *(
            ("Apache-2.0", "apache-2.0"),
            ("MIT", "mit"),
            ("GPL-3.0-or-later", "gpl-3.0"),
            ("CC-BY-4.0", "cc-by-4.0"),
        ),
        *(("LGPL-2.1-only", "lgpl-2.1"), ("ODbL-1.0", "odbl"), ("My own", None), ("", None)),
    ],
)
def test_licences_get_the_names_of_the_hub(licence: str, expected: str | None) -> None:
    assert hub_licence(licence) == expected


def odd_card(card: ModelCard, texts: list[str]) -> ModelCard:
    """The card with these texts wherever a text is free."""
    licence, data_name, space, protocol, task, hardware, note = texts
    assert card.data is not None
    return replace(
        card,
        licence=licence,
        task=task,
        data=replace(card.data, name=data_name, source=note, class_names=(space, licence)),
        architecture=replace(card.architecture, space=space, choices=((note, task),)),
        measurements=(replace(card.measurements[0], protocol=protocol, metric=task),),
        latencies=(replace(LATENCY, hardware=hardware),),
        lineage=Lineage(origin="merge", ingredients=(note, space), note=note, mutation=((task, "", note),)),
        scores=((note, 0.5),),
    )


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(st.lists(TEXT, min_size=7, max_size=7))
def test_no_text_of_a_card_can_break_its_metadata_or_its_tables(full: ZooEntry, texts: list[str]) -> None:
    card = odd_card(full.card, texts)
    text = card_markdown(card, for_hub=True)
    _, front, body = text.split("---\n", 2)
    fields = yaml.safe_load(front)
    assert set(fields) <= {
        *(
            "license",
            "license_name",
            "library_name",
            "pipeline_tag",
            "tags",
            "datasets",
            "metrics",
            "model-index",
        )
    }
    assert fields["license"] == (hub_licence(texts[0]) or "other")
    assert fields["tags"][2:] == ([texts[2]] if texts[2] not in fields["tags"][:2] else [])
    assert [line for line in body.splitlines() if line.startswith("#")] == [
        *(
            "# small",
            "## Measured",
            "## Predicted before training",
            "## Latency of one forward pass",
            "## Data",
            "## Origin",
        ),
        "## Use",
    ]
    parsed = hub.ModelCard(text).data
    assert [result.metric_value for result in parsed.eval_results] == [card.measurements[0].value]


def test_a_card_without_data_has_no_data_set_and_no_results(entry: ZooEntry) -> None:
    card = replace(
        entry.card,
        data=None,
        measurements=(),
        task="other",
        lineage=Lineage(origin="import", note="net.onnx"),
    )
    fields = yaml.safe_load(card_markdown(card, for_hub=True).split("---\n", 2)[1])
    assert {"datasets", "model-index", "pipeline_tag"}.isdisjoint(fields)
    text = card_markdown(card)
    assert "not known" in text
    assert "| origin | import |" in text
    assert "| note | net.onnx |" in text


def test_the_readme_tells_the_lineage(entry: ZooEntry) -> None:
    lineage = Lineage(
        parent="base/3",
        parent_fingerprint="ab" * 16,
        parent_trial=7,
        mutation=(("depth", "2", "3"), ("skip", "", "on")),
    )
    text = card_markdown(replace(entry.card, lineage=lineage))
    for row in (
        "| made from | base/3 |",
        "| of trial | 7 |",
        "| changed: depth | 2 → 3 |",
        "| changed: skip | (absent) → on |",
    ):
        assert row in text


def test_measurements_of_one_kind_are_one_metric_of_the_hub(entry: ZooEntry) -> None:
    first: Measurement = entry.card.measurements[0]
    card = replace(entry.card, measurements=(first, replace(first, metric="accuracy@noise=0.1")))
    fields = yaml.safe_load(card_markdown(card).split("---\n", 2)[1])
    assert fields["metrics"] == ["accuracy"]
    (result,) = fields["model-index"][0]["results"]
    assert [metric.get("name") for metric in result["metrics"]] == [None, "accuracy@noise=0.1"]
