"""Whether a cluster could ever hold what a run reserves, so that a run that never could is refused at once."""

from collections.abc import Mapping, Sequence

import ray

from tightwire.errors import ConfigError

_KEYS = {"CPU": "hosts.cpus", "GPU": "hosts.gpus"}


def check_room(where: str, hosts: int, reserved: Mapping[str, float], placement: str = "pack") -> None:
    """See that the machines that are there now have room for so many hosts, were nobody else on them.

    Args:
        where: The cluster, as an error calls it.
        hosts: How many the run needs to begin with.
        reserved: What each reserves, by Ray's names.
        placement: See `tightwire.config.Hosts`.

    Raises:
        ConfigError: They have not.
    """
    known = ray.nodes()  # type: ignore[no-untyped-call]  # ray leaves it untyped
    machines: Sequence[Mapping[str, float]] = [node["Resources"] for node in known if node["Alive"]]
    for name, amount in reserved.items():
        largest = max((machine.get(name, 0.0) for machine in machines), default=0.0)
        if largest < amount:
            key = _KEYS.get(name, f"hosts.resources.{name}")
            raise ConfigError(
                f"{key}: each host is to reserve {amount:g} {_plural(name)}, but the largest machine of {where} has "
                f"{largest:g}"
            )
    rooms = [
        min(int(machine.get(name, 0.0) / amount + 1e-9) for name, amount in reserved.items()) for machine in machines
    ]
    what = " and ".join(f"{amount:g} {_plural(name)}" for name, amount in reserved.items())
    room = {"strict_pack": max(rooms), "strict_spread": sum(map(bool, rooms))}.get(placement, sum(rooms))
    if room < hosts:
        strictly = f" placed as {placement}" if placement.startswith("strict") else ""
        raise ConfigError(
            f"hosts: {hosts} hosts of {what}{strictly} are to be started, but {where} has room for {room}; lower "
            f"--workers or what a host reserves, or give a range, such as hosts.workers={{min: 1, max: {hosts}}}, "
            f"which takes machines in as they join"
        )


def _plural(name: str) -> str:
    return f"{name}s" if name in _KEYS else name
