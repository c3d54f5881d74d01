"""A real server on a real socket, in a thread or in a process of its own."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from nasgraph.web.context import WebContext
from nasgraph.web.server import ServeConfig, make_server, open_socket


@contextmanager
def running(context: WebContext) -> Iterator[int]:
    """Serve a context in a thread for the time of a `with` block; gives the port."""
    config = ServeConfig(port=0, settings=context.settings)
    with open_socket(config.host, config.port) as listening:
        server = make_server(context, config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield int(listening.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join(timeout=20)


def exchange(port: int, sent: bytes, *, patience_s: float = 5.0) -> bytes:
    """Everything a server answers to some bytes; empty if it closes the connection without a word.

    A server that waits for more than was sent is told after `patience_s` that nothing more comes.
    """
    answer = b""
    with socket.create_connection(("127.0.0.1", port), timeout=patience_s) as connection:
        with suppress(
            BrokenPipeError, ConnectionResetError
        ):  # refused before all was sent: the answer is there all the same
            connection.sendall(sent)
        for _ in range(3):
            try:
                while part := connection.recv(2**16):
                    answer += part
                return answer
            except TimeoutError:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_WR)
            except ConnectionResetError:
                return answer
    return answer
