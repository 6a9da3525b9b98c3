"""A newcomer starts the demo and runs the line that it prints."""

import json
import subprocess
import time

from processes import BINARIES, PATIENCE, Programs


def test_the_printed_line_gives_a_streamed_answer(programs: Programs, figures: list[str]) -> None:
    started = time.monotonic()
    demo = programs.start("demo", [str(BINARIES / "standalone"), "--demo", "--listen", "127.0.0.1:0"])
    line = demo.until_printed(r"(?m)^\s*(curl -N .+)$")[1]
    ready = time.monotonic() - started
    curl = subprocess.Popen(["bash", "-c", line], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    arrivals: list[float] = []
    texts: list[str] = []
    for event in curl.stdout:
        data = event.decode().removeprefix("data: ").strip()
        if data.startswith("{"):
            arrivals.append(time.monotonic() - started)
            delta = json.loads(data)["choices"][0]["delta"]
            texts.append(delta.get("content", ""))
        elif data:
            assert data == "[DONE]"
    assert curl.wait(PATIENCE) == 0
    assert len(texts) > 40 and len("".join(texts).split()) > 30
    assert arrivals[-1] - arrivals[0] > 0.5, "the tokens came one by one"
    figures.append(f"demo: runners in after {ready * 1000:.0f} ms, first token after {arrivals[0] * 1000:.0f} ms")
    figures.append(f"demo says: {''.join(texts)[:100]}…")


def test_it_ends_in_order(programs: Programs) -> None:
    demo = programs.start("demo", [str(BINARIES / "standalone"), "--demo", "--listen", "127.0.0.1:0"])
    demo.until_printed("curl -N")
    assert demo.end(patience=5) == 0
