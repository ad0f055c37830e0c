"""Who takes part in a round, what each is sent and told, and who cannot."""

from dataclasses import dataclass, field, replace
from typing import Any

from tightwire.arrays import Ints
from tightwire.devices.energy import can_afford, compute_joules, download_joules, idle_joules, tail_joules
from tightwire.devices.memory import refusal
from tightwire.devices.population import Profile
from tightwire.devices.sharing import Transfer, share
from tightwire.federation.downlink import Delivery, Public
from tightwire.federation.state import ClientRecord, ServerSetup, ServerState
from tightwire.federation.tasks import ClientTask
from tightwire.keys import key
from tightwire.policies.base import Cohort, Member, Numbers


@dataclass(slots=True)
class Invited:
    """The clients of one round, before it closes."""

    selected: int
    tasks: list[ClientTask] = field(default_factory=list)
    """Ascending by client."""
    deliveries: dict[int, Delivery] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)
    batteries: dict[int, float] = field(default_factory=dict)
    """Joules at the start of the round, by client."""
    shared: Numbers = field(default_factory=dict)
    """What the server's side of the policy remembers now."""

    def refuse(self, reason: str) -> None:
        """Count one who cannot take part."""
        self.refused[reason] = self.refused.get(reason, 0) + 1


def invite(setup: ServerSetup, eligible: Ints, state: ServerState[Any], public: Public, whole: Delivery) -> Invited:
    """Select a cohort; those who cannot take part say so before anything is sent.

    Args:
        setup: Of the run.
        eligible: Clients that hold samples, ascending.
        state: Before the round.
        public: What the clients are to hold.
        whole: The model in full.
    """
    staying: dict[int, float] = {}

    def available(client: int) -> bool:
        until = setup.availability.until(client, state.clock, setup.seed)
        if until is not None:
            staying[client] = until - state.clock
        return until is not None

    always = setup.availability.name == "always"
    selected = setup.participation.select(eligible, state.round, setup.seed, None if always else available)
    invited = Invited(len(selected))
    members = []
    for client in selected:
        profile = setup.population.profile(client, setup.seed)
        record = state.clients.get(client) or ClientRecord(battery=setup.battery.initial(profile, client, setup.seed))
        joules = setup.battery.charged(record.battery, profile, client, record.seen, state.clock, setup.seed)
        spendable = setup.battery.available(joules, profile)
        delivery = setup.downlink.deliver(public, record.version, whole)
        task = ClientTask(
            client,
            delivery.sections.total,
            setup.participation.drops(client, state.round, setup.seed),
            spendable,
            record.policy,
            leaves=staying.get(client, float("inf")),
        )
        member = _member(setup, profile, task)
        reason = refusal(profile, setup.memory_needed)
        if reason is None and not can_afford(spendable, _before_upload(setup, profile, task, member)):
            reason = "battery"
        if reason is not None:
            invited.refuse(reason)
            continue
        invited.tasks.append(task)
        invited.deliveries[client] = delivery
        invited.batteries[client] = joules
        members.append(member)
    cohort = Cohort(state.round, tuple(members), setup.schema.size, setup.deadline, key(setup.seed, "policy"))
    plan, invited.shared = setup.policy.plan(state.shared, cohort)
    invited.tasks = [replace(task, told=dict(plan.get(task.client, {}))) for task in invited.tasks]
    if setup.egress is not None:
        _share_downloads(setup, state, invited, setup.egress)
    return invited


def _member(setup: ServerSetup, profile: Profile, task: ClientTask) -> Member:
    samples = int(setup.sizes[task.client])
    return Member(
        client=task.client,
        tier=profile.tier,
        samples=samples,
        uplink=profile.uplink,
        latency=profile.rtt / 2,
        download=profile.rtt / 2 + 8 * task.bytes_down / profile.downlink,
        compute=setup.flops_per_sample * samples / profile.flops,
        state=task.policy,
    )


def _before_upload(setup: ServerSetup, profile: Profile, task: ClientTask, member: Member) -> float:
    """Joules that receiving and training should take."""
    radio = download_joules(task.bytes_down, profile) + tail_joules(profile, 1) + idle_joules(profile, member.download)
    return radio + compute_joules(setup.flops_per_sample * member.samples, profile)


def _share_downloads(setup: ServerSetup, state: ServerState[Any], invited: Invited, egress: float) -> None:
    """Let all downloads share the server's link, from the start of the round on."""
    resent = setup.turns.resent
    links = [setup.turns.channels(state.round, task.client) for task in invited.tasks]
    ends = []
    for sizes in ([task.bytes_down for task in invited.tasks], [setup.fp32_bytes] * len(invited.tasks)):
        transfers = [
            Transfer(state.clock, size + resent(size), link.down) for size, (_, link) in zip(sizes, links, strict=True)
        ]
        ends.append(share(transfers, egress))
    invited.tasks = [
        replace(task, download=own - state.clock + profile.rtt / 2, download_fp32=fp32 - state.clock + profile.rtt / 2)
        for task, (profile, _), own, fp32 in zip(invited.tasks, links, *ends, strict=True)
    ]
