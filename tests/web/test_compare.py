"""Comparing entries, the chart, and what is similar: the numbers on the pages are those of the cards."""

from dataclasses import replace

import numpy as np
import pytest
from starlette.testclient import TestClient

from nasgraph.modelzoo import Measurement, ModelCard, ZooEntry
from nasgraph.modelzoo.catalogue import Query, Row
from nasgraph.modelzoo.store import Zoo
from nasgraph.web.compare_page import sections
from nasgraph.web.scatter import chart_points
from tests.web.making import MadeCatalogue, latency
from tests.web.reading import Page


def row_of(card: ModelCard) -> Row:
    return Row(
        reference=card.name,
        name=card.name,
        version=None,
        kind="model",
        aliases=(),
        card=card,
        source="registry",
    )


@pytest.fixture
def pair(entry: ZooEntry) -> list[Row]:
    """Two cards that differ in seed, accuracy, calibration, latency and one choice."""
    data = entry.card.data
    assert data is not None
    ece = Measurement(
        split="test", metric="ece", value=0.05, num_examples=360, batch_size=256, protocol="15 bins"
    )
    first = replace(
        entry.card, name="first", measurements=(*entry.card.measurements, ece), latencies=(latency(2.0),)
    )
    choices = tuple(
        (name, 3 if name == "depth" else value) for name, value in entry.card.architecture.choices
    )
    other = replace(
        entry.card,
        name="other",
        seed=9,
        measurements=tuple(replace(m, value=m.value / 2) for m in first.measurements),
        latencies=(latency(1.0),),
        architecture=replace(entry.card.architecture, choices=choices),
    )
    return [row_of(first), row_of(other)]


def test_what_differs_is_marked_and_comes_first(pair: list[Row]) -> None:
    for section in sections(pair):
        marks = [line.differs for line in section.lines]
        assert marks == sorted(marks, reverse=True), section.title
    by_title = {section.title: {line.name: line for line in section.lines} for section in sections(pair)}
    assert {name for name, line in by_title["Choices"].items() if line.differs} == {"depth"}
    assert [cell.text for cell in by_title["Choices"]["depth"].cells] == ["2", "3"]
    assert {name for name, line in by_title["Training"].items() if line.differs} == {"seed"}
    assert not any(line.differs for line in by_title["Facts"].values())


def test_the_best_value_is_marked_where_a_direction_is_better(pair: list[Row]) -> None:
    lines = {line.name: line for section in sections(pair) for line in section.lines}
    assert lines["test: accuracy"].best == (0,)  # more is better
    assert lines["test: ece"].best == (1,)  # less is better
    assert [line.best for name, line in lines.items() if name.startswith("latency")] == [(1,)]
    assert lines["Parameters"].best == ()
    same = {line.name: line for section in sections([pair[0], pair[0]]) for line in section.lines}
    assert same["test: accuracy"].best == ()
    assert not any(line.differs for line in same.values())


def test_a_number_that_one_lacks_is_no_best_of_one(pair: list[Row]) -> None:
    card = pair[1].card
    assert card is not None
    bare = replace(card, measurements=(), latencies=())
    lines = {line.name: line for section in sections([pair[0], row_of(bare)]) for line in section.lines}
    assert lines["test: accuracy"].best == ()
    assert lines["test: accuracy"].cells[1].text == ""
    assert lines["test: accuracy"].differs


def test_every_measurement_says_how_it_was_made(pair: list[Row]) -> None:
    (measured,) = (section for section in sections(pair) if section.title == "Measurements")
    for line in measured.lines:
        for cell in line.cells:
            assert cell.note
    notes = {line.name: line.cells[0].note for line in measured.lines}
    assert notes["test: ece"] == "360 examples · 15 bins"


def test_the_page_shows_all_choices_of_all(client: TestClient, zoo: Zoo) -> None:
    names = ["small", "convnet-0", "convnet-1", "nasbench201-0"]
    page = Page(client.get("/compare", params={"with": names}).text)
    heads = [e.words.split("/")[0] for e in page.all("th", scope="col")]
    assert heads == names
    text = page.one("table").words
    for name in names:
        for choice, value in zoo.card(name).architecture.choices:
            assert choice in text
            assert str(value) in text
    assert len([e for e in page.all("img") if e.attributes["src"].startswith("/thumbnail/")]) == 4


@pytest.mark.parametrize(
    ("address", "status"),
    [
        ("", 400),
        ("with=a&with=b&with=c&with=d&with=e", 400), ("with=small&with=ghn-digits", 400), ("with=small&with=no-such", 404), ("with=small&with=../x", 400),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_refused(client: TestClient, address: str, status: int) -> None:
    assert client.get(f"/compare?{address}").status_code == status


def test_versions_and_aliases_can_be_compared(client: TestClient) -> None:
    page = Page(client.get("/compare?with=small@champion&with=small/2").text)
    assert [e.words for e in page.all("th", scope="col")] == ["small/1 @champion", "small/2"]


@pytest.mark.parametrize("cost", ["num_parameters", "multiply_adds", "latency_ms"])
def test_the_line_of_the_best_is_the_pareto_front(many: MadeCatalogue, cost: str) -> None:
    points = chart_points(many.rows, cost)
    x = np.array([getattr(row, cost) for row in points.rows])
    y = np.array([row.accuracy for row in points.rows])
    beaten = np.array(
        [((x <= x[i]) & (y >= y[i]) & ((x < x[i]) | (y > y[i]))).any() for i in range(0, len(x), 7)]
    )
    best = np.zeros(len(x), bool)
    best[list(points.best)] = True
    np.testing.assert_array_equal(best[::7], ~beaten)
    assert all(not ((x <= x[i]) & (y >= y[i]) & ((x < x[i]) | (y > y[i]))).any() for i in points.best)


def test_of_too_many_points_the_most_beaten_are_left_out_and_told(many: MadeCatalogue) -> None:
    whole = chart_points(many.rows, "num_parameters")
    thinned = chart_points(many.rows, "num_parameters", most=500)
    assert (len(thinned.rows), thinned.num_left_out) == (500, 9_500)
    assert [thinned.rows[i].name for i in thinned.best] == [whole.rows[i].name for i in whole.best]
    assert set(thinned.rows) <= set(whole.rows)


def test_entries_without_both_numbers_are_counted_not_drawn(client: TestClient) -> None:
    found = client.get("/api/points?x=latency_ms").json()
    rows = client.get("/api/entries?sort=latency_ms").json()
    assert len(found["x"]) + found["unknown"] == rows["found"]
    assert all(x > 0 for x in found["x"])


def test_the_chart_takes_the_filters_of_the_table(crowded: TestClient, many: MadeCatalogue) -> None:
    found = crowded.get("/api/points?space=vit&max_parameters=1M&x=multiply_adds&colour=data").json()
    rows = many.query(Query(space="vit", max_parameters=1e6))
    assert sorted(found["reference"]) == sorted(row.reference for row in rows)
    assert found["x"] == sorted(found["x"])
    assert set(found["group"]) == {row.data for row in rows}
    page = Page(crowded.get("/scatter?space=vit&max_parameters=1M&x=multiply_adds").text)
    hidden = {e.attributes["name"]: e.attributes["value"] for e in page.all("input", type="hidden")}
    assert hidden == {"space": "vit", "max_parameters": "1000000"}
    listed = [e.words for e in page.all("th", scope="row")]
    assert listed == [found["reference"][place] for place in found["best"]]  # the keyboard's way to the same


def test_similar_entries_are_those_of_the_smallest_angle(crowded: TestClient, many: MadeCatalogue) -> None:
    asked = many.rows[123]
    found = crowded.get(f"/api/similar/{asked.reference}?most=7").json()["similar"]
    vectors = np.stack([row.embedding for row in many.rows if row.embedding is not None]).astype(np.float64)
    assert asked.embedding is not None
    scores = vectors @ asked.embedding.astype(np.float64)
    expected = [i for i in np.argsort(-scores) if i != 123][:7]
    assert [item["reference"] for item in found] == [many.rows[i].reference for i in expected]
    np.testing.assert_allclose([item["score"] for item in found], scores[expected], atol=1e-5)


def test_similar_entries_of_a_real_zoo_do_not_contain_the_entry_itself(client: TestClient) -> None:
    found = client.get("/api/similar/convnet-0").json()["similar"]
    assert {item["name"] for item in found} == {"small", "convnet-1", "nasbench201-0", "nasbench201-1"}
    page = Page(client.get("/similar/convnet-0").text)
    assert len([e for e in page.all("a") if e.words == "compare"]) == 4
    assert client.get("/similar/ghn-digits").status_code == 409
    assert client.get("/api/similar/convnet-0?most=0").status_code == 400


@pytest.mark.parametrize("address", ["with=small", "with=small&with=small", "with=small&with="])
def test_one_model_asks_for_the_other(client: TestClient, zoo: Zoo, address: str) -> None:
    page = Page(client.get(f"/compare?{address}").text)
    offered = [option.attributes["value"] for option in page.all("option")]
    models = [row.reference for row in zoo.catalogue.all_rows if row.card is not None]
    assert set(offered) == set(models) - {zoo.catalogue.row("small").reference}
    found = client.get("/compare", params={"with": ["small", offered[0]]})
    assert found.status_code == 200
