"""The experiment file: YAML, read into frozen, typed, fully validated records.

Every room owns the records of its own part; this module only puts them together and turns what is wrong with a file
into one clear line.
"""

import difflib
import math
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import (
    BaseModel,
    Field,
    GetJsonSchemaHandler,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, ErrorDetails

from tightwire import trees
from tightwire.attacks.attack import Attack
from tightwire.codecs.codec import Codec
from tightwire.codecs.feedback import Classic, Dgc, Ef21, Feedback, Forget
from tightwire.devices.availability import Always, AnyAvailability
from tightwire.devices.battery import Battery
from tightwire.devices.links import AnyLink, LogNormal
from tightwire.devices.participation import Participation
from tightwire.devices.population import Population
from tightwire.errors import CodecError, ConfigError
from tightwire.federation.joint import has_joint, joint_of
from tightwire.federation.robust import AnyAggregator, Gathering, Mean
from tightwire.learning.data import AnyData, Digits
from tightwire.learning.models import AnyModel, Mlp
from tightwire.learning.partition import AnyPartition, Dirichlet
from tightwire.learning.training import Training
from tightwire.policies import AnyPolicy, Budget, Fixed, Tiered
from tightwire.spec import Spec


class Wire(Spec):
    """What both directions of the wire have in common, and the downlink's codec."""

    feedback: Literal["none", "classic", "ef21", "dgc"] = "classic"
    """Error feedback of the clients: `classic` keeps what compression lost as a residual and adds it to the next
    update (Seide et al. 2014; Karimireddy et al. 2019); `ef21` sends changes of a shift that follows the updates, of
    which the server keeps the mean over all clients (Richtarik et al. 2021); `dgc` corrects classic feedback for
    momentum (Lin et al. 2018); `none` forgets what was lost."""
    momentum: float | None = Field(default=None, ge=0, lt=1)
    """Momentum factor of `dgc`; null takes 0.9 there, and nothing else has one."""
    authenticate: bool = False
    """Whether clients put an HMAC behind each frame that they send, 16 bytes, with a key of their own, so that the
    server refuses frames that somebody else made, altered or sent before; see docs/hostile-clients.md."""
    downlink: str = "none"
    """Codec line for the model on its way to the clients; `none` sends it whole in fp32."""

    @field_validator("downlink")
    @classmethod
    def _parses(cls, line: str) -> str:
        try:
            return str(Codec.parse(line))
        except CodecError as error:
            raise ValueError(str(error)) from error

    @field_validator("downlink")
    @classmethod
    def _nothing_to_agree_on(cls, line: str) -> str:
        if has_joint(line):
            raise ValueError("the stage joint is for uploads, whose senders share a range; use uniform")
        return line

    @model_validator(mode="after")
    def _momentum_is_used(self) -> "Wire":
        if self.momentum is not None and self.feedback != "dgc":
            raise ValueError(
                f"momentum is {self.momentum:g}, but feedback is {self.feedback!r}; momentum belongs to feedback: dgc, "
                "leave it out elsewhere"
            )
        return self

    def variant(self) -> Feedback:
        """The variant of error feedback that is meant."""
        if self.feedback == "dgc":
            return Dgc(0.9 if self.momentum is None else self.momentum)
        return {"none": Forget(), "classic": Classic(), "ef21": Ef21()}[self.feedback]


class Server(Spec):
    """The server's side of learning."""

    lr: float = Field(default=1.0, gt=0)
    """Server learning rate: the next model is the model plus this times the mean update."""
    aggregator: AnyAggregator = Mean()
    """How the round's updates become one. `median`, `trimmed_mean`, `krum` and `multi_krum` need all updates decoded
    at once on the server, 4 bytes a value each; beyond `hosts.memory_mb` they are in a temporary file."""
    max_norm: float | None = Field(default=None, gt=0)
    """Longest Euclidean norm of an update that is not rejected; null for no such bound."""
    max_norm_times: float | None = Field(default=None, ge=1)
    """The same as a multiple of the median norm of recent rounds' updates."""
    ingress_mbps: float | None = Field(default=None, gt=0)
    """Mbit/s of the server's own link that all uploads share max-min fair; null for no limit."""
    egress_mbps: float | None = Field(default=None, gt=0)
    """The same for all downloads of a round, which begin together."""
    evaluate_every: int = Field(default=1, ge=1)
    """Rounds from one evaluation on the test set to the next; the last round is always evaluated."""

    @field_validator("aggregator", mode="before")
    @classmethod
    def _names_default(cls, tree: Any) -> Any:  # Any: whatever the file holds
        """An aggregator by its name alone is meant with its defaults."""
        return {"name": tree} if isinstance(tree, str) else tree


class Workers(Spec):
    """How many client hosts: `4`, or a range within which they come and go with the cluster; `all` is {min: 1}."""

    min: int = Field(default=1, ge=1)
    """Hosts that must be there before the first round."""
    max: int | None = Field(default=None, ge=1)
    """Hosts that the cluster is asked for; null for one for each client of a round."""

    @model_validator(mode="before")
    @classmethod
    def _number(cls, value: Any) -> Any:  # Any: whatever the file holds
        if isinstance(value, Workers | Mapping):
            return value
        if value == "all":
            return {}
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError("should be a number of hosts, such as 4, a range, such as {min: 1, max: 16}, or all")
        return {"min": value, "max": value}

    @model_validator(mode="after")
    def _ordered(self) -> "Workers":
        if self.max is not None and self.max < self.min:
            raise ValueError(f"min is {self.min}, more than max = {self.max}; choose a min of at most {self.max}")
        return self

    @model_serializer(mode="plain")
    def _short(self) -> int | dict[str, int | None]:
        return self.min if self.min == self.max else {"min": self.min, "max": self.max}

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        described = super().__get_pydantic_json_schema__(core, handler)
        return {"anyOf": [{"type": "integer", "minimum": 1}, described]}


class Hosts(Spec):
    """How the simulation is spread over Ray actors; no result depends on it."""

    workers: Workers | None = None
    """Client hosts: a number, or a range such as {min: 1, max: 16}; by default one for each core of the machine."""
    clients_per_host: int | None = Field(default=None, ge=1)
    """At most so many clients of a cohort on one host; sets the number of hosts where `workers` does not.
    1 gives each client of the cohort an actor of its own."""
    cpus: float = Field(default=1.0, gt=0)
    """CPUs that each host reserves on the cluster."""
    gpus: float = Field(default=0.0, ge=0)
    """GPUs that each host reserves, fractions such as 0.25 allowed; Ray sets CUDA_VISIBLE_DEVICES to them. Training
    itself is on the CPU; this is for models of your own that use a GPU."""
    resources: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    """Custom resources of the cluster that each host reserves, such as {fast_disk: 1}."""
    placement: Literal["pack", "spread", "strict_pack", "strict_spread"] = "pack"
    """On which machines hosts are put: `pack` on few and `spread` on many, as far as there is room; `strict_pack` all
    on one and `strict_spread` each on another, which take a fixed number of `workers`. Of a range, this is about the
    first `min` hosts."""
    memory_mb: float = Field(default=1024.0, ge=0)
    """MB (10^6 bytes) of clients' codec memories, such as residuals, that a process keeps in RAM; the rest is spilled
    to the run's folder. On Ray this is about memories of up to 100 kB, which the coordinator keeps; larger ones are in
    Ray's object store, which spills by itself."""

    @field_validator("gpus")
    @classmethod
    def _whole_gpus(cls, gpus: float) -> float:
        if gpus > 1 and gpus % 1:
            raise ValueError("a fraction is of one GPU; give at most 1, or a whole number")
        return gpus

    @field_validator("resources")
    @classmethod
    def _custom(cls, resources: dict[str, float]) -> dict[str, float]:
        for name in resources:
            if name.lower() in ("cpu", "gpu"):
                raise ValueError(f"{name} is no custom resource; give hosts.{name.lower()}s")
            if name in ("memory", "object_store_memory") or not name:
                raise ValueError(f"{name!r} cannot be reserved by hosts; give the cluster's custom resources")
        return resources

    @model_validator(mode="after")
    def _strict_is_fixed(self) -> "Hosts":
        if self.placement.startswith("strict") and self.workers is not None and self.workers.min != self.workers.max:
            raise ValueError(
                f"placement is {self.placement}, which needs a fixed number of workers, and workers is a range; "
                "give a number, or placement: pack or spread"
            )
        return self

    @property
    def reserved(self) -> dict[str, float]:
        """What each host reserves, by Ray's names."""
        return {"CPU": self.cpus, **({"GPU": self.gpus} if self.gpus else {}), **self.resources}


class Checkpoints(Spec):
    """When the run is saved."""

    every: int = Field(default=10, ge=1)
    """Rounds from one checkpoint to the next; the last round is always saved."""


class Tracking(Spec):
    """Where the run is recorded besides its own folder."""

    to: Literal["mlflow", "nowhere"] = "mlflow"
    """`mlflow` uses MLFLOW_TRACKING_URI, or a sqlite store in the working folder."""
    experiment: str = Field(default="tightwire", min_length=1)
    """Name of the MLflow experiment."""
    plots: bool = True
    """Whether a finished run draws its plots, which takes a second."""


class Experiment(Spec):
    """Everything that a run depends on."""

    name: str = Field(default="run", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)
    """Name of the run's folder below `runs/`."""
    seed: int = Field(default=0, ge=0)
    """All randomness of the run derives from it."""
    rounds: int = Field(default=60, ge=1)
    data: AnyData = Digits()
    partition: AnyPartition = Dirichlet(alpha=0.5)
    model: AnyModel = Mlp()
    training: Training = Training()
    population: Population = Population()
    participation: Participation = Participation()
    availability: AnyAvailability = Always()
    battery: Battery = Battery()
    link: AnyLink = LogNormal()
    deadline: float | None = Field(default=1800.0, gt=0)
    """Simulated seconds from the start of a round after which an update is not used; null waits for everybody."""
    policy: AnyPolicy = Budget()
    wire: Wire = Wire()
    server: Server = Server()
    attack: Attack = Attack()
    hosts: Hosts = Hosts()
    checkpoints: Checkpoints = Checkpoints()
    tracking: Tracking = Tracking()

    @model_validator(mode="before")
    @classmethod
    def _names_default(cls, tree: Any) -> Any:  # Any: whatever the file holds
        """A section without a `name` is about the default of that section."""
        if not isinstance(tree, dict):
            return tree
        named = dict(tree)
        for section in ("data", "partition", "model", "availability", "link", "policy"):
            if isinstance(named.get(section), dict) and "name" not in named[section]:
                named[section] = {"name": cls.model_fields[section].default.name, **named[section]}
        return named

    @model_validator(mode="after")
    def _tiers_exist(self) -> "Experiment":
        for name in self.policy.codecs if isinstance(self.policy, Tiered) else ():
            try:
                self.population.tier(name)
            except ConfigError as error:
                raise ValueError(f"policy.codecs: {error}") from None
        return self

    @model_validator(mode="after")
    def _joint_is_for_all(self) -> "Experiment":
        """`joint` needs one codec line that all clients of all rounds send with."""
        policy = self.policy
        if isinstance(policy, Fixed):
            try:
                joint_of(policy.codec)
            except ConfigError as error:
                raise ValueError(f"policy.codec: {error}") from None
            return self
        for line in policy.lines:
            if has_joint(line):
                raise ValueError(
                    f"policy: `{line}` has the stage joint, whose range all clients of a round share, but policy "
                    f"{policy.name} changes codec lines; use policy fixed"
                )
        return self

    @model_validator(mode="after")
    def _aggregator_can_work(self) -> "Experiment":
        aggregator, cohort = self.server.aggregator, self.participation.cohort
        if isinstance(aggregator, Mean):
            return self
        if self.wire.variant().accumulates:
            raise ValueError(
                f"server.aggregator is {aggregator.name}, but wire.feedback is {self.wire.feedback}, whose updates are "
                "changes that the server has to add up; use aggregator mean, or feedback classic, dgc or none"
            )
        if isinstance(self.policy, Fixed) and has_joint(self.policy.codec):
            raise ValueError(
                f"server.aggregator is {aggregator.name}, but codec `{self.policy.codec}` has the stage joint, whose "
                "codes the server adds without looking at single updates; use aggregator mean, or uniform"
            )
        if isinstance(aggregator, Gathering) and cohort < aggregator.least:
            raise ValueError(
                f"server.aggregator {aggregator.name} needs {aggregator.wants}, but participation.cohort is {cohort}; "
                f"raise the cohort to {aggregator.least}, or change the aggregator"
            )
        return self

    @model_validator(mode="after")
    def _attack_can_be_sent(self) -> "Experiment":
        attack, policy = self.attack, self.policy
        if attack.share and attack.kind == "forge" and isinstance(policy, Fixed) and has_joint(policy.codec):
            raise ValueError(
                f"attack.kind is forge, but what is forged does not fit the agreed range of codec `{policy.codec}`; "
                "use sign_flip, or uniform in place of joint"
            )
        return self

    @model_validator(mode="after")
    def _somebody_has_energy(self) -> "Experiment":
        """A run in which every battery stays below its reserve for ever would train nobody and say nothing."""
        battery = self.battery
        if battery.reserve < battery.start[1]:
            return self
        if any(math.isinf(t.battery) or (battery.charging and t.charge_watts > 0) for t, _ in self.population.mix):
            return self
        raise ValueError(
            f"battery.reserve is {battery.reserve:g}, batteries begin with at most {battery.start[1]:g} of a full one, "
            "and none of the population's can charge, so that nobody could ever take part; lower battery.reserve, or "
            "set battery.charging"
        )

    @model_validator(mode="after")
    def _cohort_fits(self) -> "Experiment":
        if self.participation.cohort > self.population.clients:
            raise ValueError(
                f"participation.cohort is {self.participation.cohort}, more than population.clients = "
                f"{self.population.clients}; choose a cohort of at most {self.population.clients}"
            )
        return self


def load(path: Path | None, overrides: Sequence[str] = ()) -> Experiment:
    """Read an experiment file and apply `a.b=value` overrides.

    Args:
        path: The YAML file; None starts from the defaults.
        overrides: Each `key.key=value`, the value in YAML. Giving a section another `name` starts that section anew.

    Raises:
        ConfigError: The file cannot be read, is not YAML, or does not describe an experiment.
    """
    return override({} if path is None else trees.read(path, "experiment"), overrides)


def override(tree: dict[str, Any], overrides: Sequence[str]) -> Experiment:
    """Apply overrides to an experiment given as plain mappings, in place, and validate it; see `load`."""
    for text in overrides:
        keys, value = trees.override(text)
        trees.assign(tree, keys, value, text=f"--set {text}")
    return parse(tree)


def parse(tree: Mapping[str, Any]) -> Experiment:
    """Validate an experiment given as plain mappings.

    Raises:
        ConfigError: It does not describe an experiment; the message names the first key that is wrong.
    """
    try:
        return Experiment.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(_explain(error)) from None


def dump(experiment: Experiment) -> str:
    """The fully resolved experiment as YAML that `load` reads back to an equal record."""
    return yaml.safe_dump(experiment.model_dump(mode="json"), sort_keys=False, default_flow_style=None, width=110)


def flat(experiment: Experiment) -> dict[str, str]:
    """The resolved experiment as `{"training.lr": "0.1", ...}`, for trackers."""
    return dict(_leaves(experiment.model_dump(mode="json"), ""))


def _leaves(node: object, prefix: str) -> Iterator[tuple[str, str]]:
    if isinstance(node, dict) and node:
        for name, child in node.items():
            yield from _leaves(child, f"{prefix}.{name}" if prefix else name)
    else:
        yield prefix, str(node)


def _explain(error: ValidationError) -> str:
    problems = error.errors()
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return _line(problems[0]) + more


def _line(problem: ErrorDetails) -> str:
    loc = problem["loc"]
    where = ".".join(str(part) for part in _without_tags(loc))
    if problem["type"] == "extra_forbidden":
        name, known = str(loc[-1]), sorted(_known_keys(loc[:-1]))
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(known)}"
        return f"{where}: unknown key (received {problem['input']!r}); {hint}"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "union_tag_invalid":
        context = problem["ctx"]
        near = difflib.get_close_matches(
            str(context["tag"]), str(context["expected_tags"]).replace("'", "").split(", "), n=1
        )
        hint = f"; did you mean {near[0]}?" if near else ""
        return f"{where}.name: received {context['tag']!r}, should be one of {context['expected_tags']}{hint}"
    if problem["type"] == "union_tag_not_found":
        return f"{where}: needs a `name` that says which one is meant (received {problem['input']!r})"
    if problem["type"] == "missing":
        return f"{where}: is missing and has no default"
    received = "" if isinstance(problem["input"], dict | BaseModel) else f" (received {problem['input']!r})"
    return f"{where}: {message}{received}" if where else message


def _without_tags(loc: tuple[int | str, ...]) -> Iterator[int | str]:
    """The path as the file's author wrote it: without the tags that tell the members of a union apart."""
    models: list[type[BaseModel]] = [Experiment]
    for part in loc:
        tagged = _members(models, part)
        if not tagged:
            yield part
        models = tagged or _below(models, part)


def _known_keys(loc: tuple[int | str, ...]) -> set[str]:
    models: list[type[BaseModel]] = [Experiment]
    for part in loc:
        models = _members(models, part) or _below(models, part)
    return {name for model in models for name in model.model_fields}


def _below(models: list[type[BaseModel]], part: int | str) -> list[type[BaseModel]]:
    """What the field `part` of `models` can hold; the same again for a place in a list or a name in a table."""
    fields = [model.model_fields[part].annotation for model in models if part in model.model_fields]
    return [model for annotation in fields for model in _models_in(annotation)] if fields else models


def _members(models: list[type[BaseModel]], tag: int | str) -> list[type[BaseModel]]:
    """Those of several `models` whose `name` can be `tag`: a union's error names the tag after the field."""
    if len(models) < 2:
        return []
    return [
        model
        for model in models
        if "name" in model.model_fields and tag in get_args(model.model_fields["name"].annotation)
    ]


def _models_in(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (Union, types.UnionType, Annotated, dict, tuple):
        for member in get_args(annotation):
            yield from _models_in(member)
