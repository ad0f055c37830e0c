"""The simulated clock against real transfers, by the benchmark that shows it at length."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

CLOCK = Path(__file__).resolve().parents[2] / "benchmarks" / "clock.py"


def clock(*words: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(CLOCK), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_frames_over_shaped_links_take_the_simulated_time() -> None:
    links = ["old-phone-lte:up", "pi4-wifi:up", "mid-phone-wifi:down"]
    done = clock("--direction", *links, "--line", "uniform(4) | rans", "--repeats", "3", "--json")
    if done.returncode == 3:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stdout + done.stderr
    cases = json.loads(done.stdout)
    assert [case["direction"] for case in cases] == links
    assert all(abs(case["measured"] / case["simulated"] - 1) <= 0.1 for case in cases)
    assert all(0.04 < case["headers"] < 0.06 for case in cases), "it was not TCP over Ethernet"


@pytest.mark.parametrize("direction", ["old-phone-lte", "old-phone-lte:sideways", "older-phone:up"])
def test_a_link_that_is_none_is_refused_in_one_line(direction: str) -> None:
    done = clock("--direction", direction)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert direction.partition(":")[0] in done.stderr
