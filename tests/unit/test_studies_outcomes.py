import json
import math
from pathlib import Path

import pytest
import yaml

from made_up import TIERS, write_trial
from tightwire.errors import ConfigError
from tightwire.federation.records import LedgerRow, RoundRecord
from tightwire.federation.tables import read_rows
from tightwire.studies.naming import name_runs
from tightwire.studies.outcomes import ALL_TIERS, load_runs, load_trial, load_trials


def reconfigure(folder: Path, **changes: object) -> Path:
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump({**yaml.safe_load(config.read_text()), **changes}))
    return folder


def test_a_trial_is_what_its_tables_say(tmp_path: Path) -> None:
    folder = write_trial(tmp_path, "budget", 3, axes={"spread": 4}, policy="budget", rounds=12)
    trial = load_trial(folder)
    rounds = read_rows(folder / "rounds.parquet", RoundRecord)
    ledger = read_rows(folder / "ledger.parquet", LedgerRow)
    assert (trial.variation, trial.axes, trial.seed, trial.policy) == ("budget", {"spread": 4}, 3, "budget")
    assert trial.curve.up[-1] == sum(row.bytes for row in ledger if row.direction == "up")
    assert trial.curve.total[-1] == sum(row.bytes for row in ledger)
    assert trial.curve.seconds[-1] == rounds[-1].sim_seconds
    assert trial.curve.joules[-1] == pytest.approx(sum(record.joules for record in rounds))
    assert trial.curve.final_accuracy == rounds[-1].accuracy
    assert math.isnan(trial.curve.accuracy[0])
    assert len(trial.digest) == 64


def test_tiers_pay_what_their_frames_weigh(tmp_path: Path) -> None:
    folder = write_trial(tmp_path, "a", 0, rounds=6)
    trial = load_trial(folder)
    ledger = read_rows(folder / "ledger.parquet", LedgerRow)
    assert set(trial.tiers) == set(TIERS)
    for tier, share in trial.tiers.items():
        assert share.bytes_up == sum(row.bytes for row in ledger if row.tier == tier and row.direction == "up")
        assert share.bytes_down == sum(row.bytes for row in ledger if row.tier == tier and row.direction == "down")
        assert share.asked == 2 * 6
    assert trial.tiers["sensor-lora"].participation == pytest.approx(2 / 3)
    assert trial.tiers["flagship-5g"].participation == 1.0
    assert trial.tiers["flagship-5g"].bits > trial.tiers["sensor-lora"].bits
    assert trial.tiers["flagship-5g"].accuracy == pytest.approx(0.9)


def test_choices_follow_the_rounds(tmp_path: Path) -> None:
    trial = load_trial(write_trial(tmp_path, "b", 0, policy="budget", rounds=10))
    assert set(trial.choices) == {ALL_TIERS, *TIERS}
    bits = trial.choices[ALL_TIERS].bits
    assert bits.shape == trial.curve.rounds.shape
    assert bits[0] > bits[-1]
    assert (trial.choices[ALL_TIERS].skipped == 0).all()


def test_accuracy_by_tier_of_another_run_is_not_believed(tmp_path: Path) -> None:
    folder = write_trial(tmp_path, "a", 0)
    (folder / "tier_accuracy.json").write_text(json.dumps({"digest": "other", "accuracy": {"sensor-lora": 1.0}}))
    assert all(share.accuracy is None for share in load_trial(folder).tiers.values())


def test_failed_and_unfinished_trials_are_named_and_the_rest_is_read(tmp_path: Path) -> None:
    write_trial(tmp_path, "good", 0)
    (write_trial(tmp_path, "late", 0) / "summary.json").unlink()
    failed = write_trial(tmp_path, "bad", 0)
    (failed / "summary.json").unlink()
    (failed / "error.txt").write_text("the model is too big\n\ntraceback\n")
    broken = write_trial(tmp_path, "torn", 0)
    (broken / "ledger.parquet").write_bytes(b"PAR1")
    (tmp_path / "trials" / "empty").mkdir()
    loaded = load_trials(tmp_path)
    assert [trial.variation for trial in loaded.trials] == ["good"]
    why = {one.name: one.why for one in loaded.missing}
    assert why["bad-0"] == "failed: the model is too big"
    assert why["late-0"] == "has not finished"
    assert "ledger.parquet" in why["torn-0"]
    assert "trial.json" in why["empty"]


def test_a_study_without_a_finished_trial_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no study's folder"):
        load_trials(tmp_path)
    (write_trial(tmp_path, "late", 0) / "summary.json").unlink()
    with pytest.raises(ConfigError, match="none of its 1 trials has finished"):
        load_trials(tmp_path)


def test_variations_come_in_the_order_of_the_study(tmp_path: Path) -> None:
    for name in ("a", "ab", "z, feedback=none"):
        write_trial(tmp_path, name, 0)
    order = ["z", "ab", "a"]
    (tmp_path / "study.yaml").write_text(yaml.safe_dump({"variations": [{"name": name} for name in order]}))
    assert [trial.variation for trial in load_trials(tmp_path).trials] == ["z, feedback=none", "ab", "a"]


def test_tables_with_further_columns_can_be_read(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = write_trial(tmp_path, "a", 0)
    table = pq.read_table(folder / "rounds.parquet")
    pq.write_table(table.append_column("later", pa.array([1] * len(table))), folder / "rounds.parquet")
    assert load_trial(folder).curve.final_accuracy > 0


def test_runs_are_named_by_what_they_differ_in() -> None:
    base = {"name": "x", "seed": "0", "policy.name": "fixed", "policy.codec": "none", "wire.feedback": "classic"}
    named = name_runs(
        [
            base,
            {**base, "seed": "1", "name": "y"},
            {**base, "policy.codec": "topk(0.1)", "wire.feedback": "none"},
            {**base, "population.spread": "4", "policy.name": "budget"},
        ]
    )
    assert named[0] == named[1] == ("fixed none, feedback=classic", {"population.spread": "none"})
    assert named[2][0] == "fixed topk(0.1), feedback=none"
    assert named[3] == ("budget, feedback=classic", {"population.spread": 4})


def test_the_same_run_twice_counts_once(tmp_path: Path) -> None:
    first = write_trial(tmp_path / "1", "a", 0)
    again = write_trial(tmp_path / "2", "again", 0)
    other = reconfigure(write_trial(tmp_path / "3", "b", 0, policy="budget"), name="other")
    loaded = load_runs([first, again, other])
    assert [trial.variation for trial in loaded.trials] == ["fixed", "budget"]
    assert [one.name for one in loaded.missing] == ["again-0"]


def test_what_is_no_run_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no run's folder"):
        load_runs([tmp_path])
    folder = write_trial(tmp_path, "a", 0)
    (folder / "summary.json").unlink()
    with pytest.raises(ConfigError, match=r"has not finished; go on with: tightwire run --resume"):
        load_runs([folder])
