"""Running the page: on the loopback address unless it is told otherwise, until Ctrl-C."""

import errno
import logging
import socket
import threading
import webbrowser
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import uvicorn

from nasgraph.errors import ConfigError
from nasgraph.modelzoo.store import Zoo
from nasgraph.web.app import make_app
from nasgraph.web.context import WebContext, WebSettings
from nasgraph.web.security import guard_rules, is_loopback

if TYPE_CHECKING:
    from uvicorn._types import ASGI3Application

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8470

_logger = logging.getLogger(__name__)
_MAX_CONNECTIONS = 500
_MAX_HEADER_BYTES = 32 * 1024
_QUIT_AFTER_S = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeConfig:
    """Where the page is served, and what it links to.

    Attributes:
        host: Address to listen on. Any but a loopback address lets others read the zoo: there is no login.
        port: Port; 0: any that is free.
        open_browser: Whether to open the page in a browser.
        settings: Settings of the pages.

    Raises:
        ConfigError: If the port is out of its range.
    """

    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    open_browser: bool = False
    settings: WebSettings = field(default_factory=WebSettings)

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"Expected 'port' from 0 to 65535 (got {self.port})")


def _say_nothing(address: str) -> None:
    """For a server that announces itself to nobody."""


def serve(
    zoo_uri: str | None = None,
    config: ServeConfig = ServeConfig(),
    *,
    on_start: Callable[[str], None] = _say_nothing,
) -> None:
    """Serve the page of a zoo until Ctrl-C, which ends it within seconds.

    The catalogue is read before the first request is answered.

    Args:
        zoo_uri: Tracking address of the zoo; see `Zoo`.
        config: Where, and what it links to.
        on_start: Called once with the address of the page when requests are answered.

    Raises:
        ConfigError: If the port is taken, or there is no such address on this machine.
        TrackingError: If the store of the zoo does not answer.
    """
    if not is_loopback(config.host):
        _logger.warning(
            "Listening on %s: everybody who reaches this machine can read and download the models. There is no login",
            config.host,
        )
    with open_socket(config.host, config.port) as listening:
        port = int(listening.getsockname()[1])
        zoo = Zoo(zoo_uri)
        context = WebContext(zoo=zoo, catalogue=zoo.catalogue, settings=config.settings)
        server = make_server(context, config)
        address = f"http://{_printable(config.host)}:{port}/"
        announcer = threading.Thread(
            target=_announce, args=(server, address, config.open_browser, on_start), daemon=True
        )
        announcer.start()
        with suppress(KeyboardInterrupt):  # uvicorn has closed everything, and raises the signal again
            server.run(sockets=[listening])


def open_socket(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        ConfigError: If the port is taken, or there is no such address on this machine.
    """
    name = host.strip("[]")
    try:
        family = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)[0][0]
    except OSError as error:
        raise ConfigError(f"There is no address '{host:.100}' on this machine") from error
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((name, port))
        listening.listen(128)
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(
                f"Port {port} is taken by another program. Choose another with '--port', or 0 for any that is free"
            ) from error
        raise ConfigError(f"Cannot listen on {host:.100}, port {port}: {error.strerror or error}") from error
    return listening


def make_server(context: WebContext, config: ServeConfig) -> uvicorn.Server:
    """The server of a page. Run it on a socket from `open_socket`."""
    rules = guard_rules(config.host, token=context.token, max_body_bytes=config.settings.max_upload_bytes)
    app = make_app(context, rules=rules)
    return uvicorn.Server(
        uvicorn.Config(
            cast("ASGI3Application", app),
            http="h11",
            ws="none",
            lifespan="off",
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            limit_concurrency=_MAX_CONNECTIONS,
            h11_max_incomplete_event_size=_MAX_HEADER_BYTES,
            timeout_graceful_shutdown=_QUIT_AFTER_S,
        )
    )


def _announce(
    server: uvicorn.Server, address: str, open_browser: bool, on_start: Callable[[str], None]
) -> None:
    """Tell the address as soon as it answers."""
    pause = threading.Event()
    while not server.started and not server.should_exit:
        pause.wait(0.02)
    if server.started:
        on_start(address)
        if open_browser:
            webbrowser.open(address)


def _printable(host: str) -> str:
    name = host.strip("[]")
    if name in ("0.0.0.0", "::"):
        return "127.0.0.1" if name == "0.0.0.0" else "[::1]"
    return f"[{name}]" if ":" in name else name
