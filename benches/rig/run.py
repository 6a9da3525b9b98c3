#!/usr/bin/env python3
"""The figures of the README, with one command: the gateway on each of its data paths, beside the peers that are installed.

    benches/rig/run.py                                everything, three times over: some 30 minutes
    benches/rig/run.py --quick haproxy http           these rows and direct, once, briefly
    benches/rig/run.py --only plain-300,stream        these scenarios
    benches/rig/run.py --report FILE.jsonl            the tables of an earlier run

It builds what it needs. What is measured gets one core, the mock engine and the load another; see benches/README.md."""

import argparse
import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True

import machine
import report
import rows
import scenarios

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = [row.name for row in rows.ROWS]
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {' '.join(known)}; none: all")
    parser.add_argument("--only", metavar="SCENARIOS", help=f"of {','.join(scenarios.SCENARIOS)}")
    parser.add_argument("--in", dest="arrangements", metavar="ARRANGEMENTS", help=f"of {','.join(scenarios.ARRANGEMENTS)}")
    parser.add_argument("--reps", type=int, help="repetitions (3; 1 with --quick and --smoke)")
    parser.add_argument("--quick", action="store_true", help="one short repetition of the arrangement base")
    parser.add_argument("--out", type=pathlib.Path, help="file for the results (target/rig/TIME.jsonl)")
    parser.add_argument("--report", type=pathlib.Path, metavar="FILE", help="only print the tables of these results")
    add_common(parser)
    options = parser.parse_args()
    for name in options.rows:
        if name not in known:
            parser.error(f"there is no row {name}; there are {' '.join(known)}")
    chosen(parser, options.only, scenarios.SCENARIOS)
    chosen(parser, options.arrangements, scenarios.ARRANGEMENTS)
    return options


def chosen(parser, names, known):
    for name in (names or "").split(","):
        if name and name not in known:
            parser.error(f"there is no {name}; there are {', '.join(known)}")


def add_common(parser):
    """What all scripts of the rig have in common."""
    parser.add_argument("--smoke", action="store_true", help="only whether it runs: tiny counts, debug builds, no figures")
    parser.add_argument("--programs", type=pathlib.Path, help="folder with the built programs, instead of building them")
    parser.add_argument("--vllm-router", metavar="PROGRAM", help="if it is not on the path")
    parser.add_argument("--core", type=int, help="core of what is measured (the first)")
    parser.add_argument("--load-core", type=int, help="core of mock engine and load (the second)")
    parser.add_argument("--ports", type=int, default=21_000, help="first of some 4,200 ports (21000)")


def target_folder():
    command = ["cargo", "metadata", "--format-version", "1", "--no-deps"]
    told = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    return pathlib.Path(json.loads(told)["target_directory"])


def build(options):
    """The folder with the programs, built."""
    if options.programs:
        return options.programs
    tools = ["rig_engine", "rig_load", "rig_runners", "grpc_worker", "grpc_load"]
    words = [word for tool in tools for word in ("--example", tool)]
    builds = [["--release", "-p", "gateway-examples", "--example", "standalone"], ["--release", "-p", "gateway-benches", *words]]
    if options.smoke:
        # As test.sh has built them.
        builds = [["--workspace", "--examples"]]
    for build in builds:
        subprocess.run(["cargo", "build", "--quiet", *build], cwd=REPOSITORY, check=True)
    return target_folder() / ("debug" if options.smoke else "release") / "examples"


def cores(options):
    """The core of what is measured, and that of the load: the first two, unless told."""
    available = sorted(os.sched_getaffinity(0))
    peer = available[0] if options.core is None else options.core
    others = [core for core in available if core != peer]
    load = options.load_core if options.load_core is not None else (others or available)[0]
    if not {peer, load} <= set(available):
        sys.exit(f"run.py: cores {peer} and {load} are asked for, {available} are there")
    return {peer}, {load}


class Run:
    def __init__(self, options, folder, out):
        self.options, self.folder, self.out = options, folder, out
        self.programs = build(options)
        self.file_limit = machine.raise_file_limit()
        self.peer_cores, self.load_cores = cores(options)
        self.failed = False

    def setup(self, engines, threads):
        peer, load = self.peer_cores, self.load_cores
        if threads > 1:
            # With four cores each side has two of its own; with fewer all share all of them.
            available = sorted(os.sched_getaffinity(0))
            peer, load = (set(available[:2]), set(available[2:4])) if len(available) >= 4 else (available, available)
        return rows.Setup(
            self.programs, self.folder, self.options.ports, engines, peer, load, self.file_limit, threads,
            self.options.vllm_router,
        )

    def rows(self, setup, quiet=False):
        """Those that are asked for and installed; direct is always there, because latencies are told against it."""
        names = self.options.rows
        wanted = [row for row in rows.ROWS if not names or row.name in (*names, "direct")]
        if self.options.smoke and not names:
            wanted = [row for row in wanted if row.ours or row.name == "direct"]
        there = []
        for row in wanted:
            missing = row.missing(setup)
            if not missing:
                there.append(row)
            elif not quiet:
                print(f"{row.name}: left out: {missing}", file=sys.stderr)
        return there

    def write(self, record):
        self.out.write(json.dumps(record) + "\n")
        self.out.flush()

    def head(self, there, setup):
        versions = {row.name: row.version(setup) for row in there if row.version(setup)}
        command = " ".join(["benches/rig/run.py", *sys.argv[1:]])
        commit = machine.first_line("git", "-C", REPOSITORY, "rev-parse", "--short", "HEAD")
        when = time.strftime("%Y-%m-%d")
        self.write(machine.description() | {"versions": versions, "command": command, "commit": commit, "date": when})

    def measure(self, row, setup, arrangement, names, effort, repetition):
        begun = time.monotonic()
        started = row.start(setup)
        try:
            started.until_ready()
            for name in names:
                if row.name == "direct" and name == "hold":
                    continue
                if self.options.smoke and row.name != "http" and name not in scenarios.SMOKED:
                    continue
                result = scenarios.SCENARIOS[name](started, effort)
                self.failed |= bool(result["bad"]) or not (result["all_ok"] or result["all_chunks"])
                place = {"row": row.name, "in": arrangement, "scenario": name, "repetition": repetition}
                self.write(place | result | {"load_average": os.getloadavg()[0]})
                print(f"{repetition} {arrangement:13} {row.name:12} {report.brief(name, result)}", file=sys.stderr)
        finally:
            started.stop()
        print(f"  ({time.monotonic() - begun:.0f} s)", file=sys.stderr)

    def all(self):
        options = self.options
        brief = options.quick or options.smoke
        effort = scenarios.SMOKE if options.smoke else scenarios.QUICK if options.quick else scenarios.FULL
        wanted = options.arrangements or ("base" if brief else ",".join(scenarios.ARRANGEMENTS))
        only = options.only.split(",") if options.only else list(scenarios.SCENARIOS)
        setup = self.setup(engines=1, threads=1)
        self.head(self.rows(setup), setup)
        for repetition in range(options.reps or (1 if brief else 3)):
            for arrangement in wanted.split(","):
                what = scenarios.ARRANGEMENTS[arrangement]
                names = [name for name in what["scenarios"] if name in only]
                if names:
                    self.arranged(arrangement, self.setup(what["engines"], what["threads"]), names, effort, repetition)

    def arranged(self, arrangement, setup, names, effort, repetition):
        engine = setup.start_engine()
        try:
            for row in self.rows(setup, quiet=True):
                self.one(row, setup, arrangement, names, effort, repetition)
        finally:
            engine.stop()

    def one(self, row, setup, arrangement, names, effort, repetition):
        """A row that fails is told, and the others go on."""
        try:
            self.measure(row, setup, arrangement, names, effort, repetition)
        except (machine.Failed, OSError, subprocess.SubprocessError) as failed:
            print(f"{row.name}: FAILED: {failed}", file=sys.stderr)
            self.failed = True


def main():
    options = arguments()
    machine.end_orderly()
    if options.report:
        print(report.tables(report.read(options.report)))
        return 0
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rig-")))
        path = options.out
        if path is None:
            path = folder / "smoke.jsonl" if options.smoke else target_folder() / f"rig/{time.strftime('%Y%m%d-%H%M%S')}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        run = Run(options, folder, stack.enter_context(open(path, "w")))
        run.all()
        tables = report.tables(report.read(path))
    if options.smoke:
        print("the rig " + ("FAILED" if run.failed else "runs"))
    else:
        print(tables)
        print(f"results: {path}", file=sys.stderr)
    return int(run.failed)


if __name__ == "__main__":
    sys.exit(main())
