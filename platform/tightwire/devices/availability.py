"""When clients are there: always, by a daily rhythm, or as recorded."""

import json
import math
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, count
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from tightwire.devices.draws import lognormal
from tightwire.devices.traces import pick, stamp
from tightwire.errors import DataError
from tightwire.keys import generator, key
from tightwire.spec import Spec

HOUR, DAY = 3600, 86_400
"""In seconds."""


class Always(Spec):
    """Every client is there all the time."""

    name: Literal["always"] = "always"

    def check(self) -> None:
        """There are no files to read."""

    def until(self, client: int, now: float, seed: int) -> float | None:  # noqa: ARG002 - the interface's arguments
        """For ever."""
        return math.inf


class Diurnal(Spec):
    """Clients come and go at random, most often in their night.

    A client is there for exponential times and away for exponential times in turn. The hazard of going is 1 / mean_on;
    that of coming follows the day, from its peak in the two hours around the client's midnight, evenly down to its
    trough in those around noon, and back, by the hour; its mean over a day is 1 / mean_off. Simulated second 0 is
    midnight for the clients farthest west. Bonawitz et al. 2019 ("Towards federated learning at scale", on operational
    profiles) saw four times as many phones at night as by day. Of those who are there, the swing is less and comes
    later, the more so the longer they stay.

    Done with two Poisson streams for each client, of calls to come and calls to go: the last call decides. That is the
    process above, and it has been going on before second 0. As a Poisson stream on one day does not depend on that on
    another, each day is drawn by its own key, and a client's state on day 100 costs no more than on day 0. Counts are
    drawn by Knuth's product of uniforms, so the numbers have the same bits everywhere. Calls come on whole seconds.
    """

    name: Literal["diurnal"] = "diurnal"
    mean_on: float = Field(default=2.0, ge=0.1, le=1000)
    """Hours that a client stays, in the mean."""
    mean_off: float = Field(default=6.0, ge=0.1, le=1000)
    """Hours after which a client that is away comes, by the mean hazard of a day."""
    swing: float = Field(default=4.0, ge=1, le=100)
    """Hazard of coming at its peak over that at its trough; 1 for no rhythm."""
    zones: float = Field(default=6.0, ge=0, le=24)
    """Hours by which clients' days are apart, evenly and keyed by (seed, client); 24 is all around the world."""

    def check(self) -> None:
        """There are no files to read."""

    def until(self, client: int, now: float, seed: int) -> float | None:
        """The second of the next call to go, or None if the last call before or at `now` was one.

        Args:
            client: Client number.
            now: Absolute simulated seconds.
            seed: The run's seed.
        """
        shift = pick(key(seed, "time-zone", client=client), max(1, round(self.zones * HOUR)))
        local = now + shift
        today = int(local // DAY)
        for day in count(today, -1):
            came = [second for second in self._comes(client, day, seed) if second <= local]
            went = [second for second in self._goes(client, day, seed) if second <= local]
            if came or went:
                if not came or (went and went[-1] >= came[-1]):
                    return None
                break
        for day in count(today):
            for second in self._goes(client, day, seed):
                if second > local:
                    return float(second - shift)
        raise AssertionError("days do not end")

    def _comes(self, client: int, day: int, seed: int) -> tuple[int, ...]:
        return _calls(self.mean_off, self.swing, "come", client, day, seed)

    def _goes(self, client: int, day: int, seed: int) -> tuple[int, ...]:
        return _calls(self.mean_on, 1.0, "go", client, day, seed)


@lru_cache(maxsize=16_384)
def _calls(mean: float, swing: float, purpose: str, client: int, day: int, seed: int) -> tuple[int, ...]:
    """A client's calls on one day of its own, in seconds of its own time, ascending."""
    rng = generator(seed, purpose, round=day, client=client)
    none, hours = _nobody(mean), _hours(swing)
    number, product = 0, rng.random()
    while product > none:
        number += 1
        product *= rng.random()
    seconds = []
    for goal in rng.random(number).tolist():
        hour = bisect_right(hours, 24 * goal, 1, 24) - 1
        part = (24 * goal - hours[hour]) / (hours[hour + 1] - hours[hour])
        seconds.append(day * DAY + hour * HOUR + min(HOUR - 1, int(part * HOUR)))
    return tuple(sorted(seconds))


@lru_cache(maxsize=64)
def _nobody(mean: float) -> float:
    """The probability that a stream of one call in `mean` hours has none on a day: exp(-24 / mean)."""
    return lognormal(1.0, -24 / mean)


@lru_cache(maxsize=64)
def _hours(swing: float) -> tuple[float, ...]:
    """The integral of the day's rhythm, whose mean is 1, up to each full hour, shape (25,)."""
    nightly = [(abs(hour - 11.5) - 0.5) / 11 for hour in range(24)]
    return tuple(accumulate((2 * (1 + (swing - 1) * night) / (1 + swing) for night in nightly), initial=0.0))


@dataclass(frozen=True, slots=True)
class Presence:
    """When one recorded client is there, over and over."""

    comes: tuple[float, ...]
    """Seconds from the beginning of the recording, ascending."""
    goes: tuple[float, ...]
    """Each after that of `comes`, and before the next."""
    period: float
    """Seconds until the recording begins anew, at least the last of `goes`."""

    def until(self, now: float) -> float | None:
        """As of `Replayed.until`."""
        loops, position = divmod(now, self.period)
        index = bisect_right(self.comes, position) - 1
        if index < 0 or position >= self.goes[index]:
            return None
        end = self.goes[index]
        if end == self.period and self.comes[0] == 0:  # goes on at once when the recording begins anew
            if index == 0:
                return math.inf
            loops, end = loops + 1, self.goes[0]
        second = loops * self.period + end
        return second if second > now else None


class Replayed(Spec):
    """Clients are there as others were, in FedScale's form (Lai et al. 2022) as JSON.

    The file maps names to records ``{"duration": ..., "active": [...], "inactive": [...], "finish_time": ...}`` of
    seconds: a client is there from active[i] until inactive[i], by simulated time modulo finish_time. Other keys, and
    `duration`, are not read. Client number c is as the record at c modulo the number of records, which are in the order
    of their names, those that are numbers first, by value. The file must be there, at the same path, wherever clients
    are chosen.
    """

    name: Literal["replayed"] = "replayed"
    path: Path
    """The file; ``~`` is the home folder."""

    def check(self) -> None:
        """Read the file.

        Raises:
            DataError: It is missing or damaged.
        """
        self.records()

    def records(self) -> tuple[Presence, ...]:
        """All records in order; the file is read once a process, and again when it has changed.

        Raises:
            DataError: It is missing or damaged; names the record.
        """
        path = self.path.expanduser()
        return _records(path, *stamp(path, "a JSON file of availability records"))

    def until(self, client: int, now: float, seed: int) -> float | None:  # noqa: ARG002 - nothing is drawn
        """The second at which the record says it goes, or None if it is away at `now`.

        Args:
            client: Client number.
            now: Absolute simulated seconds.
            seed: Of no effect.

        Raises:
            DataError: The file is missing or damaged.
        """
        records = self.records()
        return records[client % len(records)].until(now)


AnyAvailability = Annotated[Always | Diurnal | Replayed, Field(discriminator="name")]
"""Any availability that an experiment file can name."""


@lru_cache(maxsize=8)
def _records(path: Path, changed: int, size: int) -> tuple[Presence, ...]:  # noqa: ARG001 - part of the cache's key
    wanted = 'give a JSON object of records {"active": [...], "inactive": [...], "finish_time": ...} by client'
    try:
        tree = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); {wanted}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: is not JSON ({' '.join(str(error).split())}); {wanted}") from None
    if not isinstance(tree, dict) or not tree:
        raise DataError(f"{path}: holds {_shown(tree)}; {wanted}")
    return tuple(_presence(tree[name], f"{path}: client {_shown(name)}") for name in sorted(tree, key=_order))


def _order(name: str) -> tuple[bool, int, str]:
    number = name.isascii() and name.isdigit() and len(name) < 19
    return not number, int(name) if number else 0, name


def _presence(record: Any, where: str) -> Presence:  # Any: whatever the file holds
    if not isinstance(record, dict):
        raise DataError(f"{where} is {_shown(record)}; should be a record with active, inactive and finish_time")
    comes, goes = (_seconds(record, name, where) for name in ("active", "inactive"))
    period = _second(record.get("finish_time"))
    if period is None or period < 1:
        raise DataError(f"{where}: finish_time is {_shown(record.get('finish_time'))}; should be seconds, at least 1")
    if len(comes) != len(goes):
        raise DataError(f"{where}: active has {len(comes)} times and inactive {len(goes)}; should be as many")
    spans: list[tuple[float, float]] = []
    for start, end in zip(comes, goes, strict=True):
        above = spans[-1][1] if spans else 0.0
        if not above <= start <= end <= period:
            raise DataError(
                f"{where}: active from {start:g} until {end:g} after {above:g}, with finish_time {period:g}; times "
                "should ascend, and none be after finish_time"
            )
        spans.append((start, end))
    merged = list(_merged(spans))
    return Presence(tuple(start for start, _ in merged), tuple(end for _, end in merged), period)


def _merged(spans: list[tuple[float, float]]) -> Iterator[tuple[float, float]]:
    """Spans that last, those that follow each other at once as one."""
    begun: tuple[float, float] | None = None
    for start, end in spans:
        if start == end:
            continue
        if begun is not None and begun[1] == start:
            begun = begun[0], end
            continue
        if begun is not None:
            yield begun
        begun = start, end
    if begun is not None:
        yield begun


def _seconds(record: dict[str, Any], name: str, where: str) -> list[float]:
    times = record.get(name)
    if not isinstance(times, list):
        raise DataError(f"{where}: {name} is {_shown(times)}; should be a list of seconds")
    seconds: list[float] = []
    for time in times:
        second = _second(time)
        if second is None:
            raise DataError(f"{where}: {name} holds {_shown(time)}; should be seconds, from 0 to 10^12")
        seconds.append(second)
    return seconds


def _second(value: object) -> float | None:
    """The number if it is one from 0 to 10^12; later seconds could not be told apart well enough."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1e12:
        return float(value)
    return None


def _shown(value: object) -> str:
    """A value for a message, shortened."""
    text = "missing" if value is None else ascii(value)
    return text if len(text) <= 40 else f"{text[:40]}..."
