"""The table: what it shows, how it filters, sorts and pages, and that every state of it has an address."""

import time

import pytest
from starlette.datastructures import QueryParams
from starlette.testclient import TestClient

from nasgraph.modelzoo.catalogue import SORTS, Query
from nasgraph.web.context import BadRequestError
from nasgraph.web.queries import TableState, parse_state
from nasgraph.web.table_page import neighbours, num_pages
from tests.web.making import MadeCatalogue
from tests.web.reading import Page


def names(page: Page) -> list[str]:
    return [e.words.split(" ")[0] for e in page.all("th", scope="row", class_="name")]


def test_every_entry_has_a_row_with_its_facts(client: TestClient) -> None:
    page = Page(client.get("/").text)
    rows = names(page)
    assert {"small", "convnet-0", "convnet-1", "nasbench201-0", "nasbench201-1", "ghn-digits"} <= set(rows)
    assert rows[0] == "small"  # the most accurate
    card = client.get("/api/entries/small").json()["card"]
    cells = {e.attributes["data-label"]: e.words for e in page.all("td") if "data-label" in e.attributes}
    assert set(cells) == {
        "Data",
        "Space",
        "Test accuracy",
        "Parameters",
        "Multiply-adds",
        "Latency",
        "Created",
    }
    first = next(e.words for e in page.all("td", data_label="Parameters"))
    assert first == f"{card['num_parameters'] / 1e3:.2f} k"


def test_each_filter_leaves_the_rows_that_fit(crowded: TestClient, many: MadeCatalogue) -> None:
    for address, query in {
        "data=digits": Query(data="digits"),
        "space=vit&max_parameters=100k": Query(space="vit", max_parameters=100_000),
        "min_accuracy=80%25": Query(min_accuracy=0.8),
        "min_accuracy=80&max_latency_ms=1.5": Query(min_accuracy=0.8, max_latency_ms=1.5),
        "max_multiply_adds=1,000,000": Query(max_multiply_adds=1_000_000),
        "q=wide+champion": Query(text="wide champion"),
        "q=WIDE&kind=model": Query(text="wide", kind="model"),
        "kind=ghn": Query(kind="ghn"),
    }.items():
        expected = many.query(query)
        answer = crowded.get(f"/api/entries?{address}").json()
        assert answer["found"] == len(expected), address
        assert [item["reference"] for item in answer["entries"]] == [row.reference for row in expected[:50]]
        shown = Page(crowded.get(f"/?{address}").text)
        assert names(shown) == [row.name for row in expected[:50]]


@pytest.mark.parametrize("sort", SORTS)
def test_a_column_sorts_both_ways_and_says_so(crowded: TestClient, many: MadeCatalogue, sort: str) -> None:
    for order, word, descending in (("rising", "ascending", False), ("falling", "descending", True)):
        page = Page(crowded.get(f"/?sort={sort}&order={order}").text)
        assert names(page) == [row.name for row in many.query(Query(sort=sort, descending=descending))[:50]]
        sorted_columns = [e for e in page.all("th") if "aria-sort" in e.attributes]
        assert [e.attributes["aria-sort"] for e in sorted_columns] == ([] if sort == "kind" else [word])


def test_sorting_and_paging_keep_the_filters(crowded: TestClient) -> None:
    page = Page(crowded.get("/?q=wide&data=digits&page=2").text)
    links = [e.attributes["href"] for e in page.all("a") if e.attributes.get("hx-get")]
    assert len(links) > 10
    for link in links:
        assert "q=wide" in link
        assert "data=digits" in link
        assert crowded.get(link).status_code == 200


def test_pages_hold_every_row_once(crowded: TestClient, many: MadeCatalogue) -> None:
    found = [
        item["reference"]
        for page in range(1, 6)
        for item in crowded.get(f"/api/entries?space=vit&sort=name&page={page}").json()["entries"]
    ]
    expected = [row.reference for row in many.query(Query(space="vit", sort="name", descending=False))]
    assert found == expected[:250]


def test_a_page_after_the_last_shows_the_last(crowded: TestClient) -> None:
    page = Page(crowded.get("/?page=999").text)
    assert [e.words for e in page.all("a", aria_current="page") if e.attributes["href"] != "/"] == ["200"]


def test_the_form_sends_back_what_the_address_says(crowded: TestClient) -> None:
    page = Page(
        crowded.get("/?q=wide&space=vit&min_accuracy=0.123456789&max_parameters=1234567&sort=name").text
    )
    fields = {
        e.attributes["name"]: e.attributes["value"]
        for e in page.all("input")
        if "form" in e.path and e.attributes.get("value")
    }
    chosen = [
        e.attributes["value"]
        for e in page.all("option")
        if "selected" in e.attributes and e.attributes["value"]
    ]
    assert chosen == ["vit"]
    again = parse_state(QueryParams({**fields, "space": "vit"}))
    assert again.query == Query(
        text="wide",
        space="vit",
        min_accuracy=0.123456789,
        max_parameters=1234567,
        sort="name",
        descending=False,
    )


def test_an_address_read_and_written_is_the_shortest_of_its_state() -> None:
    for address in (
        "/",
        "/?q=a+b&data=digits&space=vit&kind=model&task=image-classification&min_accuracy=0.9&max_parameters=1500000&max_multiply_adds=7&max_latency_ms=0.25&sort=name&order=falling&page=3",
        "/?sort=latency_ms",
        "/?order=rising",
    ):
        assert parse_state(QueryParams(address.partition("?")[2])).url() == address
    state = parse_state(
        QueryParams("q=&data=&min_accuracy=90%25&order=falling&sort=accuracy&page=1&max_parameters=1.5M")
    )
    assert state.url() == "/?min_accuracy=0.9&max_parameters=1500000"
    assert TableState(state.query, 7).url(sort="name", descending=False).endswith("&sort=name")


@pytest.mark.parametrize(
    ("address", "word"),
    [
        ("max_parameters=many", "max_parameters"), ("max_parameters=-1", "max_parameters"), ("max_parameters=1e400", "max_parameters"),
        ("max_parameters=9999999T", "max_parameters"), ("min_accuracy=nan", "min_accuracy"), ("min_accuracy=150", "min_accuracy"),
        ("max_latency_ms=0", "max_latency_ms"), ("max_latency_ms=inf", "max_latency_ms"), ("sort=__class__", "sort"),
        ("order=up", "order"), ("page=0", "page"), ("page=-1", "page"), ("page=1.5", "page"), ("page=99999999999", "page"),
        ("q=a&q=b", "q"), ("data=a&data=b", "data"), (f"q={'x' * 201}", "q"), ("page=٣", "page"), ("max_parameters=٣", "max_parameters"),
    ],
)  # fmt: skip
def test_a_value_that_no_field_takes_is_refused_by_name(client: TestClient, address: str, word: str) -> None:
    with pytest.raises(BadRequestError, match=word):
        parse_state(QueryParams(address))
    answer = client.get(f"/?{address}")
    assert answer.status_code == 400
    assert f"&#39;{word}&#39;" in answer.text


def test_htmx_gets_the_rows_alone_and_the_address_to_show(crowded: TestClient) -> None:
    answer = crowded.get("/?q=wide&data=&page=1", headers={"hx-request": "true"})
    assert "<html" not in answer.text
    assert answer.headers["hx-push-url"] == "/?q=wide"
    assert answer.headers["vary"] == "HX-Request"
    page = Page(answer.text)
    assert len(names(page)) == 50
    assert {e.attributes["id"] for e in page.all("input", hx_swap_oob="true")} == {"sort", "order"}
    whole = crowded.get("/?q=wide", headers={"hx-request": "true", "hx-history-restore-request": "true"})
    assert "<html" in whole.text


def test_a_wrong_value_is_told_to_htmx_in_a_part_of_the_page(client: TestClient) -> None:
    answer = client.get("/?max_parameters=x", headers={"hx-request": "true"})
    assert answer.status_code == 400
    assert answer.headers["hx-push-url"] == "false"
    assert "<html" not in answer.text
    assert Page(answer.text).one("p", role="alert").words.startswith("Expected 'max_parameters'")


def test_new_entries_appear_without_a_restart(client: TestClient) -> None:
    before = client.get("/api/entries?q=small").json()["entries"]
    assert [item["version"] for item in before if item["name"] == "small"] == [2]


def test_names_are_escaped(crowded: TestClient) -> None:
    page = crowded.get("/", params={"q": '"><script>alert(1)</script>', "data": "<b>"}).text
    assert "<script>alert" not in page
    assert "<b>" not in page
    assert "&lt;script&gt;" in page


def test_every_page_is_a_well_formed_document_with_labels(client: TestClient) -> None:
    for address in (
        "/",
        "/?q=nothing-like-this",
        "/scatter",
        "/for-data",
        "/api",
        "/compare?with=small&with=convnet-0",
        "/similar/small",
        "/nope",
    ):
        page = Page(client.get(address).text)
        assert not page.unclosed, address
        assert page.one("html").attributes["lang"] == "en"
        assert len(page.all("h1")) == 1, address
        assert page.one("main").attributes["id"] == "content"
        assert page.one("a", class_="skip").attributes["href"] == "#content"
        identities = [e.attributes["id"] for e in page.elements if "id" in e.attributes]
        assert len(identities) == len(set(identities)), address
        for field in (*page.all("input"), *page.all("select")):
            is_named = (
                "label" in field.path
                or field.attributes.get("type") == "hidden"
                or page.all("label", for_=field.attributes.get("id", ""))
            )
            assert is_named, (address, field.attributes)
        for table in page.all("table"):
            assert "caption" in {e.tag for e in page.elements if "table" in e.path}, (
                address,
                table.attributes,
            )
        for picture in page.all("img"):
            assert "alt" in picture.attributes
        assert not page.all("style")
        assert not [
            e
            for e in page.elements
            if "style" in e.attributes or any(n.startswith("on") for n in e.attributes)
        ]
        assert all("src" in e.attributes for e in page.all("script"))


def test_page_numbers() -> None:
    assert [num_pages(n) for n in (0, 1, 50, 51, 10_000)] == [1, 1, 1, 2, 200]
    assert neighbours(1, 1) == [1]
    assert neighbours(5, 9) == [1, None, 3, 4, 5, 6, 7, None, 9]
    assert neighbours(3, 4) == [1, 2, 3, 4]


def test_filtering_ten_thousand_rows_costs_little_more_than_showing_them(crowded: TestClient) -> None:
    def seconds(*addresses: str) -> float:
        times = []
        for address in addresses:
            started = time.process_time()
            assert crowded.get(address, headers={"hx-request": "true"}).status_code == 200
            times.append(time.process_time() - started)
        return min(times)

    crowded.get("/")
    shown = seconds("/?sort=name", "/?sort=created", "/?sort=data")
    assert seconds("/?q=wide", "/?q=deep vit", "/?q=quick-darts", "/?q=nothing") < 5 * shown
