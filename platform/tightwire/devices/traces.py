"""Recorded links: mahimahi's packet-delivery traces, and a channel that replays one for ever."""

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from tightwire.errors import DataError

BIN = 100
"""Milliseconds over which delivery opportunities are averaged into one rate."""
PACKET_BITS = 8 * 1500
"""Bits that one opportunity carries."""
REST = 1e-11
"""Share of a transfer that rounding may leave over, and that is not waited for."""
LONGEST = 366 * 86_400_000
"""Milliseconds that a recording may last; anything longer is a mistake in the file."""


@dataclass(frozen=True, slots=True)
class Recording:
    """One direction of a link over one period, as runs of constant rate, which begin anew when it is over."""

    edges: tuple[int, ...]
    """Milliseconds at which each run ends, strictly ascending; the last is the period."""
    bits: tuple[int, ...]
    """Bits carried from the beginning to the end of each run; the last is what a period carries, above 0."""
    peak: float
    """Fastest rate of a run in bit/s."""

    @property
    def period(self) -> int:
        """Milliseconds until it begins anew."""
        return self.edges[-1]

    @property
    def mean(self) -> float:
        """Bit/s over a period."""
        return self.bits[-1] * 1000 / self.period

    def run(self, index: int) -> tuple[int, int, int, int]:
        """Where a run begins and ends, in milliseconds, and the bits carried until either."""
        begins, before = (self.edges[index - 1], self.bits[index - 1]) if index else (0, 0)
        return begins, self.edges[index], before, self.bits[index]


def recording(opportunities: Sequence[int]) -> Recording:
    """The rates that delivery opportunities amount to.

    Each opportunity carries 1500 bytes. They are counted in bins of 100 ms; the last bin takes in what is left of the
    period, so that it lasts up to 199 ms. Neighbouring bins of the same rate become one run.

    Args:
        opportunities: Milliseconds from the beginning, not descending, the last above 0, which is the period.
    """
    period = opportunities[-1]
    last = max(1, period // BIN) - 1
    runs: list[tuple[int, int]] = []  # end in ms, packets
    for number, packets in sorted(Counter(min(ms // BIN, last) for ms in opportunities).items()):
        if number * BIN > (runs[-1][0] if runs else 0):
            runs.append((number * BIN, 0))
        runs.append((period if number == last else number * BIN + BIN, packets))
    edges, bits, rates = [0], [0], [-1.0]
    for end, packets in runs:
        rate = packets * PACKET_BITS * 1000 / (end - edges[-1])
        total = bits[-1] + packets * PACKET_BITS
        if rate == rates[-1]:
            edges[-1], bits[-1] = end, total
        else:
            edges.append(end)
            bits.append(total)
            rates.append(rate)
    return Recording(tuple(edges[1:]), tuple(bits[1:]), max(rates))


def read(path: Path) -> Recording:
    """Read a trace of mahimahi's form (Netravali et al. 2015, "Mahimahi: accurate record-and-replay for HTTP").

    Each line is an integer of milliseconds, not before that of the line above, at which one packet of 1500 bytes can be
    delivered; after the last, the trace begins anew. A file is read once a process, and again when it has changed.

    Raises:
        DataError: The file cannot be read, or is not such a trace; names the line.
    """
    return _read(path, *stamp(path, "a mahimahi trace, one number of milliseconds a line"))


def pairs(folder: Path) -> tuple[tuple[Path, Path], ...]:
    """The traces in a folder as (NAME.up, NAME.down), by name.

    Raises:
        DataError: The folder cannot be read, has no traces, or has one direction of a link without the other.
    """
    changed, _ = stamp(folder, "a folder of traces NAME.up and NAME.down")
    return _pairs(folder, changed)


def stamp(path: Path, wanted: str) -> tuple[int, int]:
    """What changes when a file does: its time of modification in nanoseconds, and its size in bytes.

    Args:
        path: The file.
        wanted: What the path should be of, for the error.

    Raises:
        DataError: There is no such file.
    """
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"{path}: cannot be read ({said}); give the path of {wanted}") from None
    return status.st_mtime_ns, status.st_size


@lru_cache(maxsize=256)
def _read(path: Path, changed: int, size: int) -> Recording:  # noqa: ARG001 - part of the cache's key
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); give the path of a mahimahi trace") from None
    if not lines[-1]:
        lines.pop()
    if not lines:
        raise DataError(f"{path}: is empty; give a mahimahi trace, one number of milliseconds a line")
    opportunities: list[int] = []
    above = 0
    for number, line in enumerate(lines, 1):
        ms = _milliseconds(line.rstrip(b"\r"), f"{path}, line {number}")
        if ms < above:
            raise DataError(f"{path}, line {number}: {ms} comes after {above}; milliseconds must not descend")
        opportunities.append(ms)
        above = ms
    if above == 0:
        raise DataError(f"{path}, line {len(lines)}: the last time is 0 ms; a trace must last for more than that")
    return recording(opportunities)


def _milliseconds(line: bytes, where: str) -> int:
    if not line.isdigit():
        received = repr(line[:40].decode("ascii", "backslashreplace")) if line else "an empty line"
        raise DataError(f"{where}: received {received}; should be an integer of milliseconds, at least 0")
    if len(line.lstrip(b"0")) > len(str(LONGEST)) or int(line) > LONGEST:
        raise DataError(f"{where}: received {line[:40].decode()}; should be at most {LONGEST} ms, which is a year")
    return int(line)


@lru_cache(maxsize=16)
def _pairs(folder: Path, changed: int) -> tuple[tuple[Path, Path], ...]:  # noqa: ARG001 - part of the cache's key
    try:
        names = sorted(path.name for path in folder.iterdir())
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror}); give a folder of traces") from None
    ups = [name.removesuffix(".up") for name in names if name.endswith(".up")]
    downs = [name.removesuffix(".down") for name in names if name.endswith(".down")]
    if not ups and not downs:
        raise DataError(f"{folder}: holds no traces; give a folder with pairs NAME.up and NAME.down")
    lone = sorted({f"{name}.up" for name in set(ups) - set(downs)} | {f"{name}.down" for name in set(downs) - set(ups)})
    if lone:
        raise DataError(f"{folder}: {lone[0]} has no counterpart; give pairs NAME.up and NAME.down")
    return tuple((folder / f"{name}.up", folder / f"{name}.down") for name in ups)


@dataclass(frozen=True, slots=True)
class Replay:
    """A channel that plays a recording over and over, by absolute simulated time."""

    recording: Recording
    offset: int
    """Milliseconds into the recording at simulated second 0, at least 0."""
    factor: float
    """What its rates are multiplied with, above 0."""

    @property
    def peak(self) -> float:
        """The fastest it ever gets, in bit/s."""
        return self.factor * self.recording.peak

    def segments(self, start: float) -> Iterator[tuple[float, float]]:
        """(until, rate) from the second `start` on, endlessly; rates in bit/s may be 0, though not for a whole period.

        Where a segment ends does not depend on `start`.
        """
        tape = self.recording
        loop, index, _ = self._place(start)
        while True:
            begins, ends, before, after = tape.run(index)
            until = (loop * tape.period + ends - self.offset) / 1000
            if until > start:
                yield until, self.factor * ((after - before) * 1000 / (ends - begins))
            index += 1
            if index == len(tape.edges):
                loop, index = loop + 1, 0

    def through(self, start: float, bits: float) -> float:
        """The second at which `bits` that began at `start` are through; takes no longer for a long transfer.

        Whole periods are skipped by division, and the place within the last one is looked up.
        """
        if bits <= 0:
            return start
        tape = self.recording
        loop, index, position = self._place(start)
        begins, ends, before, after = tape.run(index)
        goal = before + (position - begins) * ((after - before) / (ends - begins)) + bits / self.factor
        loops, rest = divmod(goal, tape.bits[-1])
        if rest <= REST * goal:  # done with the last bit of a period, not with the first of the next
            loops, rest = loops - 1, float(tape.bits[-1])
        index = bisect_left(tape.bits, rest - REST * goal)
        begins, ends, before, after = tape.run(index)
        inside = min(float(ends), begins + (rest - before) / ((after - before) / (ends - begins)))
        return max(start, ((loop + int(loops)) * tape.period + inside - self.offset) / 1000)

    def _place(self, second: float) -> tuple[int, int, float]:
        """Which time through the recording, which run of it, and how many milliseconds into it."""
        loops, position = divmod(second * 1000 + self.offset, self.recording.period)
        index = bisect_right(self.recording.edges, position)
        if index == len(self.recording.edges):  # rounded up to the period
            return int(loops) + 1, 0, 0.0
        return int(loops), index, position


def pick(key: int, count: int) -> int:
    """A number below `count` from a 64-bit key, each as likely as the other up to count / 2**64."""
    return key * count >> 64
