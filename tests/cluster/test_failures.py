"""Deaths at chosen moments on Ray, and an object store that is full: the undisturbed digest, or a clear line."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import ray

from clusters import SUPPORT, descendants, environment, kill, title, wait_for
from disks import small_disk
from scenarios import SMALL, Quiet, digest_of, run_here, small
from tightwire.simulation import Parts
from tightwire_actors.failures import ClusterError
from tightwire_actors.pool import RayPool

DEADLY = {
    "model": {"name": "custom", "function": "deadly:model"},
    "policy": {"name": "fixed", "codec": "topk(0.1) | uniform(4) | rans"},
    "rounds": 6,
    "checkpoints": {"every": 1},
}


@contextmanager
def local_ray(**options: object) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", SUPPORT, prepend=os.pathsep)
        ray.init(
            address="local",
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            **options,
        )
        yield
        ray.shutdown()


@pytest.fixture
def wishes(tmp_path: Path) -> Iterator[Path]:
    """Where deaths are wished for; the cluster's processes know of it, this one does not."""
    folder = tmp_path / "wishes"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEADLY", str(folder))
        with local_ray():
            patch.delenv("DEADLY")
            yield folder


def test_hosts_that_die_while_a_client_trains_and_while_one_uploads_cost_no_bit(tmp_path: Path, wishes: Path) -> None:
    config, listener = small(**DEADLY), Quiet()
    (wishes / "training").touch()
    (wishes / "upload").touch()
    pool = RayPool(config, Parts.load(config).data, hosts=2, note=listener.note)
    try:
        digest = digest_of(run_here(config, tmp_path / "ray", pool=pool, listener=listener))
    finally:
        pool.close()
    assert not list(wishes.iterdir()), "nobody died"
    assert sum("a client host died" in note for note in listener.notes) == 2
    assert digest == digest_of(run_here(config, tmp_path / "here"))


def run_command(folder: Path, *words: str, wishes: Path | None = None) -> "subprocess.Popen[str]":
    known = environment() | ({} if wishes is None else {"DEADLY": str(wishes)})
    command = [sys.executable, "-m", "tightwire_pipelines", "run", *words, "--workers", "1"]
    return subprocess.Popen(
        command, cwd=folder, env=known, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("moment", ["in a round", "in a checkpoint"])
def test_when_the_coordinator_dies_the_run_ends_right_all_the_same(tmp_path: Path, moment: str) -> None:
    changes = {**DEADLY, "training": {"epochs": 30, "batch": 2, "lr": 0.01}}
    (tmp_path / "deadly.yaml").write_text(json.dumps({**SMALL, **changes, "name": "deadly"}))
    wishes, run = tmp_path / "wishes", tmp_path / "runs" / "deadly"
    wishes.mkdir()
    if moment == "in a checkpoint":
        (wishes / "checkpoint").touch()
    driver = run_command(tmp_path, "deadly.yaml", wishes=wishes)
    if moment == "in a round":
        wait_for(lambda: driver.poll() is not None or list(run.glob("checkpoint/manifest-*1.json")), "a checkpoint")
        victims = [x for x in descendants(driver.pid) if title(x).startswith("ray::CoordinatorImpl")]
        assert [kill(victim) for victim in victims] == [True]
    _, said = driver.communicate(timeout=240)
    assert not list(wishes.iterdir()), "nobody died"
    assert "the coordinator died" in said
    assert "Traceback" not in said
    if driver.returncode:
        assert "tightwire run --resume" in said
        again = run_command(tmp_path, "--resume", "deadly")
        _, said = again.communicate(timeout=240)
        assert again.returncode == 0, said
    digest = json.loads((run / "summary.json").read_text())["digest"]
    assert digest == digest_of(run_here(small(**changes), tmp_path / "here"))


@pytest.fixture
def full() -> Iterator[None]:
    """Ray with the smallest object store that it starts with, and a disk of 8 MB to spill to."""
    with small_disk(8) as disk, local_ray(object_store_memory=80 * 2**20, object_spilling_directory=str(disk)):
        yield


@pytest.mark.usefixtures("full")
def test_when_the_object_store_is_full_and_the_disk_as_well_the_run_says_so(tmp_path: Path) -> None:
    config = small(
        policy={"name": "fixed", "codec": "topk(0.01) | uniform(4)"},
        model={"name": "mlp", "hidden": [4000]},
        population={"clients": 200, "tiers": {"flagship-5g": 1.0}},
        participation={"cohort": 40, "drop": 0.0},
        deadline=None,
        rounds=8,
    )
    listener = Quiet()
    pool = RayPool(config, Parts.load(config).data, hosts=2, note=listener.note)
    try:
        with pytest.raises(ClusterError, match=r"object store .* is full, and so is the disk"):
            run_here(config, tmp_path / "run", pool=pool, listener=listener)
    finally:
        pool.close()
