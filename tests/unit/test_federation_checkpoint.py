"""Checkpoints: whole or not taken, and never in the way of the run."""

from collections.abc import Callable
from pathlib import Path

import pytest

from scenarios import Quiet, digest_of, run_here, small, undisturbed
from tightwire.errors import CheckpointError
from tightwire.federation import checkpoint as module
from tightwire.federation import tables
from tightwire.federation.records import DecisionRow, LedgerRow, RoundRecord


def damaged(path: Path) -> None:
    """Flip a bit in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def truncated(path: Path) -> None:
    """Cut off the second half."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    run_here(small(rounds=6), tmp_path / "run", stop_after=4)
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("harm", "victim"),
    [
        (damaged, "manifest-000004.json"),
        (damaged, "model-000004.safetensors"),
        (damaged, "ledger-000004.parquet"),
        (truncated, "manifest-000004.json"),
        (truncated, "model-000004.safetensors"),
        (Path.unlink, "rounds-000004.parquet"),
    ],
)
def test_a_damaged_checkpoint_is_passed_over_and_said_so(
    stopped: Path, harm: Callable[[Path], None], victim: str
) -> None:
    harm(stopped / "checkpoint" / victim)
    listener = Quiet()
    resumed = run_here(small(rounds=6), stopped, listener=listener)
    assert "damaged and passed over" in listener.notes[0]
    assert listener.records[0].round == 3, "the checkpoint before it was taken"
    assert digest_of(resumed) == undisturbed(small(rounds=6))


def test_when_all_are_damaged_the_run_says_so_and_stops(stopped: Path) -> None:
    for manifest in (stopped / "checkpoint").glob("manifest-*.json"):
        damaged(manifest)
    with pytest.raises(CheckpointError, match="none of the 2 checkpoints is whole"):
        run_here(small(rounds=6), stopped)


def test_a_checkpoint_that_cannot_be_written_costs_no_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, failures = tables.write_atomically, iter([True])

    def full(path: Path, content: bytes) -> None:
        if "manifest" in path.name and next(failures, False):
            raise OSError(28, "No space left on device")
        real(path, content)

    monkeypatch.setattr(module, "write_atomically", full)
    listener = Quiet()
    stopped = run_here(small(rounds=6), tmp_path / "full", listener=listener, stop_after=3)
    assert stopped.summary is None
    left = {path.name for path in (tmp_path / "full" / "checkpoint").iterdir()}
    assert not {name for name in left if "000002" in name}, "nothing is left of the checkpoint that failed"
    ended = run_here(small(rounds=6), tmp_path / "full")
    assert sum("No space left on device" in note for note in listener.notes) == 1
    monkeypatch.setattr(module, "write_atomically", real)
    assert digest_of(ended) == undisturbed(small(rounds=6))


def test_old_files_go_and_nothing_half_written_stays(stopped: Path) -> None:
    names = [path.name for path in (stopped / "checkpoint").iterdir()]
    assert sum(name.startswith("manifest") for name in names) == 2
    assert not [name for name in names if name.startswith(".") or name.endswith((".tmp", ".partial"))]


def test_a_damaged_checkpoint_is_not_counted_among_those_that_are_kept(stopped: Path) -> None:
    damaged(stopped / "checkpoint" / "model-000004.safetensors")
    run_here(small(rounds=6), stopped, stop_after=1)
    kept = sorted(path.name for path in (stopped / "checkpoint").glob("manifest-*.json"))
    assert kept == ["manifest-000002.json", "manifest-000003.json"]


def test_parts_of_tables_are_merged_as_they_grow_in_number_and_lose_no_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small(rounds=30, participation={"cohort": 2}, checkpoints={"every": 1})
    merged = run_here(config, tmp_path / "merged")
    parts = list((tmp_path / "merged" / "checkpoint").glob("ledger-*.parquet"))
    assert len(parts) <= 3 + module.FAN, "of the last checkpoint: 3 of 8 rounds and 6 of one; more of the one before"
    monkeypatch.setattr(module, "FAN", 1000)
    assert digest_of(merged) == digest_of(run_here(config, tmp_path / "apart"))
    assert len(list((tmp_path / "apart" / "checkpoint").glob("ledger-*.parquet"))) == 30
    for name, row in (("ledger", LedgerRow), ("decisions", DecisionRow)):
        rows = [tables.read_rows(tmp_path / run / f"{name}.parquet", row) for run in ("merged", "apart")]
        assert rows[0] == rows[1]
    numbers = [record.round for record in tables.read_rows(tmp_path / "merged" / "rounds.parquet", RoundRecord)]
    assert numbers == list(range(1, 31))
