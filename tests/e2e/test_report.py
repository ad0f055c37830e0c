"""Reports on real runs, from their folders and from MLflow, as a browser shows them."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from rich.console import Console

from scenarios import run_here, small
from tightwire.studies.comparison import Comparison, compare
from tightwire.studies.outcomes import load_trials
from tightwire.tracking.outbox import SendState
from tightwire.tracking.sync import sync
from tightwire_pipelines.report import report_runs

GOOD = "topk(0.2) | uniform(6) | rans"
CODECS = {"good": GOOD, "as good": "topk(0.2) | uniform(6)", "worse on purpose": "topk(0.002) | uniform(2)"}
SEEDS = range(3)
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine real runs on digits: two codecs that decode to the same, and one that is worse on purpose."""
    folder = tmp_path_factory.mktemp("study")
    for seed in SEEDS:
        for name, codec in CODECS.items():
            trial = folder / "trials" / f"{name.replace(' ', '-')}-{seed}"
            config = small(
                seed=seed,
                rounds=8,
                policy={"name": "fixed", "codec": codec},
                deadline=None,
                participation={"cohort": 8, "over": 0, "drop": 0},
                population={"clients": 20, "tiers": {"mid-phone-wifi": 1, "old-phone-lte": 1}},
            )
            run_here(config, trial)
            (trial / "trial.json").write_text(json.dumps({"variation": name, "axes": {}, "seed": seed}))
    return folder


@pytest.fixture(scope="module")
def page(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report_runs([str(study)], tmp_path_factory.mktemp("report"), None, Console(quiet=True))


def compared(study: Path) -> Comparison:
    return compare(load_trials(study).trials)


def test_a_codec_that_is_worse_on_purpose_comes_out_worse_and_an_equal_one_undecided(study: Path, page: Path) -> None:
    (panel,) = compared(study).panels
    good = panel.find("good")
    assert good is not None
    accuracy = panel.against(good, None)
    assert accuracy["worse on purpose"].verdict == "worse"
    assert accuracy["as good"].verdict == "undecided"
    assert accuracy["as good"].difference.mean == 0.0
    assert "“worse on purpose” (" in page.read_text(encoding="utf-8")


def test_accuracy_is_told_by_device_tier(study: Path, page: Path) -> None:
    assert page.is_file()
    for trial in load_trials(study).trials:
        shares = {tier: share.accuracy for tier, share in trial.tiers.items()}
        assert set(shares) == {"mid-phone-wifi", "old-phone-lte"}
        assert all(share is not None and 0 < share < 1 for share in shares.values())


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")
@pytest.mark.parametrize("width", [1280, 500])
def test_a_browser_draws_the_page_without_a_network(page: Path, tmp_path: Path, width: int) -> None:
    assert CHROMIUM is not None
    done = subprocess.run(
        [
            *(CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND"),
            *(f"--user-data-dir={tmp_path}", f"--window-size={width},12000", "--virtual-time-budget=20000"),
            *("--dump-dom", page.as_uri()),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    drawn = done.stdout.rpartition("<script type=")[0]
    for section in ("pareto", "target", "differences", "hypervolume", "tiers", "decisions"):
        part = drawn.split(f'<section id="{section}"')[1].split("</section>")[0]
        assert part.count('class="main-svg"') >= 3, section
    assert not re.search(r"NaN", " ".join(re.findall(r'transform="[^"]*"', drawn)))


def test_runs_can_be_taken_from_mlflow(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/store.db")
    ids = []
    for name in ("good-0", "worse-on-purpose-0"):
        folder = tmp_path / "runs" / name
        shutil.copytree(study / "trials" / name, folder)
        sync(folder)
        ids.append(str(SendState.load(folder / "mlflow.json").run_id))
    page = report_runs(ids, tmp_path / "report", None, Console(quiet=True)).read_text(encoding="utf-8")
    assert f"fixed {GOOD}" in page
    digest = json.loads((study / "trials" / "good-0" / "summary.json").read_text())["digest"]
    assert digest in page
