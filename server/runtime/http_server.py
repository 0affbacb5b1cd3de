"""`LimitedServer`: Tornado's HTTP server with limits on connections, sizes and times."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Awaitable, Iterable
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPMessageDelegate,
    RequestStartLine,
    ResponseStartLine,
)
from tornado.ioloop import IOLoop
from tornado.iostream import IOStream, SSLIOStream
from tornado.netutil import ssl_wrap_socket
from tornado.web import Application

from stormcellar.addresses import Network, is_in
from stormcellar.networks import networks_of
from stormcellar.runtime.connections import Connection, Connections, Phase

MAX_HEADER_BYTES = 16 * 1024
# Four times the limit of the handlers, so that they can answer a too large body with 413.
MAX_BODY_BYTES = 1024 * 1024
LONGEST_HEAD_S = 30.0
"""Also how long a connection may be idle between two requests."""
LONGEST_BODY_S = 20.0

ACCEPTED_AT_ONCE = 128
"""Connections accepted before other work of the event loop has its turn, as in Tornado."""
PAUSE_S = 0.1
"""How long no connection is accepted if there is no room; those that come wait in the queue of the system."""
SWEEP_EVERY_S = 1.0


class LimitedServer(HTTPServer):
    """Serves *app* and accepts connections as far as *connections* has room.

    Tornado accepts without a limit. When the descriptors run out, its listening socket stays readable and
    accept() fails in each turn of the loop, with a traceback in the log (netutil.py, add_accept_handler). So
    the sockets are watched here, and `TCPServer.add_sockets` and `stop` are replaced.

    Args:
        connections: Several servers can share one.
        uncounted: Networks whose addresses have no limit of their own: the peers are proxies.
    """

    def initialize(  # type: ignore[override]
        self,
        app: Application,
        *,
        connections: Connections,
        uncounted: tuple[Network, ...] = (),
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Take the limits."""
        super().initialize(
            app,
            ssl_options=tls,
            max_header_size=MAX_HEADER_BYTES,
            max_body_size=MAX_BODY_BYTES,
            # The default is 100 MiB, for each connection.
            max_buffer_size=2 * MAX_BODY_BYTES,
            idle_connection_timeout=LONGEST_HEAD_S,
            body_timeout=LONGEST_BODY_S,
        )
        self._limited = connections
        self._uncounted = uncounted
        self._listening: list[socket.socket] = []
        self._timers: dict[str, object] = {}
        self._by_stream: dict[IOStream, Connection] = {}

    # --- accepting ---

    def add_sockets(self, sockets: Iterable[socket.socket]) -> None:
        """Accept connections on *sockets*, which are listening and do not block."""
        self._listening += sockets
        self._resume()
        self._sweep()

    def stop(self) -> None:
        """Close the listening sockets. Open connections are still served."""
        self._pause()
        for timer in self._timers.values():
            IOLoop.current().remove_timeout(timer)
        for each in self._listening:
            each.close()
        self._listening.clear()

    def close_after_responses(self) -> None:
        """From now on end each connection with the response to its next request."""
        self.conn_params.no_keep_alive = True

    def _resume(self) -> None:
        for each in self._listening:
            IOLoop.current().add_handler(each, self._accept, IOLoop.READ)

    def _pause(self) -> None:
        for each in self._listening:
            IOLoop.current().remove_handler(each)

    def _pause_for_a_moment(self) -> None:
        self._pause()
        self._timers["resume"] = IOLoop.current().call_later(PAUSE_S, self._resume)

    def _sweep(self) -> None:
        self._limited.sweep()
        self._timers["sweep"] = IOLoop.current().call_later(SWEEP_EVERY_S, self._sweep)

    def _accept(self, listening: socket.socket, _: int) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            if not self._limited.has_room():
                self._pause_for_a_moment()
                return
            try:
                accepted, address = listening.accept()
            except BlockingIOError:
                return
            except ConnectionAbortedError:
                continue
            except OSError as exc:
                if not self._limited.run_out(exc.strerror or type(exc).__name__):
                    self._pause_for_a_moment()
                    return
                continue
            self._open(accepted, address)

    def _open(self, accepted: socket.socket, address: Any) -> None:
        stream = self._stream(accepted)
        if stream is None:
            return
        connection = self._limited.add(stream.close, stream.writing, self._network(accepted, address))
        if connection is None:
            stream.close()
            return
        self._by_stream[stream] = connection
        self.handle_stream(stream, address)

    def _stream(self, accepted: socket.socket) -> IOStream | None:
        size = self.max_buffer_size
        if self.ssl_options is None:
            return IOStream(accepted, max_buffer_size=size)
        try:
            wrapped = ssl_wrap_socket(
                accepted, self.ssl_options, server_side=True, do_handshake_on_connect=False
            )
        except OSError:  # the client has closed it already
            accepted.close()
            return None
        return SSLIOStream(wrapped, max_buffer_size=size)

    def _network(self, accepted: socket.socket, address: Any) -> str | None:
        if accepted.family not in (socket.AF_INET, socket.AF_INET6) or is_in(address[0], self._uncounted):
            return None
        return networks_of(address[0])[0].name

    # --- requests ---

    def start_request(self, server_conn: Any, request_conn: HTTPConnection) -> HTTPMessageDelegate:
        """Note that the connection waits for a request; Tornado calls it before it reads the head."""
        connection = self._by_stream[server_conn.stream]
        self._limited.enter(connection, Phase.WAITING)
        return _Counted(super().start_request(server_conn, request_conn), connection, self._limited)

    def on_close(self, server_conn: Any) -> None:
        """Note that the connection has ended."""
        self._limited.discard(self._by_stream.pop(server_conn.stream))
        super().on_close(server_conn)


class _Counted(HTTPMessageDelegate):
    """Tells `Connections` how far a request has come, and passes everything on."""

    def __init__(
        self, request: HTTPMessageDelegate, connection: Connection, connections: Connections
    ) -> None:
        self._request = request
        self._connection = connection
        self._connections = connections

    def headers_received(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> Awaitable[None] | None:
        self._connections.enter(self._connection, Phase.RECEIVING)
        return self._request.headers_received(start_line, headers)

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        self._connections.receive(self._connection, len(chunk))
        return self._request.data_received(chunk)

    def finish(self) -> None:
        self._connections.enter(self._connection, Phase.ANSWERING)
        self._request.finish()

    def on_connection_close(self) -> None:
        self._request.on_connection_close()
