"""What is sent with a submitted experiment, and what is refused before anything is sent."""

import io
import json
import math
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from rich.console import Console

from scenarios import SMALL, Quiet, run_here, small
from tightwire import config as configs
from tightwire.errors import ConfigError
from tightwire_pipelines.jobs_events import Events, ended, read, record, rest
from tightwire_pipelines.submit import Submission, command, mlflow_environment, submit
from tightwire_pipelines.submit_package import EXPERIMENT, collect, pack, stage

MODEL = """
import {package}.parts
from torch import nn
def build(features, classes):
    return {package}.parts.make(features, classes)
"""
PARTS = """
import math
from torch import nn
def make(features, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(features), classes))
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("traces/a.up", "traces/a.down", "traces/.hidden", "unrelated.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("".join(f"{ms}\n" for ms in range(1, 90)))
    return tmp_path


def test_relative_files_and_own_modules_are_sent_and_nothing_else(here: Path) -> None:
    (here / "sent_model").mkdir()
    (here / "sent_model" / "__init__.py").touch()
    (here / "sent_model" / "build.py").write_text(MODEL.format(package="sent_model"))
    (here / "sent_model" / "parts.py").write_text(PARTS)
    (here / "sent_model" / "later.txt").touch()
    config = small(
        model={"name": "custom", "function": "sent_model.build:build"}, link={"name": "trace", "folder": "traces"}
    )
    files, notes = collect(config, [])
    package = [f"sent_model/{name}" for name in ("__init__.py", "build.py", "later.txt", "parts.py")]
    assert sorted(files) == [*package, "traces/a.down", "traces/a.up"]
    assert notes == []
    assert all(path.is_file() for path in files.values())
    more, _ = collect(small(), [Path("unrelated.csv")])
    assert list(more) == ["unrelated.csv"]


def test_absolute_paths_are_the_clusters(here: Path) -> None:
    files, notes = collect(small(link={"name": "trace", "folder": str(here / "traces")}), [])
    assert (files, notes) == ({}, [])
    files, (note,) = collect(small(data={"name": "npz", "path": "/nowhere/data.npz"}), [])
    assert files == {}
    assert note == "data.path: /nowhere/data.npz is not here; it must be on the cluster's machines"


def test_a_package_is_the_same_for_the_same_files_and_too_much_is_refused(here: Path) -> None:
    files, _ = collect(small(link={"name": "trace", "folder": "traces"}), [])
    for name in ("one.zip", "two.zip"):
        pack(files, "rounds: 3\n", here / name, 10_000)
    assert (here / "one.zip").read_bytes() == (here / "two.zip").read_bytes()
    with zipfile.ZipFile(here / "one.zip") as package:
        assert package.read(EXPERIMENT) == b"rounds: 3\n"
        assert package.read("traces/a.up") == (here / "traces" / "a.up").read_bytes()
    with pytest.raises(ConfigError, match=r"traces/a.* compressed, 300 B are allowed"):
        pack(files, "rounds: 3\n", here / "three.zip", 300)


def test_what_is_staged_runs_by_itself_whatever_else_is_installed(tmp_path: Path) -> None:
    folders = stage(tmp_path)
    assert not list(tmp_path.rglob("__pycache__"))
    script = "import tightwire, tightwire_actors, tightwire_pipelines, sys; print(tightwire.__file__)"
    path = ":".join([str(tmp_path), *map(str, folders)])
    done = subprocess.run([sys.executable, "-c", script], env={"PYTHONPATH": path}, capture_output=True, check=True)
    assert done.stdout.decode().startswith(str(tmp_path))


@pytest.mark.parametrize(
    ("wanted", "complaint"),
    [
        (Submission(None), "submit needs an experiment file"),
        (Submission(Path("small.yaml"), ("rouds=3",)), "did you mean rounds?"),
        (Submission(None, ("rounds",), resume="job"), "should be key=value"),
        (Submission(Path("small.yaml"), out="here"), "--out here: is a folder on the cluster's head node"),
        (Submission(None, resume="runs/here"), "--resume runs/here: is a folder on the cluster's head node"),
        (Submission(None, out="/a", resume="job"), "--out /a: a run that is resumed stays in its folder"),
        (Submission(Path("small.yaml"), ("link.folder=../traces",)), "link.folder: ../traces leads out of"),
        (Submission(Path("small.yaml"), include=(Path("no"),)), "--include no: there is no such file"),
    ],
)
def test_what_cannot_be_run_is_refused_before_a_cluster_is_looked_for(
    here: Path, wanted: Submission, complaint: str
) -> None:
    (here / "small.yaml").write_text(json.dumps({**SMALL, "link": {"name": "trace", "folder": "traces"}}))
    with pytest.raises(ConfigError, match=complaint.replace("?", r"\?")):
        submit(wanted, Console(file=io.StringIO()))


def test_the_command_survives_a_shell() -> None:
    wanted = Submission(Path("x.yaml"), workers=3)
    words = shlex.split(command(wanted, "~/my runs/it's", "INTERPRETER"))
    assert words[-2:] == ["--out", "~/my runs/it's"]
    assert words[words.index("run") + 1 : -2] == [EXPERIMENT, "--events", "--workers", "3"]
    assert "~/'my runs" in command(wanted, "~/my runs/it's", "INTERPRETER"), "the shell's own home"
    again = shlex.split(command(Submission(None, ("name=a b",), resume="j"), "/out", "INTERPRETER"))
    assert again[again.index("run") + 1 :] == ["--events", "--set", "name=a b", "--resume", "/out"]


def test_a_tracking_server_is_passed_on_and_a_file_is_not() -> None:
    tracked = configs.parse({})
    server = {"MLFLOW_TRACKING_URI": "https://ml.example", "MLFLOW_TRACKING_TOKEN": "t", "HOME": "/home/me"}
    passed, notes = mlflow_environment(server, tracked)
    assert (passed, notes) == ({"MLFLOW_TRACKING_URI": "https://ml.example", "MLFLOW_TRACKING_TOKEN": "t"}, [])
    for uri in ("sqlite:///x.db", "file:///x", "mlruns"):
        passed, (note,) = mlflow_environment({"MLFLOW_TRACKING_URI": uri}, tracked)
        assert passed == {}
        assert uri in note
    assert mlflow_environment({"MLFLOW_TRACKING_URI": "databricks"}, tracked)[0] != {}
    passed, (note,) = mlflow_environment({"MLFLOW_TRACKING_URI": "http://localhost:5000"}, tracked)
    assert "head node itself" in note
    assert mlflow_environment(server, small()) == ({}, []), "tracked nowhere"


def test_a_run_that_is_told_in_lines_is_read_back_as_it_was(tmp_path: Path) -> None:
    stream, quiet = io.StringIO(), Quiet()
    run = run_here(small(rounds=2), tmp_path / "run", listener=quiet)
    stream.write("Runtime env is setting up.\nwithout an end ")
    told = Events(stream)
    told.opened(name="small", rounds=2, text="digits", folder=tmp_path, begun=lambda: None)
    told.restored(quiet.records[:1])
    stream.write("somebody else\n")
    told.round(quiet.records[1])
    told.ended(run, [], "nowhere")
    lines = [*stream.getvalue().splitlines(), '{"tightwire": "round", "n": 4, "rec']
    events = read(lines)
    assert [(event.kind, event.n) for event in events] == [("opened", 0), ("restored", 1), ("round", 2), ("ended", 3)]
    assert record(events[1].told["records"][0]) == quiet.records[0]
    assert record({**events[2].told["record"], "of_another_version": 1}) == quiet.records[1]
    assert ended(events[3].told) == run
    assert rest(lines) == ["Runtime env is setting up.", "somebody else"]


def test_what_is_not_finite_is_told_as_json_can(tmp_path: Path) -> None:
    stream = io.StringIO()
    run = run_here(small(rounds=1), tmp_path / "run")
    assert run.summary is not None
    object.__setattr__(run.summary, "accuracy", math.nan)
    Events(stream).ended(run, [], "")
    assert "NaN" not in stream.getvalue()
    (event,) = read(stream.getvalue().splitlines())
    back = ended(event.told).summary
    assert back is not None
    assert math.isnan(back.accuracy)
