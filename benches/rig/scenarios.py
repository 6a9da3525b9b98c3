"""What is done to each row, and what of it is told."""

import json
import subprocess
import time

from machine import Failed, Program, wait_until

OPEN_STREAMS = 1024


class Effort:
    """How long and how much."""

    def __init__(self, seconds, warmup, streams, hold_seconds, settle_seconds, pace=1):
        self.seconds, self.warmup = seconds, warmup
        self.streams = streams
        self.hold_seconds, self.settle_seconds = hold_seconds, settle_seconds
        # By how much the chunks of paced streams come faster.
        self.pace = pace


FULL = Effort(3, 0.6, OPEN_STREAMS, 5, 3)
QUICK = Effort(1.5, 0.4, OPEN_STREAMS, 3, 2)
SMOKE = Effort(0.2, 0.05, 32, 0.1, 0.1, pace=50)


def load_command(row, **options):
    setup = row.setup
    command = [setup.program("rig_load"), "--port", row.port]
    for header in row.headers:
        command += ["--header", header]
    for key, value in options.items():
        if value is not False:
            command += [f"--{key.replace('_', '-')}"] + ([] if value is True else [value])
    return command


def settle(row, effort):
    """Waits until nothing is under way and the row is idle."""
    look = effort.settle_seconds / 15

    def idle():
        if row.setup.totals()["under_way"]:
            return False
        before = row.cpu_seconds()
        time.sleep(look)
        return row.cpu_seconds() - before < 0.15 * look

    wait_until(f"{row.setup.port} at rest", 30, idle)


def load(row, effort, **options):
    """One run of the load, with what it cost the row."""
    settle(row, effort)
    before, began = row.cpu_seconds(), time.monotonic()
    options = {"seconds": effort.seconds, "warmup": effort.warmup} | options
    command = load_command(row, **options)
    generator = row.setup.start(command, row.setup.load_cores, "load", stdout=subprocess.PIPE, text=True)
    try:
        out, _ = generator.process.communicate(timeout=options["seconds"] + 60)
    finally:
        generator.stop()
    if generator.process.returncode:
        raise Failed(f"the load ended with {generator.process.returncode}: {generator.last_words()}")
    cpu, took = row.cpu_seconds() - before, time.monotonic() - began
    told = json.loads(out.strip().splitlines()[-1])
    told["core_use"] = cpu / took
    told["cpu_seconds"] = cpu
    told["cpu_per_10k_requests"] = cpu / max(told["all_ok"], 1) * 1e4
    told["cpu_per_1m_chunks"] = cpu / max(told["all_chunks"], 1) * 1e6
    told["bad"] = told["bad_status"] + told["broken"] + told["incomplete"]
    return told


def plain(prompt_bytes):
    def run(row, effort):
        return load(row, effort, connections=64, prompt_bytes=prompt_bytes)

    return run


def rate(row, effort):
    return load(row, effort, connections=256, rate=500)


def stream(row, effort):
    return load(row, effort, connections=min(256, effort.streams), stream=True)


def paced(row, effort):
    """A chunk each 50 ms. Long enough for streams to come to their end, which is looked at, too."""
    interval = 50_000 // effort.pace
    connections, seconds = min(256, effort.streams), 2 * effort.seconds
    return load(row, effort, connections=connections, stream=True, interval_us=interval, seconds=seconds)


def first_chunk(row, effort):
    interval = 40_000 // effort.pace
    return load(row, effort, connections=512, stream=True, chunks=25, interval_us=interval, rate=100)


class Held:
    """Open streams, held by load generators until they are let go."""

    def __init__(self, row, count, generators=1, interval_us=200_000):
        self.row, self.programs = row, []
        share = [count // generators + (at < count % generators) for at in range(generators)]
        options = {"stream": True, "chunks": 1_000_000, "interval_us": interval_us, "hold": True}
        for at, connections in enumerate(share):
            command = load_command(row, connections=connections, **options)
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
            setup = row.setup
            self.programs.append(Program(command, setup.load_cores, setup.folder / f"hold-{at}.log", **pipes))

    def until_open(self):
        """How many are open, once all have their first chunk or have failed."""
        told = [json.loads(one.process.stdout.readline() or "{}") for one in self.programs]
        return sum(one.get("open", 0) for one in told)

    def let_go(self):
        for one in self.programs:
            one.process.stdin.close()
        told = [json.loads(one.process.stdout.readline() or "{}") for one in self.programs]
        self.stop()
        return told

    def stop(self):
        for one in self.programs:
            one.stop()


def hold(row, effort):
    """Memory and CPU with open streams. The first of all, because memory that was in use before would count as idle."""
    settle(row, effort)
    idle = row.rss_kib()
    held = Held(row, effort.streams)
    try:
        count = held.until_open()
        time.sleep(effort.hold_seconds / 2)
        before, began = row.cpu_seconds(), time.monotonic()
        time.sleep(effort.hold_seconds)
        use = (row.cpu_seconds() - before) / (time.monotonic() - began)
        full = row.rss_kib()
        told = held.let_go()
    finally:
        held.stop()
    settle(row, effort)
    time.sleep(effort.settle_seconds)
    return {
        "streams": count,
        "core_use": use,
        "rss_idle_kib": idle,
        "rss_open_kib": full,
        "rss_after_kib": row.rss_kib(),
        "kib_per_stream": (full - idle) / max(count, 1),
        "all_ok": count,
        "all_chunks": count,
        "bad": effort.streams - count,
        "problem": told[0].get("problem"),
    }


# In this order, each on the same process.
SCENARIOS = {
    "hold": hold,
    "plain-300": plain(300),
    "plain-16k": plain(16 * 1024),
    "plain-256k": plain(256 * 1024),
    "rate": rate,
    "stream": stream,
    "paced": paced,
    "first": first_chunk,
}

# What shows whether a data path works; the first of ours goes through all.
SMOKED = ["plain-300", "stream"]

# Arrangements: engines, the peer's threads, and what is measured in them.
ARRANGEMENTS = {
    "base": {"engines": 2, "threads": 1, "scenarios": list(SCENARIOS)},
    "1000-runners": {"engines": 1000, "threads": 1, "scenarios": ["plain-300", "stream"]},
    "two-cores": {"engines": 2, "threads": 2, "scenarios": ["plain-300", "stream"]},
}
