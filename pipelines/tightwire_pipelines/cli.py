"""The command line."""

import json
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tightwire.errors import CodecError, ConfigError, DataError, FrameError, TightwireError
from tightwire_pipelines.interrupts import none_lost

app = typer.Typer(
    name="tightwire",
    help="Simulates federated learning over slow, uneven links, and bills every byte that is really sent.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
INTERRUPTED = 130
"""Exit code after Ctrl-C, by the shell's convention."""

File = Annotated[Path, typer.Argument(help="Experiment file (YAML).", show_default=False)]
MaybeFile = Annotated[
    Path | None, typer.Argument(help="Experiment file (YAML); not needed with --resume.", show_default=False)
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key, such as training.lr=0.1; repeatable."),
]
Dashboard = Annotated[
    str | None,
    typer.Option(
        help="The cluster's dashboard, such as http://head:8265; by default RAY_API_SERVER_ADDRESS, RAY_ADDRESS, or "
        "the cluster on this machine."
    ),
]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="The job's id, as `submit` printed it.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]


@app.command()
def run(
    file: MaybeFile = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Client hosts; by default one a core.")] = None,
    in_process: Annotated[bool, typer.Option("--in-process", help="Run in this process, without Ray.")] = False,
    set_: Set = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="The run's folder; by default runs/NAME.")] = None,
    resume: Annotated[
        str | None, typer.Option(metavar="RUN", help="Go on with a run: its folder, or its name below runs/.")
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(help="Join the Ray cluster at this address; by default RAY_ADDRESS, or none."),
    ] = None,
    json_: Json = False,
    events: Annotated[
        bool, typer.Option("--events", help="Print what happens as it happens, a JSON object a line.")
    ] = False,
) -> None:
    """Run an experiment and record it."""
    from tightwire_pipelines.jobs_events import Events
    from tightwire_pipelines.run import Request, start

    if events and json_:
        raise ConfigError("--events --json: both print to standard output; give one of the two")
    request = Request(file, tuple(set_ or ()), workers, in_process, out, resume, address)
    told = Events(sys.stdout) if events else None
    try:
        ended, folder = start(request, Console(stderr=True), quiet=json_, events=told)
    except TightwireError as error:
        if told is not None:
            told.failed(error, _code(error))
        raise
    if ended.summary is None:
        raise typer.Exit(INTERRUPTED)
    if json_:
        sys.stdout.write(folder.summary.read_text())


@app.command()
def preview(file: File, set_: Set = None, json_: Json = False) -> None:
    """Say what a run will cost before anything is trained."""
    from tightwire_pipelines.preview import show

    show(file, tuple(set_ or ()), as_json=json_)


@app.command()
def capture(
    file: File,
    round: Annotated[
        list[int] | None,
        typer.Option(help="Save updates of this round; repeatable. By default 1 and 5, as far as there are so many."),
    ] = None,
    clients: Annotated[int, typer.Option(min=1, help="Updates to save a round.")] = 1,
    set_: Set = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where they go.")] = Path("updates"),
) -> None:
    """Save real updates from a run, as .npy, for `tightwire codec plot` and `codec measure`."""
    from tightwire_pipelines.capture import capture as save

    for path in save(file, tuple(set_ or ()), tuple(round or ()), clients, out, Console(stderr=True)):
        typer.echo(path)


@app.command()
def study(
    file: Annotated[
        Path | None, typer.Argument(help="Study file (YAML); not needed with --resume.", show_default=False)
    ] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="So many seeds, in place of what the file says.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Trials at once; by default as many as fit.")] = None,
    in_process: Annotated[bool, typer.Option("--in-process", help="One trial after another, without Ray.")] = False,
    set_: Set = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Its folder; by default studies/NAME.")] = None,
    resume: Annotated[
        str | None, typer.Option(metavar="STUDY", help="Go on with a study: its folder, or its name below studies/.")
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(help="Join the Ray cluster at this address; by default RAY_ADDRESS, or none."),
    ] = None,
) -> None:
    """Run many experiments on one question, with one report; exit code 1 if a trial failed."""
    from tightwire_pipelines.study import StudyRequest, start_study

    request = StudyRequest(file, tuple(set_ or ()), seeds, workers, in_process, out, resume, address)
    code = start_study(request, Console(stderr=True)).code
    if code:
        raise typer.Exit(code)


@app.command()
def submit(
    file: MaybeFile = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Client hosts; by default one a core.")] = None,
    set_: Set = None,
    out: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="The run's folder on the cluster; by default ~/tightwire/runs/JOB."),
    ] = None,
    resume: Annotated[
        str | None, typer.Option(metavar="JOB", help="Go on with a job, or with a run's folder on the cluster.")
    ] = None,
    include: Annotated[
        list[Path] | None,
        typer.Option(metavar="PATH", help="Send this file or folder too; repeatable. See docs/jobs.md."),
    ] = None,
    address: Dashboard = None,
    json_: Json = False,
) -> None:
    """Hand an experiment to a Ray cluster, and print the job's id; the job needs nobody from then on."""
    from dataclasses import asdict

    from tightwire_pipelines.submit import Submission
    from tightwire_pipelines.submit import submit as hand_over

    wanted = Submission(file, tuple(set_ or ()), workers, out, resume, tuple(include or ()), address)
    submitted = hand_over(wanted, Console(stderr=True))
    typer.echo(json.dumps(asdict(submitted)) if json_ else submitted.id)


@app.command()
def jobs(address: Dashboard = None, json_: Json = False) -> None:
    """List the jobs that were submitted to a cluster."""
    import time

    from tightwire_actors.jobs import Jobs
    from tightwire_pipelines.jobs import as_json, rows, show

    found = Jobs(address)
    listed = rows(found, time.time())
    if json_:
        typer.echo(json.dumps(as_json(listed), indent=2))
    else:
        show(listed, found.url, Console(width=None if sys.stdout.isatty() else 200))  # pipes have room


@app.command()
def watch(job: JobId, address: Dashboard = None, json_: Json = False) -> None:
    """Show a job's progress until it ends; Ctrl-C leaves it alone. Its end decides the exit code, as that of a run."""
    from tightwire.tracking.summary import as_text
    from tightwire_actors.jobs import Jobs
    from tightwire_pipelines.jobs_watch import watch as follow

    try:
        code, summary = follow(Jobs(address), job, Console(stderr=True), quiet=json_)
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    if json_ and summary is not None:
        sys.stdout.write(as_text(summary))
    if code:
        raise typer.Exit(code)


@app.command()
def stop(job: JobId, address: Dashboard = None) -> None:
    """End a job after the round under way, with a checkpoint."""
    from tightwire_actors.jobs import Jobs
    from tightwire_pipelines.jobs_watch import stop as end

    try:
        code = end(Jobs(address), job, Console(stderr=True))
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    if code:
        raise typer.Exit(code)


@app.command()
def report(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Folders of runs or studies, or MLflow run ids.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the report goes.")] = Path("report"),
    target: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="Accuracy at which costs are compared.")
    ] = None,
) -> None:
    """Build a study's report for runs that exist."""
    from tightwire_pipelines.report import report_runs

    typer.echo(report_runs(runs, out, target, Console(stderr=True)))


@app.command()
def schema() -> None:
    """Print the JSON schema of experiment files, for editors."""
    from tightwire.config import Experiment

    sys.stdout.write(json.dumps(Experiment.model_json_schema(), indent=2) + "\n")


@app.command()
def sync(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="The run's folder, or a study's.", show_default=False)],
) -> None:
    """Send to MLflow what a run, or a study, could not send while the tracking server was away."""
    if (folder / "study.yaml").is_file():
        from tightwire.studies.tracked import sync_study as send
    else:
        from tightwire.tracking.mlflow import sync as send

    sys.stdout.write(send(folder) + "\n")


GROUPS = {
    "codec": "List the codecs, measure, draw and check them.",
    "policy": "List the policies, and check one of your own.",
    "device": "List the device tiers, and show where their numbers come from.",
}
"""Commands with commands of their own, each in the module of its name."""


def _add_groups(words: Sequence[str]) -> None:
    """Add all groups, and import only the one that `words` begin with."""
    for name, help_ in GROUPS.items():
        wanted = list(words[:1]) == [name]
        group = import_module(f"tightwire_pipelines.{name}").app if wanted else typer.Typer()
        app.add_typer(group, name=name, help=help_)


def _code(error: TightwireError) -> int:
    """Exit code: 2 for bad input, 1 for what went wrong later."""
    return 2 if isinstance(error, ConfigError | DataError | CodecError | FrameError) else 1


def main() -> None:
    """Entry point: errors that are somebody's to mend are one line and an exit code, 2 for bad input."""
    sys.path.append(str(Path.cwd()))  # where the user's own models are looked for, as `python -m` does
    _add_groups(sys.argv[1:])
    try:
        with none_lost():
            app()
    except TightwireError as error:
        sys.stderr.write(f"tightwire: {error}\n")
        sys.exit(_code(error))
    except KeyboardInterrupt:
        sys.stderr.write("tightwire: interrupted\n")
        sys.exit(INTERRUPTED)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        sys.stderr.write(f"tightwire: {where}{error.strerror or error}\n")
        sys.exit(1)
