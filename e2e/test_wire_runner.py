"""A runner that was written from the published protocol alone, in another language, works."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from processes import ADMIN_TOKEN, RUNNER_TOKEN, Gateway, Programs, until
from wire_runner import Engine, WireRunner

ALIASES = {"house-model": "local/model:q4"}


@pytest.fixture(scope="module")
def gateway(shared_programs: Programs) -> Gateway:
    return shared_programs.gateway("gateway-of-wire-runners")


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine(ALIASES)
    yield engine
    engine.close()


@pytest.fixture
def runner(gateway: Gateway, engine: Engine) -> Iterator[WireRunner]:
    # As seldom as the shipped runners: a test that passes did not wait for a heartbeat.
    runner = WireRunner(gateway.door, RUNNER_TOKEN, "wire-1", engine, heartbeat=30)
    yield runner
    runner.close()
    until("the runner to be gone", lambda: "wire-1" not in gateway.runners())


def command(gateway: Gateway, name: str, model: str) -> tuple[int, dict]:
    answer = gateway.ask("POST", f"/admin/runners/wire-1/{name}", {"model_id": model}, token=ADMIN_TOKEN)
    return answer.status, answer.json


def load(gateway: Gateway) -> None:
    status, answer = command(gateway, "load-model", "house-model")
    assert (status, answer["success"]) == (200, True), answer


def ask(gateway: Gateway, **fields: object):
    body = {"model": "house-model", "messages": [{"role": "user", "content": "hi"}]}
    return gateway.ask("POST", "/v1/chat/completions", body | fields)


def test_it_registers_and_is_listed(gateway: Gateway, runner: WireRunner) -> None:
    assert runner.first_reply == {"type": "register_ack", "runner_id": "wire-1"}
    entry = gateway.runners()["wire-1"]
    assert entry["name"] == "Wire runner" and entry["machine_type"] == "cpu" and entry["health"] == "healthy"
    assert entry["http_base_url"] == f"http://127.0.0.1:{runner.engine.port}"
    assert entry["is_online"] is True
    assert gateway.ask("GET", "/runners", token=ADMIN_TOKEN).json["total"] == 1


def test_heartbeats_are_taken(gateway: Gateway, engine: Engine) -> None:
    runner = WireRunner(gateway.door, RUNNER_TOKEN, "wire-2", engine, heartbeat=0.1)
    try:
        first = gateway.runners()["wire-2"]["last_heartbeat"]
        until("a later last_heartbeat", lambda: gateway.runners()["wire-2"]["last_heartbeat"] != first)
        engine.loaded.append("local/model:q4")
        gateway.wait_for_runners("wire-2", model="house-model")
        assert not runner.closed_by_gateway.is_set()
    finally:
        runner.close()
    until("the runner to be gone", lambda: "wire-2" not in gateway.runners())


def test_it_loads_a_model_and_serves_by_dial_back(gateway: Gateway, runner: WireRunner) -> None:
    assert gateway.runners()["wire-1"]["loaded_models"] == []
    load(gateway)
    assert runner.commands[-1]["type"] == "load_model" and runner.commands[-1]["model_id"] == "house-model"
    # The answer to the command brought the fresh status: no heartbeat has to be waited for.
    answer = ask(gateway, temperature=0.5, x_unknown={"kept": [1, 2.50]})
    assert answer.status == 200, answer
    assert answer.headers["x-backend-used"] == "wire-1"
    assert answer.json == Engine.completion(), "not a field of the answer is lost"


def test_the_first_request_has_its_model_loaded(gateway: Gateway, runner: WireRunner) -> None:
    assert gateway.runners()["wire-1"]["loaded_models"] == []
    assert ask(gateway).status == 200
    assert [command["type"] for command in runner.commands].count("load_model") == 1
    assert gateway.runners()["wire-1"]["loaded_models"] == ["house-model"]


def test_the_body_is_passed_on_byte_by_byte_but_for_the_model_s_name(gateway: Gateway, runner: WireRunner) -> None:
    load(gateway)
    body = b'{ "z":1.50,  "model" : "house-model", "messages":[{"role":"user","content":"\\u00e9"}],"tools":[{"b":0}] }'
    assert gateway.ask("POST", "/v1/chat/completions", body).status == 200
    headers, seen = runner.engine.seen[-1]
    assert seen == body.replace(b'"house-model"', b'"local/model:q4"')
    assert "authorization" not in headers, "a client's key is not the runner's business"
    assert headers["x-request-id"]


def test_it_streams(gateway: Gateway, runner: WireRunner) -> None:
    load(gateway)
    answer = ask(gateway, stream=True)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.body.count(b"data: ") == 4 and answer.body.endswith(b"data: [DONE]\n\n")


def test_it_says_how_it_is_when_it_is_asked(gateway: Gateway, runner: WireRunner) -> None:
    runner.engine.loaded.append("local/model:q4")  # nobody has told the gateway
    answer = gateway.ask("POST", "/admin/runners/wire-1/request-status", token=ADMIN_TOKEN)
    assert (answer.status, answer.json["success"]) == (200, True)
    assert runner.commands[-1]["type"] == "request_status"
    assert gateway.runners()["wire-1"]["loaded_models"] == ["house-model"]


def test_it_unloads_and_says_what_it_cannot_do(gateway: Gateway, runner: WireRunner) -> None:
    load(gateway)
    status, answer = command(gateway, "unload-model", "house-model")
    assert (status, answer["success"]) == (200, True)
    assert gateway.runners()["wire-1"]["loaded_models"] == []
    status, answer = command(gateway, "load-model", "strange-model")
    assert answer["success"] is False and "strange-model" in answer["message"]


def test_it_comes_back_under_its_id_while_the_old_socket_is_still_there(
    gateway: Gateway, runner: WireRunner, engine: Engine
) -> None:
    load(gateway)
    again = WireRunner(gateway.door, RUNNER_TOKEN, "wire-1", engine, heartbeat=0.1)
    try:
        assert again.first_reply["type"] == "register_ack"
        # The late end of the old socket, whoever closes it, must not take the new registration along.
        runner.close()
        assert runner.closed_by_gateway.wait(10)
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: ask(gateway).status, range(64)))
        assert answers == [200] * 64
        beats = again.heartbeats
        until("heartbeats on the new socket", lambda: again.heartbeats > beats + 2)
        assert gateway.runners()["wire-1"]["is_online"] is True
        assert not again.closed_by_gateway.is_set()
    finally:
        again.close()


def test_a_runner_with_a_wrong_token_is_told(gateway: Gateway, engine: Engine) -> None:
    refused = WireRunner(gateway.door, "wrong", "wire-3", engine)
    assert refused.first_reply["type"] == "error" and refused.first_reply["code"] == "AUTH_FAILED"
    assert "wire-3" not in gateway.runners()
