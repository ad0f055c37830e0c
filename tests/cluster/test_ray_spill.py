"""Clients' memories beyond Ray's object store, which Ray spills to disk by itself."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from scenarios import Quiet, digest_of, run_here, small
from tightwire.federation.records import RoundRecord
from tightwire.simulation import Parts
from tightwire_actors.pool import RayPool


class Watching(Quiet):
    """A listener that counts the files in Ray's folder for what it spills."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.spilled = 0

    def round(self, record: RoundRecord) -> None:
        """See `tightwire.simulation.Listener`."""
        super().round(record)
        self.spilled = max(self.spilled, sum(path.is_file() for path in self.folder.rglob("*")))


@pytest.fixture
def spilling(tmp_path: Path) -> Iterator[Path]:
    """Where Ray spills to; it runs on this machine with the smallest object store that it starts with."""
    folder = tmp_path / "spilled"
    folder.mkdir()
    ray.init(
        address="local",
        num_cpus=2,
        object_store_memory=80 * 2**20,
        object_spilling_directory=str(folder),
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    yield folder
    ray.shutdown()


def test_a_full_object_store_spills_and_changes_nothing(tmp_path: Path, spilling: Path) -> None:
    config = small(
        policy={"name": "fixed", "codec": "topk(0.01) | uniform(4)"},
        model={"name": "mlp", "hidden": [4000]},
        population={"clients": 200, "tiers": {"flagship-5g": 1.0}},
        participation={"cohort": 40, "drop": 0.0},
        deadline=None,
    )
    listener = Watching(spilling)
    pool = RayPool(config, Parts.load(config).data, hosts=2, note=listener.note)
    try:
        digest = digest_of(run_here(config, tmp_path / "ray", pool=pool, listener=listener))
    finally:
        pool.close()
    assert listener.spilled > 0
    assert digest == digest_of(run_here(config, tmp_path / "here"))
