"""Deaths at chosen moments on Ray, each of which ends in the undisturbed digest."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from clusters import SUPPORT, environment
from scenarios import SMALL, Quiet, digest_of, run_here, small
from tightwire.simulation import Parts
from tightwire_actors.pool import RayPool

DEADLY = {
    "model": {"name": "custom", "function": "deadly:model"},
    "policy": {"name": "fixed", "codec": "topk(0.1) | uniform(4) | rans"},
    "rounds": 6,
    "checkpoints": {"every": 1},
}


@pytest.fixture
def wishes(tmp_path: Path) -> Iterator[Path]:
    """Where deaths are wished for; the cluster's processes know of it, this one does not."""
    folder = tmp_path / "wishes"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", SUPPORT, prepend=os.pathsep)
        patch.setenv("DEADLY", str(folder))
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        patch.delenv("DEADLY")
        yield folder
        ray.shutdown()


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


@pytest.mark.long
def test_when_the_coordinator_dies_in_a_checkpoint_the_run_ends_right_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "deadly.yaml").write_text(json.dumps({**SMALL, **DEADLY, "name": "deadly"}))
    wishes = tmp_path / "wishes"
    wishes.mkdir()
    (wishes / "checkpoint").touch()
    words = [sys.executable, "-m", "tightwire_pipelines", "run", "deadly.yaml", "--workers", "1"]
    done = subprocess.run(
        words,
        cwd=tmp_path,
        env=environment() | {"DEADLY": str(wishes)},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not list(wishes.iterdir()), "nobody died"
    assert "the coordinator died" in done.stderr
    assert "damaged" not in done.stderr, "a checkpoint without its manifest is none"
    digest = json.loads((tmp_path / "runs" / "deadly" / "summary.json").read_text())["digest"]
    assert digest == digest_of(run_here(small(**DEADLY), tmp_path / "here"))
