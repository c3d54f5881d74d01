"""The page of an entry: facts from the card, escaped; curves, links and likeness as they are known."""

import json
import re
from dataclasses import replace
from itertools import pairwise

import pytest
from starlette.testclient import TestClient

from nasgraph.errors import ZooError
from nasgraph.modelzoo import Lineage, ModelCard, ZooEntry
from nasgraph.modelzoo.catalogue import Row
from nasgraph.modelzoo.store import Zoo
from nasgraph.web.app import make_app
from nasgraph.web.context import WebContext, WebSettings
from nasgraph.web.entry_page import (
    DOWNLOADS,
    commands_for,
    curve_charts,
    latency_text,
    measured_text,
    predictions_of,
)
from nasgraph.web.links import base_of, mlflow_links, outside_links, study_link
from tests.web.conftest import ADDRESS
from tests.web.making import MadeCatalogue, latency
from tests.web.reading import Page

NO_SETTINGS = WebSettings()
HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(2)>'


PARTS = ("/like/", "/common/", "/operators/", "/curves/", "/lineage/")


def read(client: TestClient, address: str, *, status: int = 200) -> Page:
    """A page as a browser asks for it, or a part of one as htmx does."""
    headers = {"hx-request": "true"} if address.startswith(PARTS) else {}
    answer = client.get(address, headers=headers)
    assert answer.status_code == status, answer.text[:500]
    return Page(answer.text)


def made_row(row: Row, card: ModelCard, **changes: object) -> Row:
    return replace(row, card=card, **changes)  # type: ignore[arg-type]


def client_of(zoo: Zoo, *rows: Row, settings: WebSettings = NO_SETTINGS) -> TestClient:
    catalogue = MadeCatalogue(rows, {row.name: row for row in rows} | {row.reference: row for row in rows})
    return TestClient(make_app(WebContext(zoo=zoo, catalogue=catalogue, settings=settings)), base_url=ADDRESS)


@pytest.fixture(scope="module")
def small(context: WebContext) -> Row:
    return context.catalogue.row("small/1")


def test_the_page_says_what_the_card_says(client: TestClient, small: Row) -> None:
    page = read(client, "/entry/small/1")
    text = " ".join(page.one("main").words.split())
    card = small.card
    assert card is not None
    test = card.measured("test")
    assert test is not None
    for expected in (
        f"{100 * test.value:.2f} %",
        test.protocol,
        f"{test.num_examples:,}",
        card.architecture.space,
        card.weights_sha256,
        card.fingerprint,
        card.licence,
        "ghn-digits",
        "hand-made",
        "a study",
    ):
        assert expected in text, expected
    for name, value in (*card.architecture.choices, *card.training):
        assert name.replace("_", " ") in text
        assert str(value) in text


def test_names_versions_and_aliases_lead_to_the_same_page(client: TestClient) -> None:
    page = read(client, "/entry/small@champion")
    assert page.one("h1").words == "small version 1 @champion"
    newest = read(client, "/entry/small")
    assert newest.one("h1").words.startswith("small version 2")
    links = [a.attributes["href"] for a in newest.all("a")]
    assert "/entry/small/1" in links


@pytest.mark.parametrize(
    ("address", "status"),
    [
        ("/entry/nobody", 404),
        ("/entry/small/99", 404),
        ("/entry/small@nobody", 404),
        ("/entry/<script>", 400),
        ("/entry/small/1?open=x", 400),
        ("/entry/small/1?detail=x", 400),
        ("/entry/small/1?detail=chains&detail=overview", 400),
        ("/drawing/nobody", 404),
        ("/drawing/small/1?open=1;2", 400),
        ("/operators/small/1", 400),
        ("/operators/small/1?nodes=99999", 400),
        ("/operators/small/1?nodes=-1", 400),
        ("/curves/nobody", 404),
        ("/lineage/nobody", 404),
        ("/like/nobody", 404),
        ("/common/small/1", 400),
        ("/common/small/1?with=nobody", 404),
        ("/drawing/ghn-digits", 409),
    ],
)
def test_what_does_not_exist_is_said_to_be_so(client: TestClient, address: str, status: int) -> None:
    answer = client.get(address)
    assert answer.status_code == status
    assert "Traceback" not in answer.text
    assert "<script>" not in answer.text.replace('<script src="', "")


def test_text_of_a_card_is_shown_and_never_run(zoo: Zoo, small: Row) -> None:
    assert small.card is not None
    assert small.card.data is not None
    card = replace(
        small.card,
        task=HOSTILE,
        licence=HOSTILE,
        data=replace(small.card.data, source=HOSTILE, class_names=(HOSTILE,) * 10),
        training=((HOSTILE, HOSTILE),),
        scores=((HOSTILE, 1.0),),
        measurements=tuple(replace(m, protocol=HOSTILE) for m in small.card.measurements),
        latencies=(replace(latency(1.0), hardware=HOSTILE, protocol=HOSTILE),),
        lineage=Lineage(study=HOSTILE, note=HOSTILE, parent=HOSTILE, mutation=((HOSTILE, HOSTILE, HOSTILE),)),
    )
    client = client_of(zoo, made_row(small, card))
    for address in ("/entry/small/1", "/lineage/small/1"):
        page = read(client, address)
        assert not [e for e in page.elements if any(name.startswith("on") for name in e.attributes)]
        assert not [script for script in page.all("script") if "src" not in script.attributes]
        assert not page.all("img", src="x")
        assert HOSTILE in page.elements[0].text or any(HOSTILE in e.text for e in page.elements)


def test_the_page_has_no_inline_style_and_no_foreign_address(client: TestClient) -> None:
    text = client.get("/entry/small/1").text
    page = Page(text)
    assert not page.all("style")
    assert not [e for e in page.elements if "style" in e.attributes]
    addresses = [
        e.attributes[n] for e in page.elements for n in ("href", "src", "hx-get") if n in e.attributes
    ]
    assert all(address.startswith(("/", "#", "?")) for address in addresses)


def test_headings_go_down_one_level_at_a_time(client: TestClient) -> None:
    for address in ("/entry/small/1", "/entry/ghn-digits"):
        page = read(client, address)
        levels = [int(e.tag[1]) for e in page.elements if re.fullmatch("h[1-6]", e.tag)]
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(after <= before + 1 for before, after in pairwise(levels))


def test_every_id_is_there_once_and_every_link_within_the_page_arrives(client: TestClient) -> None:
    page = read(client, "/entry/small/1")
    ids = [e.attributes["id"] for e in page.elements if "id" in e.attributes]
    assert len(ids) == len(set(ids))
    inner = [a.attributes["href"][1:] for a in page.all("a") if a.attributes["href"].startswith("#")]
    assert set(inner) <= set(ids)
    named = [
        e.attributes[n]
        for e in page.elements
        for n in ("aria-labelledby", "aria-describedby")
        if n in e.attributes
    ]
    assert set(named) <= set(ids)


def test_an_entry_that_is_no_model_has_a_page_of_facts(client: TestClient) -> None:
    page = read(client, "/entry/ghn-digits")
    assert "ghn" in page.one("h1").words
    assert page.all("th", scope="row")


def test_a_card_that_cannot_be_read_is_said_to_be_so(zoo: Zoo, small: Row) -> None:
    page = read(client_of(zoo, replace(small, card=None)), "/entry/small/1")
    assert "cannot be read" in page.one("p", role="alert").words


def test_a_vanished_graph_leaves_the_card(zoo: Zoo, small: Row, monkeypatch: pytest.MonkeyPatch) -> None:
    def vanished(reference: str) -> None:
        raise ZooError(f"The files of '{reference}' have vanished: there is no '/home/somebody/{reference}'")

    monkeypatch.setattr(zoo, "graph", vanished)
    page = read(client_of(zoo, small), "/entry/small/1")
    assert "have vanished" in page.one("p", role="alert").words
    assert "somebody" not in page.elements[0].text
    assert small.card is not None
    assert small.card.weights_sha256 in page.one("main").words


def test_every_node_is_in_the_table_with_its_settings(client: TestClient, entry: ZooEntry) -> None:
    page = read(client, "/entry/small/1")
    table = next(t for t in page.all("table", class_="nodes"))
    for node in entry.graph.nodes:
        assert node.op in table.words
    assert "kernel_size 3, 3" in table.words
    assert page.one("summary").words == f"All {len(entry.graph)} nodes as a table" or any(
        s.words == f"All {len(entry.graph)} nodes as a table" for s in page.all("summary")
    )


def test_operators_are_described_with_shapes_parameters_and_costs(client: TestClient) -> None:
    page = read(client, "/operators/small/1?nodes=1,2")
    text = " ".join(e.words for e in page.all("section"))
    for expected in ("conv 3x3 / 2", "8x4x4", "weight 8x1x3x3", "1,152", "batch norm", "kernel_size3, 3"):
        assert expected in text, expected


def test_a_run_without_curves_says_so_and_one_with_curves_draws_them(
    client: TestClient, zoo: Zoo, small: Row
) -> None:
    assert "No learning curve" in client.get("/curves/small/1").text
    mlflow = pytest.importorskip("mlflow")
    store = mlflow.MlflowClient(tracking_uri=zoo.uri)
    for step, value in enumerate((0.1, 0.5, 0.8)):
        store.log_metric(small.run_id, "val_accuracy_curve", value, step=step)
    page = read(client, "/curves/small/1")
    picture = page.one("svg")
    assert picture.attributes["aria-label"] == "val accuracy over the training: val accuracy ends at 0.8"


def test_charts_take_series_of_several_points_only() -> None:
    charts = curve_charts(
        {
            "train_loss": ((0, 2.0), (1, 1.0)),
            "val_accuracy": ((0, 0.5),),
            "b_curve": ((0, 0.1), (1, float("nan")), (2, 0.3)),
        }
    )
    assert [chart.title for chart in charts] == ["b over the training", "train loss over the training"]
    assert charts[0].lines[0].x == (0.0, 2.0)


def test_shares_are_in_per_cent_with_their_standard_error(entry: ZooEntry) -> None:
    m = replace(entry.card.measurements[0], value=0.9, num_examples=900)
    assert measured_text(m) == "90.00 % ± 1.00"
    assert measured_text(replace(m, metric="accuracy@noise=0.1")) == "90.00 % ± 1.00"
    assert measured_text(replace(m, metric="nll", value=1.25)) == "1.25"
    assert latency_text(latency(2.0)) == "2 ms (1.80 ms to 2.40 ms)"


def test_predictions_stand_beside_the_measurement_of_their_split(entry: ZooEntry) -> None:
    measured = entry.card.measured("validation")
    assert measured is not None
    card = replace(
        entry.card, scores=(("ghn_val_accuracy", measured.value + 0.1), ("synflow", 3.0), ("val_loss", 2.0))
    )
    rows = {name: rest for name, *rest in predictions_of(card)}
    assert rows["ghn_val_accuracy"][2] == "+10.00 points"
    assert rows["synflow"] == ["3", "", ""]
    assert rows["val_loss"] == ["2", "", ""]


def test_links_are_built_from_configured_addresses_only(zoo: Zoo, context: WebContext, small: Row) -> None:
    assert mlflow_links(context, small) == ()
    assert study_link(context, 0) == ""
    settings = WebSettings(mlflow_url="http://127.0.0.1:5000/", dashboard_url="http://127.0.0.1:8080")
    known = WebContext(zoo=zoo, catalogue=context.catalogue, settings=settings)
    links = dict(mlflow_links(known, small))
    assert links["Version in MLflow's registry"] == "http://127.0.0.1:5000/#/models/small/versions/1"
    assert links["Run of these files"].endswith(f"/runs/{small.run_id}")
    assert (
        dict(outside_links(known, small))["Studies in optuna-dashboard"] == "http://127.0.0.1:8080/dashboard"
    )
    assert outside_links(context, small) == ()
    assert study_link(known, 3) == "http://127.0.0.1:8080/dashboard/studies/3"


@pytest.mark.parametrize(
    "address", ["", "javascript:alert(1)", "file:///etc", "//host", "http://", "ftp://a", "x"]
)
def test_addresses_that_no_browser_should_be_sent_to_are_none(address: str) -> None:
    assert base_of(address) == ""


def test_similar_entries_can_show_what_is_common(client: TestClient, context: WebContext) -> None:
    page = read(client, "/like/small/1")
    buttons = page.all("button")
    if not buttons:
        assert "No encoder" in page.elements[0].words
        return
    address = buttons[0].attributes["hx-get"]
    marked = read(client, address).elements[0]
    nodes = [int(node) for node in marked.attributes["data-mark-common"].split()]
    assert nodes
    assert len(nodes) == int(marked.words.split()[0])
    assert max(nodes) < len(context.zoo.graph("small/1"))


def test_an_entry_has_everything_in_common_with_itself(client: TestClient, entry: ZooEntry) -> None:
    marked = read(client, "/common/small/1?with=small/2").elements[0]
    assert marked.attributes["data-mark-common"] == " ".join(map(str, range(len(entry.graph))))


def test_the_json_of_an_entry_is_that_of_its_card(client: TestClient, entry: ZooEntry) -> None:
    card = client.get("/api/entries/small/1").json()["card"]
    assert card["fingerprint"] == entry.card.fingerprint
    assert json.dumps(card)


def test_the_commands_to_copy_are_commands(small: Row) -> None:
    from nasgraph.commands.zoo import app

    known = {command.name for command in app.registered_commands}
    words = [fact.value.split() for fact in commands_for(small)]
    assert {line[2] for line in words if line[0] == "nasgraph"} <= known


def test_every_download_on_the_page_arrives(client: TestClient) -> None:
    page = read(client, "/entry/small/1")
    addresses = {a.attributes["href"] for a in page.all("a") if a.attributes["href"].startswith("/download/")}
    assert len(addresses) == len(DOWNLOADS)
    for address in addresses:
        if address.endswith(".onnx"):
            pytest.importorskip("onnx")
        answer = client.get(address)
        assert answer.status_code == 200, answer.text[:300]
        assert len(answer.content) > 1000


@pytest.mark.parametrize("part", PARTS)
def test_parts_are_pages_of_their_own_without_scripts(client: TestClient, part: str) -> None:
    address = {"/common/": "/common/small/1?with=small/2", "/operators/": "/operators/small/1?nodes=1"}.get(
        part, f"{part}small/1"
    )
    fragment = client.get(address, headers={"hx-request": "true"})
    page = client.get(address)
    assert "<html" not in fragment.text
    assert "<html" in page.text
    assert fragment.text.strip() in page.text
    assert Page(page.text).one("h1").words == "small/1"
    assert page.headers["vary"] == fragment.headers["vary"] == "HX-Request"
