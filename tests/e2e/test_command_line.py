"""The command line, started as a user starts it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import psutil
import pytest

from clusters import SUPPORT
from gated import GATE
from tightwire_pipelines.cli import main

EXPERIMENT = """
name: tiny
rounds: 6
model: {name: mlp, hidden: [16]}
training: {epochs: 1, batch: 10, lr: 0.1}
population: {clients: 20}
participation: {cohort: 8}
checkpoints: {every: 2}
"""
UNTRACKED = ("--set", "tracking={to: nowhere, plots: false}")
"""What a run is told whose test is about neither MLflow, which takes seconds to make its store, nor plots."""
LONG = EXPERIMENT.replace("rounds: 6", "rounds: 30").replace(
    "{name: mlp, hidden: [16]}", "{name: custom, function: gated:model}"
)
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
ENVIRONMENT["PYTHONPATH"] = os.pathsep.join(filter(None, [SUPPORT, ENVIRONMENT.get("PYTHONPATH")]))


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "tightwire_pipelines", *words]


def tightwire(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The command, in a process of its own."""
    return subprocess.run(
        command(*words), cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=240, check=False
    )


Here: TypeAlias = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Here:
    """The command, in this process, which has everything loaded already."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(folder)

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["tightwire", *words])
            patch.setattr(sys, "path", [*sys.path])  # the command adds the working folder
            capsys.readouterr()
            try:
                main()
                code = 0
            except SystemExit as left:
                code = int(left.code or 0)
        return subprocess.CompletedProcess(words, code, *capsys.readouterr())

    return call


def summary(folder: Path, run: str = "latest") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "runs" / run / "summary.json").read_text())
    return found


def wait_for(path: Path, process: "subprocess.Popen[bytes]", pattern: str) -> None:
    """Until a file that matches appears below `path`."""
    end = time.monotonic() + 120
    while not list(path.glob(pattern)):
        assert process.poll() is None, "it ended too early"
        assert time.monotonic() < end, f"no {pattern} in {path}"
        time.sleep(0.05)


def wait_for_run_id(path: Path, process: "subprocess.Popen[bytes]") -> str:
    """Until the tracking server has given the run an id."""
    wait_for(path.parent, process, path.name)
    end = time.monotonic() + 120
    while (run_id := json.loads(path.read_text())["run_id"]) is None:
        assert process.poll() is None, "it ended too early"
        assert time.monotonic() < end, f"no run id in {path}"
        time.sleep(0.05)
    return str(run_id)


def kill_with_all_children(process: "subprocess.Popen[bytes]") -> None:
    family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for member in family:
        member.kill()
    psutil.wait_procs(family, timeout=30)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tiny.yaml").write_text(EXPERIMENT)
    (tmp_path / "long.yaml").write_text(LONG)
    return tmp_path


def test_a_run_leaves_everything_it_promises(folder: Path, here: Here) -> None:
    done = tightwire(folder, "run", "tiny.yaml", "--workers", "2")
    assert done.returncode == 0, done.stderr
    run = folder / "runs" / "latest"
    for name in ("config.yaml", "ledger.parquet", "decisions.parquet", "rounds.parquet", "model.safetensors"):
        assert (run / name).stat().st_size > 0
    assert len(list((run / "plots").glob("*.png"))) >= 3
    found = summary(folder)
    for key in [
        "rounds",
        "clients",
        "cohort",
        "accuracy",
        "best_accuracy",
        "bytes_up",
        "bytes_down",
        "bytes_up_fp32",
        "bytes_down_fp32",
        "bytes_wasted",
        "sim_seconds",
        "energy_joules",
        "wall_seconds",
        "workers",
        "seed",
        "digest",
        "mlflow_run_id",
    ]:
        assert found[key] is not None, key
    assert found["workers"] == 2
    assert found["digest"] in done.stderr
    in_process = here("run", "tiny.yaml", "--in-process", "--out", "elsewhere", "--json", *UNTRACKED)
    assert in_process.returncode == 0, in_process.stderr
    assert json.loads(in_process.stdout)["digest"] == found["digest"]
    assert in_process.stdout == (folder / "elsewhere" / "summary.json").read_text()
    assert (folder / "runs" / "latest").readlink() == Path("../elsewhere")
    again = here("run", "--resume", "tiny", "--in-process", "--json")
    assert again.returncode == 0, again.stderr
    assert (folder / "runs" / "latest").readlink() == Path("tiny")


def test_after_kill_9_of_everything_a_resume_ends_in_the_undisturbed_digest_and_the_same_mlflow_run(
    folder: Path, here: Here
) -> None:
    undisturbed = here("run", "long.yaml", "--in-process", "--out", "undisturbed", "--json", *UNTRACKED)
    assert undisturbed.returncode == 0, undisturbed.stderr
    process = subprocess.Popen(
        command("run", "long.yaml", "--in-process"), cwd=folder, env=ENVIRONMENT, stderr=subprocess.DEVNULL
    )
    run = folder / "runs" / "tiny"
    wait_for(run, process, "checkpoint/manifest-*4.json")
    (folder / GATE).touch()  # or it might end before it is killed
    before = wait_for_run_id(run / "mlflow.json", process)
    kill_with_all_children(process)
    process.wait()
    (folder / GATE).unlink()
    assert not (run / "summary.json").exists(), "the run was over before it was killed"
    resumed = tightwire(folder, "run", "--resume", "tiny", "--workers", "2")
    assert resumed.returncode == 0, resumed.stderr
    assert summary(folder, "tiny")["digest"] == json.loads(undisturbed.stdout)["digest"]
    assert summary(folder, "tiny")["mlflow_run_id"] == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_sigterm_save_a_checkpoint_and_say_how_to_go_on(
    folder: Path, here: Here, number: signal.Signals
) -> None:
    process = subprocess.Popen(
        command("run", "long.yaml", "--in-process", *UNTRACKED), cwd=folder, env=ENVIRONMENT, stderr=subprocess.PIPE
    )
    wait_for(folder / "runs", process, "tiny/checkpoint/manifest-*.json")
    process.send_signal(signal.SIGSTOP)  # or it might end while the other is being refused
    refused = here("run", "--resume", "tiny", "--in-process")
    assert refused.returncode == 2, "two processes must not write the same checkpoints"
    assert "is being run by another process; wait for it or stop it" in refused.stderr
    process.send_signal(number)
    process.send_signal(signal.SIGCONT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr.decode()
    assert b"go on with: tightwire run --resume runs/tiny" in stderr
    assert b"Traceback" not in stderr
    resumed = here("run", "--resume", "runs/tiny", "--in-process", "--json")
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads(resumed.stdout)["rounds"] == 30


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["run", "nowhere.yaml"], "nowhere.yaml: cannot be read"),
        (["run", "tiny.yaml", "--set", "rouds=3"], "rouds: unknown key (received 3); did you mean rounds?"),
        (["run", "tiny.yaml", "--set", "data={name: mnist, folder: /nonexistent}"], "/nonexistent"),
        (["run", "tiny.yaml", "--set", "policy={name: fixed, codec: 'topk(2)'}"], "policy.codec"),
        (["run"], "needs an experiment file"),
        (["run", "--resume", "nothing"], "nothing"),
        (["codec", "measure", "topk(0.1) | unifrom(4)"], "column 13"),
        (["codec", "measure", "uniform(4)", "--input", "nowhere.npy"], "nowhere.npy"),
    ],
)
def test_bad_input_gets_one_line_and_exit_code_2(folder: Path, here: Here, words: list[str], complaint: str) -> None:
    done = here(*words)
    assert done.returncode == 2, done.stderr
    assert complaint in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (folder / "runs").exists()


def test_a_run_that_is_refused_before_its_first_round_leaves_nothing_behind(folder: Path, here: Here) -> None:
    done = here("run", "tiny.yaml", "--address", "127.0.0.1:1")
    assert done.returncode == 2, done.stderr
    assert "127.0.0.1:1" in done.stderr
    assert not list((folder / "runs").iterdir())
    (folder / "runs" / "latest").mkdir()
    done = here("run", "tiny.yaml", "--in-process")
    assert done.returncode == 2, done.stderr
    assert "runs/latest is in the way" in done.stderr
    assert [path.name for path in (folder / "runs").iterdir()] == ["latest"]


def test_schema_is_json_that_names_every_section(here: Here) -> None:
    done = here("schema")
    assert {"data", "policy", "participation"} <= set(json.loads(done.stdout)["properties"])


def test_the_default_run_is_as_previewed_and_nearly_as_good_as_fp32(here: Here) -> None:
    file = str(Path(__file__).resolve().parents[2] / "examples" / "digits.yaml")
    expected = json.loads(here("preview", file, "--json").stdout)
    done = here("run", file, "--in-process", "--json", *UNTRACKED)
    real = json.loads(done.stdout)
    for key in ("bytes_up", "bytes_down", "sim_seconds", "energy_joules"):
        assert expected[key] == pytest.approx(real[key], rel=0.1), key
    assert real["bytes_up_fp32"] > 8 * real["bytes_up"]
    plain = ("--set", "policy={name: fixed, codec: none}", "--out", "fp32")
    fp32 = here("run", file, "--in-process", "--json", *UNTRACKED, *plain)
    assert real["accuracy"] > json.loads(fp32.stdout)["accuracy"] - 0.01
