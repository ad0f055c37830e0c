"""Hostile clients: who they are, what they send, and that each spoils its own update and nothing else."""

import tracemalloc
from functools import cache
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scenarios import Quiet, digest_of, run_here, small
from tightwire.attacks.attack import BILL, EARLIER, Attack, Kind, Sending, Tampered
from tightwire.codecs.codec import Codec, decode, fp32_frame_length
from tightwire.config import Experiment
from tightwire.errors import FrameError
from tightwire.federation.aggregate import BOUND, FixedPoint
from tightwire.federation.intake import Intake
from tightwire.federation.joint import Grids, Ranges, Reals
from tightwire.federation.pool import InProcessPool
from tightwire.federation.records import LedgerRow
from tightwire.federation.server import RoundResult
from tightwire.federation.state import ServerState
from tightwire.federation.store import Kept
from tightwire.federation.tables import read_rows
from tightwire.federation.tasks import Bounds
from tightwire.simulation import Parts
from tightwire.wire.authentication import TAG, Gate, client_key, seal
from tightwire.wire.frame import amended, unseal
from tightwire.wire.ledger import SECTIONS
from tightwire.wire.schema import Schema, TensorSpec

SCHEMA = Schema((TensorSpec("w", (40, 20)), TensorSpec("b", (7,))))
UPDATE = np.random.default_rng(0).laplace(size=SCHEMA.size).astype(np.float32)
ROUND, CLIENT = 5, 3
EVERYBODY: dict[str, Any] = {"participation": {"cohort": 20, "drop": 0.0}, "deadline": None}
REASONS = {
    "nan": "non-finite",
    "infinite": "non-finite",
    "huge": "overflow",
    "impersonate": "client",
    "wrong_round": "round",
    "oversized": "truncated",
}


def tampered(attack: Attack, line: str = "uniform(4) | rans", memory: dict[str, Any] | None = None) -> Tampered:
    codec = Codec.parse(line)
    encoded = codec.encode(UPDATE, SCHEMA, key=1, round=ROUND, client=CLIENT)
    return attack.tampered(Sending(encoded, UPDATE, codec, SCHEMA, ROUND, CLIENT, 20, 0, memory or {}))


def one_round(config: Experiment) -> tuple[ServerState[Kept], RoundResult]:
    parts = Parts.load(config)
    return parts.server(InProcessPool(parts.runner())).step(parts.start())


@given(st.integers(1, 300), st.integers(0, 5), st.floats(0, 1), st.floats(0, 1))
@settings(deadline=None, max_examples=50)
def test_just_the_share_is_hostile_and_stays_so_at_a_higher_one(
    clients: int, seed: int, one: float, other: float
) -> None:
    lower, higher = (
        {client for client in range(clients) if Attack(share=share).hostile(client, clients=clients, seed=seed)}
        for share in sorted((one, other))
    )
    assert len(lower) == round(min(one, other) * clients)
    assert lower <= higher


def test_seeds_differ_in_who_is_hostile() -> None:
    attack = Attack(share=0.5)
    assert len({tuple(attack.hostile(c, clients=40, seed=seed) for c in range(40)) for seed in range(5)}) == 5


def test_updates_and_labels_are_spoiled_as_the_kind_says() -> None:
    def spoiled(kind: Kind, strength: float | None = None) -> np.ndarray:
        return Attack(kind=kind, strength=strength).spoiled(UPDATE, round=1, client=2, seed=3)

    np.testing.assert_array_equal(spoiled("sign_flip"), -UPDATE)
    np.testing.assert_array_equal(spoiled("sign_flip", 4), -4 * UPDATE)
    np.testing.assert_array_equal(spoiled("scale"), 10 * UPDATE)
    noise = spoiled("noise", 2) - UPDATE
    assert np.linalg.norm(noise) / np.linalg.norm(UPDATE) == pytest.approx(2, rel=0.1)
    np.testing.assert_array_equal(spoiled("label_flip"), UPDATE)
    labels = np.array([0, 3, 9])
    assert Attack(kind="label_flip").labels(labels, 10).tolist() == [9, 6, 0]
    assert Attack(kind="scale").labels(labels, 10).tolist() == [0, 3, 9]


@pytest.mark.parametrize("kind", REASONS)
def test_the_server_refuses_what_was_tampered_with_for_its_own_reason(kind: Kind) -> None:
    sent = tampered(Attack(kind=kind))
    assert sent.sections.total == len(sent.frame)
    door = Intake(Reals(SCHEMA, FixedPoint.for_weight(10), ROUND), SCHEMA, None)
    with pytest.raises(FrameError) as caught:
        door.take(sent.frame, CLIENT)
    assert caught.value.reason == REASONS[kind]


def test_what_is_forged_is_in_order_but_for_its_key() -> None:
    sent = tampered(Attack(kind="forge", strength=2.0), "none")
    assert not sent.signed
    np.testing.assert_array_equal(decode(sent.frame, SCHEMA, round=ROUND, client=CLIENT), -2 * UPDATE)


def test_a_replayed_frame_is_the_earlier_one_byte_for_byte() -> None:
    first = tampered(Attack(kind="replay"))
    assert set(first.remembered) == {EARLIER, BILL}
    again = tampered(Attack(kind="replay"), "topk(0.1)", dict(first.remembered))
    assert again.frame == first.frame
    assert again.sections == first.sections
    assert tampered(Attack(kind="scale"), "topk(0.1)").frame != first.frame


SMALLER: dict[str, Any] = {**EVERYBODY, "rounds": 3, "model": {"name": "logreg"}}


def test_whoever_sends_what_is_refused_spoils_its_own_update_and_nothing_else() -> None:
    models = set()
    for kind, reason in {**REASONS, "forge": "forged"}.items():
        authenticate = kind == "forge"
        config = small(**SMALLER, attack={"share": 0.3, "kind": kind}, wire={"authenticate": authenticate})
        state, result = one_round(config)
        record = result.record
        assert record.refused == {reason: record.rejected}
        assert record.hostile == 0
        assert record.participants + record.rejected == record.cohort
        assert record.bytes_wasted == sum(row.bytes for row in result.ledger if row.status == "rejected") > 0
        models.add(state.model.tobytes())
    assert len(models) == 1, "what is left is the honest clients' mean"


@pytest.mark.parametrize("authenticate", [False, True])
def test_replayed_frames_are_refused_from_the_second_round_on(tmp_path: Path, authenticate: bool) -> None:
    listener = Quiet()
    wire = {"authenticate": authenticate}
    run_here(small(**SMALLER, attack={"share": 0.2, "kind": "replay"}, wire=wire), tmp_path, listener=listener)
    first, *later = listener.records
    assert first.hostile == 4
    for record in later:
        assert record.refused == {"replayed" if authenticate else "round": 4}
        assert record.hostile == 0


def test_authentication_is_billed_in_the_check_section_and_in_the_fp32_column(tmp_path: Path) -> None:
    plain, sealed = (
        run_here(
            small(**SMALLER, policy={"name": "fixed", "codec": "none"}, wire={"authenticate": on}), tmp_path / name
        )
        for on, name in ((False, "plain"), (True, "sealed"))
    )
    assert plain.summary is not None
    assert sealed.summary is not None
    ledger = read_rows(tmp_path / "sealed" / "ledger.parquet", LedgerRow)
    up = [row for row in ledger if row.direction == "up"]
    assert sealed.summary.bytes_up == plain.summary.bytes_up + TAG * len(up)
    assert sealed.summary.bytes_up == sealed.summary.bytes_up_fp32
    assert sealed.summary.sim_seconds == sealed.summary.sim_seconds_fp32
    assert sealed.summary.accuracy == plain.summary.accuracy
    assert {row.check for row in up} == {4 + TAG}
    for row in ledger:
        assert sum(getattr(row, section) for section in SECTIONS) == row.bytes
    length = fp32_frame_length(Parts.load(small(**SMALLER)).model.schema)
    assert {row.bytes_fp32 for row in up} == {length + TAG}


def test_frames_about_joint_ranges_are_authenticated_too(tmp_path: Path) -> None:
    policy = {"name": "fixed", "codec": "joint(8) | rans"}
    config = {**SMALLER, "policy": policy, "model": {"name": "mlp", "hidden": [16]}}
    listener = Quiet()
    run_here(small(**config, wire={"authenticate": True}), tmp_path, listener=listener)
    assert all(record.refused == {} for record in listener.records)
    ranges = [row for row in read_rows(tmp_path / "ledger.parquet", LedgerRow) if row.codec == "range"]
    assert {row.check for row in ranges if row.direction == "up"} == {4 + TAG}
    assert {row.check for row in ranges if row.direction == "down"} == {4}


def test_nobody_is_hostile_by_default_and_a_share_of_none_changes_nothing(tmp_path: Path) -> None:
    usual = run_here(small(rounds=2), tmp_path / "usual")
    for kind in ("sign_flip", "replay"):
        same = run_here(small(rounds=2, attack={"share": 0.0, "kind": kind}), tmp_path / kind)
        assert digest_of(same) == digest_of(usual)
    assert usual.summary is not None
    assert (usual.summary.hostile, usual.summary.rejected) == (0, 0)


LINES = ("none", "uniform(4) | rans", "topk(0.1) | uniform(3)", "sketch(3, 40, density=0.1)", "kmeans(2) | zstd")
JOINT = Ranges(Codec.parse("joint(5)"), SCHEMA)
KEY = client_key(bytes(32), CLIENT)


@cache
def frame_of(line: str) -> bytes:
    encoded = Codec.parse(line).encode(UPDATE, SCHEMA, key=1, round=ROUND, client=CLIENT)
    decode(encoded.frame, SCHEMA)
    return encoded.frame


@pytest.fixture(scope="module")
def compiled() -> None:
    """What decodes the frames is compiled before hypothesis looks at the clock, or memory is traced."""
    for line in LINES:
        frame_of(line)


def door(*, joint: bool, authenticated: bool) -> Intake:
    fixed = FixedPoint.for_weight(100)
    sums: Reals | Grids = Reals(SCHEMA, fixed, ROUND)
    if joint:
        sums = Grids(JOINT, np.full(len(JOINT.pieces), 2.0**-4, np.float32), fixed, ROUND)
    return Intake(sums, SCHEMA, Bounds(), Gate(lambda _: KEY, ROUND) if authenticated else None)


@pytest.mark.parametrize(
    ("reason", "line", "round_", "client"),
    [("round", "joint(5)", 4, CLIENT), ("client", "joint(5)", ROUND, 4), ("codec", "joint(6)", ROUND, CLIENT)],
)
def test_what_does_not_belong_on_joint_grids_is_refused_for_its_own_reason(
    reason: str, line: str, round_: int, client: int
) -> None:
    ranges = Ranges(Codec.parse(line), SCHEMA)
    steps = ranges.memory(np.full(len(ranges.pieces), 2.0**-4, np.float32))
    encoded = ranges.codec.encode(UPDATE.clip(-0.5, 0.5), SCHEMA, key=1, memory=steps, round=round_, client=client)
    with pytest.raises(FrameError) as caught:
        door(joint=True, authenticated=False).take(encoded.frame, CLIENT)
    assert caught.value.reason == reason


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A frame with some bytes changed, removed or put in, or with an absurd length, its checksum made right or not."""
    frame = bytearray(frame_of(draw(st.sampled_from(LINES))))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(frame) - 1, 0)))
        piece = draw(st.binary(min_size=1, max_size=8) | st.sampled_from([b"\xff" * 8, b"\0" * 8, b"\xff\xff\xff\x7f"]))
        cut = draw(st.sampled_from([0, len(piece), 40]))
        frame[at : at + cut] = piece
    found = bytes(frame)
    if draw(st.booleans()):
        try:
            found = amended(found, length=draw(st.sampled_from([len(found), 2**62, 2**64 - 1])))
        except FrameError:
            return found
    return found


@pytest.mark.usefixtures("compiled")
@settings(deadline=None, max_examples=300)
@given(mutated(), st.booleans(), st.booleans())
def test_any_mutation_is_refused_or_decodes_to_something_bounded_in_bounded_memory(
    frame: bytes, joint: bool, authenticated: bool
) -> None:
    intake = door(joint=joint, authenticated=authenticated)
    message = seal(frame, KEY, ROUND, CLIENT) if authenticated else frame
    tracemalloc.start()
    try:
        taken = intake.take(intake.opened(message, CLIENT), CLIENT)
    except FrameError as refusal:
        assert refusal.reason  # noqa: PT017 - some mutations are acceptable
        assert "\n" not in str(refusal)  # noqa: PT017 - as above
    else:
        assert np.isfinite(taken.update).all()
        assert np.abs(taken.update).max() <= BOUND
        total = intake.fixed.zeros(SCHEMA.size)
        intake.add(total, taken.addend, 100)
        intake.conclude(total)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50_000_000, "far less than any absurd length asks for; loading compiled loops takes 6 MB"


@pytest.mark.usefixtures("compiled")
@settings(deadline=None, max_examples=100)
@given(mutated(), st.binary(min_size=TAG, max_size=TAG))
def test_without_the_key_nothing_gets_as_far_as_a_decoder(frame: bytes, tag: bytes) -> None:
    intake = door(joint=False, authenticated=True)
    with pytest.raises(FrameError) as caught:
        intake.opened(frame + tag, CLIENT)
    assert caught.value.reason in ("forged", "truncated", "magic", "version", "client")


def test_amended_frames_are_whole_again() -> None:
    frame = frame_of(LINES[0])
    header, body = unseal(amended(frame, round=9, client=8, body=b"\1\2\3\4"))
    assert (header.round, header.client) == (9, 8)
    assert bytes(body[:4]) == b"\1\2\3\4"
    assert bytes(body[4:]) == bytes(unseal(frame)[1][4:])
    assert amended(frame) == frame


def test_every_kind_is_carried_out_in_a_run() -> None:
    untouched = one_round(small(**SMALLER))[0].model
    for kind in get_args(Kind):
        state, result = one_round(small(**SMALLER, attack={"share": 0.2, "kind": kind}))
        assert result.record.hostile + result.record.rejected == 4
        if kind != "replay":  # in the first round there is nothing to replay
            assert not np.array_equal(state.model, untouched), kind
