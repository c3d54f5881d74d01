"""The guard: who is answered, what every answer forbids, and that 400 bad requests neither break, leak nor write anything."""

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from nasgraph.files import sha256_of
from nasgraph.modelzoo.store import Zoo
from nasgraph.web.app import make_app
from nasgraph.web.context import WebContext, WebSettings
from nasgraph.web.errors import public_text
from nasgraph.web.security import GuardRules, guard_rules, is_loopback
from tests.web.bad_requests import BadRequest, bad_requests, judge
from tests.web.conftest import ADDRESS
from tests.web.serving import exchange, running

TOKEN = "x-nasgraph-token"


@pytest.fixture(scope="module")
def port(context: WebContext) -> Iterator[int]:
    """A real server."""
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    with running(context) as port:
        yield port


def test_no_bad_request_breaks_the_server_leaks_or_writes(context: WebContext, zoo: Zoo, port: int) -> None:
    store = Path(zoo.uri.removeprefix("sqlite:///"))
    before, kept = sha256_of(store), set(Path(tempfile.gettempdir()).glob("nasgraph-*"))
    requests = bad_requests()
    assert len(requests) > 400
    chosen = requests[::5]  # all of them in benchmarks/zoo/bad_requests.py
    assert {request.category for request in chosen} == {request.category for request in requests}
    faults = []
    for request in chosen:
        verdict = judge(exchange(port, request.wire(context.token)), secret=context.token)
        faults += [
            f"{request.category}: {request.method!r} {request.target[:80]!r}: {text}"
            for text in verdict.faults
        ]
    assert not faults
    assert sha256_of(store) == before
    assert set(Path(tempfile.gettempdir()).glob("nasgraph-web-*")) <= kept
    assert not Path("/tmp/nasgraph-was-here").exists()
    assert exchange(port, BadRequest("none", b"/").wire("")).startswith(b"HTTP/1.1 200")  # it still answers


@pytest.mark.parametrize("host", ["127.0.0.1:8470", "localhost", "LOCALHOST:1", "[::1]:8470", "localhost."])
def test_the_names_of_this_machine_are_answered(client: TestClient, host: str) -> None:
    assert client.get("/api", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1.evil.example", "127.0.0.1@evil.example", "10.0.0.7", "[::2]", "a b", ""],
)
def test_other_names_are_not_answered(client: TestClient, host: str) -> None:
    answer = client.get("/api/entries", headers={"host": host})
    assert answer.status_code in (400, 421)
    assert "entries" not in answer.json()


def test_a_server_on_all_addresses_answers_to_numbers_but_not_to_foreign_names(context: WebContext) -> None:
    rules = guard_rules("0.0.0.0", token="t", max_body_bytes=10)
    client = TestClient(make_app(context, rules=rules), base_url=ADDRESS)
    assert client.get("/api", headers={"host": "192.168.1.5:8470"}).status_code == 200
    assert client.get("/api", headers={"host": "evil.example"}).status_code == 421
    named = TestClient(
        make_app(context, rules=guard_rules("zoo.lan", token="t", max_body_bytes=10)), base_url=ADDRESS
    )
    assert named.get("/api", headers={"host": "zoo.lan:8470"}).status_code == 200


def test_loopback_addresses() -> None:
    assert [is_loopback(host) for host in ("127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost")] == [
        True
    ] * 5
    assert [
        is_loopback(host)
        for host in ("0.0.0.0", "::", "192.168.1.5", "example.org", "127.0.0.1.evil.example", "")
    ] == [False] * 6
    assert not GuardRules(token="t").any_address


def test_another_site_may_link_here_and_nothing_else(client: TestClient) -> None:
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    assert client.get("/", headers=link).status_code == 200
    for changed in (
        {"sec-fetch-dest": "iframe"},
        {"sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"},
        {"sec-fetch-mode": "cors"},
    ):
        for site in ("cross-site", "same-site"):
            assert (
                client.get("/api/entries", headers={**link, **changed, "sec-fetch-site": site}).status_code
                == 403
            )
    assert (
        client.get("/", headers={"sec-fetch-site": "same-origin", "sec-fetch-mode": "cors"}).status_code
        == 200
    )
    assert client.get("/", headers={"origin": "http://evil.example"}).status_code == 403


def test_what_costs_or_changes_something_needs_the_secret_of_a_page(
    client: TestClient, context: WebContext
) -> None:
    post = {"url": "/for-data/upload?kind=csv", "content": b"x", "headers": {"content-type": "text/csv"}}
    assert client.post(**post).status_code == 403  # type: ignore[arg-type]
    headers = {"content-type": "text/csv", TOKEN: context.token}
    for extra, status in (
        ({}, 422),  # the guard lets it pass; the file is no table
        ({"origin": ADDRESS}, 422),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({TOKEN: context.token + "x"}, 403),
    ):
        answer = client.post("/for-data/upload?kind=csv", content=b"x", headers={**headers, **extra})
        assert answer.status_code == status, extra


def test_the_secret_stands_in_pages_and_differs_between_servers(
    client: TestClient, zoo: Zoo, context: WebContext
) -> None:
    assert f'content="{context.token}"' in client.get("/").text
    assert WebContext(zoo=zoo, catalogue=zoo.catalogue).token != context.token
    assert len(context.token) >= 40


def test_a_body_may_not_be_larger_than_allowed(zoo: Zoo) -> None:
    context = WebContext(zoo=zoo, catalogue=zoo.catalogue, settings=WebSettings(max_upload_bytes=1000))
    client = TestClient(make_app(context), base_url=ADDRESS)
    headers = {TOKEN: context.token, "content-type": "text/csv"}
    answer = client.post("/for-data/upload?kind=csv", content=b"1" * 1001, headers=headers)
    assert answer.status_code == 413
    assert client.post("/for-data/upload?kind=csv", content=iter([b"1"]), headers=headers).status_code == 411


@pytest.mark.parametrize(
    "address",
    [
        "/",
        "/api/entries",
        "/nope",
        "/thumbnail/small.svg",
        "/static/base.css",
        "/?page=0",
        "/download/small/entry.zip",
    ],
)
def test_every_answer_forbids_scripts_of_others_framing_and_guessing(
    client: TestClient, address: str
) -> None:
    headers = client.get(address).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "script-src 'self'" in policy or "sandbox" in policy
    assert "unsafe-inline" not in policy.replace("style-src 'unsafe-inline'; sandbox", "")
    assert "unsafe-eval" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["referrer-policy"] == "same-origin"
    assert "server" not in headers


def test_refused_requests_get_the_same_headers(client: TestClient) -> None:
    answer = client.get("/", headers={"host": "evil.example"})
    assert answer.status_code == 421
    assert "script-src 'self'" in answer.headers["content-security-policy"]


def test_head_is_a_get_without_a_body(client: TestClient) -> None:
    got, head = client.get("/api/entries"), client.head("/api/entries")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == got.headers["content-length"]


def test_errors_are_told_without_paths_and_passwords() -> None:
    assert public_text("There is no '/root/a/b/c.json'") == "There is no 'c.json'"
    assert public_text("Cannot read /home/me/my zoo/x.db: gone") == "Cannot read my zoo/x.db: gone"
    assert public_text("file:///etc/ssl/key.pem") == "file:key.pem"
    assert "secret" not in public_text("cannot reach postgresql://me:secret@db.lan:5432/zoo")
    assert public_text(r"Cannot open 'C:\Users\me\zoo.db'") == "Cannot open 'zoo.db'"
    assert public_text("Expected 'name/3' or 1/2 of a/b") == "Expected 'name/3' or 1/2 of a/b"
    assert len(public_text("x" * 10_000)) < 700


def test_a_failure_that_nobody_foresaw_is_a_page_without_details(zoo: Zoo) -> None:
    class Broken:
        rows = all_rows = ()

        def refresh(self) -> None:
            raise RuntimeError("secret detail in /root/somewhere")

        query = row = refresh

    context = WebContext(zoo=zoo, catalogue=Broken())  # type: ignore[arg-type]
    client = TestClient(make_app(context), base_url=ADDRESS, raise_server_exceptions=False)
    answer = client.get("/")
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert "terminal" in answer.text
    assert "frame-ancestors" in answer.headers["content-security-policy"]
