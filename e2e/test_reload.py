"""Settings that change under load: runners come and go, strategies change, and nobody is failed.

GATEWAY_E2E_RELOAD_S changes how long (20 s, at 200 requests a second; 50 s are 10,000).
"""

import asyncio
import os
import signal
import time
from collections import Counter

from processes import MODEL, Gateway, Programs
from test_killing import one

SECONDS = float(os.environ.get("GATEWAY_E2E_RELOAD_S", "20"))
RATE = 200
RELOADS = 20
STRATEGIES = ["least-loaded", "round-robin", "power-of-two", "prefix-cache"]


def settings(number: int, engines: dict[str, str]) -> str:
    """One of the three runners is left out each time, and the strategy is another."""
    out = list(engines)[number % len(engines)]
    runners = (
        f'[[runner]]\nurl = "{url}"\nid = "{name}"\nmodels = ["{MODEL}"]\nslots = 8\n'
        for name, url in engines.items()
        if name != out
    )
    return f'strategy = "{STRATEGIES[number % len(STRATEGIES)]}"\n' + "".join(runners)


async def reload_and_ask(gateway: Gateway, programs: Programs, engines: dict[str, str]) -> tuple[Counter, list[float]]:
    ends: Counter = Counter()
    waits: list[float] = []
    file = programs.logs / "gateway.toml"
    began = time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        asked = reloads = 0
        while (now := time.monotonic() - began) < SECONDS:
            while asked < now * RATE:
                tasks.create_task(one(gateway, ends, waits))
                asked += 1
            if now >= (reloads + 1) * SECONDS / (RELOADS + 1):
                reloads += 1
                file.write_text(settings(reloads, engines))
                gateway.program.process.send_signal(signal.SIGHUP)
            await asyncio.sleep(0.002)
    return ends, waits


def test_settings_change_under_load_and_no_request_fails(programs: Programs, figures: list[str]) -> None:
    engines = {name: programs.engine(name, slots=8, context=256) for name in ("a", "b", "c")}
    gateway = programs.gateway("gateway", settings(0, engines))
    gateway.wait_for_runners("b", "c")
    ends, waits = asyncio.run(reload_and_ask(gateway, programs, engines))
    waits.sort()
    figures.append(
        f"{sum(ends.values())} requests at {RATE}/s, {RELOADS} reloads: {dict(ends)}; "
        f"head of the answer after {waits[len(waits) // 2] * 1000:.0f} ms, p99 {waits[len(waits) * 99 // 100] * 1000:.0f} ms"
    )
    assert list(ends) == ["whole"], ends
    said = gateway.program.output().count("other settings are in force")
    assert said == RELOADS, f"{said} reloads were heard of"
    # What does not do is said, and changes nothing.
    before = gateway.runners().keys()
    (programs.logs / "gateway.toml").write_text("[[runner]]\nurl = 7")
    gateway.program.process.send_signal(signal.SIGHUP)
    gateway.program.until_printed("the new settings do not do")
    assert gateway.runners().keys() == before
    assert gateway.chat().status == 200
