"""Where a cluster is, and what it asks of whoever comes; apart from the runs there, for what only looks is quick."""

import os
import socket
from pathlib import Path

from ray._private.services import canonicalize_bootstrap_address  # no public way to look "auto" up before joining
from ray._raylet import Config  # type: ignore[attr-defined]  # compiled; no public way to have the environment read again

CONNECT_SECONDS = 5.0
"""How long a cluster's address has to answer; Ray itself would try for minutes."""


def answering(address: str) -> str:
    """The host:port behind an address, after an attempt to connect.

    Raises:
        OSError: Nothing listens there.
        ValueError: It is no such address.
    """
    if address.startswith("ray://"):
        raise ValueError("ray:// addresses, of Ray Client, are of no use here")
    place = canonicalize_bootstrap_address("auto") if address == "auto" else address
    host, _, port = str(place).rpartition(":")
    if not host or not port.isdigit():
        raise ValueError("not host:port")
    with socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS):
        return str(place)


def show_token() -> None:
    """Where there is a token of a cluster, let Ray show it: `ray start` asks for one then, `ray.init` does not."""
    paths = (os.environ.get("RAY_AUTH_TOKEN_PATH"), Path.home() / ".ray" / "auth_token")
    if "RAY_AUTH_MODE" not in os.environ and (
        os.environ.get("RAY_AUTH_TOKEN") or any(path is not None and Path(path).is_file() for path in paths)
    ):
        os.environ["RAY_AUTH_MODE"] = "token"
        Config.initialize("")  # Ray has read its environment when it was imported
