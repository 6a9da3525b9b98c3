"""A client that goes away while the engine still reads the prompt: the work stops, whichever way the runner is
reached."""

import json
import socket
import time
import urllib.request

import pytest

from processes import CLIENT_TOKEN, MODEL, Gateway, Programs, until
from recorder import Connection, Recorder

# From the client's close to the close of the connection to the engine.
BOUND = 0.100
# This engine looks after its client only when it has something to write: with the first token, that is at the end of
# the prefill, and never if it does not stream. What the gateway can do is to close the connection.
ENGINE_BOUND = 30.0
# Some five seconds of prefill with one thread.
LONG_PROMPT = "word " * 4_000


def request(prompt: str, stream: bool) -> bytes:
    messages = [{"role": "user", "content": prompt}]
    body = json.dumps({"model": MODEL, "messages": messages, "max_tokens": 20_000, "stream": stream}).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\ncontent-type: application/json\r\n"
        f"authorization: Bearer {CLIENT_TOKEN}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def busy_slots(engine: str) -> int:
    with urllib.request.urlopen(f"{engine}/slots", timeout=30) as slots:
        return sum(slot["is_processing"] for slot in json.load(slots))


def connect(programs: Programs, way: str, recorder: Recorder) -> Gateway:
    """A gateway with one runner, whose traffic to the engine goes through the recorder."""
    if way == "static":
        runner = f'[[runner]]\nurl = "{recorder.url}"\nid = "static"\n'
        gateway = programs.gateway("gateway", runner)
    else:
        gateway = programs.gateway("gateway")
        flags = ["--dial-back-port", str(recorder.port)] if way == "dial-back" else []
        programs.runner(way, gateway, recorder.url, *flags)
    gateway.wait_for_runners(way)
    return gateway


def send(gateway: Gateway, data: bytes) -> socket.socket:
    host, _, port = gateway.address.partition(":")
    client = socket.create_connection((host, int(port)), timeout=30)
    client.sendall(data)
    return client


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("way", ["static", "dial-back", "tunnel"])
def test_a_client_that_goes_away_during_prefill_stops_the_engine(
    programs: Programs, figures: list[str], way: str, stream: bool
) -> None:
    engine = programs.engine("engine", slots=2, context=30_000)
    recorder = Recorder(engine)
    gateway = connect(programs, way, recorder)
    client = send(gateway, request(LONG_PROMPT, stream))
    carrying: Connection = until("the request to arrive", lambda: next(iter(recorder.generations()), None))
    until("the engine to work on it", lambda: busy_slots(engine) == 1)
    assert carrying.closed_by_client is None
    gone = time.monotonic()
    client.close()
    until("the connection to the engine to be closed", lambda: carrying.closed_by_client, patience=5)
    let_go = carrying.closed_by_client - gone
    figure = f"{way}, prefill, {'stream' if stream else 'whole'}: engine let go {let_go * 1000:.1f} ms after the client"
    assert busy_slots(engine) == 1, "it was during the prefill"
    if stream:
        until("the engine to be idle", lambda: busy_slots(engine) == 0, patience=ENGINE_BOUND)
        figure += f", idle after {time.monotonic() - gone:.1f} s"
    figures.append(figure)
    assert let_go < BOUND
    assert gateway.chat().status == 200, "the runner is still good"
    recorder.close()


@pytest.mark.parametrize("way", ["static", "dial-back", "tunnel"])
def test_a_client_that_goes_away_mid_stream_stops_the_engine(programs: Programs, figures: list[str], way: str) -> None:
    engine = programs.engine("engine", slots=2, context=30_000)
    recorder = Recorder(engine)
    gateway = connect(programs, way, recorder)
    client = send(gateway, request("hi", stream=True))
    answer = b""
    while answer.count(b"data: ") < 5:
        answer += client.recv(65536)
    assert busy_slots(engine) == 1
    gone = time.monotonic()
    client.close()
    until("the engine to be idle", lambda: busy_slots(engine) == 0, patience=5)
    idle = time.monotonic() - gone
    carrying = recorder.generations()[0]
    until("the recorder to have seen it", lambda: carrying.closed_by_client)
    let_go = carrying.closed_by_client - gone
    figures.append(f"{way}, mid-stream: engine let go {let_go * 1000:.1f} ms after the client, idle after {idle * 1000:.0f} ms")
    assert let_go < BOUND and idle < BOUND
    recorder.close()
