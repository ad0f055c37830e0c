"""An `mlflow server` that asks for credentials, and a proxy before it that can be in trouble."""

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal

USER, PASSWORD = "admin", "a long password"
START_SECONDS = 240.0
LATENCY_SECONDS = 1.0
"""What a slow server takes longer for each request."""

Manner = Literal["as ever", "answers 500", "slow", "never answers"]

_AUTH = """[mlflow]
default_permission = READ
database_uri = sqlite:///{folder}/auth.db
admin_username = {user}
admin_password = {password}
auth_cache_ttl_seconds = 60
"""


def free_port() -> int:
    """A port of this machine that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Server:
    """An `mlflow server` on a sqlite store in a folder, with MLflow's basic authentication; it can be killed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None
        (folder / "auth.ini").write_text(_AUTH.format(folder=folder, user=USER, password=PASSWORD))

    def start(self) -> None:
        """Start it, unless it runs, and wait until it answers.

        Raises:
            RuntimeError: It does not come up.
        """
        if self.process is not None:
            return
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "mlflow", "server", "--app-name", "basic-auth", "--workers", "1"),
                    *("--host", "127.0.0.1", "--port", str(self.port)),
                    *("--backend-store-uri", f"sqlite:///{self.folder}/store.db"),
                    *("--artifacts-destination", str(self.folder / "artifacts")),
                ],
                cwd=self.folder,
                stdout=log,
                stderr=log,
                env={
                    **{name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")},
                    "MLFLOW_AUTH_CONFIG_PATH": str(self.folder / "auth.ini"),
                    "MLFLOW_FLASK_SERVER_SECRET_KEY": "for forms",
                    "MLFLOW_DISABLE_TELEMETRY": "true",
                    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # six processes that nothing here asks for
                },
                start_new_session=True,
            )
        end = time.monotonic() + START_SECONDS
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError((self.folder / "server.log").read_text()[-2000:])
            time.sleep(0.2)

    def kill(self) -> None:
        """Kill it and all that it started."""
        if self.process:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=5) as answer:  # noqa: S310 - loopback
                return bool(answer.status == 200)
        except OSError:
            return False


class Proxy:
    """Hands every request on to a server, in the manner that is set."""

    def __init__(self, port: int) -> None:
        self.manner: Manner = "as ever"
        self.requests = 0
        self.released = threading.Event()
        """Lets go of the requests that are never answered."""
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                try:
                    super().handle_one_request()
                except OSError:  # whoever asked has left
                    self.close_connection = True

            def pass_on(self) -> None:
                proxy.requests += 1
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if proxy.manner == "never answers":
                    proxy.released.wait(60)
                    self.close_connection = True
                    return
                if proxy.manner == "answers 500":
                    self._answer(500, b"out of order", "text/plain")
                    return
                if proxy.manner == "slow":
                    time.sleep(LATENCY_SECONDS)
                server = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
                try:
                    server.request(self.command, self.path, body, dict(self.headers))
                    answer = server.getresponse()
                    self._answer(answer.status, answer.read(), answer.getheader("Content-Type", "text/plain"))
                except (OSError, http.client.HTTPException):
                    self._answer(502, b"nobody there", "text/plain")
                finally:
                    server.close()

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = pass_on  # noqa: N815 - as http.server looks them up

            def _answer(self, status: int, body: bytes, kind: str) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                """Say nothing."""

        class Listening(ThreadingHTTPServer):
            daemon_threads = True

        self._listen: Callable[[int], ThreadingHTTPServer] = lambda port: Listening(("127.0.0.1", port), Handler)
        self._listening: ThreadingHTTPServer | None = None
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.come()

    def recover(self) -> None:
        """Be in no trouble from now on."""
        self.manner = "as ever"
        self.released.set()
        self.released = threading.Event()

    def come(self) -> None:
        """Listen, if it does not."""
        if self._listening is None:
            self._listening = self._listen(self.port)
            threading.Thread(target=self._listening.serve_forever, daemon=True).start()

    def go(self) -> None:
        """Listen no more, so that connections are refused as by a server that is dead."""
        self.recover()
        if self._listening is not None:
            self._listening.shutdown()
            self._listening.server_close()
            self._listening = None
