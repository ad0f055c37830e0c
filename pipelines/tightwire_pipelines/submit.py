"""`tightwire submit`: hands an experiment to a Ray cluster, as a job that needs nobody from then on."""

import os
import secrets
import shlex
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from rich.console import Console

from tightwire import config as configs
from tightwire import trees
from tightwire.config import Experiment
from tightwire.errors import ConfigError
from tightwire_pipelines.jobs_events import MARK
from tightwire_pipelines.submit_package import EXPERIMENT, collect, pack, stage, sum_of
from tightwire_pipelines.units import megabytes

if TYPE_CHECKING:
    from tightwire_actors.jobs import Job, Jobs

HOME = "~/tightwire"
"""Where jobs leave what they make, unless told otherwise: on the cluster's head node, of the user that Ray runs as."""

_MLFLOW = "MLFLOW_TRACKING_URI"
_PASSED_ON = (
    _MLFLOW,
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "MLFLOW_TRACKING_AUTH",
    "MLFLOW_TRACKING_INSECURE_TLS",
    "DATABRICKS_HOST",
    "DATABRICKS_TOKEN",
)
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Submission:
    """What the command line asked for."""

    file: Path | None
    overrides: tuple[str, ...] = ()
    workers: int | None = None
    out: str | None = None
    """The run's folder on the cluster, absolute or below ``~``."""
    resume: str | None = None
    """A job, or a run's folder on the cluster."""
    include: tuple[Path, ...] = ()
    address: str | None = None


@dataclass(frozen=True, slots=True)
class Submitted:
    """What became of it."""

    id: str
    address: str
    out: str


def submit(wanted: Submission, console: Console) -> Submitted:
    """Check and pack an experiment, and have a cluster run it; hints go to `console`.

    Raises:
        ConfigError: It cannot be run, or not there; nothing was started.
        DataError: Its data is missing or damaged.
    """
    for option, folder in (("--out", wanted.out), ("--resume", _folder(wanted.resume))):
        if folder is not None and not folder.startswith(("/", "~/")):
            raise ConfigError(
                f"{option} {folder}: is a folder on the cluster's head node; give an absolute path, or one below ~/"
            )
    if wanted.resume is not None and wanted.out is not None:
        raise ConfigError(f"--out {wanted.out}: a run that is resumed stays in its folder; leave it out")
    if wanted.file is None and wanted.resume is None:
        raise ConfigError("submit needs an experiment file, such as examples/digits.yaml, or --resume with a job")
    for text in wanted.overrides:
        trees.override(text)
    config: Experiment | None = None
    files: dict[str, Path] = {}
    notes: list[str] = []
    if wanted.file is not None:
        config = configs.load(wanted.file, wanted.overrides)
        files, notes = collect(config, wanted.include)
    from tightwire_actors.jobs import PACKAGE_MB, PYTHON, Jobs  # ray takes a second to import

    with tempfile.TemporaryDirectory(prefix="tightwire-") as folder:
        package = Path(folder, "package.zip")
        text = "# the run's folder has it\n" if config is None else configs.dump(config)
        pack(files, text, package, PACKAGE_MB * 1_000_000)
        jobs = Jobs(wanted.address)
        before = _before(wanted, jobs)
        name = config.name if config is not None else _name(wanted, before)
        job = f"{name}-{secrets.token_hex(3)}"
        out = (before.metadata["out"] if before else _folder(wanted.resume)) or wanted.out or f"{HOME}/runs/{job}"
        environment, more = mlflow_environment(os.environ, config)
        jobs.submit(
            job,
            command(wanted, out, PYTHON),
            package=package,
            modules=stage(Path(folder)),
            environment=environment,
            metadata={
                MARK: name,
                "out": out,
                "files": str(len(files)),
                **({"rounds": str(config.rounds)} if config else {}),
            },
        )
    if files:
        notes.append(f"sent {len(files)} files of yours, {megabytes(sum_of(files))}: {_some(list(files))}")
    for note in [*notes, *more]:
        _say(f"note: {note}", console)
    _say(f"submitted to {jobs.url}; results will be in {out} on its head node", console)
    _say(f"follow it with: tightwire watch {job}", console)
    return Submitted(job, jobs.url, out)


def command(wanted: Submission, out: str, python: str) -> str:
    """What the job runs, in its package's folder.

    Args:
        wanted: What the command line asked for.
        out: The run's folder; a shell on the head node knows its ``~``.
        python: The environment variable with the interpreter.
    """
    words = ["--events"]
    if wanted.file is not None:
        words.insert(0, EXPERIMENT)
    else:
        for text in wanted.overrides:
            words += ["--set", text]
    if wanted.workers is not None:
        words += ["--workers", str(wanted.workers)]
    words.append("--out" if wanted.resume is None else "--resume")
    store = f'{_MLFLOW}="${{{_MLFLOW}:-sqlite:///$HOME/{HOME.removeprefix("~/")}/mlflow.db}}"'
    run = f'exec "${{{python}:-python}}" -m tightwire_pipelines run {shlex.join(words)} {_shell(out)}'
    return f"mkdir -p {HOME} && {store} {run}"


def mlflow_environment(here: Mapping[str, str], config: Experiment | None) -> tuple[dict[str, str], list[str]]:
    """What a job is to know of the tracking server that this environment names, and what a person should know.

    A store in a file here is of no use to the job, which then has one of its own.
    """
    if config is not None and config.tracking.to == "nowhere":
        return {}, []
    uri = here.get(_MLFLOW, "")
    scheme, host = urlsplit(uri).scheme, urlsplit(uri).hostname
    if uri != "databricks" and scheme in ("", "file", "sqlite"):
        yours = f"{_MLFLOW}={uri} is a file here; " if uri else ""
        return {}, [f"{yours}the job records in {HOME}/mlflow.db on the head node, or in the {_MLFLOW} set there"]
    notes = []
    if host in _LOOPBACK:
        notes.append(f"{_MLFLOW}={uri} is passed on, and means the head node itself there")
    return {name: here[name] for name in _PASSED_ON if name in here}, notes


def _folder(resume: str | None) -> str | None:
    """What is to be resumed, if it is a folder and no job."""
    return resume if resume is not None and "/" in resume else None


def _before(wanted: Submission, jobs: "Jobs") -> "Job | None":
    """The job to resume.

    Raises:
        ConfigError: There is none, it still runs, or it cannot be resumed in this way.
    """
    if wanted.resume is None or _folder(wanted.resume) is not None:
        return None
    job = jobs.get(wanted.resume)
    if MARK not in job.metadata:
        raise ConfigError(f"--resume {job.id}: is no job of tightwire; `tightwire jobs` lists those")
    if not job.over:
        raise ConfigError(f"--resume {job.id}: is still {job.status}; follow it with: tightwire watch {job.id}")
    if wanted.file is None and job.metadata.get("files", "0") != "0":
        raise ConfigError(
            f"--resume {job.id}: was sent with {job.metadata['files']} files of yours, which are gone with it; give "
            "the experiment file again, in the folder where you submitted it"
        )
    return job


def _name(wanted: Submission, before: "Job | None") -> str:
    return before.metadata[MARK] if before else Path(str(wanted.resume)).name


def _shell(path: str) -> str:
    """A path for a shell, which may put in its home."""
    return f"~/{shlex.quote(path.removeprefix('~/'))}" if path.startswith("~/") else shlex.quote(path)


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _say(line: str, console: Console) -> None:
    console.print(line, highlight=False, soft_wrap=True, markup=False)
