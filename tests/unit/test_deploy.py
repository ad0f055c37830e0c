"""The deployment files say what Ray, KubeRay and the wheel understand, and say the same where they overlap."""

import importlib.metadata
import json
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
LAUNCHERS = ["cluster.yaml", "deploy/aws.yaml", "deploy/gcp.yaml"]
CLOUDS = LAUNCHERS[1:]
PYTHON_IMAGE = re.compile(r"python:3\.(\d+)-slim-\w+")


def read(name: str) -> Any:  # Any: YAML
    return yaml.safe_load((ROOT / name).read_text())


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return dict(line.split("==", 1) for line in lines if "==" in line)


def instructions(name: str) -> list[tuple[str, str]]:
    """A Dockerfile's instructions and their arguments, lines that go on joined."""
    text = (ROOT / name).read_text().replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split()[0], " ".join(line.split()[1:])) for line in lines]


def ray_schema() -> Any:  # Any: JSON
    """What Ray checks launcher files against; found as a file, as a unit test does without Ray."""
    (found,) = [file for file in importlib.metadata.files("ray") or [] if file.name == "ray-schema.json"]
    return json.loads(Path(str(found.locate())).read_text())


@pytest.mark.parametrize("name", LAUNCHERS)
def test_a_launcher_file_is_what_ray_accepts(name: str) -> None:
    jsonschema.validate(read(name), ray_schema())


@pytest.mark.parametrize("name", LAUNCHERS)
def test_the_schema_refuses_a_launcher_file_with_a_slip(name: str) -> None:
    slip = read(name) | {"worker_setup_command": []}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(slip, ray_schema())


@pytest.mark.parametrize("name", CLOUDS)
def test_clouds_are_set_up_as_ones_own_machines_are(name: str) -> None:
    own, cloud = read("cluster.yaml"), read(name)
    for key in ("cluster_name", "file_mounts", "setup_commands", "worker_start_ray_commands"):
        assert cloud[key] == own[key]
    without = [line.replace(" RAY_enable_autoscaler_v2=0", "") for line in own["head_start_ray_commands"]]
    assert cloud["head_start_ray_commands"] == without
    assert cloud["head_node_type"] in cloud["available_node_types"]
    assert all("--constraint" in line for line in cloud["head_setup_commands"])


@pytest.mark.parametrize("name", LAUNCHERS)
def test_every_node_gets_the_wheel_with_the_pins_and_the_clusters_secret(name: str) -> None:
    config = read(name)
    assert config["file_mounts"] == {
        "~/tightwire/dist": "./dist",
        "~/tightwire/constraints.txt": "./constraints.txt",
        "~/.ray/auth_token": "~/.ray/auth_token",
    }
    assert (ROOT / "constraints.txt").is_file()
    assert any(
        "pip install" in line and "--constraint ~/tightwire/constraints.txt" in line and "dist/*.whl" in line
        for line in config["setup_commands"]
    )


@pytest.mark.parametrize("name", LAUNCHERS)
def test_a_cluster_asks_for_its_token_and_takes_jobs_from_its_own_machine_alone(name: str) -> None:
    config = read(name)
    starts = [
        line for line in config["head_start_ray_commands"] + config["worker_start_ray_commands"] if "ray start" in line
    ]
    assert len(starts) == 2
    for line in starts:
        assert "RAY_AUTH_MODE=token" in shlex.split(line)[:2]
    assert "--dashboard-host=127.0.0.1" in shlex.split(starts[0])
    assert "--head" in shlex.split(starts[0])


def test_ones_own_machines_are_started_by_the_autoscaler_that_can() -> None:
    (start,) = [line for line in read("cluster.yaml")["head_start_ray_commands"] if "ray start" in line]
    words = shlex.split(start)
    assert words.index("RAY_enable_autoscaler_v2=0") < words.index("~/tightwire/.venv/bin/ray")


def test_the_image_holds_the_wheel_of_this_version_with_the_pins() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wheel = f"tightwire-{project['version']}-py3-none-any.whl"
    parsed = instructions("deploy/Dockerfile")
    copied = [word for what, rest in parsed if what == "COPY" for word in rest.split()[:-1]]
    assert sorted(copied) == ["constraints.txt", f"dist/{wheel}"]
    installs = [rest for what, rest in parsed if what == "RUN" and "pip install" in rest]
    assert len(installs) == 1
    assert "--constraint /tmp/tightwire/constraints.txt" in installs[0]
    assert installs[0].endswith(wheel)


@pytest.mark.parametrize("name", ["deploy/Dockerfile", "deploy/mlflow/Dockerfile"])
def test_an_image_has_a_python_that_the_project_supports_and_runs_as_nobody_special(name: str) -> None:
    parsed = instructions(name)
    (base,) = [rest for what, rest in parsed if what == "FROM"]
    minor = PYTHON_IMAGE.fullmatch(base)
    assert minor is not None
    assert 11 <= int(minor.group(1)) <= 13
    users = [rest for what, rest in parsed if what == "USER"]
    assert users[-1].isdigit()
    assert int(users[-1]) > 0


def test_a_rayjob_has_what_kuberay_requires() -> None:
    job, claim = yaml.safe_load_all((ROOT / "deploy/kuberay.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec = job["spec"]
    assert spec["entrypoint"].startswith("tightwire run ")
    cluster = spec["rayClusterSpec"]
    assert cluster["rayVersion"] == pins()["ray"]
    assert cluster["authOptions"] == {"mode": "token"}
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for group in groups:
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
    for group in cluster["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    claimed = claim["metadata"]["name"]
    for group in groups:
        pod = group["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"]
        (container,) = pod["containers"]
        assert container["image"] == f"tightwire:{version}"
        # Ray counts the CPUs of the limit and the memory of the limit: without one it takes the node's
        assert container["resources"]["limits"].keys() == {"cpu", "memory"}
    head = groups[0]["template"]["spec"]
    assert {"persistentVolumeClaim": {"claimName": claimed}, "name": "runs"} in head["volumes"]
    mounted = {mount["name"]: mount["mountPath"] for mount in head["containers"][0]["volumeMounts"]}
    assert mounted.keys() == {volume["name"] for volume in head["volumes"]}
    words = shlex.split(spec["entrypoint"])
    assert words[2].startswith(mounted["experiments"])
    assert words[words.index("--out") + 1].startswith(mounted["runs"])
    (submitter,) = spec["submitterPodTemplate"]["spec"]["containers"]
    assert submitter["image"] == f"tightwire:{version}"


def test_a_rayjobs_hosts_fit_its_workers() -> None:
    job = next(yaml.safe_load_all((ROOT / "deploy/kuberay.yaml").read_text()))
    words = shlex.split(job["spec"]["entrypoint"])
    wanted = int(words[words.index("--workers") + 1])
    groups = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    room = sum(
        group["replicas"] * int(group["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"])
        for group in groups
    )
    assert wanted <= room


def test_mlflow_for_a_team_keeps_its_secrets_out_of_the_files() -> None:
    compose = read("deploy/mlflow/compose.yaml")
    server, database = compose["services"]["server"], compose["services"]["database"]
    blank = dict(
        line.split("=", 1)
        for line in (ROOT / "deploy/mlflow/env.example").read_text().splitlines()
        if "=" in line and not line.startswith("#")
    )
    assert set(blank.values()) == {""}
    for name in blank:
        text = json.dumps([server["environment"], database["environment"]])
        assert f"${{{name}" in text
    assert server["ports"] == ["127.0.0.1:5000:5000"]
    assert "ports" not in database


def test_mlflow_for_a_team_is_started_by_the_script_that_its_image_holds() -> None:
    parsed = instructions("deploy/mlflow/Dockerfile")
    for what, rest in parsed:
        if what == "COPY":
            assert all((ROOT / source).is_file() for source in rest.split()[:-1])
    script = ROOT / "deploy/mlflow/serve"
    assert script.stat().st_mode & 0o111
    asked = set(re.findall(r"\$\{(MLFLOW_\w+):\?\}", script.read_text()))
    given = read("deploy/mlflow/compose.yaml")["services"]["server"]["environment"]
    assert asked <= given.keys()
    assert "MLFLOW_AUTH_ADMIN_PASSWORD" in given
