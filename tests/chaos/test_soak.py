"""Two thousand rounds: no process grows, and nothing piles up in the object store, among the actors or on the disk."""

import json
import logging
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import ray
from ray._private.internal_api import memory_summary  # no public way to ask without the dashboard
from ray._private.state import actors  # likewise

from clusters import LocalCluster, environment, title

ROUNDS = int(os.environ.get("SOAK_ROUNDS", "2000"))
EXPERIMENT = {
    "name": "soak",
    "rounds": ROUNDS,
    "model": {"name": "mlp", "hidden": [8]},
    "training": {"epochs": 1, "batch": 16, "lr": 0.1},
    "population": {"clients": 20},
    "participation": {"cohort": 4},
    "policy": {"name": "fixed", "codec": "topk(0.1) | uniform(4) | rans"},
    "checkpoints": {"every": 1},
}
GROWTH = 1.05
pytestmark = [pytest.mark.long, pytest.mark.timeout(5400)]


class Samples:
    """What is counted, by name, once a second: pairs of a round and a number."""

    def __init__(self) -> None:
        self._seen: dict[str, list[tuple[int, float]]] = {}

    def add(self, name: str, at: int, number: float) -> None:
        """Take note of one number."""
        self._seen.setdefault(name, []).append((at, number))

    def windows(self, name: str) -> list[float]:
        """The medians of the second tenth of all rounds, of the third, and so on to the last."""
        tenths = [[n for at, n in self._seen[name] if tenth <= at * 10 / ROUNDS < tenth + 1] for tenth in range(1, 10)]
        return [statistics.median(tenth) for tenth in tenths if tenth]

    def lasting(self, beginning: str) -> list[str]:
        """The names that begin so and were there from the second tenth to the last."""
        return sorted(name for name in self._seen if name.startswith(beginning) and self._lasts(name))

    def _lasts(self, name: str) -> bool:
        rounds = [at for at, _ in self._seen[name]]
        return min(rounds) < ROUNDS * 0.2 and max(rounds) >= ROUNDS * 0.9


def sample(samples: Samples, at: int, cluster: LocalCluster, driver: int, work: Path) -> None:
    alive = Counter(actor["State"] for actor in actors().values())
    samples.add("actors alive", at, alive["ALIVE"])
    samples.add("actors of any state", at, alive.total())
    stored: str = memory_summary(cluster.address, stats_only=True)  # type: ignore[no-untyped-call]  # ray's
    plasma = re.search(r"Plasma memory usage (\S+) MiB, (\d+) objects", stored)
    assert plasma is not None
    samples.add("objects in the object store", at, int(plasma[2]))
    samples.add("MiB in the object store", at, float(plasma[1]))
    for process in [*cluster.processes(), *processes_of(driver)]:
        with suppress(psutil.Error):
            samples.add(f"bytes of {name(process)}", at, process.memory_full_info().uss)
            samples.add(f"open files of {name(process)}", at, process.num_fds())
    samples.add("files of the run", at, sum(path.is_file() for path in (work / "runs").rglob("*")))
    samples.add("files of Ray", at, sum(path.is_file() for path in cluster.folder.rglob("*")))


def name(process: psutil.Process) -> str:
    """A process, whatever its title says that it is doing."""
    words = title(process).split(" ")
    what = next((word for word in words if word.endswith(".py")), words[0])
    return f"{process.pid} {what.split('/')[-1].split('.')[0]}"


def processes_of(pid: int) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        return [psutil.Process(pid)]
    return []


@pytest.fixture
def cluster() -> Iterator[LocalCluster]:
    folder = Path(tempfile.mkdtemp(prefix="tw"))
    cluster = LocalCluster(folder)
    try:
        cluster.start()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("RAY_AUTH_MODE", "disabled")
            ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
            yield cluster
            ray.shutdown()
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


def test_two_thousand_rounds_leave_every_process_the_object_store_and_the_disk_as_they_were(
    tmp_path: Path, cluster: LocalCluster
) -> None:
    (tmp_path / "soak.yaml").write_text(json.dumps(EXPERIMENT))
    words = [sys.executable, "-m", "tightwire_pipelines", "run", "soak.yaml", "--workers", "2"]
    samples = Samples()
    with (
        (tmp_path / "said").open("wb") as said,
        subprocess.Popen(
            [*words, "--address", cluster.address], cwd=tmp_path, env=environment(), stdout=said, stderr=said
        ) as driver,
    ):
        while driver.poll() is None:
            manifests = sorted((tmp_path / "runs" / "soak" / "checkpoint").glob("manifest-*.json"))
            if manifests and not (tmp_path / "runs" / "soak" / "ledger.parquet").exists():
                at = int(manifests[-1].stem.removeprefix("manifest-"))
                sample(samples, at, cluster, driver.pid, tmp_path)
            time.sleep(1)
    assert driver.returncode == 0, (tmp_path / "said").read_text()
    for what in sorted(samples._seen):
        if what in samples.lasting(""):
            print(what, samples.windows(what))  # noqa: T201 - the measurement
    whole = [n for n in samples.lasting("bytes of") if "Coordinator" in n or "ClientHost" in n]
    assert len(whole) >= 3, "the coordinator and both hosts were watched"
    for what in samples.lasting("bytes of"):
        first, *_, last = samples.windows(what)
        assert last <= first * GROWTH, f"{what} grew: {samples.windows(what)}"
    for what in samples.lasting("open files of"):
        assert max(samples.windows(what)) <= samples.windows(what)[0] + 3, f"{what}: {samples.windows(what)}"
    for what in ("objects in the object store", "MiB in the object store", "files of Ray"):
        assert max(samples.windows(what)) <= samples.windows(what)[0] + 5, f"{what}: {samples.windows(what)}"
    assert set(samples.windows("actors alive")) == {3}
    assert set(samples.windows("actors of any state")) == {3}
    assert max(samples.windows("files of the run")) < 150, "merged parts, two checkpoints, and what is always there"
