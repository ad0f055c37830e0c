"""Jobs of a Ray cluster, seen through its dashboard: no more of the cluster than that one port has to be reachable."""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, urlencode

import requests
from ray._private.ray_constants import WORKER_PROCESS_SETUP_HOOK_ENV_VAR  # see `PYTHON`
from ray.dashboard.utils import ray_address_to_api_server_url
from ray.exceptions import AuthenticationError, RayError
from ray.job_submission import JobDetails, JobSubmissionClient

from tightwire.errors import ConfigError, TightwireError
from tightwire_actors.address import answering, show_token

Status = Literal["waiting", "running", "finished", "stopped", "failed"]

PYTHON = "TIGHTWIRE_PYTHON"
"""Environment variable of a job's command: the interpreter that Ray runs on there. `ray start` need not have had it on
its PATH, and Ray does not tell a command; so a hook in Ray's worker, which starts the command, does."""

PACKAGE_MB = 100
"""What the dashboard takes of one package, in MB (10^6 bytes); its own limit is 100 MiB."""

CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 60.0
"""How long a dashboard has to take a connection, and then to say something; a busy one takes its time."""
STOP_SECONDS = 24 * 3600
"""How long Ray waits for a job that was asked to stop before it kills the command: rounds can be long. The rounds are
run elsewhere, by a coordinator that was asked by then, and so are saved even if the command is killed."""

_STATUS: dict[str, Status] = {
    "PENDING": "waiting",
    "RUNNING": "running",
    "SUCCEEDED": "finished",
    "STOPPED": "stopped",
    "FAILED": "failed",
}


class AwayError(TightwireError):
    """The cluster does not answer now."""


@dataclass(frozen=True, slots=True)
class Job:
    """A job as the cluster knows it."""

    id: str
    status: Status
    metadata: Mapping[str, str]
    """What whoever submitted it noted."""
    started: float
    """Seconds since 1970 by the cluster's wall clock."""
    ended: float | None
    message: str
    exit_code: int | None
    """Of the job's command, where it ended by itself."""

    @property
    def over(self) -> bool:
        """Whether it has ended, one way or the other."""
        return self.status not in ("waiting", "running")


class Jobs:
    """The jobs of one cluster.

    Args:
        address: Its dashboard, such as ``http://head:8265``; or host:port of the dashboard or of the cluster, or
            "auto" for one on this machine. None takes RAY_API_SERVER_ADDRESS, else RAY_ADDRESS, else "auto".

    Raises:
        ConfigError: Nothing of the kind answers there.
    """

    def __init__(self, address: str | None) -> None:
        for name in ("ray.dashboard.modules.dashboard_sdk", "ray._private.runtime_env.packaging"):
            logging.getLogger(name).setLevel(logging.ERROR)
        show_token()
        environment = os.environ.get("RAY_API_SERVER_ADDRESS") or os.environ.get("RAY_ADDRESS")
        wanted = address or environment or "auto"
        try:
            with _named(_url(wanted)):
                self._client = _Client()
        except (OSError, RuntimeError, ValueError, AuthenticationError, RayError) as error:
            raise ConfigError(
                f"--address {wanted}: no dashboard of a Ray cluster answers there ({_brief(error)}); right would be "
                "the http://host:port that `ray start` printed on its head node, and, if the cluster wants "
                "authentication, its token in RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token"
            ) from None

    @property
    def url(self) -> str:
        """The dashboard."""
        return str(self._client.get_address())

    def submit(
        self,
        id: str,
        command: str,
        *,
        package: Path,
        modules: Sequence[Path],
        environment: Mapping[str, str],
        metadata: Mapping[str, str],
    ) -> None:
        """Start a job; it is the cluster's from then on.

        Args:
            id: Its name; no other job of the cluster may have it.
            command: What a shell on the head node runs, in the package's folder, with the interpreter in `PYTHON`.
            package: A .zip of files, which every machine that works for the job unpacks and works in.
            modules: Folders of Python packages, which can be imported there before all others of their names.
            environment: Variables of all processes of the job; whoever can reach the cluster's jobs can read them.
            metadata: What to note.

        Raises:
            AwayError: The cluster does not answer.
            ConfigError: The cluster refuses.
        """
        environment = {
            WORKER_PROCESS_SETUP_HOOK_ENV_VAR: f"{remember_interpreter.__module__}.{remember_interpreter.__name__}",
            "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS),
            **environment,
        }
        try:
            with _answered(self.url):
                self._client.submit_job(
                    entrypoint=command,
                    submission_id=id,
                    runtime_env={
                        "working_dir": str(package),
                        "py_modules": [str(module) for module in modules],
                        "excludes": ["__pycache__"],
                        "env_vars": environment,
                    },
                    metadata=dict(metadata),
                )
        except AwayError as error:
            raise AwayError(f"{error}; it may have begun the job all the same: see tightwire watch {id}") from None

    def all(self) -> list[Job]:
        """All jobs that were submitted to the cluster since it was started, the latest first.

        Raises:
            AwayError: The cluster does not answer.
        """
        with _answered(self.url):
            found = [_job(details) for details in self._client.list_jobs() if details.submission_id]
        return sorted(found, key=lambda job: -job.started)

    def get(self, id: str) -> Job:
        """One job.

        Raises:
            AwayError: The cluster does not answer.
            ConfigError: It has no such job.
        """
        with _answered(self.url, id):
            details = self._client.get_job_info(quote(id, safe=""))
        if details.submission_id != id:
            raise ConfigError(_unknown(id, self.url))
        return _job(details)

    def log(self, id: str, lines: int) -> list[str]:
        """The last `lines` lines of a job's log, or all of them for -1; none while there is none.

        Raises:
            AwayError: The cluster does not answer.
            ConfigError: It has no such job.
        """
        query = urlencode({"submission_id": id, "lines": lines, "timeout": round(ANSWER_SECONDS)})
        with _answered(self.url, id):
            end = self._client.text(f"/api/v0/logs/file?{query}")
            if end is None:  # it has no command yet, or never had one
                end = self._client.get_job_logs(quote(id, safe=""))
        return end.splitlines()

    def stop(self, id: str) -> None:
        """Ask a job's command to end: SIGTERM, and `STOP_SECONDS` later SIGKILL.

        Raises:
            AwayError: The cluster does not answer.
            ConfigError: It has no such job.
        """
        with _answered(self.url, id):
            self._client.stop_job(quote(id, safe=""))


def remember_interpreter() -> None:
    """The hook behind `PYTHON`; runs in every worker of a job."""
    import sys

    os.environ[PYTHON] = sys.executable


class _Client(JobSubmissionClient):
    """Ray's client, with an end to its patience."""

    def _do_request(self, method: str, endpoint: str, **rest: Any) -> requests.Response:  # Any: ray's and requests' own
        patience = (CONNECT_SECONDS, ANSWER_SECONDS)
        response: requests.Response = super()._do_request(method, endpoint, timeout=patience, **rest)
        return response

    def text(self, endpoint: str) -> str | None:
        """What the dashboard says there, if it has anything to say."""
        response = self._do_request("GET", endpoint)
        return response.content.decode(errors="replace") if response.ok else None


def _url(wanted: str) -> str:
    """The dashboard's URL for what a person gave.

    Raises:
        OSError: Nothing listens there.
        ValueError: It is no such address.
    """
    if "://" in wanted and not wanted.startswith("ray://"):  # which `answering` refuses
        return wanted.rstrip("/")
    place = answering(wanted)
    if wanted != "auto" and _speaks_http(place):
        return f"http://{place}"
    return str(ray_address_to_api_server_url(place))


def _speaks_http(place: str) -> bool:
    try:
        requests.get(f"http://{place}/api/version", timeout=CONNECT_SECONDS)
    except requests.RequestException:
        return False
    return True


@contextmanager
def _named(url: str) -> Iterator[None]:
    """Let the environment name a dashboard, which Ray heeds more than what its client is told."""
    before = os.environ.get("RAY_API_SERVER_ADDRESS")
    os.environ["RAY_API_SERVER_ADDRESS"] = url
    try:
        yield
    finally:
        if before is None:
            del os.environ["RAY_API_SERVER_ADDRESS"]
        else:
            os.environ["RAY_API_SERVER_ADDRESS"] = before


@contextmanager
def _answered(url: str, id: str = "") -> Iterator[None]:
    """Tell an absent cluster, an unknown job and a refusal apart."""
    try:
        yield
    except requests.RequestException as error:
        raise AwayError(f"the cluster at {url} does not answer ({_brief(error)})") from None
    except AuthenticationError as error:
        raise ConfigError(f"the cluster at {url} wants another token ({_brief(error)})") from None
    except (RuntimeError, ValueError) as error:
        text = str(error)
        if id and "does not exist" in text:
            raise ConfigError(_unknown(id, url)) from None
        if "status code 5" in text:
            raise AwayError(f"the cluster at {url} is not well ({_brief(error)})") from None
        raise ConfigError(f"the cluster at {url} refused ({_brief(error)})") from None


def _unknown(id: str, url: str) -> str:
    return f"{id}: the cluster at {url} has no such job; `tightwire jobs` lists those it has"


def _brief(error: Exception) -> str:
    words = " ".join(str(error).split()) or type(error).__name__
    return words[:200]


def _job(details: JobDetails) -> Job:
    return Job(
        id=details.submission_id or "",
        status=_STATUS[details.status.value],
        metadata=details.metadata or {},
        started=(details.start_time or 0) / 1000,
        ended=None if details.end_time is None else details.end_time / 1000,
        message=details.message or "",
        exit_code=details.driver_exit_code,
    )
