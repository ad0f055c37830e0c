"""A study's trials on Ray Tune, on a real cluster."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from scenarios import SMALL, digest_of, run_here
from tightwire.studies.folder import StudyFolder, read_error, read_summary, status
from tightwire.studies.plan import Trial, plan
from tightwire.studies.spec import Study
from tightwire_actors.study import fit

pytestmark = [pytest.mark.usefixtures("cluster"), pytest.mark.timeout(300)]
EXPERIMENT = {**{key: value for key, value in SMALL.items() if key != "name"}, "checkpoints": {"every": 1}}


class Watching:
    """A watcher that remembers."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.heard: list[int] = []
        self.rounds: dict[str, int] = {}
        self.over: list[str] = []
        self.notes: list[str] = []

    def started(self, trial: str) -> None:
        self.begun.append(trial)

    def advanced(self, trial: str, round: int) -> None:
        self.rounds[trial] = round
        self.heard.append(round)

    def ended(self, trial: str) -> None:
        self.over.append(trial)

    def note(self, text: str) -> None:
        self.notes.append(text)


def a_study(folder: Path, models: Sequence[str], **changes: object) -> tuple[StudyFolder, tuple[Trial, ...]]:
    def setting(model: str) -> dict[str, object]:
        return {"model": {"name": "custom", "function": f"{model}:model"}} if model != "mlp" else {}

    study = Study.model_validate(
        {
            "experiment": {**EXPERIMENT, **changes},
            "seeds": 1,
            "variations": [{"name": f"{at} {model}", "set": setting(model)} for at, model in enumerate(models)],
        }
    )
    trials = plan(study).trials
    made = StudyFolder.create(folder, "study")
    made.prepare(study, trials)
    return made, trials


def test_trials_run_beside_each_other_and_give_the_bits_of_single_runs(tmp_path: Path) -> None:
    folder, trials = a_study(tmp_path, ["mlp", "mlp"], policy={"name": "fixed"})
    watcher = Watching()
    fit(folder, [trial.name for trial in trials], watcher, lambda: False)
    alone = digest_of(run_here(trials[0].config, tmp_path / "alone"))
    assert [read_summary(folder.trial(trial.name)).digest for trial in trials] == [alone, alone]
    assert sorted(watcher.begun) == sorted(watcher.over) == [trial.name for trial in trials]
    assert watcher.rounds == {trial.name: 4 for trial in trials}
    assert sorted(path.name for path in folder.path.iterdir()) == ["study.yaml", "trials"], "Tune leaves nothing behind"


@pytest.mark.long
def test_a_trial_whose_process_dies_goes_on_and_one_that_fails_stops_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder, trials = a_study(tmp_path, ["mortal", "faulty", "lethal", "mlp"], policy={"name": "fixed"})
    watcher = Watching()
    fit(folder, [trial.name for trial in trials], watcher, lambda: False)
    mortal, faulty, lethal, fine = (folder.trial(trial.name) for trial in trials)
    assert [status(trial) for trial in (mortal, faulty, lethal, fine)] == ["finished", "failed", "failed", "finished"]
    assert "ZeroDivisionError" in read_error(faulty)
    assert "process died 3 times" in read_error(lethal)
    assert Path("died").exists()
    assert sum("mortal-s0: its process died" in note for note in watcher.notes) == 1
    assert read_summary(mortal).digest == digest_of(run_here(trials[0].config, tmp_path / "alone"))


@pytest.mark.long
def test_a_study_that_is_stopped_saves_what_is_under_way_begins_nothing_more_and_goes_on(tmp_path: Path) -> None:
    folder, trials = a_study(tmp_path, ["mlp"] * 6, policy={"name": "fixed"}, rounds=40)
    names = [trial.name for trial in trials]
    watcher = Watching()
    fit(folder, names, watcher, lambda: max(watcher.rounds.values(), default=0) > 3, workers=2)
    assert not folder.stop.exists()
    assert 1 <= len(watcher.begun) <= 2
    assert sorted(watcher.over) == sorted(watcher.begun)
    assert {status(folder.trial(name)) for name in names} == {"open"}
    furthest = max(watcher.rounds, key=watcher.rounds.__getitem__)
    assert list(folder.trial(furthest).checkpoint.glob("manifest-*.json"))
    again = Watching()
    fit(folder, [furthest], again, lambda: False)
    assert again.heard[0] >= 4, "it goes on from its checkpoint"
    assert read_summary(folder.trial(furthest)).rounds == 40
    assert not folder.trial(furthest).checkpoint.exists(), "a finished trial needs none"
