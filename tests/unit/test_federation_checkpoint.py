"""Checkpoints: whole or not taken, and never in the way of the run."""

from pathlib import Path

import pytest

from scenarios import Quiet, digest_of, run_here, small
from tightwire.errors import CheckpointError
from tightwire.federation import checkpoint as module
from tightwire.federation import tables


def damaged(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    run_here(small(rounds=6), tmp_path / "run", stop_after=4)
    return tmp_path / "run"


@pytest.mark.parametrize("victim", ["manifest-000004.json", "model-000004.safetensors", "ledger-000004.parquet"])
def test_a_damaged_checkpoint_is_passed_over_and_said_so(stopped: Path, tmp_path: Path, victim: str) -> None:
    damaged(stopped / "checkpoint" / victim)
    listener = Quiet()
    resumed = run_here(small(rounds=6), stopped, listener=listener)
    assert "damaged and passed over" in listener.notes[0]
    assert listener.records[0].round == 3, "the checkpoint before it was taken"
    assert digest_of(resumed) == digest_of(run_here(small(rounds=6), tmp_path / "undisturbed"))


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
    assert digest_of(ended) == digest_of(run_here(small(rounds=6), tmp_path / "roomy"))


def test_old_files_go_and_nothing_half_written_stays(stopped: Path) -> None:
    names = [path.name for path in (stopped / "checkpoint").iterdir()]
    assert sum(name.startswith("manifest") for name in names) == 2
    assert not [name for name in names if name.startswith(".") or name.endswith((".tmp", ".partial"))]
