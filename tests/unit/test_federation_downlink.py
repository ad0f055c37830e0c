"""What the clients hold is what the frames they were billed for decode to."""

import numpy as np

from tightwire.federation.downlink import NEVER, Downlink, Public
from tightwire.wire.schema import Schema

SCHEMA = Schema.single(2000)


def models(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    steps = rng.normal(scale=0.1, size=(count, SCHEMA.size)).astype(np.float32)
    return list(np.cumsum(steps, axis=0, dtype=np.float32))


def published(downlink: Downlink, count: int) -> list[Public]:
    versions: list[Public] = []
    for model in models(count):
        versions.append(downlink.publish(versions[-1] if versions else None, model, downlink.whole()))
    return versions


def test_uncompressed_clients_hold_the_servers_model_and_pay_for_all_of_it() -> None:
    downlink = Downlink("none", SCHEMA, seed=0)
    last = published(downlink, 3)[-1]
    assert np.array_equal(last.model, models(3)[-1])
    whole = downlink.whole()
    assert downlink.deliver(last, 1, whole) == whole
    assert whole.sections.total > 4 * SCHEMA.size


def test_compressed_the_public_model_stays_near_the_servers() -> None:
    downlink = Downlink("topk(0.2) | uniform(6)", SCHEMA, seed=0)
    target = models(1)[0]
    public = downlink.publish(None, np.zeros_like(target), downlink.whole())
    for _ in range(20):
        public = downlink.publish(public, target, downlink.whole())
    assert np.linalg.norm(public.model - target) < 0.05 * np.linalg.norm(target)


def test_a_returning_client_gets_missed_frames_or_the_whole_model_whichever_is_smaller() -> None:
    downlink = Downlink("uniform(8)", SCHEMA, seed=0)
    last = published(downlink, 8)[-1]
    whole = downlink.whole()
    missed_one = downlink.deliver(last, last.version - 1, whole)
    assert missed_one.frames == 1
    assert missed_one.sections == last.recent[-1]
    missed_three = downlink.deliver(last, last.version - 3, whole)
    assert missed_three.sections.total == sum(sections.total for sections in last.recent[-3:])
    assert downlink.deliver(last, 0, whole) == whole, "seven 8-bit frames outweigh one 32-bit model"
    assert downlink.deliver(last, NEVER, whole) == whole
