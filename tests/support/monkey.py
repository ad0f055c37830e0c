"""A monkey that breaks a run on a cluster of two machines, again and again, by a plan that a seed makes."""

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from clusters import DEADLINE, LocalCluster, environment, kill, wait_for

DECK = ("host",) * 4 + ("node", "coordinator", "driver", "everything", "signal", "checkpoint")
"""Ten faults, dealt in an order of chance, then ten more."""
EXPERIMENT = {
    "name": "broken",
    "rounds": 1_000_000,
    "model": {"name": "mlp", "hidden": [600]},  # large enough for memories in the object store, which die with machines
    "training": {"epochs": 4, "batch": 10, "lr": 0.05},
    "population": {"clients": 20},
    "participation": {"cohort": 6, "over": 0.25, "drop": 0.1},
    "policy": {"name": "fixed", "codec": "topk(0.1) | uniform(4) | rans"},
    "checkpoints": {"every": 2},
    "tracking": {"to": "nowhere"},
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One blow."""

    kind: str
    rounds: int
    """How many rounds are saved after the last one before it falls."""
    delay: float
    """Seconds after that, so that it falls anywhere in a round."""
    luck: float
    """In [0, 1), picks the victim."""


def plan(seed: int, count: int) -> list[Fault]:
    """The same seed gives the same plan."""
    chance = random.Random(seed)  # noqa: S311 - it breaks no codes
    kinds: list[str] = []
    while len(kinds) < count:
        kinds += chance.sample(DECK, len(DECK))
    return [Fault(kind, chance.randint(1, 4), chance.uniform(0, 0.5), chance.random()) for kind in kinds[:count]]


class Monkey:
    """Keeps a run going in `folder` on `cluster`, and strikes it."""

    def __init__(self, folder: Path, cluster: LocalCluster) -> None:
        self._folder = folder
        self._cluster = cluster
        self._driver: subprocess.Popen[bytes] | None = None
        self._lives = 0
        self._began = time.monotonic()
        self.run = folder / "runs" / str(EXPERIMENT["name"])
        self.told: list[str] = []
        """What drivers have said on standard error, of those that have ended."""
        (folder / "broken.yaml").write_text(json.dumps(EXPERIMENT))

    def suffer(self, faults: Sequence[Fault]) -> int:
        """Let all faults befall the run, then stop it; the last round that is saved."""
        self._cluster.start(2)
        for fault in faults:
            aim = self.saved() + fault.rounds
            self._keep_going_until(lambda aim=aim: self.saved() >= aim)  # type: ignore[misc]  # bound
            time.sleep(fault.delay)
            self._say(f"round {self.saved()}: {fault.kind}")
            getattr(self, f"_break_{fault.kind}")(fault.luck)
        self._keep_going_until(lambda: self._coordinators())
        self._end()
        return self.saved()

    def _say(self, text: str) -> None:
        seconds = time.monotonic() - self._began
        print(f"{seconds:6.1f} s  {text}", flush=True)  # noqa: T201 - pytest shows it with a failure

    def conclude(self, rounds: int) -> str:
        """Run to the end, and give the digest."""
        self._start("--resume", self.run.name, "--set", f"rounds={rounds}")
        wait_for(lambda: self._driver is None or self._has_ended(), "the end of the run")
        summary: dict[str, str] = json.loads((self.run / "summary.json").read_text())
        return summary["digest"]

    def saved(self) -> int:
        """The last round of the newest checkpoint; 0 where there is none."""
        manifests = sorted(self.run.glob("checkpoint/manifest-*.json"))
        return int(manifests[-1].stem.removeprefix("manifest-")) if manifests else 0

    def _keep_going_until(self, happened: Callable[[], object]) -> None:
        end = time.monotonic() + DEADLINE
        while not happened():
            assert time.monotonic() < end, f"it does not go on; the last words were: {self._words()[-2000:]}"
            self._has_ended()
            if self._driver is None and not self._coordinators():
                self._start(*(["--resume", self.run.name] if self.saved() else []))
            time.sleep(0.05)

    def _start(self, *words: str) -> None:
        if not words:
            words = ("broken.yaml", "--out", str(self.run.relative_to(self._folder)))
            subprocess.run(["rm", "-rf", str(self.run)], check=True)  # of a life that ended before its first checkpoint
        self._lives += 1
        self._say(f"life {self._lives}: {' '.join(words)}")
        command = [sys.executable, "-m", "tightwire_pipelines", "run", *words]
        command += ["--workers", "2", "--address", self._cluster.address]
        with self._said().open("wb") as said:
            self._driver = subprocess.Popen(
                command, cwd=self._folder, env=environment(), stdout=subprocess.DEVNULL, stderr=said
            )

    def _said(self) -> Path:
        return self._folder / f"life-{self._lives}.txt"

    def _words(self) -> str:
        return self._said().read_text(errors="replace") if self._lives else ""

    def _has_ended(self) -> bool:
        """Whether the driver has ended by itself; then it must have said so clearly."""
        if self._driver is None or self._driver.poll() is None:
            return False
        words, code = self._words(), self._driver.returncode
        self._say(f"life {self._lives} ended with {code}: {words.strip().splitlines()[-1:]}")
        self.told.append(words)
        self._driver = None
        assert "Traceback" not in words, words
        assert code in (0, 1, 130), f"exit code {code}: {words}"
        assert code == 0 or "tightwire run --resume" in words, words
        return True

    def _coordinators(self) -> list[psutil.Process]:
        return self._cluster.processes("ray::CoordinatorImpl")

    def _end(self) -> None:
        """Let nothing of the run be left."""
        if self._driver is not None:
            self._driver.terminate()
            wait_for(self._has_ended, "an end of the driver after SIGTERM")
        for process in self._coordinators():
            kill(process)
        wait_for(lambda: not self._coordinators(), "an end of the coordinator")

    def _break_host(self, luck: float) -> None:
        hosts = self._cluster.processes("ray::ClientHostImpl")
        if hosts:
            kill(hosts[int(luck * len(hosts))])

    def _break_coordinator(self, luck: float) -> None:  # noqa: ARG002 - there is one
        for process in self._coordinators():
            kill(process)

    def _break_driver(self, luck: float) -> None:  # noqa: ARG002 - there is one
        self.leave()

    def leave(self) -> None:
        """Kill -9 of the driver; the run may go on without it."""
        if self._driver is not None:
            self._driver.kill()
            self._driver.wait()
            self._driver = None

    def _break_node(self, luck: float) -> None:
        """A machine dies: its raylet first, or all at once; another one joins."""
        if luck < 0.5:
            for raylet in self._cluster.raylets(1):
                kill(raylet)
        self._cluster.kill_node(1)
        self._cluster.add_node()

    def _break_everything(self, luck: float) -> None:  # noqa: ARG002 - there is no choice
        self.leave()
        self._cluster.stop()
        self._cluster.start(2)

    def _break_signal(self, luck: float) -> None:
        if self._driver is not None:
            self._driver.send_signal(signal.SIGINT if luck < 0.5 else signal.SIGTERM)
            wait_for(self._has_ended, "an end of the driver after a signal")

    def _break_checkpoint(self, luck: float) -> None:
        """The run dies, and its newest checkpoint with it."""
        self.leave()
        self._break_coordinator(luck)
        wait_for(lambda: not self._coordinators(), "an end of the coordinator")
        if len(list(self.run.glob("checkpoint/manifest-*.json"))) < 2:
            return
        newest = "manifest" if luck < 0.5 else "model"
        (victim,) = self.run.glob(f"checkpoint/{newest}-{self.saved():06d}.*")
        content = bytearray(victim.read_bytes())
        if luck * 2 % 1 < 0.5:
            content[len(content) // 2] ^= 4
        else:
            del content[len(content) // 2 :]
        victim.write_bytes(content)
