"""The command on Ray and its signals, and on a cluster that was there before and outlives it."""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from scenarios import SMALL, digest_of, run_here, small

SLOW = {"rounds": 6, "training": {"epochs": 20, "batch": 2, "lr": 0.01}, "checkpoints": {"every": 1}}
LONG = {**SLOW, "rounds": 1000, "training": {"epochs": 10, "batch": 2, "lr": 0.01}}
DEADLINE = 240.0


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "tightwire_pipelines", "run", *words]


def wait_for(happened: Callable[[], object], *processes: "subprocess.Popen[bytes]") -> None:
    end = time.monotonic() + DEADLINE
    while not happened():
        assert all(process.poll() is None for process in processes), "it ended too early"
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def coordinator_in(folder: Path) -> psutil.Process:
    """The coordinator that works in a folder."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if "".join(process.cmdline()).startswith("ray::Coordinator") and Path(process.cwd()) == folder:
                return process
    raise AssertionError(f"no coordinator in {folder}")


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A cluster that belongs to nobody here, and wants to see a token."""
    folder = Path(tempfile.mkdtemp(prefix="tw"))
    (folder / "token").write_text(secrets.token_hex(32))
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(folder / "token"))
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    port = next(port for port in range(23000, 24000) if not answers(port))
    words = ["ray", "start", "--head", "--block", f"--port={port}", "--num-cpus=2", "--include-dashboard=false"]
    words += [f"--temp-dir={folder}", "--min-worker-port=0", "--max-worker-port=0", "--disable-usage-stats"]
    words += ["--no-monitor", "--include-log-monitor=false"]  # nothing here grows the cluster or reads its logs
    words[0] = str(Path(sys.executable).with_name("ray"))
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as head:
        try:
            wait_for(lambda: answers(port), head)
            yield f"127.0.0.1:{port}"
        finally:
            family = [*psutil.Process(head.pid).children(recursive=True), psutil.Process(head.pid)]
            for process in family:
                if process.is_running():
                    process.kill()
    shutil.rmtree(folder, ignore_errors=True)


def test_a_run_ends_right_although_its_driver_was_killed(tmp_path: Path, address: str) -> None:
    (tmp_path / "slow.yaml").write_text(json.dumps({**SMALL, **SLOW}))
    run = tmp_path / "runs" / "small"
    words = command("slow.yaml", "--workers", "1", "--address", address)
    with subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as driver:
        wait_for(lambda: list((run / "checkpoint").glob("manifest-*.json")), driver)
        coordinator = coordinator_in(tmp_path)
        coordinator.suspend()  # or the run might be over before the other command asks
        os.kill(driver.pid, signal.SIGKILL)
    again = subprocess.run(
        command("--resume", "small", "--address", address), cwd=tmp_path, capture_output=True, timeout=120, check=False
    )
    coordinator.resume()
    assert not (run / "summary.json").exists(), "the run was over before its driver was killed"
    assert again.returncode == 2
    assert b"still going on" in again.stderr or b"being run by another process" in again.stderr
    wait_for((run / "summary.json").exists)
    assert json.loads((run / "summary.json").read_text())["digest"] == digest_of(
        run_here(small(**SLOW), tmp_path / "here")
    )


@pytest.mark.long
def test_sigterm_on_ray_saves_a_checkpoint_and_says_how_to_go_on(tmp_path: Path) -> None:
    (tmp_path / "long.yaml").write_text(json.dumps({**SMALL, **LONG}))
    run = tmp_path / "runs" / "small"
    words = command("long.yaml", "--workers", "1")
    with subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as driver:
        wait_for(lambda: list((run / "checkpoint").glob("manifest-*.json")), driver)
        driver.send_signal(signal.SIGTERM)
        _, stderr = driver.communicate(timeout=60)
    assert driver.returncode == 130, stderr.decode()
    assert b"go on with: tightwire run --resume" in stderr
