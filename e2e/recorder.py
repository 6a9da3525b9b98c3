"""A TCP relay in front of a runner's port that writes down when things happened."""

import socket
import threading
import time
from dataclasses import dataclass


@dataclass
class Connection:
    """Times on the monotonic clock; None: not yet."""

    generation_arrived: float | None = None
    closed_by_client: float | None = None


class Recorder:
    """Relays to `upstream` (http://host:port) and notes the moment at which the gateway's side lets go."""

    def __init__(self, upstream: str):
        host, _, port = upstream.removeprefix("http://").partition(":")
        self._upstream = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.url = "http://127.0.0.1:%d" % self._listener.getsockname()[1]
        self.port = self._listener.getsockname()[1]
        self.connections: list[Connection] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def generations(self) -> list[Connection]:
        """Connections that carried a request for text."""
        return [connection for connection in self.connections if connection.generation_arrived]

    def close(self) -> None:
        # shutdown wakes the thread that accepts; close alone would not.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            connection = Connection()
            self.connections.append(connection)
            try:
                upstream = socket.create_connection(self._upstream)
            except OSError:
                client.close()
                continue
            for side in (client, upstream):
                side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._forward, args=(client, upstream, connection), daemon=True).start()
            threading.Thread(target=self._backward, args=(upstream, client), daemon=True).start()

    @staticmethod
    def _forward(client: socket.socket, upstream: socket.socket, connection: Connection) -> None:
        try:
            while data := client.recv(65536):
                # Connections are pooled: a question about the models may have come before.
                if b"/completions HTTP/1.1" in data:
                    connection.generation_arrived = time.monotonic()
                upstream.sendall(data)
        except OSError:
            pass
        connection.closed_by_client = time.monotonic()
        _close(upstream)
        _close(client)

    @staticmethod
    def _backward(upstream: socket.socket, client: socket.socket) -> None:
        try:
            while data := upstream.recv(65536):
                client.sendall(data)
        except OSError:
            pass
        try:
            client.shutdown(socket.SHUT_WR)
        except OSError:
            pass


def _close(side: socket.socket) -> None:
    try:
        side.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    side.close()
