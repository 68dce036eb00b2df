"""The KubeRay manifests: as Ray itself reads them, by their fields, and by what the two files and the image share."""

from __future__ import annotations

import copy
import re
import shlex

import jsonschema
import kuberay_fields
import pytest
import yaml
from filled import ROOT
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
from ray.autoscaler._private.kuberay.utils import parse_quantity

FOLDER = ROOT / "deploy" / "kuberay"
OBJECT_STORE, MEMORY = "object-store-memory", "memory"


def documents(name):
    return [document for document in yaml.safe_load_all((FOLDER / name).read_text()) if document]


@pytest.fixture
def cluster():
    (document,) = documents("raycluster.yaml")
    return document


@pytest.fixture
def job():
    (document,) = documents("rayjob.yaml")
    return document


@pytest.fixture
def config():
    return {(document["kind"], document["metadata"]["name"]): document for document in documents("config.yaml")}


def groups(cluster):
    return {group["groupName"]: group for group in cluster["spec"]["workerGroupSpecs"]}


def pods(cluster):
    spec = cluster["spec"]
    return [group["template"]["spec"] for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"])]


def test_fields_are_spelt_as_kuberay_spells_them(cluster, job):
    jsonschema.validate(cluster, kuberay_fields.RAY_CLUSTER)
    jsonschema.validate(job, kuberay_fields.RAY_JOB)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda spec: spec.update(enableInTreeAutoscaler=True),
        lambda spec: spec["workerGroupSpecs"][0].update(minReplicas="0"),
        lambda spec: spec["headGroupSpec"].update(rayStartParams={"num-cpus": 0}),
        lambda spec: spec["headGroupSpec"]["template"]["spec"]["securityContext"].update(runAsUser=0),
        lambda spec: spec["workerGroupSpecs"][1]["template"]["spec"]["containers"][0].pop("securityContext"),
        lambda spec: spec["workerGroupSpecs"][1]["template"]["spec"].update(shm="1Gi"),
    ],
)
def test_a_wrong_field_is_found(cluster, spoil):
    wrong = copy.deepcopy(cluster)
    spoil(wrong["spec"])
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, kuberay_fields.RAY_CLUSTER)


def test_ray_reads_pools_that_start_from_zero(cluster):
    """What the autoscaler in the head's pod makes of it, which also validates it."""
    cluster["metadata"]["namespace"] = "default"
    config = _derive_autoscaling_config_from_ray_cr(cluster)
    types = config["available_node_types"]
    assert types["headgroup"]["resources"]["CPU"] == 0
    assert config["idle_timeout_minutes"] == 10
    assert types.keys() == {"headgroup", "cpu", "gpu"}
    for name in ("cpu", "gpu"):
        assert types[name]["min_workers"] == 0 < types[name]["max_workers"]
        assert types[name]["labels"] == {"pool": name}
        assert types[name]["resources"].get("GPU", 0) == (name == "gpu")
    assert cluster["spec"]["autoscalerOptions"]["version"] == "v2"
    assert cluster["spec"]["enableInTreeAutoscaling"] is True


def test_memory_of_a_worker_is_divided_as_it_says(cluster):
    for group in groups(cluster).values():
        (container,) = group["template"]["spec"]["containers"]
        limit = int(parse_quantity(container["resources"]["limits"]["memory"]))
        assert container["resources"]["requests"]["memory"] == container["resources"]["limits"]["memory"]
        assert int(group["rayStartParams"][MEMORY]) / limit == pytest.approx(0.6)
        assert int(group["rayStartParams"][OBJECT_STORE]) / limit == pytest.approx(0.3)


def test_the_object_store_fits_shared_memory(cluster):
    """Kubernetes gives 64 MB; Ray then puts its object store on disk, and is slow without a word."""
    spec = cluster["spec"]
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        (shared,) = (volume["emptyDir"] for volume in pod["volumes"] if volume["name"] == "dshm")
        assert shared["medium"] == "Memory"
        assert int(group["rayStartParams"][OBJECT_STORE]) <= parse_quantity(shared["sizeLimit"])
        assert {"name": "dshm", "mountPath": "/dev/shm"} in pod["containers"][0]["volumeMounts"]


def test_mounts_have_volumes(cluster):
    for pod in pods(cluster):
        mounted = {mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}


def test_only_the_gpu_pool_takes_gpus(cluster):
    for name, group in groups(cluster).items():
        pod = group["template"]["spec"]
        gpus = pod["containers"][0]["resources"]["limits"].get("nvidia.com/gpu")
        tolerated = [toleration["key"] for toleration in pod.get("tolerations", [])]
        assert (gpus, tolerated) == (("1", ["nvidia.com/gpu"]) if name == "gpu" else (None, []))


def test_the_job_brings_the_cluster_of_the_other_file(cluster, job):
    assert job["spec"]["rayClusterSpec"] == cluster["spec"]
    images = {pod["containers"][0]["image"] for pod in [*pods(cluster), job["spec"]["submitterPodTemplate"]["spec"]]}
    assert len(images) == 1


def test_the_job_is_the_papers_retrieval(job):
    words = shlex.split(job["spec"]["entrypoint"])
    assert words[:6] == ["python", "jobs/retrieval.py", "--preset", "fleurs_large_v2", "--root", "s3://my-bucket/runs"]
    # KubeRay hands it to a shell that has no variables of ours.
    assert "$" not in job["spec"]["entrypoint"]


def test_the_job_ends_and_its_cluster_with_it(job):
    spec = job["spec"]
    assert spec["shutdownAfterJobFinishes"]
    assert 0 < spec["ttlSecondsAfterFinished"] <= 3600
    assert spec["backoffLimit"] > 0  # a job that is started again goes on from what is there
    assert spec["activeDeadlineSeconds"] > 3600


def test_the_token_is_a_secret(cluster):
    assert cluster["spec"]["authOptions"] == {"mode": "token", "secretName": "xlt-ray-token"}
    header = (FOLDER / "config.yaml").read_text()
    assert "kubectl create secret generic xlt-ray-token --from-literal=auth_token=" in header  # the key KubeRay reads
    assert "kubectl create secret generic xlt-ray-secrets " in header


def test_what_pods_lean_on_is_there(cluster, config):
    for pod in pods(cluster):
        assert ("ServiceAccount", pod["serviceAccountName"]) in config
        sources = pod["containers"][0]["envFrom"]
        assert [source["configMapRef"]["name"] for source in sources if "configMapRef" in source] == ["xlt-ray"]
        assert [source["secretRef"] for source in sources if "secretRef" in source] == [
            {"name": "xlt-ray-secrets", "optional": True}
        ]
    assert config["ConfigMap", "xlt-ray"]["data"].keys() == {"MLFLOW_TRACKING_URI", "RAY_USAGE_STATS_ENABLED"}
    assert all(kind != "Secret" for kind, _ in config)


def test_a_worker_may_not_change_the_cluster(cluster):
    head, *workers = pods(cluster)
    assert head["serviceAccountName"] == "xlt-ray-head"
    for pod in workers:
        assert pod["serviceAccountName"] == "xlt-ray-worker"
        assert pod["automountServiceAccountToken"] is False


def test_the_other_root_is_the_claim(cluster, config):
    """The comment's line for a root on a volume names the claim, and fits the schema in place of the scratch folder."""
    (line,) = re.findall(r"# For --root /mnt/shared/runs: (.*)", (FOLDER / "raycluster.yaml").read_text())
    volume = yaml.safe_load(line)
    assert ("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]) in config
    assert config["PersistentVolumeClaim", "xlt-ray"]["spec"]["accessModes"] == ["ReadWriteMany"]
    for pod in pods(cluster):
        pod["volumes"] = [volume if there["name"] == volume["name"] else there for there in pod["volumes"]]
        assert volume in pod["volumes"]
        assert {"name": volume["name"], "mountPath": "/mnt/shared"} in pod["containers"][0]["volumeMounts"]
    jsonschema.validate(cluster, kuberay_fields.RAY_CLUSTER)


def test_ray_is_the_tested_one(cluster, pins):
    assert cluster["spec"]["rayVersion"] == pins["ray"]
