"""The two ends of `benchmarks/clock.py`, each started in a network namespace of its own; needs nothing but Python.

    python clock_ends.py receive ADDRESS FILE...      one frame into each file
    python clock_ends.py send ADDRESS BURST FILE...   prints the seconds that each took

A message is its length in 8 bytes and itself; the receiver answers each with one byte once it has all of it. Before
each frame goes a message that spends what the link's token bucket saved up in the pause, so that none of the frame is
free. Both run before the machine's other work, whose waits are not the link's.
"""

import os
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path

PORT = 5000
CONGESTION = b"cubic"
"""Linux's default, so that the result does not depend on what this machine is set to."""


def receive(address: str, files: list[str]) -> None:
    """Take a warm-up and a frame for each file, from one sender."""
    with socket.create_server((address, PORT)) as server:
        print("listening", flush=True)
        connection, _ = server.accept()
        with connection, connection.makefile("rb") as stream:
            for file in files:
                for _ in ("warm-up", "frame"):
                    message = stream.read(int.from_bytes(stream.read(8), "big"))
                    connection.sendall(b"\x06")
                Path(file).write_bytes(message)


def send(address: str, burst: int, files: list[str]) -> None:
    """Send each file's bytes, after a warm-up."""
    with socket.create_connection((address, PORT)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, CONGESTION)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for file in files:
            frame = Path(file).read_bytes()
            _timed(connection, bytes(2 * burst))
            print(_timed(connection, frame), flush=True)


def _timed(connection: socket.socket, message: bytes) -> float:
    whole = len(message).to_bytes(8, "big") + message
    start = time.perf_counter()
    connection.sendall(whole)
    if connection.recv(1) != b"\x06":
        raise SystemExit("the receiver is gone")
    return time.perf_counter() - start


if __name__ == "__main__":
    with suppress(OSError):  # where it is not permitted, only a machine without other work measures right
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    if sys.argv[1] == "receive":
        receive(sys.argv[2], sys.argv[3:])
    else:
        send(sys.argv[2], int(sys.argv[3]), sys.argv[4:])
