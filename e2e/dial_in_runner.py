"""A runner that dials in over gRPC, written from `runner_gateway.proto` alone. It answers every chat with the words it was
asked with, one event each, and remembers what it was told."""

import importlib
import json
import queue
import sys
import tempfile
import threading
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import grpc
from grpc_tools import protoc

from processes import REPOSITORY

PROTO = REPOSITORY / "gateway-transport-grpc" / "proto" / "runner_gateway.proto"


def _stubs():
    folder = Path(tempfile.mkdtemp(prefix="dial-in-"))
    options = ["", f"-I{PROTO.parent}", f"--python_out={folder}", f"--grpc_python_out={folder}", PROTO.name]
    if protoc.main(options) != 0:
        raise RuntimeError(f"protoc does not take {PROTO}")
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module("runner_gateway_pb2"), importlib.import_module("runner_gateway_pb2_grpc")
    finally:
        sys.path.remove(str(folder))


pb, services = _stubs()


class DialInRunner:
    """One call, from registration to its end. A thread reads; each request is answered by a thread of its own."""

    def __init__(self, address: str, token: str, id: str, model: str):
        self.model = model
        self.heads: list = []
        self.resets: list[int] = []
        self.commands: list[tuple[str, str]] = []
        self.registered = threading.Event()
        self.ended = threading.Event()
        self.status: grpc.StatusCode | None = None
        self.state = pb.MODEL_STATE_LOADED
        self._credit: dict[int, int] = {}
        self._gone: set[int] = set()
        self._bodies: dict[int, bytearray] = defaultdict(bytearray)
        self._changed = threading.Condition()
        self._frames: queue.Queue = queue.Queue()
        register = pb.Register(protocol_version=1, runner_id=id, name="Python runner", slots=8, status=self._how())
        self._frames.put(pb.RunnerFrame(register=register))
        self._channel = grpc.insecure_channel(address)
        stub = services.RunnerGatewayStub(self._channel)
        self._call = stub.Connect(iter(self._frames.get, None), metadata=[("authorization", f"Bearer {token}")])
        threading.Thread(target=self._read, daemon=True).start()

    def _how(self):
        model = pb.Model(id=self.model, state=self.state)
        return pb.RunnerStatus(health=pb.HEALTH_HEALTHY, models=[model])

    def _say(self, **frame) -> None:
        self._frames.put(pb.RunnerFrame(**frame))

    def _read(self) -> None:
        try:
            for frame in self._call:
                self._hear(frame)
            self.status = grpc.StatusCode.OK
        except grpc.RpcError as error:
            self.status = error.code()
        self.ended.set()

    def _hear(self, frame) -> None:
        kind = frame.WhichOneof("frame")
        told = getattr(frame, kind)
        if kind == "registered":
            self._window = told.stream_window
            self._say(heartbeat=self._how())
            self.registered.set()
        elif kind == "ping":
            self._say(status=self._how())
        elif kind in ("load_model", "unload_model"):
            self.commands.append((kind, told.model))
            self.state = pb.MODEL_STATE_LOADED if kind == "load_model" else pb.MODEL_STATE_AVAILABLE
            self._say(command_result=pb.CommandResult(request_id=told.request_id, status=self._how()))
        elif kind == "request_status":
            self._say(command_result=pb.CommandResult(request_id=told.request_id, status=self._how()))
        elif kind == "request_head":
            self.heads.append(told)
            with self._changed:
                self._credit[told.stream_id] = self._window
        elif kind == "request_body":
            self._bodies[told.stream_id] += told.data
            # All of it is read at once, so all of the credit is given back.
            self._say(window_update=pb.WindowUpdate(stream_id=told.stream_id, bytes=len(told.data)))
        elif kind == "request_end":
            body = bytes(self._bodies.pop(told.stream_id))
            threading.Thread(target=self._answer, args=(told.stream_id, json.loads(body)), daemon=True).start()
        elif kind == "window_update":
            with self._changed:
                self._credit[told.stream_id] = self._credit.get(told.stream_id, 0) + told.bytes
                self._changed.notify_all()
        elif kind == "reset":
            self.resets.append(told.stream_id)
            with self._changed:
                self._gone.add(told.stream_id)
                self._changed.notify_all()

    def _answer(self, stream: int, asked: dict) -> None:
        headers = [pb.Header(name="content-type", value=b"text/event-stream")]
        self._say(response_head=pb.ResponseHead(stream_id=stream, status=200, headers=headers))
        for event in self._events(asked):
            if not self._send(stream, event):
                return
        self._say(response_end=pb.End(stream_id=stream))

    def _events(self, asked: dict) -> Iterator[bytes]:
        words = asked["messages"][-1]["content"]
        # A number of bytes instead of words: as much text as that.
        words = ["x" * 8000] * (int(words) // 8000) if words.isdigit() else words.split()
        for at, word in enumerate(words):
            delta = {"content": word if at == 0 else f" {word}"}
            chunk = {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta}]}
            yield f"data: {json.dumps(chunk)}\n\n".encode()
        if asked.get("max_tokens") == 0:
            # Never ends by itself.
            with self._changed:
                self._changed.wait_for(lambda: self._gone)
        yield b"data: [DONE]\n\n"

    def _send(self, stream: int, data: bytes) -> bool:
        """As much at a time as there is credit for. `False` if nobody wants it any more."""
        while data:
            with self._changed:
                self._changed.wait_for(lambda: stream in self._gone or self._credit[stream] > 0)
                if stream in self._gone:
                    return False
                now = min(len(data), self._credit[stream], 16_384)
                self._credit[stream] -= now
            self._say(response_body=pb.Data(stream_id=stream, data=data[:now]))
            data = data[now:]
        return True

    def close(self) -> None:
        """Ends its side of the stream."""
        self._frames.put(None)
        self.ended.wait(10)
        self._channel.close()
