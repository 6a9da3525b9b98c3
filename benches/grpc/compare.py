#!/usr/bin/env python3
"""What a streamed chunk costs the gateway: over gRPC against over HTTP, one after the other in the same run.

    benches/grpc/compare.py --streams 256 --interval-us 50000

It builds what it needs. The gateway has one core for itself; engine, worker and load share another. Three ways, all to the
same gateway process:

- http:   rig_load -SSE-> gateway -HTTP-> rig_engine
- link:   rig_load -SSE-> gateway -gRPC-> grpc_worker
- server: grpc_load -gRPC-> gateway -HTTP-> rig_engine

CPU is user and system time of the gateway's process, over the whole of each load."""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "rig"))

import machine
import rows
import run

CHUNKS = 100
WORKER_MODEL = "mock-grpc"


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reps", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=8, help="of each load")
    parser.add_argument("--streams", type=int, default=256)
    parser.add_argument("--connections", type=int, default=16, help="of grpc_load")
    parser.add_argument("--interval-us", type=int, default=0, help="between two chunks; 0: as fast as can be")
    parser.add_argument("--ways", default="http,link,server")
    run.add_common(parser)
    options = parser.parse_args()
    # Rounds that are not counted.
    options.warm_up = 1
    if options.smoke:
        options.reps, options.seconds, options.streams, options.warm_up = 1, 1, 16, 0
    return options


class Both(rows.Gateway):
    """One gateway with an engine over HTTP, a worker over gRPC, and gRPC for clients."""

    def __init__(self):
        super().__init__("http")

    def config(self, setup):
        worker = f'[[grpc.runner]]\naddress = "127.0.0.1:{self.worker(setup.engines[0])}"\nmodels = ["{WORKER_MODEL}"]\n'
        return super().config(setup) + worker + f'[grpc]\nlisten = "127.0.0.1:{setup.port + 3}"\n'

    def helpers(self, setup):
        command = [setup.program("grpc_worker"), self.worker(setup.engines[0]), WORKER_MODEL]
        return [setup.start(command, setup.load_cores, "grpc-worker")]

    def wait_for_runners(self, setup, count, started):
        super().wait_for_runners(setup, count + 1, started)


def command(way, options, setup):
    if way == "server":
        sizes = [options.streams, options.connections, CHUNKS, options.interval_us, options.seconds]
        return [setup.program("grpc_load"), f"127.0.0.1:{setup.port + 3}", rows.CLIENT, rows.MODEL, *sizes]
    model = rows.MODEL if way == "http" else WORKER_MODEL
    words = [setup.program("rig_load"), "--port", setup.port, "--model", model, "--stream", "--chunks", CHUNKS]
    words += ["--connections", options.streams, "--interval-us", options.interval_us, "--warmup", 0]
    return words + ["--seconds", options.seconds, "--header", f"Authorization: Bearer {rows.CLIENT}"]


def load(way, options, started):
    """Gateway's CPU seconds per 10,000 chunks, its use of its core, and what the load says."""
    setup = started.setup
    before, began = started.cpu_seconds(), time.monotonic()
    generator = setup.start(command(way, options, setup), setup.load_cores, "load", stdout=subprocess.PIPE, text=True)
    out, _ = generator.process.communicate()
    cpu, took = started.cpu_seconds() - before, time.monotonic() - began
    if generator.process.returncode:
        raise machine.Failed(f"{way}: {generator.last_words()}")
    told = json.loads(out.strip().splitlines()[-1])
    chunks = max(told["all_chunks"], 1)
    bad = sum(told.get(key, 0) for key in ("incomplete", "bad_status", "broken"))
    return {"cpu": cpu / chunks * 10_000, "core": cpu / took, "rate": chunks / took, "bad": bad}


def measure(options, setup):
    ways = options.ways.split(",")
    found = {way: [] for way in ways}
    started = Both().start(setup)
    try:
        started.until_ready()
        for repetition in range(options.warm_up + options.reps):
            for way in ways:
                row = load(way, options, started)
                if repetition >= options.warm_up:
                    found[way].append(row)
                    cost = f"{row['cpu'] * 1000:7.2f} ms/10k  {row['rate']:8.0f}/s  core {row['core']:.2f}  bad {row['bad']}"
                    print(f"{repetition} {way:6} {cost}", flush=True)
    finally:
        started.stop()
    return found


def tell(options, found):
    pace = f"a chunk every {options.interval_us / 1000:g} ms" if options.interval_us else "as fast as can be"
    print(f"\n{options.streams} streams of {CHUNKS} chunks, {pace}, {options.reps} x {options.seconds} s, load {os.getloadavg()[0]:.1f}")
    first, base = next(iter(found.items()))
    for way, results in found.items():
        cpu = [row["cpu"] for row in results]
        ratios = [one / row["cpu"] for one, row in zip(cpu, base)]
        print(
            f"{way:6} CPU per 10k chunks {statistics.median(cpu) * 1000:6.2f} ms ({min(cpu) * 1000:.2f}-{max(cpu) * 1000:.2f})"
            f"  / {first} {statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
            f"  {statistics.median(row['rate'] for row in results):8.0f} chunks/s  bad {sum(row['bad'] for row in results)}"
        )


def main():
    options = arguments()
    machine.end_orderly()
    programs = run.build(options)
    peer, others = run.cores(options)
    with tempfile.TemporaryDirectory(prefix="rig-") as folder:
        setup = rows.Setup(programs, pathlib.Path(folder), options.ports, 1, peer, others, machine.raise_file_limit())
        engine = setup.start_engine()
        try:
            found = measure(options, setup)
        finally:
            engine.stop()
    tell(options, found)
    return int(any(row["bad"] for results in found.values() for row in results))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except machine.Failed as problem:
        sys.exit(f"compare.py: {problem}")
