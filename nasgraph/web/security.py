"""The guard in front of every page: which requests are answered at all, and what every answer forbids the browser.

A server on the loopback address has no login: whoever can reach it may read. What could reach it besides its user is other web sites in
the user's browser, so those are what is kept out: by the name in `Host` (a foreign name that points at 127.0.0.1 is
"DNS rebinding"), by `Sec-Fetch-Site` and `Origin` (requests that another site makes), and by a secret that only this server's own
pages know (requests that change something or cost much).
"""

import hmac
import ipaddress
import logging
import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

TOKEN_HEADER = "x-nasgraph-token"
MAX_PATH_BYTES = 1024
MAX_QUERY_BYTES = 4096
MAX_PARAMETERS = 40

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

_logger = logging.getLogger(__name__)
_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9.-]{1,253})(?P<port>:[0-9]{1,5})?", re.ASCII)
_LENGTH = re.compile(rb"[0-9]{1,12}")
_METHODS = ("GET", "HEAD", "POST")
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "cache-control": "no-store",
}
"""Set on every answer that does not set them itself."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is not answered.

    Attributes:
        status: HTTP status.
        text: One sentence for whoever sent it.
    """

    status: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardRules:
    """What the guard lets through.

    Attributes:
        token: The secret of this server's own pages.
        host_names: Names in `Host` that are this server, lower case, without a port.
        any_address: Whether every numeric address is this server too, as when it listens on all of them. A rebound name
            never is numeric.
        max_body_bytes: Largest body of a request.
    """

    token: str
    host_names: frozenset[str] = _LOOPBACK_NAMES
    any_address: bool = False
    max_body_bytes: int = 64 * 2**20


def is_loopback(host: str) -> bool:
    """Whether an address to listen on is reachable from this machine only."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def guard_rules(host: str, *, token: str, max_body_bytes: int) -> GuardRules:
    """The rules of a server that listens on `host`."""
    if is_loopback(host):
        return GuardRules(token=token, max_body_bytes=max_body_bytes)
    names = _LOOPBACK_NAMES | {f"[{host.strip('[]')}]" if ":" in host else host.lower()}
    return GuardRules(token=token, host_names=names, any_address=True, max_body_bytes=max_body_bytes)


class Guard:
    """Refuses what no page of this server sends, and puts the same protective headers on every answer.

    Args:
        app: The application behind it.
        rules: What is let through.
        refuse: Makes the answer to a refused request.
    """

    def __init__(
        self, app: Application, rules: GuardRules, refuse: Callable[[Scope, Refusal], Application]
    ) -> None:
        self.app = app
        self.rules = rules
        self.refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI)."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        is_head = scope["method"] == "HEAD"

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": _with_defaults(message.get("headers", ()))}
            elif is_head and message["type"] == "http.response.body":
                message = {
                    "type": "http.response.body",
                    "body": b"",
                    "more_body": message.get("more_body", False),
                }
            await send(message)

        refusal = find_refusal(scope, self.rules)
        if refusal is not None:
            _logger.info("Refused %s: %s", scope["method"][:20], refusal.text)
            await self.refuse(scope, refusal)(scope, receive, send_guarded)
            return
        inner = {**scope, "method": "GET"} if is_head else scope
        await self.app(inner, receive, send_guarded)


def find_refusal(scope: Scope, rules: GuardRules) -> Refusal | None:
    """Why a request is not answered; None if it may pass on to the pages."""
    headers = _Headers(scope["headers"])
    if scope["method"] not in _METHODS:
        return Refusal(405, "Expected the method GET, HEAD or POST.")
    return (
        _address_refusal(scope)
        or _host_refusal(headers, rules)
        or _site_refusal(scope["method"], headers)
        or _body_refusal(scope["method"], headers, rules)
    )


class _Headers:
    """All values of each header. A header that decides something and comes twice is refused by whoever asks for one value."""

    def __init__(self, raw: Iterable[tuple[bytes, bytes]]) -> None:
        self._values: dict[bytes, list[bytes]] = {}
        for name, value in raw:
            self._values.setdefault(bytes(name).lower(), []).append(bytes(value))

    def all(self, name: str) -> list[str]:
        return [value.decode("latin-1") for value in self._values.get(name.encode(), ())]

    def one(self, name: str) -> str | None:
        """The value; None if it is absent; a value that nothing equals if it came several times."""
        values = self.all(name)
        return None if not values else values[0] if len(values) == 1 else "\x00several"


def _address_refusal(scope: Scope) -> Refusal | None:
    raw_path, query = bytes(scope.get("raw_path") or b""), bytes(scope["query_string"])
    if len(raw_path) > MAX_PATH_BYTES:
        return Refusal(414, f"Expected a path of at most {MAX_PATH_BYTES} bytes.")
    if len(query) > MAX_QUERY_BYTES or query.count(b"&") >= MAX_PARAMETERS:
        return Refusal(
            414, f"Expected at most {MAX_QUERY_BYTES} bytes and {MAX_PARAMETERS} parameters after '?'."
        )
    for part, what in ((raw_path, "path"), (query.replace(b"+", b" "), "text after '?'")):
        try:
            text = unquote_to_bytes(part).decode()
        except UnicodeDecodeError:
            return Refusal(400, f"Expected the {what} to be UTF-8.")
        if any(ord(letter) < 32 or ord(letter) == 127 for letter in text):
            return Refusal(400, f"Expected the {what} to be without control characters.")
    path = unquote_to_bytes(raw_path).decode()
    if not path.startswith("/") or "\\" in path or ".." in path.split("/"):
        return Refusal(400, "Expected a path that begins with '/', without '..' and backslashes.")
    return None


def _host_refusal(headers: _Headers, rules: GuardRules) -> Refusal | None:
    match = _HOST.fullmatch(headers.one("host") or "")
    if match is None:
        return Refusal(400, "Expected one header 'Host' with the name of this server.")
    name = match["name"].lower().removesuffix(".")
    if name in rules.host_names or (rules.any_address and _is_address(name)):
        return None
    return Refusal(421, "This server does not answer under that host name.")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def _site_refusal(method: str, headers: _Headers) -> Refusal | None:
    """Another site may link to a page. It may not embed one, read one, or send anything."""
    site = headers.one("sec-fetch-site")
    is_own = site in (None, "same-origin", "none")
    is_link = headers.one("sec-fetch-mode") == "navigate" and headers.one("sec-fetch-dest") == "document"
    if not is_own and not (method in ("GET", "HEAD") and is_link):
        return Refusal(403, "Requests from other web sites are not answered.")
    origin = headers.one("origin")
    if origin is not None and origin.lower() not in _own_origins(headers):
        return Refusal(403, "Requests from other web sites are not answered.")
    return None


def _own_origins(headers: _Headers) -> tuple[str, str]:
    host = (headers.one("host") or "").lower()
    return f"http://{host}", f"https://{host}"


def _body_refusal(method: str, headers: _Headers, rules: GuardRules) -> Refusal | None:
    lengths = headers.all("content-length")
    has_body = bool(headers.all("transfer-encoding")) or any(length != "0" for length in lengths)
    if method != "POST":
        return Refusal(400, "Expected no body with this method.") if has_body else None
    sent = headers.one(TOKEN_HEADER) or ""
    if not hmac.compare_digest(sent.encode("latin-1", "replace"), rules.token.encode()):
        return Refusal(403, "This request needs the secret of a page of this server. Load the page again.")
    if len(lengths) != 1 or _LENGTH.fullmatch(lengths[0].encode("latin-1", "replace")) is None:
        return Refusal(411, "Expected one header 'Content-Length' with the size of the body.")
    if int(lengths[0]) > rules.max_body_bytes:
        return Refusal(413, f"Expected a body of at most {rules.max_body_bytes:,} bytes.")
    return None


def _with_defaults(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    present = [(bytes(name), bytes(value)) for name, value in headers]
    names = {name.lower() for name, _ in present}
    missing = ((name.encode(), value.encode()) for name, value in _HEADERS.items())
    return [*present, *((name, value) for name, value in missing if name not in names)]
