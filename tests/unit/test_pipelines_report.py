import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import plotly.graph_objects as go
import pytest
import yaml
from rich.console import Console
from safetensors import SafetensorError

from made_up import write_trial
from tightwire.errors import ConfigError, TrackingError
from tightwire.studies.comparison import COSTS, compare
from tightwire.studies.outcomes import Missing, load_trials
from tightwire.tracking.folder import RunFolder
from tightwire_pipelines import report_content
from tightwire_pipelines.report import report_runs, write_report
from tightwire_pipelines.report_charts import CurveChart, log_ticks
from tightwire_pipelines.report_figures import figure
from tightwire_pipelines.report_mlflow import _below, _folder_name, _from_metrics
from tightwire_pipelines.report_page import Report, page
from tightwire_pipelines.report_sections import headline, sections

PNG = b"\x89PNG"


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests about the page alone: the PNGs beside it take most of the time."""
    monkeypatch.setattr("tightwire_pipelines.report.draw", lambda *_: [])


def a_study(folder: Path, *, seeds: int = 3, spreads: tuple[float | str, ...] = ()) -> Path:
    for seed in range(seeds):
        for spread in spreads or ("",):
            axes = {"spread": spread} if spreads else {}
            write_trial(folder, "fixed <b>", seed, axes=axes, rounds=8)
            write_trial(folder, "poor", seed, axes=axes, accuracy=0.5, rounds=8)
            write_trial(folder, "policy", seed, axes=axes, policy="budget", frame=400, rounds=8)
            write_trial(folder, "seer", seed, axes=axes, policy="oracle", frame=300, seconds=30.0, rounds=8)
    return folder


def figures_of(page: str) -> dict[str, dict[str, list[dict[str, object]]]]:
    found = re.search(r'<script type="application/json" id="figures">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    figures: dict[str, dict[str, list[dict[str, object]]]] = json.loads(found[1])
    return figures


@pytest.mark.parametrize("spreads", [(), (1, 4), ("narrow", "wide")])
@pytest.mark.parametrize("seeds", [1, 3])
def test_every_figure_is_one_that_plotly_accepts(tmp_path: Path, seeds: int, spreads: tuple[float | str, ...]) -> None:
    trials = load_trials(a_study(tmp_path, seeds=seeds, spreads=spreads)).trials
    comparison = compare(trials)
    drawn = 0
    for section in sections(comparison):
        for charts in section.charts.values():
            for chart in charts:
                made = go.Figure(figure(chart, comparison.names))
                assert made.layout.xaxis.title.text
                drawn += len(made.data)
    assert drawn > 50


def test_a_report_is_one_file_that_fetches_nothing_and_pictures_beside_it(tmp_path: Path) -> None:
    trials = load_trials(a_study(tmp_path / "study")).trials
    path = write_report(tmp_path / "out", trials, "A <title>", None, missing=[Missing("lost-1", "failed: no <memory>")])
    text = path.read_text(encoding="utf-8")
    assert path == tmp_path / "out" / "report.html"
    assert "default-src 'none'" in text
    assert not re.search(r"<(script|img|link|iframe)[^>]*\s(src|href)=", text)
    assert text.count("plotly.js v") == 1
    assert "<h1>A &lt;title&gt;</h1>" in text
    assert "failed: no &lt;memory&gt;" in text
    assert "fixed <b>" not in text.split("<script")[0]
    pictures = sorted(path.name for path in (tmp_path / "out").glob("*.png"))
    assert pictures == [f"report-{name}.png" for name in ("decisions", "differences", "pareto", "target", "tiers")]
    assert all((tmp_path / "out" / name).read_bytes().startswith(PNG) for name in pictures)


def test_the_page_has_what_a_reader_asks_for(tmp_path: Path) -> None:
    folder = a_study(tmp_path, spreads=(1, 4))
    text = write_report(tmp_path / "out", load_trials(folder).trials, "t", 0.6).read_text(encoding="utf-8")
    keys = set(figures_of(text))
    assert keys == {
        *("headline", "pareto", "target", "differences", "regret", "hypervolume", "tiers", "decisions"),
    }
    for key in (*keys, "table", "provenance"):
        assert f'<section id="{key}"' in text
    assert "The target is 60 % test accuracy (asked for)" in text
    assert "spread = 4" in text
    assert "00" * 32 in text
    assert (tmp_path / "out" / "report-headline.png").is_file()
    assert (tmp_path / "out" / "report-pareto-spread-4.png").is_file()


@pytest.mark.usefixtures("no_pictures")
def test_a_page_follows_from_its_trials_alone(tmp_path: Path) -> None:
    comparison = compare(load_trials(a_study(tmp_path, seeds=2)).trials)
    first, second = (page(Report("t", comparison, tuple(sections(comparison)))) for _ in range(2))
    assert first == second


def test_a_figure_hides_no_variation(tmp_path: Path) -> None:
    trials = load_trials(a_study(tmp_path)).trials
    comparison = compare(trials)
    for cost in COSTS:
        made = figure(report_content.pareto(comparison.panels[0], cost), comparison.names)
        named = {trace["meta"]["variation"] for trace in made["data"]}
        assert named >= set(comparison.names)


def test_a_variation_that_missed_the_target_is_not_shown_as_saving(tmp_path: Path) -> None:
    for seed in range(3):
        for spread in (1, 2):
            write_trial(tmp_path, "fixed", seed, axes={"spread": spread}, rounds=8)
            write_trial(
                tmp_path, "tiny", seed, axes={"spread": spread}, policy="tiny", accuracy=0.4, frame=50, rounds=8
            )
    comparison = compare(load_trials(tmp_path).trials)
    chart = report_content.savings(comparison.panels, comparison.names, "spread", COSTS[0])
    assert [series.name for series in chart.series] == []
    assert "missed the target: tiny" in chart.note


def test_runs_without_evaluation_decisions_or_tiers_still_make_a_report(tmp_path: Path) -> None:
    from dataclasses import replace

    trials = [
        replace(trial, tiers={}, choices={}, curve=replace(trial.curve, accuracy=trial.curve.accuracy * np.nan))
        for trial in load_trials(a_study(tmp_path)).trials
    ]
    text = write_report(tmp_path / "out", trials, "t", None).read_text(encoding="utf-8")
    assert "No run was ever evaluated" in text


@pytest.mark.usefixtures("no_pictures")
def test_report_takes_studies_and_runs(tmp_path: Path) -> None:
    study = a_study(tmp_path / "study")
    (study / "study.yaml").write_text(
        yaml.safe_dump({"name": "ours", "target": 0.55, "report": {"title": "What pays"}})
    )
    console = Console(quiet=True)
    text = report_runs([str(study)], tmp_path / "a", None, console).read_text(encoding="utf-8")
    assert "<h1>What pays</h1>" in text
    assert "The target is 55 % test accuracy" in text
    runs = sorted((study / "trials").iterdir())
    text = report_runs([str(run) for run in runs], tmp_path / "b", 0.7, console).read_text(encoding="utf-8")
    assert "The target is 70 % test accuracy" in text
    assert "budget" in text


@pytest.mark.usefixtures("no_pictures")
def test_a_run_named_twice_counts_once_and_studies_with_other_axes_go_together(tmp_path: Path) -> None:
    one, two = a_study(tmp_path / "one"), a_study(tmp_path / "two", seeds=1, spreads=(1,))
    console = Console(record=True, width=300, quiet=False, file=io.StringIO())
    text = report_runs([str(one), str(one), str(two)], tmp_path / "out", None, console).read_text(encoding="utf-8")
    assert "(16 runs)" in text
    assert "12 trials are not in this report" in text
    assert "spread = none" in text


@pytest.mark.usefixtures("no_pictures")
def test_variations_of_two_studies_are_told_apart_by_the_names_of_these(tmp_path: Path) -> None:
    one, two = a_study(tmp_path / "a" / "one"), a_study(tmp_path / "b" / "one", seeds=1)
    console = Console(quiet=True)
    text = report_runs([str(one), str(two)], tmp_path / "out", None, console).read_text(encoding="utf-8")
    assert "8 variations" in text
    assert "(16 runs)" in text
    assert "a/one: poor" in text
    assert "b/one: poor" in text


def test_all_trials_of_a_large_study_are_read_from_mlflow_page_by_page() -> None:
    class Server:
        def search_runs(self, _: object, __: str, *, max_results: int, page_token: str | None) -> list[int]:
            begin = int(page_token or 0)
            found = type("Page", (list,), {})(range(begin, min(begin + max_results, 2500)))
            found.token = str(begin + max_results) if begin + max_results < 2500 else None
            return found  # type: ignore[no-any-return]  # made here

    run = SimpleNamespace(info=SimpleNamespace(run_id="r", experiment_id="0"))
    assert _below(Server(), run) == list(range(2500))  # type: ignore[arg-type,comparison-overlap]  # as MLflow's


@pytest.mark.parametrize(
    ("file", "content"), [("config.yaml", "seed: x"), ("summary.json", "[1"), ("rounds.parquet", "PAR1")]
)
def test_a_damaged_run_is_one_line(tmp_path: Path, file: str, content: str) -> None:
    run = write_trial(tmp_path, "fixed", 0)
    (run / file).write_text(content)
    with pytest.raises(TrackingError, match=re.escape(file)) as caught:
        report_runs([str(run)], tmp_path / "out", None, Console(quiet=True))
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("no_pictures")
def test_a_damaged_model_costs_the_report_only_the_accuracy_by_tier(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(_: Path) -> dict[str, float]:
        raise SafetensorError("header too small")

    monkeypatch.setattr("tightwire_pipelines.report_tiers.measure", damaged)
    run = write_trial(tmp_path, "fixed", 0)
    (run / "tier_accuracy.json").unlink()
    assert report_runs([str(run)], tmp_path / "out", None, Console(quiet=True)).is_file()


def test_no_interval_of_an_accuracy_goes_beyond_all_and_nothing(tmp_path: Path) -> None:
    for seed in range(2):
        write_trial(tmp_path, "fixed", seed, accuracy=0.99, noise=0.01)
        write_trial(tmp_path, "wild", seed, policy="wild", accuracy=0.6, noise=0.3)
    (panel,) = compare(load_trials(tmp_path).trials).panels
    wild = panel.find("wild")
    assert wild is not None
    assert wild.attained(COSTS[0], np.array([1e9]))[2][0] > 1
    for series in report_content.pareto(panel, COSTS[0]).series:
        if series.low is not None and series.high is not None:
            assert np.nanmin(series.low) >= 0
            assert np.nanmax(series.high) <= 100
    charts = [report_content.who_paid(panel, what) for what in ("participation", "accuracy")]
    for chart in (*charts, report_content.hypervolume(panel, COSTS[0])):
        ends = [end for row in chart.rows for mark in row.marks for end in (mark.low, mark.high)]
        assert 0 <= min(ends) <= max(ends) <= 100


def test_a_named_baseline_is_what_the_headline_says_savings_are_against(tmp_path: Path) -> None:
    trials = load_trials(a_study(tmp_path, spreads=(1, 4))).trials
    for baseline, words in ((None, "the best that is fixed there"), ("poor", "the baseline, poor")):
        found = headline(compare(trials, 0.4, baseline=baseline))
        assert words in found.text
    (charts,) = found.charts.values()
    assert isinstance(charts[0], CurveChart)
    assert charts[0].line_text == "poor"


@pytest.mark.parametrize(("names", "folders"), [(["a", "b"], ["a", "b"]), (["a", "A"], "01"), (["../x", ""], "01")])
def test_runs_of_mlflow_get_folders_of_their_own(names: list[str], folders: Sequence[str]) -> None:
    runs = [SimpleNamespace(info=SimpleNamespace(run_name=name, run_id=str(at))) for at, name in enumerate(names)]
    assert [_folder_name(run, runs) for run in runs] == list(folders)  # type: ignore[arg-type]  # as MLflow's


def test_a_run_of_mlflow_that_never_finished_is_refused(tmp_path: Path) -> None:
    client = SimpleNamespace(get_metric_history=lambda *_: [SimpleNamespace(step=1, value=0.5)])
    run = SimpleNamespace(info=SimpleNamespace(run_id="r", status="RUNNING"))
    with pytest.raises(ConfigError, match=r"has not finished \(it is RUNNING\)"):
        _from_metrics(client, run, RunFolder(tmp_path))  # type: ignore[arg-type]  # as MLflow's


def test_what_cannot_be_reported_on_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    console = Console(quiet=True)
    for runs, words in (
        ([], "report needs runs"),
        (["nowhere"], "nowhere is neither the folder"),
        (["0" * 32], "no MLflow store"),
    ):
        with pytest.raises(ConfigError, match=words):
            report_runs(runs, tmp_path / "out", None, console)
    with pytest.raises(ConfigError, match=r"--target 90: should be"):
        report_runs(["x"], tmp_path / "out", 90.0, console)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "mlflow.db").exists()


def test_ticks_of_a_logarithmic_axis_lie_on_it_and_are_few() -> None:
    assert log_ticks(0.9, 60) == [1, 2, 5, 10, 20, 50]
    for low, high in ((3, 4), (1, 1e3), (0.01, 1e6)):
        ticks = log_ticks(low, high)
        assert all(low <= tick <= high for tick in ticks)
        assert len(ticks) <= 10
