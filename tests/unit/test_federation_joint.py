"""Clients agree on a range, and the server adds integers: exact, billed, on the clock, and believed by nobody."""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scenarios import Quiet, digest_of, run_here, small, undisturbed
from tightwire.arrays import Flat
from tightwire.codecs.codec import Codec, decode, decode_header
from tightwire.codecs.joint import Joint, parts_of, step_for
from tightwire.errors import CodecError, ConfigError, FrameError, RefusedUpdateError
from tightwire.federation import client as client_module
from tightwire.federation import intake as intake_module
from tightwire.federation.aggregate import BOUND, FixedPoint
from tightwire.federation.joint import PATIENCE, Grids, Ranges, Reals
from tightwire.federation.pool import InProcessPool
from tightwire.federation.records import LedgerRow
from tightwire.federation.state import ServerState
from tightwire.federation.store import Kept
from tightwire.federation.tables import read_rows
from tightwire.federation.tasks import Broadcast, Offer
from tightwire.preview import preview
from tightwire.simulation import Parts
from tightwire.wire.frame import envelope_length, seal
from tightwire.wire.schema import Schema, TensorSpec
from tightwire.wire.streams import Sink

JOINT = {"name": "fixed", "codec": "joint(8)"}
SCHEMA = Schema((TensorSpec("w", (40, 30)), TensorSpec("b", (3,)), TensorSpec("v", (200,))))
LINES = (
    "joint(8)",
    "joint(2) | rans",
    "flatten | joint(5) | rans",
    "joint(16); b: joint(4)",
    "none; w: joint(8) | rans",
)


def update(seed: int, scale: float = 0.1) -> Flat:
    return (np.random.default_rng(seed).laplace(size=SCHEMA.size) * scale).astype(np.float32)


def offers(ranges: Ranges, updates: list[Flat]) -> list[Offer]:
    return [
        Offer(client, ranges.say(ranges.measure(values), round=1, client=client).frame, 1.0 + client)
        for client, values in enumerate(updates)
    ]


@settings(deadline=None, max_examples=200)
@given(st.floats(0, float(np.finfo(np.float32).max), width=32), st.integers(2, 16), st.sampled_from([-149, -40, -30]))
def test_a_step_covers_the_peak_is_short_and_wastes_less_than_a_hundredth(peak: float, bits: int, least: int) -> None:
    levels = Joint(bits).levels
    step = step_for(peak, levels, least)
    mantissa, exponent = parts_of(step)
    assert step == math.ldexp(mantissa, exponent) == float(np.float32(step))
    assert 0 < mantissa < 256
    assert exponent >= least
    if peak < 3.3e38:
        assert step * levels >= peak
        assert step * levels <= max(peak * (1 + 1 / 128), math.ldexp(levels, least) + peak)
    assert math.isfinite(float(np.float32(step * levels)))


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("weight", [100, 10**6, 10**9])
def test_adding_codes_gives_the_bits_that_decoding_first_gives(line: str, weight: int) -> None:
    codec, fixed = Codec.parse(line), FixedPoint.for_weight(weight)
    ranges = Ranges(codec, SCHEMA)
    updates = [update(seed, 10.0 ** (seed - 3)) for seed in range(5)]
    agreement = ranges.agree(offers(ranges, updates), fixed, round=1, deadline=None)
    assert set(agreement.outcomes.values()) == {""}
    grids = Grids(ranges, agreement.steps, fixed, 1)
    reals = Reals(SCHEMA, fixed, 1)
    summed, added = fixed.zeros(SCHEMA.size), fixed.zeros(SCHEMA.size)
    for client, values in enumerate(updates):
        memory = ranges.memory(agreement.steps)
        frame = codec.encode(values, SCHEMA, key=client, round=1, client=client, memory=memory).frame
        grids.add(summed, grids.take(frame, client), 3 + client)
        reals.add(added, reals.take(frame, client), 3 + client)
    grids.conclude(summed)
    np.testing.assert_array_equal(summed, added)
    assert summed.any()


def test_a_value_over_the_bound_is_refused_on_integers_as_on_reals() -> None:
    codec, fixed = Codec.parse("joint(4)"), FixedPoint.for_weight(10**9)
    ranges = Ranges(codec, SCHEMA)
    values = np.full(SCHEMA.size, BOUND, np.float32)  # the grid that covers it ends above it
    steps = ranges.agree(offers(ranges, [values]), fixed, round=1, deadline=None).steps
    frame = codec.encode(values, SCHEMA, key=0, round=1, client=0, memory=ranges.memory(steps)).frame
    for sums in (Grids(ranges, steps, fixed, 1), Reals(SCHEMA, fixed, 1)):
        with pytest.raises(RefusedUpdateError, match="magnitude 1029; at most 1024 is added"):
            sums.take(frame, 0)


def test_nothing_is_clipped_and_the_mean_is_unbiased() -> None:
    codec, fixed = Codec.parse("joint(4)"), FixedPoint.for_weight(100)
    ranges = Ranges(codec, SCHEMA)
    updates = [update(0), update(1, 0.02)]
    agreement = ranges.agree(offers(ranges, updates), fixed, round=1, deadline=None)
    for values in updates:
        draws = np.array(
            [
                decode(
                    codec.encode(
                        values, SCHEMA, key=key, round=1, client=0, memory=ranges.memory(agreement.steps)
                    ).frame,
                    SCHEMA,
                )
                for key in range(300)
            ],
            np.float64,
        )
        step = np.repeat(agreement.steps, [piece.part.size for piece in ranges.pieces])
        part = values / step - np.floor(values / step)
        spread = step * np.sqrt(np.maximum(part * (1 - part), 0.02) / 300)
        assert np.all(np.abs(draws.mean(axis=0) - values) < 5.5 * spread)
        assert np.abs(draws - values).max() <= agreement.steps.max()


def test_a_frame_on_another_grid_is_refused_and_one_beyond_the_range_is_not_made() -> None:
    codec, fixed = Codec.parse("joint(8)"), FixedPoint.for_weight(100)
    ranges = Ranges(codec, SCHEMA)
    agreement = ranges.agree(offers(ranges, [update(0)]), fixed, round=1, deadline=None)
    grids = Grids(ranges, agreement.steps, fixed, 1)
    own = codec.encode(update(1, 3.0), SCHEMA, key=0, round=1, client=4).frame
    with pytest.raises(FrameError) as caught:
        grids.take(own, 4)
    assert caught.value.reason == "scales"
    with pytest.raises(CodecError, match="exceed the agreed range"):
        codec.encode(update(1, 3.0), SCHEMA, key=0, round=1, client=4, memory=ranges.memory(agreement.steps))
    other = Codec.parse("joint(7)").encode(update(0), SCHEMA, key=0, round=1, client=4).frame
    with pytest.raises(FrameError):
        grids.take(other, 4)
    with pytest.raises(FrameError):
        grids.take(own, 5)


@pytest.mark.parametrize("step", [0.0, -1.0, math.inf, math.nan, 257.0, 3.4e38, 0.1])
def test_a_step_that_no_encoder_writes_is_refused(step: float) -> None:
    codec = Codec.parse("joint(8)")
    frame = bytearray(codec.encode(update(0), SCHEMA, key=0, round=1, client=0).frame)
    start = decode_header(bytes(frame)).size
    frame[start : start + 4] = np.float32(step).tobytes()
    body = bytes(frame[start:-4])
    sink = Sink()
    sink.write("codes", body)
    forged, _ = seal(sink, digest=SCHEMA.digest, round=1, client=0, line=codec.compact)
    with pytest.raises(FrameError) as caught:
        decode(forged, SCHEMA)
    assert caught.value.reason in {"scales", "non-finite"}


def test_the_agreement_does_not_depend_on_order_and_leaves_out_the_late_and_the_absurd() -> None:
    fixed = FixedPoint.for_weight(100)
    ranges = Ranges(Codec.parse("joint(8)"), SCHEMA)
    said = offers(ranges, [update(seed) for seed in range(6)])
    words = len(ranges.pieces)
    late = Offer(6, ranges.say(np.full(words, 100, np.float32), round=1, client=6).frame, 60.0)
    lost = Offer(7, None, None)
    silent = Offer(8, None, 3.0)
    negative = Offer(9, ranges.say(np.full(words, -1, np.float32), round=1, client=9).frame, 1.0)
    huge = Offer(10, ranges.say(np.full(words, 2 * BOUND, np.float32), round=1, client=10).frame, 1.0)
    foreign = Offer(11, said[0].frame, 1.0)
    everybody = [*said, late, lost, silent, negative, huge, foreign]
    one = ranges.agree(everybody, fixed, round=1, deadline=100.0)
    other = ranges.agree(everybody[::-1], fixed, round=1, deadline=100.0)
    np.testing.assert_array_equal(one.steps, other.steps)
    assert one.outcomes == other.outcomes
    assert one.seconds == 100.0 * PATIENCE
    assert [one.outcomes[client] for client in range(6)] == [""] * 6
    told = {6: "late", 7: "late", 8: "late", 9: "scales", 10: "overflow", 11: "client"}
    assert {client: one.outcomes[client] for client in told} == told
    peak = max(float(np.abs(update(seed)).max()) for seed in range(6))
    assert one.steps.max() * 127 < 1.02 * peak, "those left out count for nothing"
    assert one.answer.total == envelope_length("none") + 4 * words


def test_the_exchange_is_billed_with_real_frames_and_is_on_the_clock(tmp_path: Path) -> None:
    config = small(policy=JOINT, deadline=None, participation={"cohort": 8, "drop": 0.0})
    listener = Quiet()
    run_here(config, tmp_path, listener=listener)
    ledger = read_rows(tmp_path / "ledger.parquet", LedgerRow)
    ranges = Parts.load(config)._ranges()
    assert ranges is not None
    for record in listener.records:
        rows = [row for row in ledger if row.round == record.round]
        kinds = Counter((row.direction, row.codec) for row in rows)
        assert kinds == dict.fromkeys((("down", "none"), ("up", "range"), ("down", "range"), ("up", "joint(8)")), 8)
        for row in rows:
            if row.codec == "range":
                assert row.bytes == envelope_length("none") + 4 * len(ranges.pieces)
                assert row.bytes_fp32 == 0
                assert row.seconds > 0
        asked = {row.client: row.seconds for row in rows if (row.direction, row.codec) == ("down", "none")}
        said = {row.client: row.seconds for row in rows if (row.direction, row.codec) == ("up", "range")}
        answered = {row.client: row.seconds for row in rows if (row.direction, row.codec) == ("down", "range")}
        sent = {row.client: row.seconds for row in rows if row.codec == "joint(8)"}
        slowest = max(asked[client] + said[client] for client in said)
        assert record.seconds > slowest + max(answered[client] + sent[client] for client in sent)
        assert record.bytes_up == sum(row.bytes for row in rows if row.direction == "up")
        assert record.bytes_down_fp32 == 8 * rows[0].bytes_fp32
        assert record.participants == 8


def test_who_is_too_slow_to_agree_is_late_and_sends_nothing_more(tmp_path: Path) -> None:
    listener = Quiet()
    config = small(policy=JOINT, deadline=1.0, participation={"cohort": 8, "over": 0.25, "drop": 0.2})
    run_here(config, tmp_path, listener=listener)
    ledger = read_rows(tmp_path / "ledger.parquet", LedgerRow)
    late = [(row.round, row.client) for row in ledger if row.codec == "range" and row.status == "late"]
    assert late
    for round_, client in late:
        rows = [row for row in ledger if (row.round, row.client) == (round_, client)]
        assert [(row.direction, row.codec) for row in rows] == [("down", "none"), ("up", "range")]
    for record in listener.records:
        everybody = record.participants + record.late + record.surplus + record.lost + record.skipped
        assert everybody + sum(record.refused.values()) == record.cohort
        assert 0.5 <= record.seconds <= 1.0


def test_a_round_on_integers_is_the_round_on_reals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = small(policy={"name": "fixed", "codec": "joint(6) | rans"}, wire={"feedback": "none"})
    integers = run_here(config, tmp_path / "integers")

    def reals(ranges: Ranges, steps: Flat, fixed: FixedPoint, round_: int) -> Reals:  # noqa: ARG001 - as Grids takes
        return Reals(ranges.schema, fixed, round_)

    monkeypatch.setattr(intake_module, "Grids", reals)
    assert digest_of(run_here(config, tmp_path / "reals")) == digest_of(integers)


def test_a_host_that_forgot_its_training_trains_again_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small(policy=JOINT)
    cached = undisturbed(config)
    monkeypatch.setattr(client_module, "CACHE", 0)
    assert digest_of(run_here(config, tmp_path / "forgetful")) == cached
    monkeypatch.setattr(client_module, "CACHE", 20_000)
    assert digest_of(run_here(config, tmp_path / "half")) == cached


def test_what_was_trained_on_another_model_is_not_taken_from_the_cache() -> None:
    class Distracted(InProcessPool):
        """Trains on another model between the two passes."""

        def offers(self, broadcast: Broadcast, *rest: Any) -> Iterator[tuple[Offer, ...]]:
            yield from super().offers(broadcast, *rest)
            list(super().offers(replace(broadcast, model=broadcast.model * np.float32(0.5)), *rest))

    parts = Parts.load(small(policy=JOINT))
    start: ServerState[Kept] = parts.start()
    one, _ = parts.server(InProcessPool(parts.runner())).step(start)
    other, _ = parts.server(Distracted(parts.runner())).step(start)
    np.testing.assert_array_equal(one.model, other.model)
    assert one.chain == other.chain


def test_a_preview_knows_what_agreeing_costs(tmp_path: Path) -> None:
    config = small(policy=JOINT, deadline=None, participation={"cohort": 8, "drop": 0.0})
    expected = preview(Parts.load(config), Quiet().round)
    summary = run_here(config, tmp_path).summary
    assert summary is not None
    assert expected.bytes_up == summary.bytes_up
    assert expected.bytes_down == summary.bytes_down
    assert expected.sim_seconds == pytest.approx(summary.sim_seconds, rel=1e-12)
    assert expected.energy_joules == pytest.approx(summary.energy_joules, rel=1e-12)


@pytest.mark.parametrize("feedback", ["classic", "ef21", "dgc"])
def test_it_works_with_every_feedback_and_resumes(tmp_path: Path, feedback: str) -> None:
    config = small(policy={"name": "fixed", "codec": "joint(3) | rans"}, wire={"feedback": feedback}, rounds=5)
    assert run_here(config, tmp_path, stop_after=3).summary is None
    assert digest_of(run_here(config, tmp_path)) == undisturbed(config)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"wire": {"downlink": "joint(8)"}}, "wire.downlink: the stage joint is for uploads"),
        ({"policy": {"name": "tiered", "default": "joint(8)"}}, "policy tiered changes codec lines; use policy fixed"),
        ({"policy": {"name": "fixed", "codec": "topk(0.1) | joint(8)"}}, "only flatten may stand before it"),
        ({"policy": {"name": "fixed", "codec": "joint(1)"}}, "joint takes 2 to 16 bits, got 1"),
    ],
)
def test_joint_where_it_cannot_work_is_refused_in_one_line(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        small(**changes)
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)
