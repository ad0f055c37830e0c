"""Experiments as jobs of a Ray cluster that is reached through its dashboard alone, and wants to see a token."""

import json
import os
import re
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
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import psutil
import pytest

from scenarios import SMALL, digest_of, run_here, small

pytestmark = pytest.mark.timeout(900)
DEADLINE = 300.0
MINE = """
import helper
def build(features, classes):
    return helper.Slow(features, classes)
"""
HELPER = """
import math, pathlib, time
from torch import nn
class Slow(nn.Module):
    def __init__(self, features, classes):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(features), classes))
    def forward(self, x):
        if pathlib.Path({gate!r}).exists():
            time.sleep(0.02)
        return self.layers(x)
"""
CHANGES = {
    "rounds": 500,
    "model": {"name": "custom", "function": "mine:build"},
    "policy": {"name": "fixed", "codec": "uniform(4)"},
    "link": {"name": "trace", "folder": "traces"},
    "checkpoints": {"every": 1000},
}


@dataclass
class Laptop:
    """A folder and an environment to submit from."""

    folder: Path
    url: str
    environment: dict[str, str] = field(default_factory=dict)

    def words(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "tightwire_pipelines", *words]

    def __call__(self, *words: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, **self.environment}
        return subprocess.run(
            self.words(*words),
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    def begin(self, *words: str, log: IO[str]) -> "subprocess.Popen[str]":
        environment = {**os.environ, **self.environment}
        return subprocess.Popen(
            self.words(*words), cwd=self.folder, env=environment, stdout=log, stderr=subprocess.STDOUT, text=True
        )


def wait_for(happened: Callable[[], object], *processes: "subprocess.Popen[str]") -> None:
    end = time.monotonic() + DEADLINE
    while not happened():
        assert all(process.poll() is None for process in processes), "it ended too early"
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.1)


def free_ports(count: int) -> list[int]:
    """Ports that nobody uses, from a range that no other test takes."""
    free = []
    for port in range(25000 + os.getpid() % 50 * 40, 30000):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                free.append(port)
        if len(free) == count:
            return free
    raise AssertionError("no free ports")


def family(pid: int) -> list[psutil.Process]:
    try:
        return [*psutil.Process(pid).children(recursive=True), psutil.Process(pid)]
    except psutil.NoSuchProcess:
        return []


@pytest.fixture(scope="module")
def head() -> Iterator[tuple[str, Path]]:
    """A head node with a dashboard; its URL, and the token's file."""
    pytest.importorskip("ray.dashboard.optional_deps", reason="the dashboard needs ray[default]", exc_type=ImportError)
    folder = Path(tempfile.mkdtemp(prefix="tw"))
    token = folder / "token"
    token.write_text(secrets.token_hex(32))
    names = ["port", "dashboard-port", "node-manager-port", "object-manager-port", "dashboard-agent-listen-port"]
    names += ["dashboard-agent-grpc-port", "runtime-env-agent-port", "metrics-export-port", "ray-client-server-port"]
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    words = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--num-cpus=2"]
    words += [f"--{name}={port}" for name, port in ports.items()]
    words += [f"--temp-dir={folder}", "--min-worker-port=0", "--max-worker-port=0", "--disable-usage-stats"]
    words += ["--no-monitor"]  # nothing here grows the cluster
    words += ["--dashboard-host=127.0.0.1", "--include-dashboard=true", "--object-store-memory=100000000"]
    environment = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "HOME": str(folder)}
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "MLFLOW_TRACKING_URI"):
        environment.pop(name, None)
    log = (folder / "head.log").open("w")
    with log, subprocess.Popen(words, env=environment, stdout=log, stderr=log, text=True) as process:
        try:
            wait_for(lambda: process.poll() is not None or "Ray runtime started" in (folder / "head.log").read_text())
            if process.poll() is not None:  # Ray gives a machine 30 seconds, however busy it is
                pytest.skip(f"no head node starts here: {(folder / 'head.log').read_text()[-300:]}")
            yield f"http://127.0.0.1:{ports['dashboard-port']}", token
        finally:
            for member in family(process.pid):
                with suppress(psutil.NoSuchProcess):
                    member.kill()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def laptop(head: tuple[str, Path], tmp_path: Path) -> Laptop:
    url, token = head
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "helper.py").write_text(HELPER.format(gate=str(tmp_path / "gate")))
    (tmp_path / "traces").mkdir()
    for name in ("a.up", "a.down"):
        (tmp_path / "traces" / name).write_text("".join(f"{ms}\n" for ms in range(1, 200, 3)))
    (tmp_path / "small.yaml").write_text(json.dumps({**SMALL, **CHANGES}))
    environment = {"RAY_AUTH_TOKEN_PATH": str(token), "RAY_API_SERVER_ADDRESS": url, "RAY_AUTH_MODE": "token"}
    return Laptop(tmp_path, url, environment)


def test_a_job_is_watched_left_stopped_and_resumed_and_ends_in_the_undisturbed_digest(
    laptop: Laptop, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, log, results = laptop.folder / "gate", laptop.folder / "log", laptop.folder / "results"
    gate.touch()
    submitted = laptop("submit", "small.yaml", "--workers", "1", "--out", str(results))
    assert submitted.returncode == 0, submitted.stderr
    job = submitted.stdout.strip()
    assert re.fullmatch(r"small-[0-9a-f]{6}", job), "the id and nothing else"
    assert f"tightwire watch {job}" in submitted.stderr
    assert "sent 4 files of yours" in submitted.stderr, "the model, what it imports, and two traces"

    with log.open("w") as file:
        watching = laptop.begin("watch", job, log=file)
        wait_for(lambda: "round " in log.read_text(), watching)
        watching.send_signal(signal.SIGINT)
        assert watching.wait(60) == 130
    assert f"the job goes on, see it again with: tightwire watch {job}" in log.read_text()
    assert "Traceback" not in log.read_text()

    (row,) = [row for row in json.loads(laptop("jobs", "--json").stdout) if row["id"] == job]
    assert (row["status"], row["rounds"], row["out"]) == ("running", 500, str(results))
    assert row["round"] >= 1
    assert row["accuracy"] is not None

    with log.open("w") as file:
        watching = laptop.begin("watch", job, log=file)
        wait_for(lambda: "round " in log.read_text(), watching)
        stopped = laptop("stop", job)
        assert watching.wait(DEADLINE) == 130, "its end is the job's"
    assert stopped.returncode == 0, stopped.stderr
    said = re.search(
        r"stopped after round (\d+), nothing is lost; go on with: tightwire submit --resume", stopped.stderr
    )
    assert said is not None, stopped.stderr
    after = int(said.group(1))
    assert list((results / "checkpoint").glob(f"manifest-*{after}.json")), "only the stop can have saved it"
    assert "has been stopped already" in laptop("stop", job).stderr

    gate.unlink()
    refused = laptop("submit", "--resume", job)
    assert refused.returncode == 2
    assert "was sent with 4 files of yours" in refused.stderr
    rounds = after + 2
    resumed = laptop("submit", "small.yaml", "--resume", job, "--set", f"rounds={rounds}", "--json")
    assert resumed.returncode == 0, resumed.stderr
    again = json.loads(resumed.stdout)
    assert again["out"] == str(results)
    watched = laptop("watch", again["id"])
    assert watched.returncode == 0, watched.stderr
    assert f"round {rounds}/{rounds}" in watched.stderr
    monkeypatch.syspath_prepend(str(laptop.folder))
    monkeypatch.chdir(laptop.folder)
    digest = digest_of(run_here(small(**{**CHANGES, "rounds": rounds}), laptop.folder / "here"))
    assert digest in watched.stderr
    assert json.loads((results / "summary.json").read_text())["digest"] == digest


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["submit", "--resume", "nobody"], "nobody: the cluster at"),
        (["stop", "nobody"], "`tightwire jobs` lists those it has"),
        (["jobs", "--address", "http://127.0.0.1:9"], "--address http://127.0.0.1:9: no dashboard"),
    ],
)
def test_bad_input_gets_one_line_and_exit_code_2_and_starts_nothing(
    laptop: Laptop, words: list[str], complaint: str
) -> None:
    done = laptop(*words)
    assert done.returncode == 2, done.stderr
    assert complaint in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert done.stdout == ""
