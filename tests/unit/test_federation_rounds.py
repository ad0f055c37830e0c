"""Whole rounds in one process: the bill, refusals, and what is carried from round to round."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from scenarios import Quiet, digest_of, run_here, small
from tightwire.arrays import Flat
from tightwire.codecs.codec import fp32_frame_length
from tightwire.devices.energy import compute_joules, download_joules, idle_joules, tail_joules
from tightwire.devices.links import arrives
from tightwire.errors import ClientError, ConfigError, LedgerError
from tightwire.federation.pool import InProcessPool
from tightwire.federation.records import DecisionRow, LedgerRow, RoundRecord
from tightwire.federation.state import ServerState
from tightwire.federation.store import Kept
from tightwire.federation.tables import read_rows
from tightwire.learning.flat import FlatModel
from tightwire.learning.training import Job, Trained, Training, train
from tightwire.policies import Budget
from tightwire.policies.base import Alone, Decision, NoState, Observation, skip
from tightwire.simulation import Parts
from tightwire.wire.frame import seal
from tightwire.wire.ledger import SECTIONS, Sections

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
    config = small(policy={"name": "fixed", "codec": "none"}, deadline=None, participation={"cohort": 8, "drop": 0.0})
    ended = run_here(config, tmp_path)
    assert ended.summary is not None
    assert ended.summary.bytes_up == ended.summary.bytes_up_fp32
    assert ended.summary.bytes_down == ended.summary.bytes_down_fp32
    assert ended.summary.sim_seconds == ended.summary.sim_seconds_fp32
    ledger = read_rows(tmp_path / "ledger.parquet", LedgerRow)
    assert {row.bytes for row in ledger} == {fp32_frame_length(Parts.load(config).model.schema)}


def test_every_invited_client_has_a_decision_with_a_reason(tmp_path: Path) -> None:
    listener = Quiet()
    run_here(small(), tmp_path, listener=listener)
    decisions = read_rows(tmp_path / "decisions.parquet", DecisionRow)
    assert all(row.reason for row in decisions)
    for record in listener.records:
        everybody = record.participants + record.late + record.surplus + record.lost + record.skipped
        assert everybody + sum(record.refused.values()) == record.cohort
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
    decided = [row.status for row in read_rows(tmp_path / "decisions.parquet", DecisionRow)]
    assert decided.count("refused: non-finite") == len(listener.records)


def test_an_uncompressed_run_under_a_deadline_equals_its_own_fp32_column(tmp_path: Path) -> None:
    policy = {"name": "fixed", "codec": "none"}
    listener = Quiet()
    config = small(policy=policy, deadline=0.5, participation={"cohort": 8, "over": 0.25, "drop": 0.2})
    run_here(config, tmp_path, listener=listener)
    assert sum(record.late for record in listener.records) > 0
    for record in listener.records:
        assert record.late == record.late_fp32
        assert record.sim_seconds == record.sim_seconds_fp32


def test_a_skip_costs_no_more_waiting_than_until_it_is_said(tmp_path: Path) -> None:
    listener = Quiet()
    sensors = {"clients": 20, "tiers": {"sensor-lora": 1.0, "flagship-5g": 1.0}}
    config = small(population=sensors, participation={"cohort": 8, "drop": 0.0}, deadline=95.0)
    run_here(config, tmp_path, listener=listener)
    skipping = [record for record in listener.records if record.skipped and not record.late]
    assert skipping, "LoRa's download alone takes over a minute"
    assert all(record.seconds > 10 for record in skipping), "who skips has downloaded and trained before"
    assert min(record.seconds for record in skipping) < 95


def test_a_battery_that_runs_empty_loses_the_upload_and_then_refuses_the_client() -> None:
    config = small(policy=FIXED, deadline=None, participation={"cohort": 20, "drop": 0.0}, link={"name": "constant"})
    parts = Parts.load(config)
    server = parts.server(InProcessPool(parts.runner()))
    state, _ = server.step(parts.start())
    drained = {client: replace(record, battery=0.0) for client, record in state.clients.items()}
    _, refused = server.step(replace(state, clients=drained))
    assert refused.record.refused == {"battery": refused.record.cohort}
    assert refused.record.bytes_down == 0
    enough_to_train = {
        client: replace(record, battery=1e-9 + _training_joules(parts, client))
        for client, record in state.clients.items()
    }
    after, lost = server.step(replace(state, clients=enough_to_train))
    assert lost.record.lost == lost.record.cohort
    assert all(after.clients[client].battery == 0 for client in after.clients)


def _training_joules(parts: Parts, client: int) -> float:
    """What the round costs a client before it uploads, by the device's own rules."""
    profile = parts.config.population.profile(client, parts.config.seed)
    flops = parts.cost.flops_per_sample * int(parts.data.sizes[client]) * parts.config.training.epochs
    size = fp32_frame_length(parts.model.schema)
    rates = parts.config.link.channels(profile, round=2, client=client, seed=parts.config.seed)
    radio = download_joules(size, profile) + tail_joules(profile, 1)
    waiting = idle_joules(profile, arrives(rates.down, 0.0, size) + profile.rtt / 2)
    return radio + waiting + compute_joules(flops, profile)


class Mute(Alone):
    """A policy that never sends."""

    name: Literal["mute"] = "mute"

    def decide(self, state: NoState, observation: Observation) -> tuple[Decision, NoState]:  # noqa: ARG002 - as Alone
        return skip("mute"), state


def test_a_battery_that_runs_empty_in_training_leaves_nobody_to_decide() -> None:
    config = small(deadline=None, participation={"cohort": 20, "drop": 0.0}, link={"name": "constant", "loss": 0.5})
    parts = Parts.load(config.model_copy(update={"policy": Mute()}))
    server = parts.server(InProcessPool(parts.runner()))
    state, told = server.step(parts.start())
    assert told.record.skipped == told.record.cohort
    expected = {  # as if nothing were lost on the way
        client: replace(record, battery=1e-9 + _training_joules(parts, client))
        for client, record in state.clients.items()
    }
    after, gone = server.step(replace(state, clients=expected))
    assert gone.record.lost == gone.record.cohort
    assert after.memories == state.memories
    assert all(after.clients[client].battery == 0 for client in after.clients)


def test_a_policy_is_told_what_became_of_its_decisions() -> None:
    config = small(participation={"cohort": 20, "drop": 0.0})
    parts = Parts.load(config)
    state, _ = parts.server(InProcessPool(parts.runner())).step(parts.start())
    untaught = Budget().dump(Budget().initial())
    assert any(
        record.policy is not None and record.policy["deviation"] != untaught["deviation"]
        for record in state.clients.values()
    )


def test_lossless_codecs_leave_no_residual_behind() -> None:
    parts = Parts.load(small(policy={"name": "fixed", "codec": "none"}))
    state, _ = parts.server(InProcessPool(parts.runner())).step(parts.start())
    assert state.memories == {}


def test_an_error_in_the_users_model_says_round_client_and_stage(tmp_path: Path) -> None:
    config = small(model={"name": "custom", "function": "faulty:model"})
    with pytest.raises(ClientError, match=r"^round 1, client \d+, training: ZeroDivisionError: "):
        run_here(config, tmp_path)


def test_a_codec_rule_that_matches_no_tensor_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"nosuch\.\* matches no tensor; the model has "):
        Parts.load(small(policy={"name": "fixed", "codec": "none; nosuch.*: fp16"}))


def test_a_bill_that_does_not_add_up_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def generous(*args: Any, **kwargs: Any) -> tuple[bytes, Sections]:  # Any: passes on what it gets
        frame, sections = seal(*args, **kwargs)
        return frame, sections + Sections(codes=1)

    config = small()
    monkeypatch.setattr("tightwire.codecs.codec.seal", generous)
    with pytest.raises(LedgerError, match="add up to"):
        run_here(config, tmp_path)


def test_drop_outs_waste_their_upload_and_keep_their_old_residual() -> None:
    config = small(policy=FIXED, participation={"cohort": 8, "drop": 0.5}, deadline=None)
    parts = Parts.load(config)
    server = parts.server(InProcessPool(parts.runner()))
    state: ServerState[Kept] = parts.start()
    seen_lost = False
    for _ in range(4):
        before = state.memories
        state, result = server.step(state)
        used = {row.client for row in result.ledger if row.status == "used" and row.direction == "up"}
        for row in result.ledger:
            if row.direction == "up" and row.status == "lost":
                seen_lost = True
                assert state.memories.get(row.client) is before.get(row.client)
        for client in before.keys() - used:
            assert state.memories[client] is before[client], "a residual is kept while its client skips rounds"
    assert seen_lost


def test_the_clock_goes_on_while_everybody_drops_out_though_no_deadline_bounds_the_round() -> None:
    config = small(policy=FIXED, participation={"cohort": 8, "drop": 1.0}, deadline=None)
    parts = Parts.load(config)
    _, result = parts.server(InProcessPool(parts.runner())).step(parts.start())
    assert result.record.lost == result.record.cohort - sum(result.record.refused.values()) > 0
    assert result.record.seconds > max(row.seconds for row in result.ledger)


def test_an_upload_that_broke_off_teaches_the_rate_of_a_link_that_keeps_its_promise() -> None:
    config = small(participation={"cohort": 20, "drop": 1.0}, link={"name": "constant"})
    parts = Parts.load(config)
    state, result = parts.server(InProcessPool(parts.runner())).step(parts.start())
    sent = {row.client: row for row in result.ledger if row.direction == "up" and row.bytes > 100}
    assert sent
    for client in sent:
        policy = state.clients[client].policy
        assert policy is not None
        assert policy["slowness"] == pytest.approx(1, abs=0.01)
        assert policy["size"] == 1


class Astray(Alone):
    """A user's policy that decides for a line which is none."""

    name: Literal["astray"] = "astray"

    def decide(self, state: NoState, observation: Observation) -> tuple[Decision, NoState]:  # noqa: ARG002 - as Alone
        return Decision("gzip(9)", 4.0, 1.0, "astray"), state


def test_a_decision_that_is_no_codec_line_is_refused_and_does_not_end_the_run() -> None:
    parts = Parts.load(small().model_copy(update={"policy": Astray()}))
    _, result = parts.server(InProcessPool(parts.runner())).step(parts.start())
    assert result.record.refused["cannot be encoded"] > 0
    assert {row.status for row in result.decisions} == {"refused: cannot be encoded"}


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
