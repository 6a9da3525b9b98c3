"""A runner in another language that dials in over gRPC, written from the published file alone."""

import time
from collections.abc import Iterator

import grpc
import openai
import pytest

from dial_in_runner import DialInRunner
from processes import ADMIN_TOKEN, BINARIES, CLIENT_TOKEN, RUNNER_TOKEN, Gateway, Programs, until
from processes import MODEL as TINY

MODEL = "parrot"
# From the client's close to the reset, as the runner sees it.
CANCEL_BOUND = 0.100


@pytest.fixture(scope="module")
def gateway(shared_programs: Programs) -> Gateway:
    # On the port of the HTTP API: one address for everything.
    return shared_programs.gateway("gateway-of-grpc-runners", environment={"GATEWAY_GRPC_LISTEN": "http"})


@pytest.fixture
def runner(gateway: Gateway) -> Iterator[DialInRunner]:
    runner = DialInRunner(gateway.address, RUNNER_TOKEN, "python-1", MODEL)
    assert runner.registered.wait(10), runner.status
    until("the runner to serve", lambda: MODEL in gateway.runners().get("python-1", {}).get("loaded_models", []))
    yield runner
    runner.close()
    until("the runner to be gone", lambda: "python-1" not in gateway.runners())


def client_of(gateway: Gateway) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=CLIENT_TOKEN, max_retries=0, timeout=30)


def stream(gateway: Gateway, words: str, **more):
    messages = [{"role": "user", "content": words}]
    return client_of(gateway).chat.completions.create(model=MODEL, messages=messages, stream=True, **more)


def test_openais_client_streams_from_it(gateway: Gateway, runner: DialInRunner) -> None:
    parts = [chunk.choices[0].delta.content for chunk in stream(gateway, "the quick brown fox")]
    assert parts == ["the", " quick", " brown", " fox"]
    head = runner.heads[-1]
    assert (head.method, head.path) == ("POST", "/v1/chat/completions")
    names = [header.name for header in head.headers]
    assert "x-request-id" in names and "authorization" not in names


def test_an_answer_larger_than_its_window_comes_whole(gateway: Gateway, runner: DialInRunner) -> None:
    text = "".join(chunk.choices[0].delta.content for chunk in stream(gateway, "2000000"))
    assert text.replace(" ", "") == "x" * 2_000_000


def test_a_client_that_goes_away_stops_it(gateway: Gateway, runner: DialInRunner, figures: list[str]) -> None:
    answer = stream(gateway, "one two", max_tokens=0)
    next(iter(answer))
    answer.close()
    left = time.monotonic()
    until("the reset", lambda: runner.resets, patience=5)
    took = time.monotonic() - left
    figures.append(f"gRPC dial-in, Python: reset {took * 1000:.1f} ms after the client left")
    assert took < CANCEL_BOUND
    until("its slot to be free", lambda: gateway.runners()["python-1"]["in_flight"] == 0)


def test_commands_reach_it(gateway: Gateway, runner: DialInRunner) -> None:
    for command, state in (("unload-model", []), ("load-model", [MODEL])):
        answer = gateway.ask("POST", f"/admin/runners/python-1/{command}", {"model_id": MODEL}, token=ADMIN_TOKEN)
        assert answer.status == 200 and answer.json["success"], answer
        assert gateway.runners()["python-1"]["loaded_models"] == state
    assert runner.commands == [("unload_model", MODEL), ("load_model", MODEL)]


def test_a_wrong_token_is_told(gateway: Gateway) -> None:
    runner = DialInRunner(gateway.address, "wrong", "python-2", MODEL)
    assert runner.ended.wait(10)
    assert runner.status == grpc.StatusCode.UNAUTHENTICATED and not runner.registered.is_set()


def test_the_agent_brings_a_real_engine_over_grpc(programs: Programs, gateway: Gateway) -> None:
    engine = programs.engine("engine")
    command = [str(BINARIES / "runner"), "--gateway", f"grpc://{gateway.address}", "--upstream", engine, "--id", "agent-1"]
    agent = programs.start("agent-1", command, {"GATEWAY_RUNNER_TOKEN": RUNNER_TOKEN})
    gateway.wait_for_runners("agent-1", model=TINY)
    messages = [{"role": "user", "content": "Tell me a story"}]
    answer = client_of(gateway).chat.completions.create(model=TINY, messages=messages, max_tokens=16, stream=True)
    assert [chunk for chunk in answer][-1].choices[0].finish_reason == "length"
    agent.end()
    until("the agent to be gone", lambda: "agent-1" not in gateway.runners())
