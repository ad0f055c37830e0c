"""The simulated clock beside real TCP: encoded frames, sent through links that have the bandwidths of device tiers.

    python benchmarks/clock.py [--direction TIER:up|down ...] [--line LINE ...] [--repeats R] [--json]

One MLP update is encoded by several codec lines, so that frames of several sizes result. Each goes from one network
namespace to another over a veth link that a token bucket (`tc tbf`) holds to the tier's bandwidth, headers included,
and is timed from the first byte handed to the socket until the receiver has said that it has the last one. Beside it
stands what the simulation's own clock says for a frame of that length on that link, with a round-trip time of 0, which
is what a veth link has. Medians of R transfers over one open connection. Every frame is decoded where it arrives.

Exit code 1 if any case differs by more than 10 %, 2 for bad arguments, 3 where network namespaces are not permitted,
which root is asked for.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "tests" / "support"))

from netns import LARGEST_PACKET, Host, Network, permitted  # noqa: E402 - from the folder named above
from tightwire.codecs.codec import Codec, decode  # noqa: E402
from tightwire.devices.links import Channel, Constant, Steady  # noqa: E402
from tightwire.devices.population import Population  # noqa: E402
from tightwire.devices.tiers import tier  # noqa: E402
from tightwire.errors import ConfigError  # noqa: E402
from tightwire.federation.passage import alone  # noqa: E402
from tightwire.wire.schema import Schema, TensorSpec  # noqa: E402

ENDS = str(HERE / "clock_ends.py")
DIRECTIONS = ("old-phone-lte:up", "mid-phone-wifi:up", "flagship-5g:down")
LINES = ("topk(0.02) | uniform(4) | rans", "topk(0.1) | uniform(4) | rans", "uniform(4) | rans", "uniform(8)", "fp16")
HIDDEN = 2000
LATE_TIMER = 5e-4
"""Seconds of the link's rate that its token bucket holds, so that a late timer of this machine costs no bandwidth. The
sending end spends them before it sends a frame."""
TOLERANCE = 0.10
SECONDS = 600.0
"""Within which the transfers of one case must be over."""


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    direction: str
    bandwidth: float
    """Bit/s, of the tier and of the link."""
    line: str
    size: int
    """Bytes of the frame."""
    simulated: float
    """Seconds by the simulated clock."""
    measured: float
    """Seconds by the machine's, the median."""
    headers: float
    """Bytes of Ethernet, IP and TCP headers for each byte of payload, as the link counted them."""

    @property
    def ratio(self) -> float:
        """Measured to simulated seconds."""
        return self.measured / self.simulated

    @property
    def within(self) -> bool:
        """Whether they agree."""
        return abs(self.ratio - 1) <= TOLERANCE


def frames(lines: Sequence[str]) -> tuple[Schema, dict[str, bytes]]:
    """The update of an MLP on MNIST, encoded by each line."""
    schema = Schema(
        (
            TensorSpec("hidden.weight", (HIDDEN, 784)),
            TensorSpec("hidden.bias", (HIDDEN,)),
            TensorSpec("output.weight", (10, HIDDEN)),
            TensorSpec("output.bias", (10,)),
        )
    )
    update = np.random.default_rng(1).laplace(scale=0.01, size=schema.size).astype(np.float32)
    return schema, {line: Codec.parse(line).encode(update, schema, key=1, round=1, client=0).frame for line in lines}


def channel(direction: str) -> Steady:
    """The link of a typical device of a tier, as the simulation has it; `direction` is TIER:up or TIER:down."""
    name, _, way = direction.partition(":")
    if way not in ("up", "down"):
        raise ConfigError(f"--direction {direction}: right would be TIER:up or TIER:down, such as {DIRECTIONS[0]}")
    profile = replace(Population(clients=1, tiers={tier(name).name: 1.0}, spread=0.0).profile(0, seed=0), rtt=0.0)
    channels = Constant().channels(profile, round=1, client=0, seed=0)
    chosen: Channel = {"up": channels.up, "down": channels.down}[way]
    assert isinstance(chosen, Steady)  # noqa: S101 - a constant link's channels are
    return chosen


def transfer(sender: Host, receiver: Host, frame: bytes, burst: int, repeats: int) -> tuple[list[float], bytes, int]:
    """Send a frame `repeats` times; returns seconds of each, what arrived last, and bytes on the wire of all."""
    with tempfile.TemporaryDirectory() as folder:
        source, arrived = Path(folder, "sent"), Path(folder, "arrived")
        source.write_bytes(frame)
        before = sender.sent()
        words = [sys.executable, ENDS, "receive", receiver.address, *[str(arrived)] * repeats]
        with receiver.popen(words, stdout=subprocess.PIPE) as end:
            try:
                if end.stdout is None or end.stdout.readline() != b"listening\n":
                    raise SystemExit("the receiving end did not start")
                words = [sys.executable, ENDS, "send", receiver.address, str(burst), *[str(source)] * repeats]
                done = sender.run(words, timeout=SECONDS)
                if done.returncode != 0:
                    raise SystemExit(f"the sending end failed: {done.stderr.decode()}")
                end.wait(SECONDS)
            finally:
                end.kill()
        return [float(line) for line in done.stdout.split()], arrived.read_bytes(), sender.sent() - before


def measure(network: Network, direction: str, line: str, schema: Schema, frame: bytes, repeats: int) -> Case:
    """One case; one that differs by too much is measured once more, since this machine may have been busy."""
    sender, receiver = network.hosts
    link = channel(direction)
    burst = max(4 * LARGEST_PACKET, round(link.rate * LATE_TIMER / 8))
    sender.shape(up=link.rate, burst=burst)
    for _ in range(2):
        seconds, arrived, wire = transfer(sender, receiver, frame, burst, repeats)
        if arrived != frame or decode(arrived, schema).shape != (schema.size,):
            raise SystemExit(f"{line}: another frame arrived than was sent")
        payload = repeats * (len(frame) + 2 * burst + 2 * 8)
        case = Case(
            direction,
            link.rate,
            line,
            len(frame),
            alone(link, 0.0, 0.0, len(frame), 0.0),
            statistics.median(seconds),
            wire / payload - 1,
        )
        if case.within:
            break
    return case


def table(cases: Sequence[Case]) -> Table:
    """The cases, one a row."""
    shown = Table(title="seconds for one frame")
    for heading in ("link", "Mbit/s", "codec", "bytes", "simulated", "measured", "ratio", "headers"):
        shown.add_column(heading, justify="left" if heading in ("link", "codec") else "right")
    for case in cases:
        shown.add_row(
            case.direction,
            f"{case.bandwidth / 1e6:g}",
            case.line,
            f"{case.size:,}",
            f"{case.simulated:.4f}",
            f"{case.measured:.4f}",
            f"{case.ratio:.3f}" + ("" if case.within else " !"),
            f"{case.headers:.1%}",
        )
    return shown


def main() -> None:
    """Measure every case and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--direction", nargs="+", default=DIRECTIONS, metavar="TIER:up|down")
    parser.add_argument("--line", nargs="+", default=LINES, help="codec lines")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    try:
        for direction in arguments.direction:
            channel(direction)
        schema, encoded = frames(arguments.line)
    except ConfigError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from None
    refused = permitted()
    if refused is not None:
        print(f"not measured: {refused}", file=sys.stderr)
        raise SystemExit(3)
    with Network(2) as network:
        cases = [
            measure(network, direction, line, schema, frame, arguments.repeats)
            for direction in arguments.direction
            for line, frame in encoded.items()
        ]
    within = sum(case.within for case in cases)
    furthest = max(cases, key=lambda case: abs(case.ratio - 1))
    if arguments.json:
        print(json.dumps([{**asdict(case), "ratio": case.ratio, "within": case.within} for case in cases]))
    else:
        Console(width=120).print(table(cases))
        print(
            f"{within} of {len(cases)} cases within {TOLERANCE:.0%}; the furthest, {furthest.direction} with "
            f"{furthest.size:,} bytes, took {furthest.ratio:.3f} of the simulated time"
        )
    raise SystemExit(0 if within == len(cases) else 1)


if __name__ == "__main__":
    main()
