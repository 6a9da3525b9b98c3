"""OpenAI's own Node client cannot tell the gateway from OpenAI. The checks are in client.mjs."""

import shutil
import subprocess

import pytest

from conftest import Fleet
from processes import CACHE, CLIENT_TOKEN, HERE, MODEL

CHECKS = (
    "models chat stream unknown_fields tools logprobs abort wrong_key unknown_model bad_input"
).split()


def node(*arguments: str) -> subprocess.CompletedProcess[str]:
    # A module is looked up from where the script is, and node_modules is in the cache.
    script = CACHE / "client.mjs"
    shutil.copyfile(HERE / "client.mjs", script)
    return subprocess.run(["node", str(script), *arguments], capture_output=True, text=True, timeout=60)


def test_no_check_is_forgotten() -> None:
    assert node("", "none", "", "list").stdout.split() == CHECKS


@pytest.mark.parametrize("check", CHECKS)
def test_node(fleet: Fleet, check: str) -> None:
    done = node(f"{fleet.gateway.url}/v1", CLIENT_TOKEN, MODEL, check)
    assert done.returncode == 0, done.stderr
