"""Starting real programs, knowing when they are ready, and ending them."""

import ctypes
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent
CACHE = Path(os.environ.get("GATEWAY_E2E_CACHE", REPOSITORY / ".cache" / "e2e"))
BINARIES = Path(os.environ.get("GATEWAY_E2E_BINARIES", REPOSITORY / "target" / "debug" / "examples"))
MODEL_FILE = CACHE / "tiny-random.gguf"
MODEL = "tiny-random"

CLIENT_TOKEN = "client-secret"
ADMIN_TOKEN = "admin-secret"
RUNNER_TOKEN = "runner-secret"

T = TypeVar("T")

# A test machine may be slow; a healthy one needs a fraction of it.
PATIENCE = 30.0


def until(what: str, look: Callable[[], T], patience: float = PATIENCE) -> T:
    """Looks again and again until there is something to see, and gives it back."""
    deadline = time.monotonic() + patience
    while True:
        seen = look()
        if seen:
            return seen
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {patience} s in vain: {what}")
        time.sleep(0.005)


def _die_with_parent() -> None:
    """The kernel ends the child when this process goes, even by SIGKILL (PR_SET_PDEATHSIG)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


class Program:
    """A running program whose output goes to a file."""

    def __init__(self, name: str, command: list[str], logs: Path, environment: dict[str, str] | None = None):
        self.name = name
        self.log = logs / f"{name}.log"
        self._offset = self.log.stat().st_size if self.log.exists() else 0
        # Settings of whoever runs the tests must not leak in.
        inherited = {key: value for key, value in os.environ.items() if key in ("PATH", "HOME", "LANG", "TMPDIR")}
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=inherited | {"NO_COLOR": "1"} | (environment or {}),
                preexec_fn=_die_with_parent,
            )

    def output(self) -> str:
        with self.log.open("rb") as log:
            log.seek(self._offset)
            return log.read().decode(errors="replace")

    def until_printed(self, pattern: str) -> re.Match[str]:
        """Waits for a line and gives back the match."""

        def look() -> re.Match[str] | None:
            found = re.search(pattern, self.output())
            if not found and self.process.poll() is not None:
                raise AssertionError(f"{self.name} ended by itself:\n{self.output()}")
            return found

        try:
            return until(f"{self.name} to print {pattern}", look)
        except AssertionError as error:
            raise AssertionError(f"{error}\n--- {self.log}\n{self.output()[-4000:]}") from None

    def kill(self) -> None:
        """Ends it as a crash would."""
        self.process.kill()
        self.process.wait()

    def end(self, patience: float = 10) -> int:
        """Asks it to end, and waits; a program that does not is killed."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"{self.name} did not end within {patience} s of SIGTERM") from None


class Programs:
    """Starts programs and ends them all."""

    def __init__(self, logs: Path):
        self.logs = logs
        self.running: list[Program] = []

    def start(self, name: str, command: list[str], environment: dict[str, str] | None = None) -> Program:
        program = Program(name, command, self.logs, environment)
        self.running.append(program)
        return program

    def engine(self, name: str, slots: int = 4, context: int = 2048) -> str:
        """Starts a llama.cpp server and gives back its address."""
        program = self.start_engine(name, 0, slots, context)
        # Not at the beginning of a line: the engine's own log may have begun one.
        return program.until_printed(r"\blistening (http://[\w.]+:\d+)\s")[1]

    def start_engine(self, name: str, port: int, slots: int = 4, context: int = 2048) -> Program:
        """Starts a llama.cpp server and does not wait for it."""
        command = [sys.executable, str(HERE / "engine" / "serve.py"), str(MODEL_FILE), "--port", str(port)]
        return self.start(name, [*command, "--slots", str(slots), "--context", str(context)])

    def gateway(
        self, name: str, config: str = "", environment: dict[str, str] | None = None, *flags: str
    ) -> "Gateway":
        """Starts `standalone` on a free port."""
        file = self.logs / f"{name}.toml"
        file.write_text(config)
        tokens = {
            "GATEWAY_BEARER_TOKEN": CLIENT_TOKEN,
            "GATEWAY_ADMIN_TOKEN": ADMIN_TOKEN,
            "GATEWAY_RUNNER_TOKEN": RUNNER_TOKEN,
        }
        command = [str(BINARIES / "standalone"), "--listen", "127.0.0.1:0", "--config", str(file), *flags]
        program = self.start(name, command, tokens | (environment or {}))
        return Gateway(program, program.until_printed(r"listening address=(\S+)")[1])

    def runner(self, name: str, gateway: "Gateway", upstream: str, *flags: str) -> Program:
        """Starts the `runner` agent; it is in when the gateway says so."""
        command = [str(BINARIES / "runner"), "--gateway", gateway.door, "--upstream", upstream, "--id", name, *flags]
        return self.start(name, command, {"GATEWAY_RUNNER_TOKEN": RUNNER_TOKEN})

    def end(self) -> None:
        failures = []
        # The last first, so that runners go before their gateway and engines after both.
        for program in reversed(self.running):
            try:
                program.end()
            except AssertionError as error:
                failures.append(str(error))
        assert not failures, failures


class Gateway:
    """A `standalone` that runs."""

    def __init__(self, program: Program, address: str):
        self.program = program
        self.address = address
        self.url = f"http://{address}"
        self.door = f"ws://{address}/ws/runners"

    def ask(self, method: str, path: str, body: object = None, token: str | None = CLIENT_TOKEN) -> "Answer":
        """One request over a connection of its own."""
        connection = http.client.HTTPConnection(self.address, timeout=PATIENCE)
        headers = {"authorization": f"Bearer {token}"} if token else {}
        if body is not None:
            headers["content-type"] = "application/json"
        try:
            payload = body if isinstance(body, bytes | None) else json.dumps(body)
            connection.request(method, path, payload, headers)
            response = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def chat(self, content: str = "Hello there", **fields: object) -> "Answer":
        body = {"model": MODEL, "messages": [{"role": "user", "content": content}], "max_tokens": 8}
        return self.ask("POST", "/v1/chat/completions", body | fields)

    def begin_stream(self, max_tokens: int) -> "Stream":
        """A streamed answer of which the first event is here."""
        connection = http.client.HTTPConnection(self.address, timeout=PATIENCE)
        messages = [{"role": "user", "content": "hi"}]
        body = {"model": MODEL, "messages": messages, "max_tokens": max_tokens, "stream": True}
        headers = {"authorization": f"Bearer {CLIENT_TOKEN}", "content-type": "application/json"}
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        response = connection.getresponse()
        assert response.readline().startswith(b"data: ")
        return Stream(connection, response)

    def runners(self) -> dict[str, dict]:
        """The admin list by id."""
        answer = self.ask("GET", "/admin/runners", token=ADMIN_TOKEN)
        assert answer.status == 200, answer
        return {runner["id"]: runner for runner in answer.json["runners"]}

    def wait_for_runners(self, *ids: str, model: str = MODEL) -> None:
        """Waits until these runners are in and have the model loaded."""

        def look() -> bool:
            runners = self.runners()
            return all(model in runners.get(id, {}).get("loaded_models", []) for id in ids)

        until(f"{ids} to serve {model} at {self.program.name}", look)


class Stream:
    """An answer that is still coming."""

    def __init__(self, connection: http.client.HTTPConnection, response: http.client.HTTPResponse):
        self._connection = connection
        self._response = response

    def rest(self) -> list[str]:
        """The events from the second on, without `data: `."""
        text = self._response.read().decode()
        self.close()
        return [event.removeprefix("data: ") for event in text.strip().split("\n\n")]

    def close(self) -> None:
        self._connection.close()


class Answer:
    """What came back."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes):
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def json(self) -> dict:
        return json.loads(self.body)

    def __repr__(self) -> str:
        return f"{self.status} {self.headers} {self.body[:500]!r}"
