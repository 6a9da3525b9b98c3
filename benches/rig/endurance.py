#!/usr/bin/env python3
"""What many runners and many open streams cost one `standalone`, and whether it gives everything back.

    benches/rig/endurance.py fleet                      10,000 runners that dial in over WebSocket and only stay
    benches/rig/endurance.py streams                    20,000 open streams, over HTTP and through the tunnel
    benches/rig/endurance.py streams --count 5000 http

Each stream takes two open files of the gateway over HTTP, one through the tunnel. With fewer files allowed (`ulimit -Hn`)
there are fewer streams, and it says so."""

import argparse
import json
import os
import pathlib
import sys
import tempfile
import time
import urllib.request

sys.dont_write_bytecode = True

import machine
import rows
import run
import scenarios

# Heartbeats of dialled-in runners: CPU is read over whole periods of them.
HEARTBEAT = 30
# How many times shorter the waits are when it is only looked whether this runs.
HASTE = 100
# Open files that are neither a client's nor a runner's.
OWN_FILES = 300
# A tunnel has 1,024 streams at most, an HTTP link 4,096 connections.
ENGINES = 32


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["fleet", "streams"])
    parser.add_argument("rows", nargs="*", choices=["http", "dial-back", "tunnel", []], help="of streams: http and tunnel unless named")
    parser.add_argument("--count", type=int, help="runners (10,000) or streams (20,000)")
    parser.add_argument("--heartbeats", type=int, default=2, help="periods of 30 s over which the fleet's CPU is read (2)")
    parser.add_argument("--rounds", type=int, default=3, help="how often the streams are opened (3)")
    parser.add_argument("--out", type=pathlib.Path, help="file to which the results are added, a line of JSON each")
    run.add_common(parser)
    return parser.parse_args()


def metric(setup, name):
    """One metric of the gateway."""
    with urllib.request.urlopen(f"http://127.0.0.1:{setup.port + rows.OBSERVABILITY}/metrics", timeout=30) as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith(f"{name} "):
                return float(line.split()[1])
    raise machine.Failed(f"the gateway has no metric {name}")


def open_files(program):
    """How many files it has open: counted outside of it, because asking it would cost it memory."""
    return len(os.listdir(f"/proc/{program.process.pid}/fd"))


def fleet(setup, count, heartbeats, haste):
    """`count` runners dial in, stay, and leave."""
    started = rows.Gateway("fleet").start(setup)
    try:
        gateway = started.program
        time.sleep(1 / haste)
        files, idle, before = open_files(gateway), started.rss_kib(), started.cpu_seconds()
        limit = setup.file_limit - OWN_FILES
        processes = -(-count // limit)
        shares = [count // processes + (at < count % processes) for at in range(processes)]
        dialled, began = 0, time.monotonic()
        for at, share in enumerate(shares):
            command = [setup.program("rig_runners"), "--gateway", f"ws://127.0.0.1:{setup.port}", "--token", rows.RUNNER]
            command += ["--idle", share, "--from", dialled]
            started.helpers.append(setup.start(command, setup.load_cores, f"runners-{at}"))
            dialled += share
        all_there = lambda: open_files(gateway) >= files + count
        machine.wait_until(f"{count} connections", 60 + count / 100, all_there, gateway, *started.helpers)
        took, dialling = time.monotonic() - began, started.cpu_seconds() - before
        # The first heartbeats and what registering left behind are not what staying costs.
        time.sleep((HEARTBEAT + 5) / haste)
        before, began = started.cpu_seconds(), time.monotonic()
        time.sleep(heartbeats * HEARTBEAT / haste)
        use = (started.cpu_seconds() - before) / (time.monotonic() - began)
        full = started.rss_kib()
        known = rows.get(f"http://127.0.0.1:{setup.port}/runners", rows.ADMIN)["total"]
        asked = started.rss_kib()
        before, began = started.cpu_seconds(), time.monotonic()
        for program in started.helpers:
            program.stop()
        # Who is asked while it is busy may answer late.
        registered = lambda: rows.get(f"http://127.0.0.1:{setup.port}/runners", rows.ADMIN)["total"]
        machine.wait_until("the runners to be gone", 180, lambda: registered() == 0, gateway)
        gone, leaving = time.monotonic() - began, started.cpu_seconds() - before
        time.sleep(5 / haste)
        return {
            "what": "fleet",
            "runners": known,
            "asked_for": count,
            "dialled_in_s": round(took, 1),
            "cpu_per_dialling_us": round(dialling / count * 1e6),
            "gone_in_s": round(gone, 1),
            "cpu_per_leaving_us": round(leaving / count * 1e6),
            "cores_in_use": round(use, 4),
            "rss_idle_kib": idle,
            "rss_full_kib": full,
            "rss_after_the_list_kib": asked,
            "rss_after_kib": started.rss_kib(),
            "kib_per_runner": round((full - idle) / count, 1),
            "bad": int(known != count),
        }
    finally:
        started.stop()


def hold(started, count, haste):
    """Opens streams of one chunk each 4 s, keeps them for a while, and lets go of all of them at once."""
    setup, gateway = started.setup, started.program
    held = scenarios.Held(started, count, generators=2, interval_us=4_000_000)
    began = time.monotonic()
    try:
        open_now = held.until_open()
        took = time.monotonic() - began
        time.sleep(10 / haste)
        before, began = started.cpu_seconds(), time.monotonic()
        time.sleep(8 / haste)
        use = (started.cpu_seconds() - before) / (time.monotonic() - began)
        full, under_way = started.rss_kib(), metric(setup, "gateway_requests_in_flight")
        told = held.let_go()
    finally:
        held.stop()
    nothing = lambda: metric(setup, "gateway_requests_in_flight") == 0
    machine.wait_until("everything given back", 60, nothing, gateway)
    machine.wait_until("the engine at rest", 60, lambda: setup.totals()["under_way"] == 0)
    time.sleep(5 / haste)
    return {
        "streams": open_now,
        "opened_in_s": round(took, 1),
        "under_way": under_way,
        "cores_in_use": round(use, 3),
        "rss_open_kib": full,
        "rss_after_kib": started.rss_kib(),
        "under_way_after": metric(setup, "gateway_requests_in_flight"),
        "bad": count - open_now,
        "problem": next((one["problem"] for one in told if one.get("problem")), None),
    }


def streams(setup, way, wanted, rounds, haste):
    """What open streams on one data path cost, and what is left of it when they are gone."""
    allowed = setup.file_limit - OWN_FILES
    count = min(wanted, allowed if way == "tunnel" else allowed // 2)
    if count < wanted:
        print(f"{way}: {count} streams instead of {wanted}: only {setup.file_limit} open files are allowed", file=sys.stderr)
    started = rows.Gateway(way).start(setup)
    try:
        started.until_ready()
        time.sleep(1 / haste)
        idle = started.rss_kib()
        # Several times, because an allocator may keep for the next streams what it does not give back to the system:
        # what grows from round to round is lost.
        found = [hold(started, count, haste) for _ in range(rounds)]
        first, last = found[0], found[-1]
        return {
            "what": "streams",
            "row": way,
            "streams": first["streams"],
            "asked_for": wanted,
            "cores_in_use": first["cores_in_use"],
            "rss_idle_kib": idle,
            "kib_per_stream": round((first["rss_open_kib"] - idle) / max(first["streams"], 1), 1),
            "kib_per_stream_after": round((first["rss_after_kib"] - idle) / max(first["streams"], 1), 1),
            "kib_per_stream_in_the_last_round": round((last["rss_open_kib"] - idle) / max(last["streams"], 1), 1),
            "under_way_after": max(one["under_way_after"] for one in found),
            "rounds": found,
            "bad": sum(one["bad"] for one in found) + (last["under_way_after"] != 0),
        }
    finally:
        started.stop()


def main():
    options = arguments()
    machine.end_orderly()
    programs = run.build(options)
    limit = machine.raise_file_limit()
    peer, load = run.cores(options)
    failed = False
    few, haste = (50, HASTE) if options.smoke else (None, 1)
    with tempfile.TemporaryDirectory(prefix="rig-") as folder:
        engines = 0 if options.what == "fleet" else ENGINES
        setup = rows.Setup(programs, pathlib.Path(folder), options.ports, engines, peer, load, limit)
        if options.what == "fleet":
            results = [lambda: fleet(setup, options.count or few or 10_000, options.heartbeats, haste)]
        else:
            ways = options.rows or ["http", "tunnel"]
            results = [lambda way=way: streams(setup, way, options.count or few or 20_000, options.rounds, haste) for way in ways]
        engine = setup.start_engine() if engines else None
        try:
            for measure in results:
                result = machine.description() | measure()
                failed |= result["bad"] > 0
                print(json.dumps(result, indent=1))
                if options.out:
                    with open(options.out, "a") as out:
                        out.write(json.dumps(result) + "\n")
        finally:
            if engine:
                engine.stop()
    return int(failed)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except machine.Failed as problem:
        sys.exit(f"endurance.py: {problem}")
