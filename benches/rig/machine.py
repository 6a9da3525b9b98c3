"""The machine: programs pinned to cores, what they use of it, and what it is."""

import contextlib
import os
import pathlib
import platform
import resource
import signal
import socket
import subprocess
import sys
import time

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


class Failed(Exception):
    """Something did not come up or broke; the message says what to look at."""


class Program:
    """A program that was started here, in a session of its own, with all its children."""

    def __init__(self, command, cores, log, env=None, **pipes):
        self.name = pathlib.Path(str(command[0])).name
        self.log = log
        with open(log, "w") as out:
            pipes = {"stdout": out, "stderr": out, **pipes}
            words = [str(word) for word in command]
            pin = lambda: os.sched_setaffinity(0, cores)
            try:
                self.process = subprocess.Popen(words, env=env, start_new_session=True, preexec_fn=pin, **pipes)
            except OSError as error:
                raise Failed(f"{words[0]} cannot be started: {error}") from error

    def running(self):
        return self.process.poll() is None

    def check(self):
        if not self.running():
            raise Failed(f"{self.name} ended with {self.process.returncode}: {self.last_words()}")

    def last_words(self):
        with open(self.log, "rb") as log:
            log.seek(max(0, os.path.getsize(self.log) - 2000))
            return log.read().decode(errors="replace").strip() or f"{self.log} is empty"

    def stop(self):
        """Ends it with its children; one that does not end by itself is killed."""
        if self.running():
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(5)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def tree(self):
        """Its process ids."""
        found, todo = [], [self.process.pid]
        while todo:
            pid = todo.pop()
            found.append(pid)
            with contextlib.suppress(OSError):
                for thread in os.listdir(f"/proc/{pid}/task"):
                    children = pathlib.Path(f"/proc/{pid}/task/{thread}/children").read_text()
                    todo += [int(child) for child in children.split()]
        return found

    def cpu_seconds(self):
        """User and system time of the tree: of each thread in nanoseconds where the kernel keeps that, else in ticks."""
        return sum(process_seconds(pid) for pid in self.tree())

    def rss_kib(self):
        """Resident memory of the tree; what its processes share counts several times."""
        pages = 0
        for pid in self.tree():
            with contextlib.suppress(OSError):
                pages += int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1])
        return pages * PAGE // 1024


def process_seconds(pid):
    with contextlib.suppress(OSError, ValueError, IndexError):
        nanos = 0
        for thread in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                nanos += int(pathlib.Path(f"/proc/{pid}/task/{thread}/schedstat").read_text().split()[0])
        if nanos:
            return nanos / 1e9
    with contextlib.suppress(OSError):
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS
    return 0.0


def end_orderly():
    """Makes SIGTERM end this as Ctrl-C does: with everything that was started."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def is_open(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_until(what, seconds, ready, *programs):
    """Waits until `ready()` is true; an OSError means not yet."""
    deadline = time.monotonic() + seconds
    while True:
        for program in programs:
            program.check()
        with contextlib.suppress(OSError):
            if ready():
                return
        if time.monotonic() > deadline:
            raise Failed(f"{what}: not within {seconds} s" + "".join(f"; {one.name}: {one.last_words()}" for one in programs))
        time.sleep(0.05)


def raise_file_limit(wanted=200_000):
    """Lets what is started open many files; returns how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    infinite = resource.RLIM_INFINITY
    if hard != infinite and hard < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, wanted))
            return wanted
    limit = wanted if hard == infinite else min(hard, wanted)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return limit


def first_line(*command):
    """What a program says of its version."""
    with contextlib.suppress(OSError, IndexError, subprocess.SubprocessError):
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
        return (done.stdout + done.stderr).strip().splitlines()[0]
    return "unknown"


def description():
    """What the figures were measured on."""
    model = "unknown processor"
    with contextlib.suppress(OSError):
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    memory = os.sysconf("SC_PHYS_PAGES") * PAGE / 2**30
    return {
        "processor": model,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory),
        "kernel": platform.release(),
        "rustc": first_line("rustc", "--version"),
    }
