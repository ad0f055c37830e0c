"""What clients and the server's downlink remember from round to round, and in a checkpoint."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from scenarios import digest_of, run_here, small, undisturbed
from tightwire.arrays import Flat
from tightwire.codecs.codec import Codec, decode
from tightwire.codecs.floats import Plain
from tightwire.codecs.registry import registered
from tightwire.codecs.stage import Context, Plane
from tightwire.federation.aggregate import FixedPoint
from tightwire.federation.checkpoint import Checkpoints
from tightwire.federation.downlink import EVERYBODY, Downlink, Public
from tightwire.federation.pool import InProcessPool
from tightwire.federation.state import ServerState
from tightwire.federation.store import Kept
from tightwire.keys import key
from tightwire.simulation import Parts
from tightwire.wire.ledger import Sections
from tightwire.wire.schema import Schema
from tightwire.wire.streams import Sink

FIXED = {"name": "fixed", "codec": "topk(0.1) | uniform(4) | rans"}
LOSSY = {"participation": {"cohort": 8, "over": 0.25, "drop": 0.3}, "deadline": None}


@dataclass(frozen=True)
class Counting(Plain):
    """Sends values as they are, and counts how often its memory was used; leaves it larger each time."""

    name: ClassVar[str] = "counting"
    example: ClassVar[str] = "counting"

    def encode(self, plane: Plane, sink: Sink, context: Context) -> Plane:
        """See `Plain.encode`."""
        before = np.zeros(2, np.float32) if context.memory is None else context.memory
        context.left = before + np.array([1, plane.data[0]], np.float32)
        return super().encode(plane, sink, context)


@pytest.fixture
def _counting() -> Iterator[None]:
    with registered(Counting):
        yield


def rounds(
    parts: Parts, pool: InProcessPool, count: int
) -> Iterator[tuple[ServerState[Kept], ServerState[Kept], set[int]]]:
    """States before and after each round, and the clients whose update was used."""
    server = parts.server(pool)
    state: ServerState[Kept] = parts.start()
    for _ in range(count):
        before = state
        state, result = server.step(before)
        used = {row.client for row in result.ledger if row.status == "used" and row.direction == "up"}
        yield before, state, used


@pytest.mark.usefixtures("_counting")
def test_stages_memories_travel_with_their_client_and_only_used_updates_commit_them() -> None:
    parts = Parts.load(small(policy={"name": "fixed", "codec": "counting"}, **LOSSY))
    pool = InProcessPool(parts.runner())
    times: dict[int, int] = {}
    for before, after, used in rounds(parts, pool, 5):
        for client in used:
            times[client] = times.get(client, 0) + 1
        for client in before.memories.keys() - used:
            assert after.memories[client] is before.memories[client]
        assert after.memories.keys() == times.keys()
        for client, handle in after.memories.items():
            memory = pool.get(handle)
            assert memory, "every coded tensor leaves something"
            assert all(array[0] == times[client] for array in memory.values())
    assert max(times.values()) > 1


@pytest.mark.usefixtures("_counting")
def test_memories_come_back_from_a_checkpoint_with_their_names(tmp_path: Path) -> None:
    config = small(policy={"name": "fixed", "codec": "topk(0.5) | counting"}, wire={"downlink": "counting"}, rounds=6)
    parts = Parts.load(config)
    pool = InProcessPool(parts.runner())
    server = parts.server(pool)
    state: ServerState[Kept] = parts.start()
    results = []
    for _ in range(3):
        state, result = server.step(state)
        results.append(result)
    Checkpoints(tmp_path).save(state, results, pool)
    found = Checkpoints(tmp_path).load(pool, pytest.fail)
    assert found is not None
    assert found.memories.keys() == state.memories.keys()
    for client, handle in state.memories.items():
        memory, again = pool.get(handle), pool.get(found.memories[client])
        assert "residual" in memory
        assert any("counting" in name for name in memory)
        assert memory.keys() == again.keys()
        for name, array in memory.items():
            np.testing.assert_array_equal(array, again[name])
    assert state.public is not None
    assert found.public is not None
    assert state.public.memory.keys() == found.public.memory.keys() != set()
    for name, array in state.public.memory.items():
        assert array[0] == 2, "the first version is the model itself"
        np.testing.assert_array_equal(array, found.public.memory[name])


@pytest.mark.parametrize("feedback", ["none", "ef21", "dgc"])
def test_a_stopped_run_resumes_to_the_same_digest_with_every_feedback(tmp_path: Path, feedback: str) -> None:
    config = small(rounds=6, policy=FIXED, wire={"feedback": feedback})
    assert run_here(config, tmp_path, stop_after=3).summary is None
    assert digest_of(run_here(config, tmp_path)) == undisturbed(config)


def test_every_variant_of_feedback_gives_a_run_of_its_own_and_dgc_without_momentum_is_classic() -> None:
    def run(wire: dict[str, Any]) -> str:
        return undisturbed(small(policy=FIXED, rounds=3, wire=wire))

    digests = {name: run({"feedback": name}) for name in ("none", "classic", "ef21", "dgc")}
    assert len(set(digests.values())) == 4
    assert run({"feedback": "dgc", "momentum": 0.9}) == digests["dgc"]
    assert run({"feedback": "dgc", "momentum": 0.0}) == digests["classic"]


def test_the_server_of_ef21_steps_by_the_mean_of_all_clients_shifts() -> None:
    config = small(policy=FIXED, wire={"feedback": "ef21"}, server={"lr": 0.5}, **LOSSY)
    parts = Parts.load(config)
    pool = InProcessPool(parts.runner())
    sizes = parts.data.sizes
    weight = int(sizes.sum())
    fixed = FixedPoint.for_weight(weight)
    for before, after, _ in rounds(parts, pool, 5):
        expected = sum(
            int(sizes[client]) * pool.get(handle)["shift"].astype(np.float64)
            for client, handle in after.memories.items()
        )
        assert after.shifts is not None
        np.testing.assert_allclose(after.shifts / 2.0**fixed.fraction_bits, expected, atol=1e-5)
        step = (after.model.astype(np.float64) - before.model) / 0.5
        np.testing.assert_allclose(step, expected / weight, atol=2e-6)


def test_without_ef21_the_server_keeps_no_shifts() -> None:
    parts = Parts.load(small(policy=FIXED))
    state, _ = parts.server(InProcessPool(parts.runner())).step(parts.start())
    assert state.shifts is None


def test_the_downlink_is_error_feedback_with_a_residual_of_the_servers_own() -> None:
    line, schema = "topk(0.1)", Schema.single(2000)
    downlink = Downlink(line, schema, seed=3)
    # Multiples of 2**-12 below 2**8, so that float32 adds without rounding and both ways must agree in every bit.
    steps = np.random.default_rng(0).integers(-(2**12), 2**12, size=(12, schema.size)) / 2**12
    model = np.zeros(schema.size, np.float32)
    public = downlink.publish(None, model, downlink.whole())
    held, residual = model.copy(), np.zeros(schema.size, np.float32)
    for version, step in enumerate(steps.astype(np.float32), start=1):
        model = model + step
        public = downlink.publish(public, model, downlink.whole())
        owed = step + residual
        sent = _through(line, owed, schema, version)
        residual = owed - sent
        held = held + sent
        assert residual.any()
        np.testing.assert_array_equal(public.model, held)
        np.testing.assert_array_equal(model - public.model, residual)


def _through(line: str, values: Flat, schema: Schema, version: int) -> Flat:
    frame = (
        Codec.parse(line)
        .encode(values, schema, key=key(3, "downlink", round=version), round=version, client=EVERYBODY)
        .frame
    )
    return decode(frame, schema)


def test_a_public_version_starts_without_memory() -> None:
    assert Public(np.zeros(3, np.float32), 0, (Sections(),)).memory == {}
