"""Requests that nobody honest sends, by category, as the bytes that go over the wire."""

import io
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

import numpy as np

HOST = b"127.0.0.1"
_PAGES = ("/static/", "/entry/", "/thumbnail/", "/download/", "/api/entries/", "/similar/", "/live/")
_SCRIPTS = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'-alert(1)-'",
    "javascript:alert(1)",
    "{{7*7}}{% include '/etc/passwd' %}",
    "</title><svg/onload=alert(1)>",
    "${7*7}#{7*7}<%= 7*7 %>",
)
_TRAVERSALS = (
    "../../../../etc/passwd",
    "..%2f..%2f..%2fetc%2fpasswd",
    "%2e%2e/%2e%2e/%2e%2e/etc/passwd",
    "....//....//etc/passwd",
    "..%5c..%5cwindows%5cwin.ini",
    "%252e%252e%252fetc%252fpasswd",
    "/etc/passwd",
    "file:///etc/passwd",
    "small/../../../../etc/passwd",
    "C:%5cwindows%5csystem.ini",
    "small%2f..%2f..%2fnasgraph.db",
)
_IDENTIFIERS = (
    "", ".", "-x", "_x", "a//b", "a/0", "a/-1", "a/1/2", "a@", "@a", "a@@b", "a@b@c", "a/99999999999999999999", "a/1e3", "a/0x1",
    "a/%20", "a b", "a;b", "a|b", "a$(id)", "a`id`", "a'or'1'='1", "a%27%3B--", "latest@latest", "x" * 101, "small@v3", "small/1.svg/2",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class BadRequest:
    """One request.

    Attributes:
        category: What is wrong with it.
        method: HTTP method.
        target: What stands after it.
        headers: Lines of the head, besides `Host`.
        body: The body; `Content-Length` is set where the headers do not.
        host: Lines of `Host`.
        version: Version of HTTP.
        has_token: Whether the secret of the server is sent along.
    """

    category: str
    target: bytes
    method: bytes = b"GET"
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = b""
    host: tuple[bytes, ...] = (HOST,)
    version: bytes = b"HTTP/1.1"
    has_token: bool = False

    def wire(self, token: str) -> bytes:
        """What is sent."""
        lines = [b" ".join((self.method, self.target, self.version)).rstrip()]
        lines += [b"Host: " + host for host in self.host]
        lines += [name + b": " + value for name, value in self.headers]
        lines += [b"X-NASGraph-Token: " + token.encode()] if self.has_token else []
        named = {name.lower() for name, _ in self.headers}
        if (self.body or self.method == b"POST") and not named & {b"content-length", b"transfer-encoding"}:
            lines.append(b"Content-Length: " + str(len(self.body)).encode())
        return b"\r\n".join([*lines, b"Connection: close", b"", b""]) + self.body


def bad_requests() -> tuple[BadRequest, ...]:
    """All of them."""
    return tuple(request for make in _CATEGORIES.values() for request in make())


def _traversal() -> Iterator[BadRequest]:
    for page in _PAGES:
        for text in _TRAVERSALS:
            yield BadRequest("path traversal", (page + text).encode())
    yield BadRequest("path traversal", b"/../../etc/passwd")
    yield BadRequest("path traversal", b"//etc/passwd")
    yield BadRequest("path traversal", b"/compare?with=../../etc/passwd&with=small")
    yield BadRequest("path traversal", b"/for-data?data=../../../etc/passwd")
    yield BadRequest("path traversal", b"/for-data?data=/etc/passwd")
    yield BadRequest("path traversal", b"/download/small/entry.zip/../../../../etc/passwd")
    yield BadRequest(
        "path traversal", b"/for-data/upload?kind=../../x.py", b"POST", _BINARY, b"x", has_token=True
    )
    yield BadRequest("path traversal", b"/for-data/path", b"POST", _BINARY, b"/etc/passwd", has_token=True)


def _huge() -> Iterator[BadRequest]:
    for target in (
        "/" + "a" * 5000, "/entry/" + "a" * 900, "/?q=" + "a" * 4000, "/?q=" + "a" * 20_000, "/?" + "&".join(f"x{i}=1" for i in range(2000)),
        "/?" + "&" * 3000, "/?max_parameters=" + "9" * 300, "/?max_parameters=1e308", "/?page=" + "9" * 200, "/?min_accuracy=0." + "3" * 3000,
        "/compare?" + "&".join("with=small" for _ in range(39)), "/compare?" + "&".join(f"with=a{i}" for i in range(39)),
        "/api/similar/small?most=1000000000", "/api/entries?page=999999999", "/scatter?x=" + "a" * 3000, "/?q=" + "+".join("a" for _ in range(100)),
    ):  # fmt: skip
        yield BadRequest("huge parameters", target.encode())
    yield BadRequest("huge parameters", b"/", headers=((b"X-Long", b"a" * 100_000),))
    yield BadRequest(
        "huge parameters", b"/", headers=tuple((f"X-{i}".encode(), b"a" * 20) for i in range(3000))
    )
    yield BadRequest("huge parameters", b"/", headers=((b"Cookie", b"a=" + b"b" * 60_000),))
    yield BadRequest(
        "huge parameters",
        b"/for-data/upload",
        b"POST",
        (*_BINARY, (b"Content-Length", b"99999999999")),
        has_token=True,
    )


def _identifiers() -> Iterator[BadRequest]:
    for page in ("/entry/", "/api/entries/", "/thumbnail/"):
        for text in _IDENTIFIERS:
            end = ".svg" if page == "/thumbnail/" else ""
            yield BadRequest("malformed names", (page + text.replace(" ", "%20") + end).encode())
    for text in _IDENTIFIERS:
        yield BadRequest("malformed names", f"/compare?with=small&with={text.replace(' ', '+')}".encode())


def _scripts() -> Iterator[BadRequest]:
    for script in _SCRIPTS:
        for name in ("q", "data", "space", "sort", "max_parameters"):
            yield BadRequest("script in names", f"/?{name}={quote(script)}".encode())
        for page in (
            "/entry/",
            "/compare?with=a&with=",
            "/for-data?data=",
            "/scatter?q=",
            "/live/",
            "/nope/",
        ):
            yield BadRequest("script in names", (page + quote(script)).encode())
    yield BadRequest(
        "script in names",
        b"/",
        headers=((b"User-Agent", b"<script>alert(1)</script>"), (b"Referer", b"javascript:alert(1)")),
    )


_BINARY = ((b"Content-Type", b"application/octet-stream"),)


def _pickle() -> bytes:
    """An archive whose array would be unpickled, by a numpy that may, into a call of a program."""
    body = b"cposix\nsystem\n(S'touch /tmp/nasgraph-was-here'\ntR."
    header = b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little")
    header += b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }".ljust(117) + b"\n"
    return _zip({"x.npy": header + body, "y.npy": header + body})


def _zip(members: Mapping[str, bytes]) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return target.getvalue()


def _claiming(size: int) -> bytes:
    """An archive of a megabyte of zeros whose directory says that it holds `size` bytes."""
    archive = bytearray(_zip({"x.npy": bytes(2**20), "y.npy": bytes(2**20)}))
    place = -1
    while (place := archive.find(b"PK\x01\x02", place + 1)) >= 0:
        archive[place + 24 : place + 28] = size.to_bytes(4, "little")
    return bytes(archive)


def _array(array: "np.typing.NDArray[np.generic]") -> bytes:
    target = io.BytesIO()
    np.save(target, array, allow_pickle=False)
    return target.getvalue()


def _bodies() -> Iterator[BadRequest]:
    bomb, liar = _claiming(2**32 - 16), _claiming(64)
    claims = (
        b"\x93NUMPY\x01\x00"
        + (118).to_bytes(2, "little")
        + b"{'descr': '<f8', 'fortran_order': False, 'shape': (10000000000, 100), }".ljust(117)
        + b"\n"
    )
    good = _array(np.zeros((4, 2), np.float32))
    for kind, body in (
        ("npz", b""), ("npz", b"PK\x03\x04"), ("npz", _pickle()), ("npz", bomb), ("npz", liar), ("npz", _zip({"x.npy": claims, "y.npy": claims})),
        ("npz", _zip({f"a{i}.npy": good for i in range(40)})), ("npz", _zip({"../../x.npy": good, "y.npy": good})), ("npz", _zip({"x.npy": good})),
        ("npz", _zip({"x.npy": good, "y.npy": good})), ("npz", good), ("npz", b"\x80\x04\x95pickle"), ("npz", _zip({"x.npy": good, "y.npy": good})[:-30]),
        ("npz", _zip({"x.npy": _array(np.full((4, 1, 8, 8), np.nan, np.float32)), "y.npy": _array(np.arange(4))})),
        ("npz", _zip({"x.npy": _array(np.zeros((3, 0), np.float32)), "y.npy": _array(np.arange(3))})),
        ("csv", b""), ("csv", b"\xff\xfe\x00"), ("csv", b"a,b\n1,2,3\n"), ("csv", b"=cmd|' /C calc'!A0,1\n"), ("csv", b"1,a\n" * 3), ("csv", b"x" * 200_000),
        ("csv", b"nan,1\ninf,2\n"), ("csv", b'"' * 1000), ("csv", b",".join(b"1" for _ in range(50_000))), ("tsv", b"\x00\x00\x00"), ("exe", b"MZ"), ("pkl", _pickle()),
    ):  # fmt: skip
        yield BadRequest(
            "bad bodies", f"/for-data/upload?kind={kind}".encode(), b"POST", _BINARY, body, has_token=True
        )
    for content_type in (
        b"multipart/form-data; boundary=x", b"application/json", b"application/x-www-form-urlencoded", b"text/html", b"application/xml",
        b"application/python-pickle", b"", b"a" * 500, b"image/png\x7f",
    ):  # fmt: skip
        headers = ((b"Content-Type", content_type),)
        yield BadRequest(
            "wrong content types", b"/for-data/upload?kind=npz", b"POST", headers, good, has_token=True
        )
        yield BadRequest(
            "wrong content types", b"/for-data/path", b"POST", headers, b"/etc/passwd", has_token=True
        )


def _cross_site() -> Iterator[BadRequest]:
    evil = ((b"Origin", b"http://evil.example"), *_BINARY)
    for headers in (
        evil, ((b"Origin", b"null"), *_BINARY), ((b"Origin", b"http://127.0.0.1.evil.example"), *_BINARY), ((b"Origin", b"http://127.0.0.1:1"), *_BINARY),
        ((b"Origin", b"http://127.0.0.1"), (b"Origin", b"http://evil.example"), *_BINARY), ((b"Sec-Fetch-Site", b"cross-site"), *_BINARY),
        ((b"Sec-Fetch-Site", b"same-site"), *_BINARY), ((b"Sec-Fetch-Site", b"CROSS-SITE"), *_BINARY),
    ):  # fmt: skip
        yield BadRequest(
            "cross-site requests", b"/for-data/upload?kind=npz", b"POST", headers, b"x", has_token=True
        )
        yield BadRequest("cross-site requests", b"/for-data/path", b"POST", headers, b"/etc/passwd")
    for token in (b"", b"x", b"\xff\xfe", b"A" * 43, b"undefined"):
        headers = (*_BINARY, (b"X-NASGraph-Token", token))
        yield BadRequest("cross-site requests", b"/for-data/upload?kind=npz", b"POST", headers, b"x")
    for mode, dest in (
        (b"no-cors", b"image"),
        (b"cors", b"empty"),
        (b"no-cors", b"script"),
        (b"navigate", b"iframe"),
        (b"navigate", b"object"),
    ):
        headers = ((b"Sec-Fetch-Site", b"cross-site"), (b"Sec-Fetch-Mode", mode), (b"Sec-Fetch-Dest", dest))
        for target in (b"/", b"/api/entries", b"/thumbnail/small.svg", b"/download/small/entry.zip"):
            yield BadRequest("cross-site requests", target, headers=headers)


def _methods() -> Iterator[BadRequest]:
    for method in (
        b"PUT",
        b"DELETE",
        b"PATCH",
        b"TRACE",
        b"CONNECT",
        b"OPTIONS",
        b"PROPFIND",
        b"GETT",
        b"get",
        b"A" * 200,
        b"DEBUG",
    ):
        yield BadRequest("method confusion", b"/entry/small", method)
        yield BadRequest("method confusion", b"/for-data/upload", method, _BINARY, b"x", has_token=True)
    for target in (b"/", b"/entry/small", b"/api/entries", b"/static/base.css", b"/download/small/entry.zip"):
        yield BadRequest("method confusion", target, b"POST", _BINARY, b"x", has_token=True)
    yield BadRequest("method confusion", b"/for-data/upload")
    for name in (b"X-HTTP-Method-Override", b"X-Method-Override", b"_method"):
        yield BadRequest("method confusion", b"/for-data/upload", headers=((name, b"POST"),))
    yield BadRequest("method confusion", b"/", body=b"a body with GET")


def _bytes() -> Iterator[BadRequest]:
    for text in (
        b"%00",
        b"small%00.svg",
        b"a%0d%0aSet-Cookie:%20x=1",
        b"%01%02",
        b"%7f",
        b"%1b[31m",
        b"a%0aX: y",
    ):
        yield BadRequest("null and control bytes", b"/entry/" + text)
        yield BadRequest("null and control bytes", b"/?q=" + text)
    yield BadRequest("null and control bytes", b"/\x00")
    yield BadRequest("null and control bytes", b"/", headers=((b"X-A", b"a\x00b"),))
    for text in (
        b"%ff",
        b"%c0%af",
        b"%ed%a0%80",
        b"%f8%88%80%80%80",
        b"%e2%82",
        b"%80",
        b"%",
        b"%zz",
        b"%u0041",
        b"\xff\xfe",
        b"\xe4",
    ):
        yield BadRequest("invalid UTF-8", b"/entry/" + text)
        yield BadRequest("invalid UTF-8", b"/?q=" + text)
        yield BadRequest("invalid UTF-8", b"/", headers=((b"X-A", text), (b"If-None-Match", text)))


def _headers() -> Iterator[BadRequest]:
    for host in ((), (b"evil.example",), (HOST, b"evil.example"), (b"127.0.0.1@evil.example",), (b"evil.example:80",), (b"127.0.0.1:99999999",), (b"127.0.0.1/..",),
                 (b"",), (b"[::1",), (b"127.0.0.1.evil.example",), (b"localhost.evil.example",), (b"127.0.0.1, evil.example",), (b"a" * 300,), (b"\xff",), (b"2130706433",), (b"0",)):  # fmt: skip
        yield BadRequest("header tricks", b"/", host=host)
    for headers in (
        ((b"Content-Length", b"-1"),), ((b"Content-Length", b"1e3"),), ((b"Content-Length", b"5"), (b"Content-Length", b"6")), ((b"Content-Length", b"+5"),),
        ((b"Transfer-Encoding", b"chunked"), (b"Content-Length", b"4")), ((b"Transfer-Encoding", b"xchunked"),), ((b"Transfer-Encoding", b"identity"),),
        ((b"Expect", b"nonsense"), (b"Content-Length", b"0")), ((b"Content-Length", b""),),
    ):  # fmt: skip
        yield BadRequest(
            "header tricks", b"/for-data/upload", b"POST", (*_BINARY, *headers), b"0\r\n\r\n", has_token=True
        )
    for header in (
        (b"X-Forwarded-Host", b"evil.example"), (b"X-Forwarded-For", b"1.2.3.4"), (b"X-Original-URL", b"/for-data/path"), (b"Range", b"bytes=0-99999999999,-1,5-2"),
        (b"If-None-Match", b'"' * 5000), (b"Accept", b"*/*;q=" + b"9" * 3000), (b"HX-Request", b"true, true"), (b"HX-Target", b"<script>"), (b"Upgrade", b"websocket"),
        (b"Upgrade", b"h2c"), (b"Cookie", b"; ; =;=;\\\""), (b"Authorization", b"Basic ////"), (b"Accept-Language", b"../../../etc/passwd"), (b"Bad Name", b"x"), (b"", b"x"),
    ):  # fmt: skip
        yield BadRequest("header tricks", b"/", headers=(header,))
    yield BadRequest("header tricks", b"http://evil.example/entry/small")
    yield BadRequest("header tricks", b"*", b"OPTIONS")
    yield BadRequest("header tricks", b"/", version=b"HTTP/9.9")
    yield BadRequest("header tricks", b"/", version=b"")
    yield BadRequest("header tricks", b"/", version=b"FTP/1.0")


def _unicode() -> Iterator[BadRequest]:
    for text in (
        "ｓｍａｌｌ",
        "smаll",
        "small\u200b",
        "\u202ellams",
        "ﬀ",
        "İ",
        "e\u0301" * 50,
        "😀" * 60,
        "\ufeffsmall",
        "٣",
        "a\u2028b",
        "．．／．．／etc",
    ):
        for page in ("/entry/", "/?q=", "/?sort=", "/?max_parameters=", "/api/entries/"):
            yield BadRequest("unicode", (page + quote(text)).encode())


def _deep() -> Iterator[BadRequest]:
    deep = b"[" * 100_000 + b"]" * 100_000
    for content_type in (b"application/json", b"application/octet-stream", b"text/csv"):
        for target in (b"/for-data/upload?kind=csv", b"/for-data/upload?kind=npz", b"/api/entries"):
            yield BadRequest(
                "deep JSON", target, b"POST", ((b"Content-Type", content_type),), deep, has_token=True
            )
    yield BadRequest("deep JSON", b"/?q=" + quote("[" * 900).encode())
    yield BadRequest("deep JSON", b"/?q[a][b][c]=1&q[]=2")


_CATEGORIES = {
    "path traversal": _traversal, "huge parameters": _huge, "malformed names": _identifiers, "script in names": _scripts, "bodies": _bodies,
    "cross-site requests": _cross_site, "methods": _methods, "bytes": _bytes, "header tricks": _headers, "unicode": _unicode, "deep JSON": _deep,
}  # fmt: skip


@dataclass(slots=True)
class Verdict:
    """What a server did with one request.

    Attributes:
        status: The HTTP status; 0 if it closed the connection without one.
        faults: What is wrong with its answer.
    """

    status: int
    faults: list[str] = field(default_factory=list)


LEAKS = (
    b"Traceback",
    b"site-packages",
    b"/root/",
    b"/usr/",
    b"/tmp/",
    b"/work/",
    b"/home/",
    b"root:x:",
    b"SQLite",
    b"sqlite",
    b'.py"',
    b'File "',
)
ECHOES = (b"<script>alert", b"onerror=alert(1)>", b"<svg/onload", b"\r\nSet-Cookie")


def judge(answer: bytes, *, secret: str) -> Verdict:
    """Whether an answer to a bad request is a proper refusal (or a harmless page): no server error, nothing leaked, nothing echoed."""
    if not answer:
        return Verdict(0)
    head, _, body = answer.partition(b"\r\n\r\n")
    status = int(head.split(b" ", 2)[1])
    verdict = Verdict(status)
    if status >= 500:
        verdict.faults.append(f"status {status}")
    verdict.faults += [f"leaks {text.decode()!r}" for text in LEAKS if text in body or text in head]
    verdict.faults += [f"echoes {text.decode()!r}" for text in ECHOES if text in answer]
    if status >= 400 and body[:1] == b"<" and b"content-security-policy" not in head.lower():
        verdict.faults.append("has no content security policy")
    if b"49}" in body or b"${49" in body:
        verdict.faults.append("evaluates a template")
    if secret and body.startswith(b"{") and secret.encode() in body:
        verdict.faults.append("tells the secret to a program")
    return verdict
