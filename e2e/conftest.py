"""What the tests share: one gateway with three runners in front of real engines, reached in three ways."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from processes import Gateway, Programs

# What was measured, printed when all is done.
FIGURES: list[str] = []


@pytest.fixture(scope="session")
def figures() -> list[str]:
    return FIGURES


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if FIGURES:
        terminalreporter.section("measured")
        for line in FIGURES:
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def shared_programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Programs]:
    programs = Programs(tmp_path_factory.mktemp("shared"))
    yield programs
    programs.end()


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Programs]:
    programs = Programs(tmp_path)
    yield programs
    programs.end()


@dataclass
class Fleet:
    """Three runners, each in front of a llama.cpp server of its own."""

    gateway: Gateway
    engines: list[str]

    RUNNERS = ("tunnel-1", "tunnel-2", "dial-back")


@pytest.fixture(scope="session")
def fleet(shared_programs: Programs) -> Fleet:
    gateway = shared_programs.gateway("gateway")
    engines = [shared_programs.engine(f"engine-{name}") for name in Fleet.RUNNERS]
    for name, engine in zip(Fleet.RUNNERS, engines):
        flags = ["--dial-back-port", engine.rpartition(":")[2]] if name == "dial-back" else []
        shared_programs.runner(name, gateway, engine, *flags)
    gateway.wait_for_runners(*Fleet.RUNNERS)
    return Fleet(gateway, engines)
