"""A minute of killing: three runners, one killed every two seconds, and nobody is failed who had no answer yet.

GATEWAY_E2E_KILLING_S changes how long (60 s).
"""

import asyncio
import json
import os
import time
from collections import Counter

from processes import CLIENT_TOKEN, MODEL, Gateway, Program, Programs

SECONDS = float(os.environ.get("GATEWAY_E2E_KILLING_S", "60"))
EVERY = 2.0
RATE = 200

BODY = json.dumps(
    {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4, "stream": True}
).encode()


async def one(gateway: Gateway, ends: Counter, waits: list[float]) -> None:
    """One streamed request over a connection of its own, told by how it ended."""
    host, _, port = gateway.address.rpartition(":")
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: {gateway.address}\r\nauthorization: Bearer {CLIENT_TOKEN}\r\n"
        f"content-type: application/json\r\nconnection: close\r\ncontent-length: {len(BODY)}\r\n\r\n"
    ).encode()
    due = time.monotonic()
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(head + BODY)
        status = int((await reader.readline()).split()[1])
        if status != 200:
            text = await reader.read()
            ends[f"failed: {status} {text[-300:]!r}"] += 1
            return
        while (await reader.readline()).strip():
            pass
        waits.append(time.monotonic() - due)
        text = await reader.read()
        whole = b"[DONE]" in text and b'"error"' not in text
        ends["whole" if whole else "broken off after it had begun"] += 1
    finally:
        writer.close()


class Runner:
    """A runner that can be killed and started anew, with the same id at the same address."""

    def __init__(self, kill: Program, again):
        self.process = kill
        self.again = again

    def kill(self) -> None:
        self.process.kill()
        self.process = self.again()


async def kill_and_ask(gateway: Gateway, runners: list[Runner]) -> tuple[Counter, list[float], int]:
    ends: Counter = Counter()
    waits: list[float] = []
    began = time.monotonic()
    kills = 0
    async with asyncio.TaskGroup() as tasks:
        asked = 0
        while (now := time.monotonic() - began) < SECONDS:
            while asked < now * RATE:
                tasks.create_task(one(gateway, ends, waits))
                asked += 1
            if now >= (kills + 1) * EVERY:
                runners[kills % len(runners)].kill()
                kills += 1
            await asyncio.sleep(0.002)
    return ends, waits, kills


def test_no_request_fails_that_had_not_begun(programs: Programs, figures: list[str]) -> None:
    dialled = programs.engine("dialled", slots=8, context=256)
    dialled_engine = programs.running[-1]
    tunnel_engine = programs.engine("behind-tunnel", slots=8, context=256)
    back_engine = programs.engine("behind-dial-back", slots=8, context=256)
    back_process = programs.running[-1]
    # It says that it is there: an engine that is away for a moment is not asked what it serves.
    config = f'[[runner]]\nurl = "{dialled}"\nid = "dialled"\nmodels = ["{MODEL}"]\nslots = 8\n'
    gateway = programs.gateway("gateway", config)
    tunnel = programs.runner("tunnel", gateway, tunnel_engine)
    programs.runner("dial-back", gateway, back_engine, "--dial-back-port", back_engine.rpartition(":")[2])
    gateway.wait_for_runners("dialled", "tunnel", "dial-back")

    def engine_again(name: str, address: str):
        port = int(address.rpartition(":")[2])
        return lambda: programs.start_engine(name, port, slots=8, context=256)

    runners = [
        Runner(dialled_engine, engine_again("dialled", dialled)),
        Runner(tunnel, lambda: programs.runner("tunnel", gateway, tunnel_engine)),
        Runner(back_process, engine_again("behind-dial-back", back_engine)),
    ]
    ends, waits, kills = asyncio.run(kill_and_ask(gateway, runners))
    waits.sort()
    p50, p99 = waits[len(waits) // 2], waits[len(waits) * 99 // 100]
    figures.append(
        f"{sum(ends.values())} requests at {RATE}/s, {kills} kills: {dict(ends)}; "
        f"head of the answer after {p50 * 1000:.0f} ms, p99 {p99 * 1000:.0f} ms"
    )
    assert not [end for end in ends if end.startswith("failed")], ends
    assert ends["whole"] > 0.9 * sum(ends.values()), ends
    assert kills >= int(SECONDS / EVERY) - 1
