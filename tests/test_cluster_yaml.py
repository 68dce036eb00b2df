"""cluster.yaml: what Ray's own validation accepts, and what it does not look at."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray._private.label_utils import validate_node_label_syntax
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "cluster.yaml").read_text()
HEADER = TEXT.split("\n\n", 1)[0]
BODY = "\n".join(line for line in TEXT.splitlines() if not line.lstrip().startswith("#"))
VARIABLE = re.compile(r"\$\{(\w+)\}")

# AWS's own figures: vCPU, GiB of memory, GPUs.
INSTANCES = {"m6i.xlarge": (4, 16, 0), "c6i.4xlarge": (16, 32, 0), "g6.4xlarge": (16, 64, 1)}
OBJECT_STORE_SHARE = 0.3  # of a node's memory, Ray's default


def render(text: str) -> str:
    """What `envsubst LIST < cluster.yaml` prints where every variable of the list holds `value-of-NAME`."""
    (listed,) = re.findall(r"envsubst '([^']*)'", HEADER)
    for name in VARIABLE.findall(listed):
        text = text.replace(f"${{{name}}}", f"value-of-{name}")
    return text


@pytest.fixture
def config() -> dict[str, Any]:
    return yaml.safe_load(render(TEXT))


@pytest.fixture
def pools(config: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: kind for name, kind in config["available_node_types"].items() if name != config["head_node_type"]}


@pytest.fixture(scope="module")
def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return {normal(name): version for name, _, version in (line.partition("==") for line in lines) if version}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def commands(config: dict[str, Any]) -> list[str]:
    return [command for key, value in config.items() if key.endswith("_commands") for command in value]


def pairs(value: Any) -> list[tuple[str, Any]]:
    """Every key of the tree with a plain value."""
    if isinstance(value, dict):
        plain = [(key, item) for key, item in value.items() if not isinstance(item, dict | list)]
        return plain + [pair for item in value.values() for pair in pairs(item)]
    return [pair for item in value for pair in pairs(item)] if isinstance(value, list) else []


def test_ray_accepts_it(config: dict[str, Any]) -> None:
    prepared = prepare_config(config)
    validate_config(prepared)
    # Validation fills nothing in; a key of Ray's defaults (other setup commands, other node types) would show here.
    assert prepared["available_node_types"].keys() == config["available_node_types"].keys()
    assert prepared["head_setup_commands"] == config["setup_commands"] + config["head_setup_commands"]


def test_the_head_runs_no_task(config: dict[str, Any]) -> None:
    head = config["available_node_types"][config["head_node_type"]]
    assert head["resources"] == {"CPU": 0, "GPU": 0}
    assert head["min_workers"] == head["max_workers"] == 0


def test_pools_start_from_zero(config: dict[str, Any], pools: dict[str, Any]) -> None:
    assert len(pools) == 2
    for pool in pools.values():
        assert 0 == pool["min_workers"] <= pool["max_workers"]
        assert 0 < pool["max_workers"] <= config["max_workers"]
    assert config["max_workers"] <= sum(pool["max_workers"] for pool in pools.values())
    assert 0 < config["idle_timeout_minutes"] <= 30


def test_one_pool_has_gpus(pools: dict[str, Any]) -> None:
    assert sorted(pool["resources"]["GPU"] for pool in pools.values()) == [0, 1]


def test_labels_tell_node_types_apart(config: dict[str, Any]) -> None:
    labels = [kind["labels"] for kind in config["available_node_types"].values()]
    for label in labels:
        validate_node_label_syntax(label)
    assert len({tuple(sorted(label.items())) for label in labels}) == len(labels)


def test_resources_are_those_of_the_machine(pools: dict[str, Any]) -> None:
    for pool in pools.values():
        num_cpus, gibibytes, num_gpus = INSTANCES[pool["node_config"]["InstanceType"]]
        assert (pool["resources"]["CPU"], pool["resources"]["GPU"]) == (num_cpus, num_gpus)
        share = pool["resources"]["memory"] / (gibibytes * 2**30)
        assert 0.5 < share < 1 - OBJECT_STORE_SHARE


def test_every_variable_is_documented() -> None:
    used = set(VARIABLE.findall(BODY))
    documented = set(re.findall(r"^#   ([A-Z][A-Z_]+)  ", HEADER, re.MULTILINE))
    (listed,) = re.findall(r"envsubst '([^']*)'", HEADER)
    assert used == documented == set(VARIABLE.findall(listed))


def test_shell_variables_of_the_nodes_survive_the_filling_in(config: dict[str, Any]) -> None:
    assert "${" not in yaml.safe_dump(config)
    assert "$RAY_HEAD_IP:6379" in config["worker_start_ray_commands"][-1]
    assert "$PATH" in "".join(config["initialization_commands"])


def test_a_forgotten_variable_is_no_valid_value() -> None:
    empty = yaml.safe_load(VARIABLE.sub("", TEXT))
    for kind in empty["available_node_types"].values():
        # An empty ImageId would let Ray take its default image, Ubuntu 18.04; null stops `ray up`.
        assert kind["node_config"]["ImageId"] is None
        assert kind["node_config"]["SecurityGroupIds"] == [None]


SECRET_SHAPES = {
    "key id of AWS": r"\b(AKIA|ASIA)[A-Z0-9]{16}\b",
    "token of the Hub": r"\bhf_[A-Za-z0-9]{20,}",
    "password in a URL": r"://[^/\s:]+:[^@\s/]+@",
    "private key": r"BEGIN [A-Z ]*PRIVATE KEY",
    "long random text": r"\b(?=[A-Za-z0-9+=]*\d)(?=[A-Za-z0-9+=]*[A-Za-z])[A-Za-z0-9+=]{24,}\b",
}


@pytest.mark.parametrize("shape", SECRET_SHAPES)
def test_no_literal_secret(shape: str) -> None:
    assert not re.findall(SECRET_SHAPES[shape], TEXT)


def test_secrets_are_only_variables() -> None:
    config = yaml.safe_load(TEXT)
    exports = set(" ".join(re.findall(r"export ([^;>]*)", "\n".join(commands(config)))).split())
    assert exports == {
        "HF_TOKEN='${HF_TOKEN}'",
        "MLFLOW_TRACKING_URI='${MLFLOW_TRACKING_URI}'",
        "RAY_AUTH_MODE=token",  # the mode, not the token
        "PATH=$HOME/xlt_ray/.venv/bin:$PATH'",
    }
    secret = re.compile(r"(?i)token|secret|password|credential|key")
    assert {pair for pair in pairs(config) if secret.search(pair[0])} == {
        ("HttpTokens", "required"),
        ("~/.ray/auth_token", "~/.ray/auth_token"),
    }


def test_versions_are_the_tested_ones(pins: dict[str, str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (ray_pin,) = re.findall(r"ray\[.*\]==([\d.]+)", "\n".join(project["dependencies"]))
    (torch_pin,) = re.findall(r"torch==([\d.]+)", "\n".join(project["optional-dependencies"]["cpu"]))
    mentioned = dict(re.findall(r"\b([a-z][\w-]*)==([\w.+]+?)(?=[\s,;.)]*(?:\s|$))", TEXT))
    assert mentioned == {"ray": ray_pin, "torch": torch_pin}
    assert (pins["ray"], pins["torch"]) == (ray_pin, torch_pin)  # `2.13.0+cpu` would leave GPU nodes without CUDA


def test_nothing_is_installed_without_constraints(config: dict[str, Any], pins: dict[str, str]) -> None:
    installs = [command for command in commands(config) if re.search(r"\bpip\b.*\binstall\b", command)]
    assert len(installs) == 2
    for command in installs:
        assert " -c constraints.txt " in command
        named = command.rsplit("constraints.txt", 1)[1].split()
        assert all(normal(word) in pins for word in named if word != "-e" and not word.startswith('".['))
    assert "latest" not in BODY


def test_the_extras_exist(config: dict[str, Any]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (extras,) = re.findall(r'-e "\.\[([\w,]+)\]"', "\n".join(config["setup_commands"]))
    assert {"gpu", "demo"} == set(extras.split(",")) <= set(project["optional-dependencies"])


def test_the_nodes_get_the_files_that_they_install_from(config: dict[str, Any]) -> None:
    mounts = {remote: local for remote, local in config["file_mounts"].items() if not local.startswith("~")}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {"pyproject.toml", "constraints.txt", "xlt_ray", project["readme"], *project["license-files"]} == {
        *mounts.values()
    }
    for remote, local in mounts.items():
        assert remote == f"~/xlt_ray/{local}"
        assert (ROOT / local).exists()


def test_only_the_holder_of_the_token_gets_in(config: dict[str, Any]) -> None:
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    assert "export RAY_AUTH_MODE=token" in "".join(config["initialization_commands"])
    assert "--dashboard-host=127.0.0.1" in config["head_start_ray_commands"][-1]
    assert "0.0.0.0" not in TEXT
    for kind in config["available_node_types"].values():
        # Without a group of the user's, Ray makes one that opens SSH to every address.
        assert kind["node_config"]["SecurityGroupIds"] == ["value-of-XLT_SECURITY_GROUP"]


def test_every_command_is_shell(config: dict[str, Any]) -> None:
    for command in commands(config):
        done = subprocess.run(["bash", "-n", "-c", command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}\n{done.stderr}"
    for source in re.findall(r'python -c\s+"([^"]*)"', "\n".join(commands(config))):
        ast.parse(source)


def test_the_session_names_files_that_exist() -> None:
    jobs = re.findall(r"python (jobs/\w+\.py)", HEADER)
    assert jobs
    assert all((ROOT / job).exists() for job in jobs)
    order = [HEADER.index(f"ray {command} ") for command in ("get-auth-token", "up", "dashboard", "job submit", "down")]
    assert order == sorted(order)
