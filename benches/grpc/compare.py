#!/usr/bin/env python3
"""What a streamed chunk costs the gateway: over gRPC against over HTTP, one after the other in the same run.

Needs the rig's `mock` and `load` (HTTP and SSE), and release builds of `standalone`, `grpc_worker` and `grpc_load`:

    cargo build --release -p gateway-examples --example standalone
    cargo build --release -p gateway-benches --example grpc_worker --example grpc_load
    benches/grpc/compare.py --tools FOLDER_WITH_MOCK_AND_LOAD

The gateway has core 0 for itself; mock, worker and load share core 1. Three ways, all to the same gateway process:

- http:   load -SSE-> gateway -HTTP-> mock
- link:   load -SSE-> gateway -gRPC-> grpc_worker
- server: grpc_load -gRPC-> gateway -HTTP-> mock

CPU is user and system time of the gateway's process from /proc (10 ms steps), over the whole of each load.
"""

import argparse
import contextlib
import http.client
import json
import os
import pathlib
import socket
import statistics
import subprocess
import sys
import tempfile
import time

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
TICKS = os.sysconf("SC_CLK_TCK")
TOKEN = "bench-token"
CHUNKS = 100


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tools", type=pathlib.Path, required=True, help="folder with the rig's mock and load")
    parser.add_argument("--programs", type=pathlib.Path, default=REPOSITORY / "target/release/examples")
    parser.add_argument("--reps", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=8, help="of each load")
    parser.add_argument("--streams", type=int, default=256)
    parser.add_argument("--connections", type=int, default=16, help="of grpc_load")
    parser.add_argument("--interval-us", type=int, default=0, help="between two chunks; 0: as fast as can be")
    parser.add_argument("--ways", default="http,link,server")
    parser.add_argument("--profile", metavar="FOLDER", type=pathlib.Path, help="perf record of each way, once")
    return parser.parse_args()


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def on_core(core):
    return lambda: os.sched_setaffinity(0, {core})


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


class Bench:
    def __init__(self, options, stack):
        self.options = options
        self.stack = stack
        mock, worker, self.port, self.grpc_port = (free_port() for _ in range(4))
        pace = ["--chunks", str(CHUNKS), "--interval-us", str(options.interval_us)]
        self.start([options.tools / "mock", "--ports", str(mock), *pace], core=1)
        listen = f"127.0.0.1:{worker}"
        self.start([options.programs / "grpc_worker", listen, "mock-grpc", str(CHUNKS), str(options.interval_us)], core=1)
        config = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory())) / "bench.toml"
        config.write_text("")
        environment = {
            "PATH": os.environ["PATH"],
            "STATIC_BACKENDS": f"http://127.0.0.1:{mock}",
            "SIDECAR_GRPC_ADDR": listen,
            "GATEWAY_GRPC_LISTEN": f"127.0.0.1:{self.grpc_port}",
            "GATEWAY_BEARER_TOKEN": TOKEN,
        }
        command = [options.programs / "standalone", "--listen", f"127.0.0.1:{self.port}", "--config", config, "--workers", "1"]
        self.gateway = self.start(command, core=0, env=environment)
        self.until_ready()

    def start(self, command, core, env=None):
        log = self.stack.enter_context(open(os.devnull, "w"))
        process = subprocess.Popen(
            [str(word) for word in command], stdout=log, stderr=log, env=env, preexec_fn=on_core(core)
        )
        self.stack.callback(process.wait)
        self.stack.callback(process.terminate)
        return process

    def until_ready(self):
        deadline = time.monotonic() + 20
        wanted = {"mock-model", "mock-grpc"} if "link" in self.options.ways else {"mock-model"}
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError, ValueError, KeyError):
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
                connection.request("GET", "/v1/models", headers={"authorization": f"Bearer {TOKEN}"})
                models = json.loads(connection.getresponse().read())["data"]
                if wanted <= {model["id"] for model in models}:
                    return
            time.sleep(0.05)
        sys.exit(f"the gateway does not serve {wanted}")

    def command(self, way, seconds):
        options = self.options
        if way == "server":
            sizes = [options.streams, options.connections, CHUNKS, seconds]
            words = [options.programs / "grpc_load", f"127.0.0.1:{self.grpc_port}", TOKEN, "mock-model", *sizes]
        else:
            model = "mock-model" if way == "http" else "mock-grpc"
            words = [options.tools / "load", "--port", self.port, "--model", model, "--stream", 1, "--expect", CHUNKS]
            words += ["--conns", options.streams, "--duration", seconds, "--warmup", 0]
            words += ["-H", f"Authorization: Bearer {TOKEN}"]
        return [str(word) for word in words]

    def load(self, way, seconds, profile=None):
        """Gateway's CPU seconds per 10,000 chunks, its use of its core, and what the load says."""
        recording = None
        if profile:
            words = ["perf", "record", "-q", "-F", "997", "-g", "-o", str(profile), "-p", str(self.gateway.pid)]
            recording = subprocess.Popen([*words, "--", "sleep", str(seconds)], stderr=subprocess.DEVNULL)
        before, began = cpu_seconds(self.gateway.pid), time.monotonic()
        done = subprocess.run(self.command(way, seconds), capture_output=True, text=True, preexec_fn=on_core(1))
        cpu, took = cpu_seconds(self.gateway.pid) - before, time.monotonic() - began
        if recording:
            recording.wait()
        if done.returncode:
            sys.exit(f"{way}: {done.stderr}")
        told = json.loads(done.stdout.strip().splitlines()[-1])
        bad = sum(told.get(key, 0) for key in ("incomplete", "non2xx", "neterr"))
        return {"cpu": cpu / told["all_chunks"] * 10_000, "core": cpu / took, "rate": told["all_chunks"] / took, "bad": bad}


def main():
    options = arguments()
    ways = options.ways.split(",")
    rows = {way: [] for way in ways}
    with contextlib.ExitStack() as stack:
        bench = Bench(options, stack)
        for way in ways:
            bench.load(way, 2)
        for repetition in range(options.reps):
            for way in ways:
                row = bench.load(way, options.seconds)
                rows[way].append(row)
                print(f"{repetition} {way:6} {row['cpu'] * 1000:7.2f} ms/10k  {row['rate']:8.0f}/s  core {row['core']:.2f}  bad {row['bad']}", flush=True)
        if options.profile:
            options.profile.mkdir(parents=True, exist_ok=True)
            for way in ways:
                bench.load(way, options.seconds, options.profile / f"{way}.perf")
    pace = f"a chunk every {options.interval_us / 1000:g} ms" if options.interval_us else "as fast as can be"
    print(f"\n{options.streams} streams of {CHUNKS} chunks, {pace}, {options.reps} x {options.seconds} s, load {os.getloadavg()[0]:.1f}")
    base = statistics.median(row["cpu"] for row in rows[ways[0]])
    for way, found in rows.items():
        cpu = [row["cpu"] for row in found]
        ratios = [one / row["cpu"] for one, row in zip(cpu, rows[ways[0]])]
        print(
            f"{way:6} CPU per 10k chunks {statistics.median(cpu) * 1000:6.2f} ms ({min(cpu) * 1000:.2f}-{max(cpu) * 1000:.2f})"
            f"  / {ways[0]} {statistics.median(cpu) / base:.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
            f"  {statistics.median(row['rate'] for row in found):8.0f} chunks/s  bad {sum(row['bad'] for row in found)}"
        )


if __name__ == "__main__":
    main()
