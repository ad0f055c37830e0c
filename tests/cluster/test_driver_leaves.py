"""On a cluster that was there before, the coordinator outlives the driver."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster
from scenarios import SMALL, digest_of, run_here, small

SLOW = {"rounds": 12, "training": {"epochs": 150, "batch": 2, "lr": 0.01}}


@pytest.fixture
def address() -> Iterator[str]:
    """A cluster that belongs to nobody here."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    yield cluster.address
    cluster.shutdown()


def test_a_run_ends_right_although_its_driver_was_killed(tmp_path: Path, address: str) -> None:
    (tmp_path / "slow.yaml").write_text(json.dumps({**SMALL, **SLOW}))
    command = [sys.executable, "-m", "tightwire_pipelines", "run", "slow.yaml", "--workers", "2", "--address", address]
    driver = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE)
    checkpoints = tmp_path / "runs" / "small" / "checkpoint"
    end = time.monotonic() + 120
    while not list(checkpoints.glob("manifest-*.json")):
        assert driver.poll() is None, driver.communicate()
        assert time.monotonic() < end
        time.sleep(0.05)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    summary = tmp_path / "runs" / "small" / "summary.json"
    assert not summary.exists(), "the run was over before its driver was killed"
    while not summary.exists():
        assert time.monotonic() < end, "nobody finished the run"
        time.sleep(0.1)
    assert json.loads(summary.read_text())["digest"] == digest_of(run_here(small(**SLOW), tmp_path / "here"))
