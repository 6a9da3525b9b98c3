"""A worker in another language, written from the AiInference contract alone, behind the gateway: OpenAI's own client
cannot tell it from any other runner."""

import json
import os
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from grpc_contract import DIALECTS
from processes import CLIENT_TOKEN, HERE, MODEL, Gateway, Program, Programs, until

# From the client's close to the end of the call, as the worker sees it.
CANCEL_BOUND = 0.100
MESSAGES = [{"role": "system", "content": "Be brief"}, {"role": "user", "content": "Tell me a story"}]


class Worker:
    """A worker in a process of its own."""

    def __init__(self, programs: Programs, name: str, dialect: str, listen: str, *flags: str):
        self.command = [sys.executable, str(HERE / "grpc_worker.py"), "--dialect", dialect, *flags]
        self.programs = programs
        self.name = name
        self.program: Program
        self.start(listen)

    def start(self, listen: str) -> None:
        self.program = self.programs.start(self.name, [*self.command, "--listen", listen])
        self.program.until_printed(r'"event": "listening"')
        self.address = self.seen("listening")[0]["address"]

    def seen(self, event: str) -> list[dict]:
        """What it has told since it was started."""
        lines = (line for line in self.program.output().splitlines() if line.startswith("{"))
        return [told for told in map(json.loads, lines) if told["event"] == event]


@pytest.fixture
def folder() -> Iterator[Path]:
    # A socket's path may be 108 bytes long, and pytest's own folders are deep.
    with tempfile.TemporaryDirectory(prefix="grpc-") as folder:
        yield Path(folder)


@pytest.fixture(params=["tcp", "unix"])
def listen(request: pytest.FixtureRequest, folder: Path) -> str:
    return "127.0.0.1:0" if request.param == "tcp" else f"unix:{folder}/cy_worker.sock"


def dial(programs: Programs, worker: Worker, config: str = "") -> Gateway:
    """A gateway that dials the worker, by the names that the documents have for it."""
    is_unix = worker.address.startswith("unix:")
    address = {"COORDINATOR_UDS_PATH": worker.address[5:]} if is_unix else {"SIDECAR_GRPC_ADDR": worker.address}
    return programs.gateway("gateway", config, address)


def wait_for_model(gateway: Gateway, model: str = MODEL) -> None:
    def look() -> bool:
        return any(model in runner["loaded_models"] for runner in gateway.runners().values())

    until(f"somebody to serve {model}", look)


def client_of(gateway: Gateway) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=CLIENT_TOKEN, max_retries=0, timeout=30)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_openais_client_streams_from_it(programs: Programs, dialect: str, listen: str) -> None:
    worker = Worker(programs, "worker", dialect, listen, "--model", MODEL, "--cold")
    gateway = dial(programs, worker)
    wait_for_model(gateway)
    client = client_of(gateway)

    # The first answer begins with the loading of the model, which nobody is to read.
    chunks = list(client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "".join(f"word{n} " for n in range(8))
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant"
    finishes = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices]
    assert finishes[-1] == "stop" and not any(finishes[:-1])
    seen = worker.seen("predict")[-1]
    assert seen["model"] == MODEL
    assert seen["prompt"] == "System: Be brief\nUser: Tell me a story\nAssistant:"
    assert seen["trace_id"]
    assert seen["parameters"] == pytest.approx(
        {"max_new_tokens": 256, "temperature": 0.7, "top_p": 0.9, "repetition_penalty": 1.0}
    )

    whole = client.chat.completions.create(
        model=MODEL, messages=MESSAGES[1:], max_tokens=3, temperature=0.25, top_p=0.5
    )
    assert whole.choices[0].message.content.split() == ["word0", "word1", "word2"]
    assert whole.usage is None, "nobody counted the tokens"
    seen = worker.seen("predict")[-1]
    assert seen["prompt"] == "User: Tell me a story\nAssistant:"
    assert seen["parameters"] == pytest.approx(
        {"max_new_tokens": 3, "temperature": 0.25, "top_p": 0.5, "repetition_penalty": 1.0}
    )

    completion = client.completions.create(model=MODEL, prompt="Once upon", max_tokens=2, stream=True)
    assert "".join(chunk.choices[0].text for chunk in completion if chunk.choices).split() == ["word0", "word1"]
    assert worker.seen("predict")[-1]["prompt"] == "Once upon"
    assert client.models.list().data[0].id == MODEL


def test_what_the_contract_cannot_carry_is_told_by_its_field(programs: Programs) -> None:
    worker = Worker(programs, "worker", "packaged", "127.0.0.1:0", "--model", MODEL)
    gateway = dial(programs, worker)
    wait_for_model(gateway)
    client = client_of(gateway)
    tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    for field, value in [
        ("tools", [tool]),
        ("n", 2),
        ("logprobs", True),
        ("response_format", {"type": "json_object"}),
        ("messages", [{"role": "user", "content": [picture]}]),
    ]:
        asked = {"model": MODEL, "messages": MESSAGES} | {field: value}
        with pytest.raises(openai.BadRequestError) as refused:
            client.chat.completions.create(**asked)
        assert refused.value.param == field, refused.value
    assert worker.seen("predict") == []


def test_tools_go_to_an_engine_that_knows_them(programs: Programs) -> None:
    worker = Worker(programs, "worker", "packaged", "127.0.0.1:0", "--model", MODEL)
    engine = programs.engine("engine")
    gateway = dial(programs, worker, f'[[runner]]\nurl = "{engine}"\nid = "engine"\n')
    gateway.wait_for_runners("engine")
    until("both to serve it", lambda: len(gateway.runners()) == 2)
    tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
    used = set()
    for _ in range(6):
        answer = gateway.chat(tools=[tool])
        assert answer.status == 200, answer
        assert answer.headers["x-backend-used"] == "engine"
        used.add(gateway.chat().headers["x-backend-used"])
    assert len(used) == 2, "who asks for nothing goes to both"


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("moment", ["before the first word", "mid-stream"])
def test_a_client_that_goes_away_stops_it(
    programs: Programs, figures: list[str], dialect: str, moment: str, listen: str
) -> None:
    is_early = moment == "before the first word"
    slow = ["--delay", "30", "--delay-first"] if is_early else ["--delay", "0.02"]
    worker = Worker(programs, "worker", dialect, listen, "--model", MODEL, "--words", "5000", *slow)
    gateway = dial(programs, worker)
    wait_for_model(gateway)
    body = json.dumps({"model": MODEL, "messages": MESSAGES, "max_tokens": 5000, "stream": True}).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\ncontent-type: application/json\r\n"
        f"authorization: Bearer {CLIENT_TOKEN}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    host, _, port = gateway.address.partition(":")
    client = socket.create_connection((host, int(port)), timeout=30)
    client.sendall(head.encode() + body)
    if is_early:
        until("the worker to have it", lambda: worker.seen("predict"))
    else:
        answer = b""
        while answer.count(b"data: ") < 5:
            answer += client.recv(65536)
    assert worker.seen("ended") == []
    gone = time.monotonic()
    client.close()
    ended = until("the call to end", lambda: worker.seen("ended"), patience=5)[0]
    took = ended["at"] - gone
    figures.append(f"grpc worker, {dialect}, {listen[:4]}, {moment}: ended {took * 1000:.1f} ms after the client left")
    assert not ended["whole"]
    assert took < CANCEL_BOUND


@pytest.mark.parametrize("dialect", DIALECTS)
def test_one_that_is_killed_and_comes_back_serves_again(programs: Programs, dialect: str, listen: str) -> None:
    worker = Worker(programs, "worker", dialect, listen, "--model", MODEL)
    gateway = dial(programs, worker)
    wait_for_model(gateway)
    assert gateway.chat().status == 200
    worker.program.kill()
    assert gateway.chat().status in (502, 503), "there is nobody else"
    # What a crash leaves behind is in nobody's way.
    if worker.address.startswith("unix:"):
        assert os.path.exists(worker.address[5:])
        os.unlink(worker.address[5:])
    began = time.monotonic()
    worker.start(worker.address)
    until("it to serve again", lambda: gateway.chat().status == 200)
    assert time.monotonic() - began < 20
    assert worker.seen("predict")


def test_a_token_is_shown_and_a_wrong_one_is_told(programs: Programs) -> None:
    flags = ["--model", MODEL, "--token", "worker-secret"]
    worker = Worker(programs, "worker", "packaged", "127.0.0.1:0", *flags)
    config = '[[grpc.runner]]\naddress = "{address}"\ntoken = "{token}"\n'
    gateway = programs.gateway("gateway", config.format(address=worker.address, token="worker-secret"))
    wait_for_model(gateway)
    assert gateway.chat().status == 200
    assert worker.seen("predict")[-1]["metadata"]["authorization"] == "Bearer worker-secret"
    gateway.program.end()

    wrong = programs.gateway("wrong", config.format(address=worker.address, token="wrong-secret"))
    told = wrong.program.until_printed(r"WARN .*a worker .*")[0]
    assert worker.address in told and "the token is wrong" in told, told
    assert "wrong-secret" not in wrong.program.output()
    assert all(not runner["loaded_models"] for runner in wrong.runners().values())


def test_statuses_become_those_that_clients_know(programs: Programs) -> None:
    worker = Worker(programs, "worker", "packaged", "127.0.0.1:0", "--model", MODEL)
    gateway = dial(programs, worker)
    wait_for_model(gateway)
    client = client_of(gateway)

    def ask(code: str) -> None:
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": f"abort:{code} now"}])

    with pytest.raises(openai.BadRequestError):
        ask("INVALID_ARGUMENT")
    with pytest.raises(openai.APIStatusError) as overloaded:
        ask("RESOURCE_EXHAUSTED")
    assert overloaded.value.status_code in (429, 503)
    assert overloaded.value.response.headers["retry-after"]
    with pytest.raises(openai.InternalServerError):
        ask("INTERNAL")
