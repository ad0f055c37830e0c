"""Deaths in the middle of saving, and disks that are full: each ends in the undisturbed digest, or in a clear line."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from clusters import environment, wait_for
from disks import fill, small_disk
from scenarios import SMALL, Quiet, digest_of, run_here, small
from tightwire import simulation
from tightwire.errors import CheckpointError, TightwireError
from tightwire.federation.records import RoundRecord

SUPPORT = Path(__file__).resolve().parents[1] / "support"


def test_kill_9_in_training_in_an_upload_or_before_any_change_to_the_disk_costs_no_bit_and_leaves_nothing_behind(
    tmp_path: Path,
) -> None:
    words = [sys.executable, str(SUPPORT / "killed_at.py"), str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, env=environment(), timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    undisturbed, *lives = [json.loads(line) for line in done.stdout.splitlines()]
    about_to_change = done.stderr.splitlines()
    assert about_to_change[:3] == ["since", "encode", "mean"], "never killed at a client's or the server's work"
    for what in ("model-000003", "memory-", "ledger-000003", "manifest-000003", "manifest-000001", "summary.json"):
        assert any(name.startswith(what) for name in about_to_change), f"never killed at {what}"
    assert len(lives) == len(about_to_change) > 15
    for what, life in zip(about_to_change, lives, strict=True):
        assert life["digest"] == undisturbed["digest"], what
        assert life["notes"] == [], "a checkpoint that is only half there is none, and no damaged one either"
        assert not [name for name in life["left"] if name.endswith(".tmp")], what


@pytest.fixture
def disk() -> Iterator[Path]:
    """A disk of 8 MB."""
    with small_disk(8) as place:
        yield place


class Filling(Quiet):
    """Fills the disk to the last byte after each round from `first` on."""

    def __init__(self, disk: Path, first: int) -> None:
        super().__init__()
        self.ballast = disk / "ballast"
        self.first = first

    def round(self, record: RoundRecord) -> None:
        """See `tightwire.simulation.Listener`."""
        super().round(record)
        if record.round >= self.first:
            fill(self.ballast)


def test_a_full_disk_costs_no_round_and_once_there_is_space_a_resume_ends_in_the_undisturbed_digest(
    tmp_path: Path, disk: Path
) -> None:
    config, run = small(rounds=9), disk / "run"
    listener = Filling(disk, first=4)
    with pytest.raises(CheckpointError, match=r"after round 9 could not be written \(No space left on device\)"):
        run_here(config, run, listener=listener)
    assert [record.round for record in listener.records] == list(range(1, 10)), "it went on"
    assert len(listener.notes) == 3
    for note, last in zip(listener.notes, (4, 6, 8), strict=True):
        assert f"the checkpoint after round {last} could not be written" in note
        assert "going on, and trying again after 2 rounds" in note
    listener.ballast.unlink()
    again = Quiet()
    resumed = run_here(config, run, listener=again)
    assert again.records[0].round == 3, "the last checkpoint before the disk was full"
    assert again.notes == []
    assert digest_of(resumed) == digest_of(run_here(config, tmp_path / "roomy"))


def test_a_disk_that_is_full_when_the_results_are_written_says_so_and_a_resume_writes_them(
    tmp_path: Path, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, run = small(), disk / "run"
    audit = simulation._audit

    def full(*tables: object) -> None:  # the moment between the last checkpoint and the first table
        fill(disk / "ballast")
        audit(*tables)  # type: ignore[arg-type]  # what it was called with

    monkeypatch.setattr(simulation, "_audit", full)
    with pytest.raises(TightwireError, match=r"results could not be written \(No space left on device\).*--resume"):
        run_here(config, run)
    assert not (run / "summary.json").exists()
    monkeypatch.setattr(simulation, "_audit", audit)
    (disk / "ballast").unlink()
    again = Quiet()
    resumed = run_here(config, run, listener=again)
    assert again.records == [], "all rounds were saved"
    assert (run / "summary.json").exists()
    assert digest_of(resumed) == digest_of(run_here(config, tmp_path / "roomy"))


def test_a_command_on_a_full_disk_ends_with_one_line(disk: Path) -> None:
    (disk / "small.yaml").write_text(json.dumps({**SMALL, "name": "run"}))
    run_here(small(rounds=6), disk / "runs" / "run", stop_after=4)
    fill(disk / "ballast")
    words = [sys.executable, "-m", "tightwire_pipelines", "run", "--resume", "run", "--in-process"]
    done = subprocess.run(words, cwd=disk, env=environment(), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1, done.stderr
    assert "No space left on device" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


SLOW = """
import math, pathlib
from torch import nn
class Model(nn.Module):
    def __init__(self, features, classes):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(features), classes))
    def forward(self, x):
        if self.training:
            pathlib.Path("training").touch()
        return self.layers(x)
"""


def test_a_second_ctrl_c_breaks_off_at_once(tmp_path: Path) -> None:
    endless = {"training": {"epochs": 1_000_000, "batch": 10, "lr": 0.1}}
    model = {"model": {"name": "custom", "function": "slow:Model"}}
    (tmp_path / "small.yaml").write_text(json.dumps({**SMALL, **endless, **model}))
    (tmp_path / "slow.py").write_text(SLOW)
    words = [sys.executable, "-m", "tightwire_pipelines", "run", "small.yaml", "--in-process"]
    with subprocess.Popen(words, cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, text=True) as command:
        wait_for((tmp_path / "runs" / "small" / ".lock").exists, "a run that has begun")
        (tmp_path / "training").unlink(missing_ok=True)  # of the step that a model is measured by
        wait_for((tmp_path / "training").exists, "a client that trains")
        command.send_signal(signal.SIGINT)
        assert command.stderr is not None
        assert any("press Ctrl-C again" in line for line in command.stderr)
        command.send_signal(signal.SIGINT)
        _, said = command.communicate(timeout=120)
    assert command.returncode == 130, said
    assert "Traceback" not in said
