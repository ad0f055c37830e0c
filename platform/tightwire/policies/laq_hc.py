"""The policy `laq_hc`: bits by the quality of a client's data and by its bandwidth."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, final

from pydantic import Field, model_validator

from tightwire.policies.base import Alone, Cohort, Decision, Member, Numbers, Observation, Plan, skip
from tightwire.policies.levels_of import check_template, filled, sent, told


@dataclass(frozen=True, slots=True)
class LaqHCState:
    """What the server wants to know of a client: the loss it last trained at."""

    loss: float = -1.0
    """Mean training loss of the last round it took part in; negative before."""


class Flag(NamedTuple):
    """What one level is worth at one client."""

    flag: float
    client: int
    level: int


@final
class LaqHC(Alone):
    """LAQ-HC: the level l, of 2^l bits, that gives a client the highest flag.

    Cui et al. 2026, "Lightweight adaptive quantization algorithms for federated learning with heterogeneous clients",
    section IV. Without a constraint (algorithm 1), every client takes the level of its highest
    flag(i, l) = [alpha q(i, l) + (1 - alpha) B_i] / l, where q(i, l) = D_i F_i IQ(l) is the quality of the client
    (samples, loss, and the share of the loss's fall that 2^l bits keep) and B_i its bandwidth. With a limit on all
    uploads of a round (algorithm 2), flags are divided by the client's bandwidth s_i too, and taken from the highest
    down, one level a client at most, while they fit; clients that are left over send nothing.

    Where this differs from the paper, and what it leaves open: D_i F_i and B_i are divided by the cohort's largest, so
    that alpha weighs like against like. F_i is the mean loss of the client's last local training, and of a newcomer the
    mean of the others', so that no message is needed before the round. IQ is not fitted in every round, which needs the
    losses that each client would have had at several levels; it is the paper's fit for EMNIST (figure 4a), given as the
    table `impact`. A level weighs its bits a value, and the limit is in the same unit. Rounding is stochastic, and an
    entropy coder follows. As printed, B_i / l draws fast links to few bits, although the text says the reverse;
    alpha = 1 leaves bandwidth out.
    """

    name: Literal["laq_hc"] = "laq_hc"
    alpha: float = Field(default=0.5, ge=0, le=1)
    """Weight of a client's quality against its bandwidth."""
    levels: tuple[Literal[1, 2, 3, 4], ...] = Field(default=(1, 2, 3, 4), min_length=1)
    """Levels l to choose from, rising; level l has 2**l bits."""
    impact: tuple[float, ...] = (0.2183, 0.4691, 0.7894, 0.9728)
    """IQ of each of the levels: share of the loss's fall in a round that is kept, 1 without quantisation."""
    budget: float | None = Field(default=None, gt=0)
    """Bits a value that the cohort's clients may send in the mean; null sets no limit."""
    codec: str = "uniform({bits}) | rans"
    """Template of the codec line, with ``{bits}`` in it."""

    @model_validator(mode="after")
    def _makes_lines(self) -> "LaqHC":
        if list(self.levels) != sorted(set(self.levels)):
            raise ValueError(f"levels must rise from value to value, got {list(self.levels)}")
        if len(self.impact) != len(self.levels):
            raise ValueError(f"impact must have a number for each of {len(self.levels)} levels, got {len(self.impact)}")
        check_template(self.codec, "bits", (2**level for level in self.levels))
        return self

    def initial(self) -> LaqHCState:
        """Nothing known."""
        return LaqHCState()

    def decide(self, state: LaqHCState, observation: Observation) -> tuple[Decision, LaqHCState]:
        """The bits that the server told, 0 to skip; where it told nothing, those of a client that is alone."""
        alone = 2 ** max(self._flags(0, 1.0, 1.0), key=_rank).level
        bits = int(told(observation.told, "bits", alone))
        if math.isfinite(observation.loss):
            state = LaqHCState(loss=max(observation.loss, 0.0))
        if bits < 1:
            return skip("beyond the round's limit"), state
        reason = "highest flag" if self.budget is None else "highest flag that fits"
        return sent(filled(self.codec, "bits", bits), observation, reason), state

    def plan(self, shared: Numbers, cohort: Cohort) -> tuple[Plan, Numbers]:
        """Everybody's highest flag, or greedily what fits the limit."""
        members = cohort.members
        losses = _losses(members)
        qualities = _shares([member.samples * loss for member, loss in zip(members, losses, strict=True)])
        links = _shares([member.uplink for member in members])
        flags = [
            self._flags(member.client, quality, link)
            for member, quality, link in zip(members, qualities, links, strict=True)
        ]
        if self.budget is None:
            chosen = {row[0].client: max(row, key=_rank).level for row in flags}
        else:
            priced = [
                Flag(item.flag / link if link > 0 else 0.0, item.client, item.level)
                for row, link in zip(flags, links, strict=True)
                for item in row
            ]
            chosen = packed(priced, self.budget * len(members))
        return {
            member.client: {"bits": float(2 ** chosen[member.client]) if member.client in chosen else 0.0}
            for member in members
        }, shared

    def _flags(self, client: int, quality: float, link: float) -> list[Flag]:
        return [
            Flag((self.alpha * quality * impact + (1 - self.alpha) * link) / level, client, level)
            for level, impact in zip(self.levels, self.impact, strict=True)
        ]


def packed(flags: Sequence[Flag], room: float) -> dict[int, int]:
    """Levels by client: flags from the highest down, one a client at most, while their 2**level bits fit the room."""
    chosen: dict[int, int] = {}
    for item in sorted(flags, key=_rank, reverse=True):
        if item.client not in chosen and 2**item.level <= room:
            chosen[item.client] = item.level
            room -= 2**item.level
    return chosen


def _rank(item: Flag) -> tuple[float, int, int]:
    """Higher flags first; of equals the lower client, then the lower level."""
    return item.flag, -item.client, -item.level


def _losses(members: Sequence[Member]) -> list[float]:
    """The loss that each member last trained at; the mean of those known where it never did."""
    reported = [-1.0 if member.state is None else member.state.get("loss", -1.0) for member in members]
    known = [loss for loss in reported if 0 <= loss < math.inf]
    mean = sum(known) / len(known) if known else 1.0
    return [loss if 0 <= loss < math.inf else mean for loss in reported]


def _shares(values: Sequence[float]) -> list[float]:
    """Values over the largest of them, all 1 where none is positive; what is infinite counts as the largest float."""
    finite = [min(max(value, 0.0), 1e300) if not math.isnan(value) else 0.0 for value in values]
    top = max(finite, default=0.0)
    return [value / top if top > 0 else 1.0 for value in finite]
