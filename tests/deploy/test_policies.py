"""The policies of both clouds: their form, how much they allow, and whether that is what Ray's own calls need."""

from __future__ import annotations

import json
import re
from pathlib import Path

import boto3
import filled
import pytest
import yaml
from filled import AWS, ROOT, VARIABLE
from moto import mock_aws
from moto.iam.policy_validation import IAMPolicyDocumentValidator, IAMTrustPolicyDocumentValidator
from ray.autoscaler._private.aws.node_provider import AWSNodeProvider

FOLDER = ROOT / "deploy" / "policies"
GUIDE = ROOT / "docs" / "cluster.md"
WITHOUT_RESOURCE = {"ec2:DescribeInstances"}
"""Actions that AWS can't narrow to a resource; those of Session Manager are others."""


def policy(name):
    return json.loads(VARIABLE.sub(r"value-of-\1", (FOLDER / name).read_text()))


def listed(value):
    return [value] if isinstance(value, str) else value


def statements(name):
    return policy(name)["Statement"]


def allowed(name):
    return {action for statement in statements(name) for action in listed(statement["Action"])}


@pytest.mark.parametrize("name", ["aws-head.json", "aws-worker.json"])
def test_aws_would_take_it(name):
    IAMPolicyDocumentValidator(json.dumps(policy(name))).validate()
    assert len(json.dumps(policy(name))) < 6144  # the most that AWS takes


def test_aws_would_take_the_trust():
    IAMTrustPolicyDocumentValidator(json.dumps(policy("aws-trust.json"))).validate()


@pytest.mark.parametrize("name", ["aws-head.json", "aws-worker.json"])
def test_every_right_is_named(name):
    for statement in statements(name):
        assert statement["Effect"] == "Allow"
        assert statement.keys() <= {"Sid", "Effect", "Action", "Resource", "Condition"}
        actions = set(listed(statement["Action"]))
        assert all(re.fullmatch(r"[a-z0-9]+:[A-Za-z]+", action) for action in actions)
        if "*" in listed(statement["Resource"]):
            assert all(action.startswith(("ssm:", "ssmmessages:")) for action in actions - WITHOUT_RESOURCE)


def test_the_worker_has_the_bucket_and_no_more():
    for statement in statements("aws-worker.json"):
        assert {action.split(":")[0] for action in listed(statement["Action"])} == {"s3"}
        assert statement["Resource"].removesuffix("/*") == "arn:aws:s3:::value-of-XLT_BUCKET"


def test_the_head_starts_what_the_cluster_file_names():
    config = AWS.config()
    kinds = config["available_node_types"].values()
    workers = [kind["node_config"] for kind in kinds if kind["labels"]["pool"] != "head"]
    (start,) = [one for one in statements("aws-head.json") if one["Sid"] == "StartNodesOfThisCluster"]
    equals = start["Condition"]["StringEquals"]
    assert set(equals["ec2:InstanceType"]) == {node["InstanceType"] for node in workers}
    assert {equals["ec2:MetadataHttpTokens"]} == {node["MetadataOptions"]["HttpTokens"] for node in workers}
    assert equals["aws:RequestTag/ray-cluster-name"] == config["cluster_name"]
    profile = start["Condition"]["ArnEquals"]["ec2:InstanceProfile"]
    assert {profile.rsplit("/", 1)[1]} == {node["IamInstanceProfile"]["Name"] for node in workers}
    regions = set(re.findall(r"arn:aws:ec2:([^:]*):", (FOLDER / "aws-head.json").read_text()))
    assert regions == {config["provider"]["region"]}


@pytest.fixture
def calls(monkeypatch):
    """What Ray's own provider asks of EC2, from the start of a worker to its end, on a model of AWS."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    made = set()
    config = AWS.config()
    with mock_aws():
        client = boto3.client("ec2", region_name=config["provider"]["region"])
        subnet = client.describe_subnets()["Subnets"][0]["SubnetId"]
        image = client.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
        provider = AWSNodeProvider(config["provider"], config["cluster_name"])
        for resource in (provider.ec2, provider.ec2_fail_fast):
            resource.meta.client.meta.events.register("before-call.ec2", lambda model, **_: made.add(model.name))
        node = {"InstanceType": "c6i.4xlarge", "ImageId": image, "SubnetIds": [subnet]}
        (created,) = provider.create_node(node, {"ray-node-type": "worker"}, 1)
        assert provider.non_terminated_nodes({}) == [created]
        provider.set_node_tags(created, {"ray-node-status": "up-to-date"})
        provider.terminate_nodes([created])
        tags = client.describe_instances(InstanceIds=[created])["Reservations"][0]["Instances"][0]["Tags"]
    return made, {tag["Key"]: tag["Value"] for tag in tags}


@pytest.mark.slow
def test_the_head_may_do_what_ray_does(calls):
    made, tags = calls
    assert {"RunInstances", "DescribeInstances", "CreateTags", "TerminateInstances"} <= made
    assert {f"ec2:{name}" for name in made} <= allowed("aws-head.json")
    assert tags["ray-cluster-name"] == "xlt-ray"  # the tag that every right hangs on


def test_google_cloud_would_take_it():
    role = yaml.safe_load((FOLDER / "gcp-head.yaml").read_text())
    assert role.keys() == {"title", "description", "stage", "includedPermissions"}
    assert role["stage"] in ("ALPHA", "BETA", "GA")
    permissions = role["includedPermissions"]
    assert permissions == sorted(set(permissions))
    assert all(re.fullmatch(r"compute\.[a-zA-Z]+\.[a-zA-Z]+", permission) for permission in permissions)
    assert not any("setIamPolicy" in permission for permission in permissions)


def test_the_head_may_call_what_rays_provider_calls_on_google_cloud():
    """Every method of instances and of operations in Ray's source, but those for stopped nodes, which we have not."""
    import ray.autoscaler._private.gcp as package

    source = (Path(package.__file__).parent / "node.py").read_text().split("class GCPTPU(")[0]
    found = set(re.findall(r"\.(instances|zoneOperations)\(\)\s*\.(\w+)\(", source)) - {
        ("instances", "start"),
        ("instances", "stop"),
    }
    assert len(found) >= 5
    called = {f"compute.{service}.{'create' if method == 'insert' else method}" for service, method in found}
    role = yaml.safe_load((FOLDER / "gcp-head.yaml").read_text())
    assert called <= set(role["includedPermissions"])
    assert filled.GCP.config()["provider"]["cache_stopped_nodes"] is False


def test_the_guide_tells_how_to_use_every_policy():
    text = GUIDE.read_text()
    for path in FOLDER.iterdir():
        assert f"deploy/policies/{path.name}" in text
    used = {name for path in FOLDER.iterdir() for name in VARIABLE.findall(path.read_text())}
    (filled_in,) = re.findall(r"envsubst '([^']*)' < \"deploy/policies/", text)
    assert used == set(VARIABLE.findall(filled_in))
