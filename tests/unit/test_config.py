"""The experiment file: what it takes, and how it says what it does not take."""

from pathlib import Path

import pytest
import yaml

from tightwire import config
from tightwire.config import Experiment
from tightwire.errors import ConfigError
from tightwire.learning.partition import Dirichlet
from tightwire.policies import Budget

GOLDEN = Path(__file__).with_name("defaults.yaml")


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "experiment.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_defaults_are_those_that_were_reviewed() -> None:
    assert config.dump(Experiment()) == GOLDEN.read_text(encoding="utf-8"), (
        "the defaults changed; if that is meant, write the new ones to tests/unit/defaults.yaml"
    )


def test_a_section_without_a_name_is_about_its_default(tmp_path: Path) -> None:
    experiment = config.load(written(tmp_path, "rounds: 3"), ["partition.alpha=2.5", "policy.max_ratio=0.2"])
    assert experiment.partition == Dirichlet(alpha=2.5)
    assert experiment.policy == Budget(max_ratio=0.2)


def test_a_dumped_experiment_reads_back_equal(tmp_path: Path) -> None:
    experiment = Experiment(rounds=7, seed=3)
    assert config.load(written(tmp_path, config.dump(experiment))) == experiment


@pytest.mark.parametrize(
    ("workers", "least", "most"),
    [("4", 4, 4), ("all", 1, None), ("{min: 2}", 2, None), ("{max: 3}", 1, 3), ("{min: 2, max: 3}", 2, 3)],
)
def test_workers_are_a_number_or_a_range_and_are_written_as_they_read(
    tmp_path: Path, workers: str, least: int, most: int | None
) -> None:
    experiment = config.load(written(tmp_path, f"hosts: {{workers: {workers}}}"))
    assert experiment.hosts.workers is not None
    assert (experiment.hosts.workers.min, experiment.hosts.workers.max) == (least, most)
    assert config.load(written(tmp_path, config.dump(experiment))) == experiment


def test_an_override_reaches_a_nested_key(tmp_path: Path) -> None:
    path = written(tmp_path, "rounds: 3\n")
    assert config.load(path, ["training.lr=0.5", "rounds=4"]).training.lr == 0.5


def test_an_override_of_a_sections_name_starts_the_section_anew(tmp_path: Path) -> None:
    path = written(tmp_path, "partition: {name: dirichlet, alpha: 0.1}\n")
    assert config.load(path, ["partition.name=iid"]).partition.name == "iid"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("training: {lrr: 0.1}", "training.lrr: unknown key (received 0.1); did you mean lr?"),
        ("rouds: 3", "rouds: unknown key (received 3); did you mean rounds?"),
        (
            "rounds: many",
            "rounds: Input should be a valid integer, unable to parse string as an integer (received 'many')",
        ),
        ("rounds: 0", "rounds: Input should be greater than or equal to 1 (received 0)"),
        ("policy: {name: budgett}", "policy.name: received 'budgett', should be one of"),
        (
            "policy: {name: budget, max_ratoi: 1}",
            "policy.max_ratoi: unknown key (received 1); did you mean max_ratio?",
        ),
        ("policy: {name: tiered, codecs: {sensor-lorra: none}}", "sensor-lorra"),
        ("participation: {cohort: 500}", "participation.cohort is 500, more than population.clients = 100"),
        ("wire: {downlink: 'unifrom(4)'}", "wire.downlink: "),
        (
            "wire: {feedback: ef22}",
            "wire.feedback: Input should be 'none', 'classic', 'ef21' or 'dgc' (received 'ef22')",
        ),
        (
            "wire: {momentum: 0.5}",
            "wire: momentum is 0.5, but feedback is 'classic'; momentum belongs to feedback: dgc",
        ),
        ("wire: {feedback: dgc, momentum: 1}", "wire.momentum: Input should be less than 1 (received 1)"),
        ("wire: {downlink: joint(8)}", "wire.downlink: the stage joint is for uploads, whose senders share a range"),
        ("policy: {name: fixed, codec: 'topk(0.1) | joint(8)'}", "only flatten may stand before it"),
        ("hosts: {memory_mb: -1}", "hosts.memory_mb: Input should be greater than or equal to 0 (received -1)"),
        (
            "battery: {start: [0.1, 0.3], reserve: 0.4}\npopulation: {tiers: {old-phone-lte: 1}}",
            "nobody could ever take part",
        ),
        ("hosts: {workers: 0}", "hosts.workers: should be a number of hosts, such as 4, a range, such as"),
        ("hosts: {workers: {min: 3, max: 2}}", "hosts.workers: min is 3, more than max = 2; choose a min of at most 2"),
        ("hosts: {workers: {mn: 3}}", "hosts.workers.mn: unknown key (received 3); did you mean min?"),
        (
            "hosts: {gpus: 1.5}",
            "hosts.gpus: a fraction is of one GPU; give at most 1, or a whole number (recei",
        ),
        ("hosts: {resources: {GPU: 1}}", "hosts.resources: GPU is no custom resource; give hosts.gpus"),
        ("hosts: {resources: {disk: 0}}", "hosts.resources.disk: Input should be greater than 0 (received 0)"),
        ("hosts: {placement: strict_pack, workers: all}", "placement is strict_pack, which needs a fixed number"),
        ("- 1\n- 2", "holds a list at its top"),
        ("a: [", "is not valid YAML"),
    ],
)
def test_a_bad_file_gets_one_line_that_names_key_and_value(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.load(written(tmp_path, text))
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("override", ["training.lr", "=3", "training..lr=3", "rounds.x=3", "seed=["])
def test_a_bad_override_gets_one_line(tmp_path: Path, override: str) -> None:
    with pytest.raises(ConfigError, match="--set"):
        config.load(written(tmp_path, "rounds: 3"), [override])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: cannot be read"):
        config.load(tmp_path / "nowhere.yaml")


def test_the_schema_describes_every_key_of_the_defaults() -> None:
    schema = Experiment.model_json_schema()
    assert set(yaml.safe_load(config.dump(Experiment()))) == set(schema["properties"])
    hosts = schema["$defs"]["Hosts"]["properties"]
    assert hosts["cpus"]["description"] == "CPUs that each host reserves on the cluster."
    assert [about["minimum"] for about in schema["$defs"]["Workers"]["anyOf"][:1]] == [1]
    workers = schema["$defs"]["Workers"]["anyOf"][1]["properties"]
    assert workers["min"]["description"] == "Hosts that must be there before the first round."
    stage = [about for about in schema["$defs"].values() if "from" in about.get("properties", {})]
    assert stage
    assert all("rounds count from 1" in about["properties"]["from"]["description"] for about in stage), "an alias"
