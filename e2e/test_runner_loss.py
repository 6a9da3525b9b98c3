"""Runners are killed and come back."""

import json
import time

import pytest

from processes import PATIENCE, Programs, until


def test_a_killed_runner_leaves_at_once_and_serves_again_when_it_is_back(
    programs: Programs, figures: list[str]
) -> None:
    gateway = programs.gateway("gateway")
    engine = programs.engine("engine")
    runner = programs.runner("tunnel", gateway, engine)
    gateway.wait_for_runners("tunnel")
    assert gateway.chat().status == 200

    killed = time.monotonic()
    runner.kill()
    until("the killed runner to be gone", lambda: "tunnel" not in gateway.runners(), patience=2)
    figures.append(f"SIGKILL of a tunnel runner until it left the fleet: {(time.monotonic() - killed) * 1000:.0f} ms")
    refused = gateway.chat()
    assert refused.status in (404, 503) and refused.json["error"]["message"]

    programs.runner("tunnel", gateway, engine)
    back = time.monotonic()
    gateway.wait_for_runners("tunnel")
    figures.append(f"start of a runner's process until it serves: {(time.monotonic() - back) * 1000:.0f} ms")
    assert gateway.chat().status == 200


@pytest.mark.parametrize("way", ["tunnel", "dial-back"])
def test_a_stream_that_loses_its_runner_ends_with_an_error_event(programs: Programs, way: str) -> None:
    gateway = programs.gateway("gateway")
    engine = programs.engine("engine", slots=1, context=60_000)
    engine_process = programs.running[-1]
    flags = ["--dial-back-port", engine.rpartition(":")[2]] if way == "dial-back" else []
    runner = programs.runner(way, gateway, engine, *flags)
    gateway.wait_for_runners(way)
    stream = gateway.begin_stream(max_tokens=1_000_000)
    (runner if way == "tunnel" else engine_process).kill()
    events = stream.rest()
    assert events[-1] == "[DONE]", events[-3:]
    assert json.loads(events[-2])["error"]["type"] == "upstream_error"


def test_a_runner_that_is_asked_to_end_finishes_what_it_has(programs: Programs) -> None:
    gateway = programs.gateway("gateway")
    engine = programs.engine("engine", slots=1, context=12_000)
    runner = programs.runner("tunnel", gateway, engine)
    gateway.wait_for_runners("tunnel")
    stream = gateway.begin_stream(max_tokens=10_000)
    runner.process.terminate()
    events = stream.rest()
    assert events[-1] == "[DONE]" and "error" not in events[-2]
    assert len(events) > 9_000
    assert runner.process.wait(PATIENCE) == 0
    assert gateway.runners() == {}
