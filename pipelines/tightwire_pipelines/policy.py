"""`tightwire policy`: the policies there are, and whether one of your own holds to what all must."""

import inspect
import json
from dataclasses import asdict
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tightwire import config as configs
from tightwire.errors import ConfigError
from tightwire.policies.base import Alone
from tightwire.policies.conformance import Subject, verdicts
from tightwire.policies.registry import name_of, policies
from tightwire_pipelines.imported import TARGET, imported, said

app = typer.Typer(help="List policies and check one of your own.", no_args_is_help=True)


@app.command("list")
def list_policies(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the policies that an experiment file can name, with their settings and defaults."""
    if as_json:
        typer.echo(json.dumps({name: kind.model_json_schema() for name, kind in policies().items()}, indent=2))
        return
    console = Console(highlight=False, soft_wrap=True)
    console.print("Policies, to be named in the section `policy` of an experiment file: policy: {name: budget}")
    for name, kind in policies().items():
        console.print(f"\n  [bold]{name}[/]  {escape(_summary(kind))}")
        for field, info in kind.model_fields.items():
            if field != "name":
                default = (
                    "required"
                    if info.is_required()
                    else json.dumps(_plain(info.get_default(call_default_factory=True)))
                )
                shown = default if len(default) <= 60 else f"{default[:57]}..."
                console.print(f"      [dim]{field} = {escape(shown)}[/]")


@app.command("check")
def check_policy(
    target: Annotated[
        str, typer.Argument(help='A policy, as package.module:Name, or its settings, such as "{name: budget}".')
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Run the conformance suite on a policy of your own, or on one of the library's; exit code 1 if a check fails."""
    policy = _imported(target) if TARGET.fullmatch(target) else _named(target)
    results = verdicts(Subject(policy))
    failed = [result for result in results if result.failure]
    if as_json:
        typer.echo(json.dumps({"policy": policy.name, "checks": [asdict(result) for result in results]}, indent=2))
    else:
        table = Table("check", "", "what it says, or what was found", title=f"{policy!r}", title_justify="left")
        for result in results:
            verdict = "[red]fails[/red]" if result.failure else "holds"
            table.add_row(result.check, verdict, escape(result.failure or result.says))
        Console().print(table)
        typer.echo(f"{len(failed)} of {len(results)} checks fail" if failed else f"all {len(results)} checks hold")
    if failed:
        raise typer.Exit(1)


def _summary(kind: type[Alone]) -> str:
    return inspect.cleandoc(kind.__doc__ or "").split("\n\n")[0].replace("\n", " ")


def _plain(value: object) -> object:
    return json.loads(json.dumps(value, default=str))


def _named(settings: str) -> Any:
    """The policy that an experiment file would get from `settings`."""
    text = settings if settings.lstrip().startswith("{") else f"{{name: {settings}}}"
    return configs.load(None, (f"policy={text}",)).policy


def _imported(target: str) -> Any:
    """The policy that `target` names, or its class with default settings."""
    found = imported(target, ConfigError)
    if isinstance(found, type) and issubclass(found, Alone):
        name_of(found)
        try:
            return found()
        except ValidationError as error:
            raise ConfigError(f"{target} has no default settings; name an instance instead ({said(error)})") from None
    if not isinstance(found, Alone):
        kind = getattr(found, "__name__", type(found).__name__)
        raise ConfigError(f"{target} must be a subclass of tightwire.policies.base.Alone or an instance, got {kind}")
    return found
