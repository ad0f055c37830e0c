from pathlib import Path

import pytest

from made_up import write_trial
from tightwire.studies.comparison import SECONDS, UP, Comparison, compare
from tightwire.studies.findings import MINUS, findings, percent, points
from tightwire.studies.outcomes import load_trials


def compared(folder: Path, target: float | None = None) -> Comparison:
    return compare(load_trials(folder).trials, target)


def said(comparison: Comparison) -> str:
    return " ".join(findings(comparison))


def write(folder: Path, seeds: int, *, spreads: tuple[int, ...] = ()) -> None:
    """A fixed codec, one that is worse on purpose, a policy that is as good, and one that saves bytes and time."""
    for seed in range(seeds):
        for spread in spreads or (1,):
            axes = {"spread": spread} if spreads else {}
            write_trial(folder, "fixed", seed, axes=axes, seconds=60.0 * spread)
            write_trial(folder, "worse on purpose", seed, axes=axes, accuracy=0.7, seconds=60.0 * spread)
            write_trial(folder, "equal", seed, axes=axes, policy="equal", seconds=60.0 * spread)
            write_trial(folder, "saver", seed, axes=axes, policy="saver", frame=300, seconds=40.0)


def test_worse_on_purpose_comes_out_as_worse_and_equal_ones_as_undecided(tmp_path: Path) -> None:
    write(tmp_path, 5)
    (panel,) = compared(tmp_path).panels
    reference = panel.find("fixed")
    assert reference is not None
    accuracy = panel.against(reference, None)
    assert accuracy["worse on purpose"].verdict == "worse"
    assert accuracy["equal"].verdict == "undecided"
    assert accuracy["saver"].verdict == "undecided"
    for cost in (UP, SECONDS):
        assert panel.against(reference, cost)["equal"].verdict == "undecided"
        assert panel.against(reference, cost)["saver"].verdict == "better"
        assert panel.against(reference, cost)["worse on purpose"].verdict != "better"
    text = said(compared(tmp_path))
    assert "worse on purpose” (" in text
    assert "saver saves" in text
    assert "equal is undecided" in text


def test_who_missed_the_target_is_said_to_have(tmp_path: Path) -> None:
    for seed in range(3):
        write_trial(tmp_path, "fixed", seed)
        write_trial(tmp_path, "tiny", seed, policy="tiny", accuracy=0.4, frame=50, seconds=10.0)
    text = said(compared(tmp_path))
    assert text.count("tiny missed the target") == 2
    assert "tiny saves" not in text


def test_who_reached_the_target_is_not_said_to_have_missed_it_where_the_reference_did(tmp_path: Path) -> None:
    for seed in range(3):
        write_trial(tmp_path, "fixed", seed, accuracy=0.4)
        write_trial(tmp_path, "good", seed, policy="good", frame=1000 * 30**seed)
    text = said(compared(tmp_path, 0.6))
    assert "good missed" not in text
    assert "good is undecided, for what it is compared with missed the target" in text


def test_a_range_of_differences_goes_from_least_to_most(tmp_path: Path) -> None:
    for seed in range(4):
        for spread, accuracy in ((1, 0.7), (2, 0.5), (4, 0.6)):
            write_trial(tmp_path, "fixed", seed, axes={"spread": spread}, noise=0.0)
            write_trial(tmp_path, "p", seed, axes={"spread": spread}, policy="p", accuracy=accuracy, noise=1e-5)
    assert f"p ({MINUS}38.1" in said(compared(tmp_path, 0.3))


def test_differences_are_written_with_their_sign_and_nought_without_minus() -> None:
    assert points(-0.00001) == "+0.00"
    assert points(-0.0123) == "\N{MINUS SIGN}1.23"
    assert percent(-0.01) == "+0.0 %"
    assert percent(12.3) == "+12 %"


def test_two_runs_of_the_same_thing_differ_in_nothing(tmp_path: Path) -> None:
    for seed in range(4):
        write_trial(tmp_path, "one", seed, noise=0.0)
        write_trial(tmp_path, "two", seed, noise=0.0)
    (panel,) = compared(tmp_path).panels
    for cost in (None, UP, SECONDS):
        (found,) = panel.against(panel.variations[0], cost).values()
        assert found.difference.mean == pytest.approx(0.0, abs=1e-12)
        assert found.verdict == "undecided"


@pytest.mark.parametrize(("seeds", "words"), [(1, "one seed"), (2, "Two seeds"), (3, "3 seeds are few")])
def test_few_seeds_are_owned_up_to(tmp_path: Path, seeds: int, words: str) -> None:
    write(tmp_path, seeds)
    text = said(compared(tmp_path))
    assert words in text
    if seeds < 3:
        assert "saves" not in text.replace("saves and costs", "")
        assert "worse on purpose” (" not in text


def test_one_seed_has_no_brackets(tmp_path: Path) -> None:
    write(tmp_path, 1)
    text = said(compared(tmp_path))
    assert "[" not in text
    assert "±" not in text
    assert "nothing here is certain" in text


def test_a_target_that_nobody_reaches_is_said(tmp_path: Path) -> None:
    write(tmp_path, 3)
    assert "No variation reached 99 %" in said(compared(tmp_path, 0.99))


def test_a_grid_is_compared_point_by_point(tmp_path: Path) -> None:
    write(tmp_path, 4, spreads=(1, 4, 2))
    comparison = compared(tmp_path)
    assert [panel.axes["spread"] for panel in comparison.panels] == [1, 2, 4]
    savings = [
        -panel.against(panel.reference(SECONDS), SECONDS)["saver"].difference.mean for panel in comparison.panels
    ]
    assert savings == sorted(savings)
    text = said(comparison)
    assert "at spread = 4" in text
    assert "is undecided everywhere" in text


def test_what_is_compared_with_is_the_best_fixed_codec_unless_a_baseline_is_named(tmp_path: Path) -> None:
    write(tmp_path, 3)
    trials = load_trials(tmp_path).trials
    assert compare(trials).panels[0].reference(UP).name == "fixed"
    assert compare(trials, baseline="saver").panels[0].reference(UP).name == "saver"
    text = " ".join(findings(compare(trials, baseline="saver")))
    assert "against the baseline (saver" in text


def test_the_oracle_is_a_bound_and_no_winner(tmp_path: Path) -> None:
    write(tmp_path, 4)
    for seed in range(4):
        write_trial(tmp_path, "all-seeing", seed, policy="oracle", seconds=20.0)
    comparison = compared(tmp_path)
    oracle = comparison.panels[0].oracle
    assert oracle is not None
    assert oracle.name == "all-seeing"
    text = said(comparison)
    assert "sees the links' future" in text
    assert "all-seeing" not in text


def test_the_usual_target_is_within_reach_and_one_variation_alone_is_not_compared(tmp_path: Path) -> None:
    for seed in range(3):
        write_trial(tmp_path, "alone", seed)
    comparison = compared(tmp_path)
    (variation,) = comparison.panels[0].variations
    assert variation.to_target(UP, comparison.target).reached == 3
    assert "nothing to compare it with" in said(comparison)


def test_the_hypervolume_is_a_share_and_grows_with_what_is_better(tmp_path: Path) -> None:
    write(tmp_path, 3)
    (panel,) = compared(tmp_path).panels
    shares = {variation.name: panel.hypervolume(variation, UP).mean for variation in panel.variations}
    assert 0 < shares["worse on purpose"] < shares["fixed"] < shares["saver"] < 1
