"""A run whose clients' memories are lost with a machine goes back to its last checkpoint."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from scenarios import Quiet, digest_of, run_here, small, undisturbed
from tightwire.config import Experiment
from tightwire.errors import MemoriesLostError
from tightwire.federation.pool import InProcessPool
from tightwire.federation.records import RoundRecord
from tightwire.federation.store import Kept
from tightwire.federation.tables import read_rows
from tightwire.federation.tasks import Broadcast, ClientTask, ShareResult
from tightwire.simulation import LOSSES, Parts

CONFIG = {"policy": {"name": "fixed", "codec": "topk(0.1) | uniform(4) | rans"}, "rounds": 7}


class Forgetful(InProcessPool):
    """Loses what clients remember when it comes to certain rounds, after half of the work."""

    def __init__(self, config: Experiment, rounds: Sequence[int]) -> None:
        super().__init__(Parts.load(config).runner())
        self.rounds = list(rounds)

    def run(
        self, broadcast: Broadcast, tasks: Sequence[ClientTask], memories: Mapping[int, Kept]
    ) -> Iterator[tuple[ShareResult, dict[int, Kept]]]:
        yield from super().run(broadcast, tasks[::2], memories)
        if broadcast.round in self.rounds:
            self.rounds.remove(broadcast.round)
            raise MemoriesLostError("a machine is gone")
        yield from super().run(broadcast, tasks[1::2], memories)


@pytest.mark.parametrize("lost", [[1], [2], [4], [3, 4, 6, 7], [5, 5, 5]], ids=str)
def test_rounds_since_the_checkpoint_are_redone_and_told_once(tmp_path: Path, lost: list[int]) -> None:
    config = small(**CONFIG)
    listener = Quiet()
    pool = Forgetful(config, lost)
    ended = run_here(config, tmp_path / "lost", pool=pool, listener=listener)
    assert digest_of(ended) == undisturbed(config)
    assert pool.rounds == []
    assert [record.round for record in listener.records] == list(range(1, 8))
    assert sum("a machine is gone; going back to" in note for note in listener.notes) == len(lost)
    checkpoint = (lost[0] - 1) // 2 * 2
    assert ("the start" if checkpoint == 0 else f"after round {checkpoint},") in listener.notes[0]
    assert [row.round for row in read_rows(tmp_path / "lost" / "rounds.parquet", RoundRecord)] == list(range(1, 8))


def test_a_round_that_loses_them_every_time_ends_the_run_with_its_reason(tmp_path: Path) -> None:
    config = small(**CONFIG)
    listener = Quiet()
    with pytest.raises(MemoriesLostError, match="a machine is gone"):
        run_here(config, tmp_path, pool=Forgetful(config, [5] * 20), listener=listener)
    assert sum("going back to the checkpoint after round 4" in note for note in listener.notes) == LOSSES
    assert digest_of(run_here(config, tmp_path)) == undisturbed(config)
