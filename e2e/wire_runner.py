"""A runner in another language, written from the published control protocol alone.

It knows nothing of this project: JSON text frames over a WebSocket, and an HTTP server that is dialled back.
"""

import json
import threading
import time
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

VERSION = 1


class Engine:
    """What the runner's HTTP server serves. Lives longer than any of the runner's connections."""

    def __init__(self, local_names: dict[str, str]):
        self.local_names = local_names
        self.loaded: list[str] = []
        self.seen: list[tuple[dict[str, str], bytes]] = []
        engine = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                engine.seen.append((headers, body))
                asked = json.loads(body)
                if asked["model"] not in engine.loaded:
                    self.answer(400, {"error": {"type": "model_not_loaded", "message": "not loaded"}})
                elif asked.get("stream"):
                    self.stream()
                else:
                    self.answer(200, engine.completion())

            def answer(self, status: int, document: dict) -> None:
                data = json.dumps(document).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def stream(self) -> None:
                self.send_response(200)
                self.send_header("content-type", "text/event-stream")
                self.send_header("connection", "close")
                self.end_headers()
                for word in ("one", "two", "three"):
                    chunk = {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": word}}]}
                    self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
                    self.wfile.flush()
                self.wfile.write(b"data: [DONE]\n\n")
                self.close_connection = True

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @staticmethod
    def completion() -> dict:
        """An answer with fields that nobody in between knows."""
        call = {"id": "call_1", "type": "function", "function": {"name": "look_up", "arguments": '{"q": "x"}'}}
        message = {"role": "assistant", "content": None, "tool_calls": [call], "x_vendor": {"depth": [1, 2]}}
        return {
            "id": "chatcmpl-wire",
            "object": "chat.completion",
            "created": 1,
            "model": "local",
            "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls", "x_score": 0.5}],
            "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
        }

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class WireRunner:
    """One registration: a WebSocket to the gateway, and heartbeats on it."""

    def __init__(self, door: str, token: str, runner_id: str, engine: Engine, heartbeat: float = 0.2):
        self.engine = engine
        self.commands: list[dict] = []
        self.heartbeats = 0
        self.closed_by_gateway = threading.Event()
        self._stop = threading.Event()
        self._at_end = ExitStack()
        self._socket = self._at_end.enter_context(connect(door, proxy=None))
        register = {
            "type": "register",
            "runner_id": runner_id,
            "runner_name": "Wire runner",
            "machine_type": "cpu",
            "http_port": engine.port,
            "protocol_version": VERSION,
            "auth_token": token,
            "status": self.status(),
            "mac_address": None,
        }
        self._socket.send(json.dumps(register))
        self.first_reply = json.loads(self._socket.recv(timeout=10))
        if self.first_reply["type"] == "register_ack":
            threading.Thread(target=self._listen, daemon=True).start()
            threading.Thread(target=self._beat, args=(heartbeat,), daemon=True).start()

    def status(self) -> dict:
        engine = self.engine
        models = [
            {"id": name, "name": name, "size_bytes": None, "parameter_count": None, "context_length": 4096,
             "quantization": None, "modified_at": None}
            for name in engine.local_names.values()
        ]
        return {
            "health": "healthy",
            "capabilities": [
                {"capability": "fast_chat", "status": {"status": "loaded"}, "model_id": name, "active_requests": 0,
                 "avg_latency_ms": None}
                for name in engine.loaded
            ],
            "engines": [
                {"engine_type": "python", "is_healthy": True, "version": None, "loaded_models": engine.loaded,
                 "available_models": models, "error": None, "batch_size": 4}
            ],
            "metrics": None,
            "model_aliases": engine.local_names,
        }

    def close(self) -> None:
        self._stop.set()
        self._at_end.close()

    def _beat(self, interval: float) -> None:
        while True:
            try:
                self._socket.send(json.dumps({"type": "heartbeat"} | self.status()))
            except ConnectionClosed:
                return
            self.heartbeats += 1
            if self._stop.wait(interval):
                return

    def _listen(self) -> None:
        try:
            for frame in self._socket:
                self._obey(json.loads(frame))
        except ConnectionClosed:
            pass
        self.closed_by_gateway.set()

    def _obey(self, message: dict) -> None:
        self.commands.append(message)
        match message["type"]:
            case "ping":
                self._socket.send(json.dumps({"type": "status_update"} | self.status()))
            case "load_model" | "unload_model":
                name = self.engine.local_names.get(message["model_id"], message["model_id"])
                known = name in self.engine.local_names.values()
                if known and message["type"] == "load_model" and name not in self.engine.loaded:
                    time.sleep(0.05)  # loading takes its time
                    self.engine.loaded.append(name)
                elif known and message["type"] == "unload_model" and name in self.engine.loaded:
                    self.engine.loaded.remove(name)
                error = None if known else f"there is no model {message['model_id']}"
                self._reply(message["request_id"], error)
            case "request_status":
                self._reply(message["request_id"], None)

    def _reply(self, request_id: str, error: str | None) -> None:
        reply = {"type": "command_response", "request_id": request_id, "success": error is None, "error": error,
                 "status": self.status()}
        self._socket.send(json.dumps(reply))
