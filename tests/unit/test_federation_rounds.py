"""Whole rounds in one process: the bill, refusals, and what is carried from round to round."""

import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest

from scenarios import Quiet, digest_of, run_here, small
from tightwire.arrays import Flat
from tightwire.codecs.codec import fp32_frame_length
from tightwire.federation.pool import InProcessPool
from tightwire.federation.records import DecisionRow, LedgerRow, RoundRecord
from tightwire.federation.server import ServerState
from tightwire.federation.tables import read_rows
from tightwire.learning.flat import FlatModel
from tightwire.learning.training import Job, Trained, Training, train
from tightwire.simulation import Parts
from tightwire.wire.ledger import SECTIONS

FIXED = {"name": "fixed", "codec": "topk(0.1) | uniform(4) | rans"}


def test_the_bill_adds_up_section_by_section_row_by_row_and_round_by_round(tmp_path: Path) -> None:
    listener = Quiet()
    ended = run_here(small(rounds=6), tmp_path, listener=listener)
    ledger = read_rows(tmp_path / "ledger.parquet", LedgerRow)
    for row in ledger:
        assert sum(getattr(row, section) for section in SECTIONS) == row.bytes
    for record in listener.records:
        rows = [row for row in ledger if row.round == record.round]
        up = [row for row in rows if row.direction == "up"]
        assert sum(row.bytes for row in up) == record.bytes_up
        assert sum(row.bytes for row in rows if row.direction == "down") == record.bytes_down
        assert sum(row.bytes for row in up if row.status != "used") == record.bytes_wasted
        assert sum(row.status == "used" for row in up) == record.participants
    assert ended.summary is not None
    assert ended.summary.bytes_up == sum(row.bytes for row in ledger if row.direction == "up")


def test_uncompressed_uploads_weigh_exactly_what_the_fp32_column_says(tmp_path: Path) -> None:
    config = small(policy={"name": "fixed", "codec": "none"}, deadline=None)
    ended = run_here(config, tmp_path)
    assert ended.summary is not None
    assert ended.summary.bytes_up == ended.summary.bytes_up_fp32
    assert ended.summary.bytes_down == ended.summary.bytes_down_fp32
    assert ended.summary.sim_seconds == pytest.approx(ended.summary.sim_seconds_fp32, rel=0.01)
    ledger = read_rows(tmp_path / "ledger.parquet", LedgerRow)
    assert {row.bytes for row in ledger} == {fp32_frame_length(Parts.load(config).model.schema)}


def test_every_invited_client_has_a_decision_with_a_reason(tmp_path: Path) -> None:
    listener = Quiet()
    run_here(small(), tmp_path, listener=listener)
    decisions = read_rows(tmp_path / "decisions.parquet", DecisionRow)
    assert all(row.reason for row in decisions)
    for record in listener.records:
        taking_part = sum(row.round == record.round for row in decisions)
        assert taking_part == record.cohort - record.refused.get("memory", 0) - record.refused.get("battery", 0)


def test_a_client_whose_memory_is_too_small_is_refused_and_counted(tmp_path: Path) -> None:
    listener = Quiet()
    config = small(
        model={"name": "mlp", "hidden": [2000, 2000]},
        rounds=1,
        population={"clients": 20, "tiers": {"sensor-lora": 1.0}},
    )
    run_here(config, tmp_path, listener=listener)
    assert listener.records[0].refused == {"memory": listener.records[0].cohort}
    assert listener.records[0].bytes_down == 0


def test_a_clients_update_that_is_not_finite_spoils_only_itself(tmp_path: Path) -> None:
    def poisoned(
        model: FlatModel,
        start: Flat,
        jobs: Iterable[Job],
        training: Training,
        *,
        round: int,
        seed: int,
    ) -> Iterator[Trained]:
        for number, result in enumerate(train(model, start, jobs, training, round=round, seed=seed)):
            if number == 0:
                result.update[5] = np.nan
            if number == 1:
                result.update[5] = 1e30
            yield result

    config = small(policy={"name": "fixed", "codec": "none"}, participation={"cohort": 8, "drop": 0.0}, deadline=None)
    parts = Parts.load(config)
    listener = Quiet()
    run_here(config, tmp_path, pool=InProcessPool(parts.runner(poisoned)), listener=listener)
    for record in listener.records:
        assert record.refused["non-finite"] == 1
        assert record.refused["overflow"] == 1
        assert record.participants == record.cohort - sum(record.refused.values())
        assert record.loss is not None
        assert math.isfinite(record.loss)


def test_drop_outs_waste_their_upload_and_keep_their_old_residual() -> None:
    config = small(policy=FIXED, participation={"cohort": 8, "drop": 0.5}, deadline=None)
    parts = Parts.load(config)
    server = parts.server(InProcessPool(parts.runner()))
    state: ServerState[Flat] = parts.start()
    seen_lost = False
    for _ in range(4):
        before = state.residuals
        state, result = server.step(state)
        used = {row.client for row in result.ledger if row.status == "used" and row.direction == "up"}
        for row in result.ledger:
            if row.direction == "up" and row.status == "lost":
                seen_lost = True
                assert state.residuals.get(row.client) is before.get(row.client)
        for client in before.keys() - used:
            assert state.residuals[client] is before[client], "a residual is kept while its client skips rounds"
    assert seen_lost


def test_over_selection_uses_no_more_than_the_cohort_and_counts_the_surplus(tmp_path: Path) -> None:
    listener = Quiet()
    config = small(policy=FIXED, participation={"cohort": 4, "over": 1.0, "drop": 0.0}, deadline=None)
    run_here(config, tmp_path, listener=listener)
    ledger = read_rows(tmp_path / "ledger.parquet", LedgerRow)
    for record in listener.records:
        assert record.participants == 4
        surplus = [row for row in ledger if row.round == record.round and row.status == "surplus"]
        assert len(surplus) == record.cohort - sum(record.refused.values()) - 4
        assert record.bytes_wasted == sum(row.bytes for row in surplus)


def test_a_deadline_makes_slow_uploads_late_and_bounds_the_clock(tmp_path: Path) -> None:
    listener = Quiet()
    config = small(policy={"name": "fixed", "codec": "none"}, deadline=0.5)
    run_here(config, tmp_path, listener=listener)
    assert sum(record.late for record in listener.records) > 0
    assert all(record.seconds <= 0.5 for record in listener.records)
    assert listener.records[-1].bytes_wasted > 0 or sum(r.bytes_wasted for r in listener.records) > 0


def test_a_compressed_downlink_is_cheaper_and_still_learns(tmp_path: Path) -> None:
    plain = run_here(small(rounds=15, deadline=None), tmp_path / "plain").summary
    packed = run_here(
        small(rounds=15, deadline=None, wire={"downlink": "uniform(8) | rans"}), tmp_path / "packed"
    ).summary
    assert plain is not None
    assert packed is not None
    assert packed.bytes_down < 0.75 * plain.bytes_down
    assert packed.accuracy > plain.accuracy - 0.1


def test_a_stopped_run_resumes_to_the_digest_of_an_undisturbed_one(tmp_path: Path) -> None:
    config = small(rounds=7, policy=FIXED)
    undisturbed = run_here(config, tmp_path / "undisturbed")
    stopped = run_here(config, tmp_path / "stopped", stop_after=3)
    assert stopped.summary is None
    resumed = run_here(config, tmp_path / "stopped")
    assert digest_of(resumed) == digest_of(undisturbed)
    for table, row in (("ledger", LedgerRow), ("decisions", DecisionRow)):
        name = f"{table}.parquet"
        assert read_rows(tmp_path / "stopped" / name, row) == read_rows(tmp_path / "undisturbed" / name, row)
    rounds = read_rows(tmp_path / "stopped" / "rounds.parquet", RoundRecord)
    assert [record.round for record in rounds] == list(range(1, 8))
