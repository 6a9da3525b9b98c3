"""`standalone` as a process: settings, observability, draining."""

import http.client
import subprocess
from pathlib import Path

from processes import ADMIN_TOKEN, BINARIES, CLIENT_TOKEN, MODEL, PATIENCE, Gateway, Programs


def test_without_a_token_it_says_what_to_set() -> None:
    done = subprocess.run([str(BINARIES / "standalone")], env={}, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode != 0
    assert "GATEWAY_BEARER_TOKEN" in done.stderr and "--demo" in done.stderr


def test_a_mistyped_key_is_named(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text('client_tokns = ["a"]\n')
    command = [str(BINARIES / "standalone"), "--config", str(file)]
    done = subprocess.run(command, env={}, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode != 0 and "client_tokns" in done.stderr


def test_ready_only_with_a_runner_and_metrics_on_a_listener_of_their_own(programs: Programs) -> None:
    gateway = programs.gateway("gateway", 'observability = "127.0.0.1:0"\n')
    observability = gateway.program.until_printed(r"observability listening address=(\S+)")[1]

    def observe(path: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection(observability, timeout=PATIENCE)
        connection.request("GET", path)
        response = connection.getresponse()
        try:
            return response.status, response.read().decode()
        finally:
            connection.close()

    assert gateway.ask("GET", "/health", token=None).status == 200
    assert gateway.ask("GET", "/readyz", token=None).status == 503
    assert observe("/readyz")[0] == 503
    programs.runner("tunnel", gateway, programs.engine("engine"))
    gateway.wait_for_runners("tunnel")
    assert gateway.ask("GET", "/readyz", token=None).status == 200
    assert observe("/readyz")[0] == 200
    assert gateway.chat().status == 200
    text = observe("/metrics")[1]
    for name in ("gateway_requests_total", "gateway_request_duration_seconds", "inference_requests_total"):
        assert name in text, name
    assert f'model="{MODEL}"' in text
    assert gateway.ask("GET", "/metrics", token=CLIENT_TOKEN).status == 404, "not on the public listener"


def test_a_static_backend_from_the_environment_serves(programs: Programs) -> None:
    engine = programs.engine("engine")
    gateway = programs.gateway("gateway", environment={"STATIC_BACKENDS": engine})
    gateway.wait_for_runners(engine.removeprefix("http://"))
    assert gateway.chat().status == 200
    assert gateway.ask("GET", "/admin/runners", token=CLIENT_TOKEN).status in (401, 403)
    assert gateway.ask("GET", "/admin/runners", token=ADMIN_TOKEN).json["total"] == 1


def test_the_settings_of_the_file_have_their_effect(programs: Programs) -> None:
    engine = programs.engine("engine")
    gateway = programs.gateway(
        "gateway",
        f"""
        strategy = "round-robin"
        [limits]
        max_body_bytes = 2000
        [[runner]]
        url = "{engine}"
        id = "by-file"
        models = ["{MODEL}"]
        slots = 3
        machine = "gpu"
        labels = {{ zone = "eu" }}
        """,
    )
    gateway.wait_for_runners("by-file")
    runner = gateway.runners()["by-file"]
    assert (runner["slots"], runner["machine_type"], runner["labels"]) == (3, "gpu", {"zone": "eu"})
    answer = gateway.chat()
    assert answer.status == 200 and "round-robin" in answer.headers["x-router-reason"]
    assert gateway.chat("word " * 1000).status == 413


def test_a_token_is_asked_for_unless_the_file_says_otherwise(programs: Programs) -> None:
    engine = programs.engine("engine")
    tokens = {"STATIC_BACKENDS": engine}
    closed = programs.gateway("closed", environment=tokens)
    assert closed.ask("GET", "/v1/models", token=None).status == 401
    no_token = tokens | {"GATEWAY_BEARER_TOKEN": ""}
    opened = programs.gateway("open", "allow_anonymous = true", no_token)
    assert opened.ask("GET", "/v1/models", token=None).status == 200
    assert opened.ask("GET", "/admin/runners", token=None).status == 401


def test_one_worker_is_one_thread(programs: Programs) -> None:
    def threads(gateway: Gateway) -> int:
        names = [task.read_text() for task in Path(f"/proc/{gateway.program.process.pid}/task").glob("*/comm")]
        # Others write the log, and give memory back.
        return len([name for name in names if name != "log\n" and not name.startswith("jemalloc")])

    assert threads(programs.gateway("one", "", None, "--workers", "1")) == 1
    assert threads(programs.gateway("three", "", None, "--workers", "3")) == 1 + 3


def test_a_second_signal_ends_at_once(programs: Programs) -> None:
    gateway = programs.gateway("gateway")
    programs.runner("tunnel", gateway, programs.engine("engine", slots=1, context=60_000))
    gateway.wait_for_runners("tunnel")
    stream = gateway.begin_stream(max_tokens=1_000_000)
    gateway.program.process.terminate()
    gateway.program.until_printed("draining")
    assert gateway.program.process.poll() is None
    gateway.program.process.terminate()
    assert gateway.program.process.wait(2) == 130
    stream.close()


def test_sigterm_lets_an_answer_under_way_end(programs: Programs) -> None:
    gateway = programs.gateway("gateway")
    programs.runner("tunnel", gateway, programs.engine("engine", slots=1, context=12_000))
    gateway.wait_for_runners("tunnel")
    stream = gateway.begin_stream(max_tokens=10_000)
    gateway.program.process.terminate()
    events = stream.rest()
    assert events[-1] == "[DONE]" and "error" not in events[-2]
    assert len(events) > 9_000
    assert gateway.program.process.wait(PATIENCE) == 0
