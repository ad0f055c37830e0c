"""One suite for all pools: whatever carries out the work, the bits are the same."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from scenarios import digest_of, run_here, small, undisturbed
from tightwire.config import Experiment
from tightwire.federation.pool import InProcessPool
from tightwire.federation.store import Kept
from tightwire.federation.tasks import Broadcast, ClientTask, Offer, ShareResult
from tightwire.simulation import Parts


class ScatteredPool(InProcessPool):
    """Carries out many small shares, last first, as a pool of racing hosts might."""

    def __init__(self, config: Experiment, shares: int) -> None:
        super().__init__(Parts.load(config).runner())
        self._shares = shares

    def run(
        self, broadcast: Broadcast, tasks: Sequence[ClientTask], memories: Mapping[int, Kept]
    ) -> Iterator[tuple[ShareResult, dict[int, Kept]]]:
        for share in reversed(range(self._shares)):
            yield from super().run(broadcast, tasks[share :: self._shares], memories)

    def offers(
        self, broadcast: Broadcast, tasks: Sequence[ClientTask], memories: Mapping[int, Kept]
    ) -> Iterator[tuple[Offer, ...]]:
        for share in reversed(range(self._shares)):
            yield from super().offers(broadcast, tasks[share :: self._shares], memories)


POLICIES = {
    "budget": {"name": "budget"},
    "fixed": {"name": "fixed", "codec": "topk(0.1) | uniform(4) | rans"},
    "joint": {"name": "fixed", "codec": "joint(6) | rans"},
}


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("shares", [2, 3, 8])
def test_any_split_of_the_work_gives_the_same_digest(tmp_path: Path, policy: str, shares: int) -> None:
    config = small(policy=POLICIES[policy])
    assert digest_of(run_here(config, tmp_path, pool=ScatteredPool(config, shares))) == undisturbed(config)


@pytest.mark.parametrize("feedback", ["ef21", "dgc"])
def test_any_split_gives_the_same_digest_with_other_feedback_and_joint_ranges(tmp_path: Path, feedback: str) -> None:
    late = {"deadline": 2.0, "participation": {"cohort": 8, "over": 0.25, "drop": 0.2}}
    config = small(policy=POLICIES["joint"], wire={"feedback": feedback}, **late)
    assert digest_of(run_here(config, tmp_path, pool=ScatteredPool(config, 3))) == undisturbed(config)


WORLDS: dict[str, dict[str, Any]] = {
    "the server's link is shared": {"server": {"ingress_mbps": 0.2, "egress_mbps": 5.0}, "deadline": 60.0},
    "clients come and go": {"availability": {"name": "diurnal", "mean_on": 0.1}},
    "batteries run low": {"battery": {"start": [0.0, 2e-4], "charging": True, "reserve": 1e-5}},
    "packets are lost": {"link": {"name": "autoregressive", "loss": 0.2}},
    "the server has a say": {"policy": {"name": "adagq"}},
    "the server learns": {"policy": {"name": "linucb"}},
    "some say nothing": {"policy": {"name": "lazy", "scale": 100.0}},
    "frames are replayed and the median is taken": {
        "attack": {"share": 0.4, "kind": "replay"},
        "wire": {"authenticate": True},
        "server": {"aggregator": "median"},
    },
    "norms are bounded": {
        "attack": {"share": 0.2, "kind": "scale", "strength": 2.0},
        "server": {"aggregator": "norm_bounded", "max_norm_times": 1.5},
    },
    "Krum chooses from a shared link": {
        "attack": {"share": 0.2},
        "server": {"aggregator": {"name": "multi_krum", "attackers": 1, "kept": 3}, "ingress_mbps": 0.5},
    },
}


@pytest.mark.parametrize("world", WORLDS)
def test_in_any_world_work_can_be_split_and_a_run_resumed_with_the_same_digest(tmp_path: Path, world: str) -> None:
    config = small(rounds=6, **WORLDS[world])
    assert digest_of(run_here(config, tmp_path / "scattered", pool=ScatteredPool(config, 3))) == undisturbed(config)
    run_here(config, tmp_path / "resumed", stop_after=3)
    assert digest_of(run_here(config, tmp_path / "resumed")) == undisturbed(config)
    assert undisturbed(config) != undisturbed(small(rounds=6))


def test_another_seed_gives_another_digest() -> None:
    assert undisturbed(small()) != undisturbed(small(seed=1))


def test_without_error_feedback_nothing_is_carried_and_the_run_differs() -> None:
    policy = POLICIES["fixed"]
    assert undisturbed(small(policy=policy)) != undisturbed(small(policy=policy, wire={"feedback": "none"}))
