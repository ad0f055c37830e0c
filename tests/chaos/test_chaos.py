"""Faults by chance, many in a row, on one run: it ends in the digest of a run that nobody disturbed.

Ten are part of `make test`, a hundred of `make test-long`. CHAOS_SEED repeats a plan, CHAOS_FAULTS makes it longer.
"""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from clusters import LocalCluster
from monkey import EXPERIMENT, Monkey, plan
from scenarios import digest_of, run_here, small


def end_right(folder: Path, seed: int, faults: int) -> None:
    print(f"CHAOS_SEED={seed} CHAOS_FAULTS={faults}")  # noqa: T201 - pytest shows it with a failure
    place = Path(tempfile.mkdtemp(prefix="tw"))
    cluster = LocalCluster(place, cpus=1)
    monkey = Monkey(folder, cluster)
    try:
        rounds = monkey.suffer(plan(seed, faults)) + 2
        digest = monkey.conclude(rounds)
    finally:
        monkey.leave()
        cluster.stop()
        shutil.rmtree(place, ignore_errors=True)
    print(f"{rounds} rounds, {len(monkey.told)} lives ended by themselves")  # noqa: T201
    undisturbed = run_here(small(**{**EXPERIMENT, "rounds": rounds}), folder / "undisturbed")
    assert digest == digest_of(undisturbed)


@pytest.mark.timeout(1800)
def test_ten_faults_by_chance_end_in_the_undisturbed_digest(tmp_path: Path) -> None:
    end_right(tmp_path, int(os.environ.get("CHAOS_SEED", "1")), int(os.environ.get("CHAOS_FAULTS", "10")))


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_a_hundred_faults_by_chance_end_in_the_undisturbed_digest(tmp_path: Path) -> None:
    end_right(tmp_path, int(os.environ.get("CHAOS_SEED", "2")), int(os.environ.get("CHAOS_FAULTS", "100")))
