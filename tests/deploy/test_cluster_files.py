"""cluster.yaml and deploy/cluster-gcp.yaml: what Ray's own validation accepts, and what it does not look at."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import filled
import pytest
import yaml
from filled import ROOT, VARIABLE, ClusterFile
from ray._private.label_utils import validate_node_label_syntax
from ray.autoscaler._private.util import prepare_config, validate_config

OBJECT_STORE_SHARE = 0.3  # of a node's memory, Ray's default

Config = dict[str, Any]


def commands(config: Config) -> list[str]:
    return [command for key, value in config.items() if key.endswith("_commands") for command in value]


def pairs(value: Any) -> list[tuple[str, Any]]:
    """Every key of the tree with a plain value."""
    if isinstance(value, dict):
        plain = [(key, item) for key, item in value.items() if not isinstance(item, dict | list)]
        return plain + [pair for item in value.values() for pair in pairs(item)]
    return [pair for item in value for pair in pairs(item)] if isinstance(value, list) else []


def test_ray_accepts_it(config: Config) -> None:
    prepared = prepare_config(config)
    validate_config(prepared)
    # Validation fills nothing in; a key of Ray's defaults (other setup commands, other node types) would show here.
    assert prepared["available_node_types"].keys() == config["available_node_types"].keys()
    assert prepared["head_setup_commands"] == config["setup_commands"] + config["head_setup_commands"]


def test_the_head_runs_no_task(config: Config) -> None:
    head = config["available_node_types"][config["head_node_type"]]
    assert head["resources"] == {"CPU": 0, "GPU": 0}
    assert head["min_workers"] == head["max_workers"] == 0


def test_pools_start_from_zero(config: Config, pools: Config) -> None:
    for pool in pools.values():
        assert 0 == pool["min_workers"] < pool["max_workers"]
    assert config["max_workers"] == sum(pool["max_workers"] for pool in pools.values())
    assert 0 < config["idle_timeout_minutes"] <= 30


def test_a_pool_is_of_types_that_stand_in_for_each_other(pools: Config) -> None:
    """Ray looks at priority only where types fit a request equally well, that is, where their resources are equal."""
    by_pool: dict[str, list[Config]] = {}
    for pool in pools.values():
        by_pool.setdefault(pool["labels"]["pool"], []).append(pool)
    assert by_pool.keys() == {"cpu", "gpu"}
    for types in by_pool.values():
        assert all(one["resources"] == types[0]["resources"] for one in types)
        priorities = {one["priority"]: one["labels"]["market"] for one in types}
        assert len(priorities) == len(types)
        markets = [priorities[priority] for priority in sorted(priorities, reverse=True)]
        assert markets == ["spot"] * (len(types) - 1) + ["on-demand"]


def test_labels_are_true(file: ClusterFile, pools: Config) -> None:
    for pool in pools.values():
        validate_node_label_syntax(pool["labels"])
        node = pool["node_config"]
        is_spot = (
            node.get("InstanceMarketOptions", {}).get("MarketType") == "spot"
            or node.get("scheduling", {}).get("provisioningModel") == "SPOT"
        )
        assert pool["labels"]["market"] == ("spot" if is_spot else "on-demand")
        assert pool["labels"]["instance"] == node[file.machine_key]
        assert pool["labels"]["pool"] == ("gpu" if pool["resources"]["GPU"] else "cpu")
    assert len({tuple(sorted(pool["labels"].items())) for pool in pools.values()}) == len(pools)


def test_the_head_is_on_demand(config: Config) -> None:
    node = config["available_node_types"][config["head_node_type"]]["node_config"]
    assert "InstanceMarketOptions" not in node
    assert "scheduling" not in node


def test_resources_are_those_of_the_machine(file: ClusterFile, pools: Config) -> None:
    for pool in pools.values():
        num_cpus, gibibytes, num_gpus = file.machines[pool["node_config"][file.machine_key]]
        assert (pool["resources"]["CPU"], pool["resources"]["GPU"]) == (num_cpus, num_gpus)
        share = pool["resources"]["memory"] / (gibibytes * 2**30)
        assert 0.5 < share < 1 - OBJECT_STORE_SHARE


def test_nodes_have_no_public_address(file: ClusterFile, config: Config) -> None:
    assert config["provider"]["use_internal_ips"] is True
    assert config["auth"]["ssh_proxy_use_node_id"] is True  # of a private address the proxy knows nothing
    assert "%h" in config["auth"]["ssh_proxy_command"]
    for kind in config["available_node_types"].values():
        for interface in kind["node_config"].get("networkInterfaces", []):
            assert "accessConfigs" not in interface


def test_region_and_zone_are_named_once(config: Config) -> None:
    provider, text = config["provider"], yaml.safe_dump(config)
    assert set(re.findall(r"\b(?:us|eu)-[a-z]+-?\d(?:-?[a-z]\b)?", text)) <= {
        provider["region"],
        provider.get("availability_zone"),
    }


def test_nodes_have_accounts_of_their_own(config: Config) -> None:
    """Without them Ray makes one that may manage every machine and open every bucket."""
    accounts = {}
    for name, kind in config["available_node_types"].items():
        node = kind["node_config"]
        account = node["IamInstanceProfile"]["Name"] if "IamInstanceProfile" in node else node["serviceAccounts"][0]
        accounts[name] = account["email"].split("@")[0] if isinstance(account, dict) else account
    assert accounts.pop(config["head_node_type"]) == "xlt-ray-head"
    assert set(accounts.values()) == {"xlt-ray-worker"}


def test_every_variable_is_documented(file: ClusterFile) -> None:
    used = set(VARIABLE.findall(file.body))
    documented = set(re.findall(r"^#   ([A-Z][A-Z_0-9]+)  ", file.header, re.MULTILINE))
    assert used == documented == set(file.listed)
    asked = set(re.findall(r'"\$\{(\w+):\?\}"', file.header))
    assert used - asked == {"HF_TOKEN", "MLFLOW_TRACKING_URI"}  # may be empty


def test_shell_variables_of_the_nodes_survive_the_filling_in(config: Config) -> None:
    assert "${" not in yaml.safe_dump(config)
    assert "$RAY_HEAD_IP:6379" in config["worker_start_ray_commands"][-1]
    assert "$PATH" in "".join(config["initialization_commands"])


def test_a_forgotten_variable_is_no_valid_value() -> None:
    empty = yaml.safe_load(VARIABLE.sub("", filled.AWS.text))
    for kind in empty["available_node_types"].values():
        # An empty ImageId would let Ray take its default image, Ubuntu 18.04; null stops `ray up`.
        assert kind["node_config"]["ImageId"] is None
        assert kind["node_config"]["SecurityGroupIds"] == [None]
        assert kind["node_config"]["SubnetIds"] == [None, None]
    assert yaml.safe_load(VARIABLE.sub("", filled.GCP.text))["provider"]["project_id"] is None


SECRET_SHAPES = {
    "key id of AWS": r"\b(AKIA|ASIA)[A-Z0-9]{16}\b",
    "token of the Hub": r"\bhf_[A-Za-z0-9]{20,}",
    "password in a URL": r"://[^/\s:]+:[^@\s/]+@",
    "private key": r"BEGIN [A-Z ]*PRIVATE KEY",
    "long random text": r"\b(?=[A-Za-z0-9+=]*\d)(?=[A-Za-z0-9+=]*[A-Za-z])[A-Za-z0-9+=]{24,}\b",
}


@pytest.mark.parametrize("shape", SECRET_SHAPES)
def test_no_literal_secret(shape: str) -> None:
    paths = [ROOT / "cluster.yaml", *(path for path in (ROOT / "deploy").rglob("*") if path.is_file())]
    assert len(paths) > 8
    for path in paths:
        assert not re.findall(SECRET_SHAPES[shape], path.read_text()), path


def test_secrets_are_only_variables(file: ClusterFile) -> None:
    config = yaml.safe_load(file.text)
    exports = set(" ".join(re.findall(r"export ([^;>]*)", "\n".join(commands(config)))).split())
    assert exports == {
        "HF_TOKEN='${HF_TOKEN}'",
        "MLFLOW_TRACKING_URI='${MLFLOW_TRACKING_URI}'",
        "RAY_AUTH_MODE=token",  # the mode, not the token
        "PATH=$HOME/xlt_ray/.venv/bin:$PATH'",
    }
    secret = re.compile(r"(?i)token|secret|password|credential|key")
    assert {pair for pair in pairs(config) if secret.search(pair[0])} - {("HttpTokens", "required")} == {
        ("~/.ray/auth_token", "~/.ray/auth_token")
    }


def test_versions_are_the_tested_ones(project: Config, pins: dict[str, str]) -> None:
    (ray_pin,) = re.findall(r"ray\[.*\]==([\d.]+)", "\n".join(project["dependencies"]))
    (torch_pin,) = re.findall(r"torch==([\d.]+)", "\n".join(project["optional-dependencies"]["cpu"]))
    mentioned = dict(re.findall(r"\b([a-z][\w-]*)==([\w.+]+?)(?=[\s,;.)]*(?:\s|$))", filled.AWS.text))
    assert mentioned == {"ray": ray_pin, "torch": torch_pin}
    assert (pins["ray"], pins["torch"]) == (ray_pin, torch_pin)  # `2.13.0+cpu` would leave GPU nodes without CUDA


def test_nodes_are_set_up_by_one_script(file: ClusterFile, config: Config, pins: dict[str, str]) -> None:
    assert config["setup_commands"] == [f"bash ~/xlt_ray/deploy/node.sh {file.sdk}"]
    assert file.sdk in pins
    assert not re.search(r"\b(pip|apt)", "\n".join(commands(config)))
    assert "latest" not in file.body


def test_the_nodes_get_the_files_that_they_install_from(config: Config, project: Config) -> None:
    mounts = {remote: local for remote, local in config["file_mounts"].items() if not local.startswith("~")}
    install = {"pyproject.toml", "constraints.txt", "xlt_ray", "deploy/node.sh"}
    assert {*mounts.values()} == {*install, project["readme"], *project["license-files"]}
    for remote, local in mounts.items():
        assert remote == f"~/xlt_ray/{local}"
        assert (ROOT / local).exists()


def test_only_the_holder_of_the_token_gets_in(file: ClusterFile, config: Config) -> None:
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    assert "export RAY_AUTH_MODE=token" in "".join(config["initialization_commands"])
    assert "--dashboard-host=127.0.0.1" in config["head_start_ray_commands"][-1]
    assert "0.0.0.0" not in file.text
    for kind in config["available_node_types"].values():
        if "ImageId" in kind["node_config"]:
            # Without a group of the user's, Ray makes one that opens SSH to every address.
            assert kind["node_config"]["SecurityGroupIds"] == ["value-of-XLT_SECURITY_GROUP"]


def test_every_command_is_shell(config: Config) -> None:
    for command in commands(config):
        done = subprocess.run(["bash", "-n", "-c", command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}\n{done.stderr}"


def test_what_the_head_imports_is_there(file: ClusterFile, config: Config, tmp_path: Path) -> None:
    """The check of the bucket runs, on a folder."""
    (source,) = re.findall(r'python -c\s+"([^"]*)"', "\n".join(commands(config)))
    bucket = f"{file.bucket}value-of-XLT_BUCKET"
    assert bucket in source
    exec(source.replace(bucket, str(tmp_path)), {})
    with pytest.raises(AssertionError, match="no bucket"):
        exec(source.replace(bucket, str(tmp_path / "missing")), {})


def test_the_session_names_files_that_exist(file: ClusterFile) -> None:
    jobs = re.findall(r"python (jobs/\w+\.py)", file.header)
    assert jobs
    assert all((ROOT / job).exists() for job in jobs)
    assert f"< {file.path} > build/" in file.header
    order = [file.header.index(f"ray {word} ") for word in ("get-auth-token", "up", "dashboard", "job submit", "down")]
    assert order == sorted(order)
