"""The image and what builds it: the Dockerfile, what it copies, and the script that sets up nodes without one."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from docker.utils.build import exclude_paths
from dockerfile_parse import DockerfileParser
from filled import ROOT

from xlt_ray.models import whisper

DOCKERFILE = ROOT / "deploy" / "Dockerfile"


@pytest.fixture(scope="module")
def steps(tmp_path_factory):
    """(instruction, value) in order, comments left out."""
    parser = DockerfileParser(str(tmp_path_factory.mktemp("parsed")))
    parser.content = DOCKERFILE.read_text()
    return [(step["instruction"], step["value"]) for step in parser.structure if step["instruction"] != "COMMENT"]


def index(steps, instruction, start):
    (found,) = [i for i, (name, value) in enumerate(steps) if name == instruction and value.startswith(start)]
    return found


def sources(steps):
    """What is copied into the image, by step."""
    return [(i, source) for i, (name, value) in enumerate(steps) if name == "COPY" for source in value.split()[:-1]]


def test_hadolint_finds_nothing():
    done = subprocess.run(
        [Path(sys.executable).with_name("hadolint"), "--no-color", DOCKERFILE], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def test_every_source_exists_and_reaches_the_build(steps):
    copied = {source for _, source in sources(steps)}
    assert copied == {"LICENSE", "README.md", "constraints.txt", "jobs", "pyproject.toml", "xlt_ray"}
    assert all((ROOT / source).exists() for source in copied)


def test_nothing_else_reaches_the_build(steps, tmp_path):
    """.dockerignore, read by Docker's own client, on a checkout as it is after some use."""
    kept = ["constraints.txt", "pyproject.toml", "LICENSE", "README.md", "jobs/embed.py", "xlt_ray/embed/plan.py"]
    left = [".git/config", ".venv/bin/pip", "build/cluster.yaml", "runs/mlflow.db", "xlt_ray/__pycache__/a.pyc"]
    for name in [*kept, *left, "cluster.yaml", "deploy/Dockerfile", "wheelhouse/a.whl"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    found = exclude_paths(str(tmp_path), [line for line in lines if line and not line.startswith("#")])
    assert {name for name in found if (tmp_path / name).is_file()} == set(kept)


def test_packages_stand_before_weights_before_code(steps):
    places = {source: i for i, source in sources(steps)}
    packages = index(steps, "RUN", "python -c")
    weights = index(steps, "RUN", "--mount=type=secret")
    assert places["constraints.txt"] == places["pyproject.toml"] < packages < weights < places["xlt_ray"]
    assert index(steps, "ARG", "COMMIT") > places["xlt_ray"]  # a new commit alone builds no layer again


@pytest.mark.parametrize("device", ["gpu", "cpu"])
def test_packages_are_those_of_the_project(steps, project, device):
    """The line that lists them runs, as the build runs it."""
    value = steps[index(steps, "RUN", "python -c")][1]
    listing, install = value.split(" > requirements.txt ")
    line = listing.replace("python -c", f"{shlex.quote(sys.executable)} -c", 1)
    printed = subprocess.check_output(line, shell=True, cwd=ROOT, env={"DEVICE": device}, text=True)
    wanted = [*project["dependencies"], *project["optional-dependencies"][device], "boto3"]
    assert printed.splitlines() == wanted
    assert "-c constraints.txt" in install
    assert "-r requirements.txt" in install


def test_every_install_is_constrained_or_of_the_code_alone(steps):
    installs = re.findall(r"pip install ([^&\n]*)", "\n".join(value for _, value in steps))
    assert len(installs) == 2
    assert "-c constraints.txt" in installs[0]
    assert installs[1].split() == ["--no-cache-dir", "--no-deps", "."]


def test_python_is_the_one_that_setup_prefers(steps):
    ((_, base),) = [step for step in steps if step[0] == "FROM"]
    tag = base.removeprefix("python:").split("-")[0]
    first = re.findall(r"for python in (\S+)", (ROOT / "Makefile").read_text())[0]
    assert f"python{tag}" == first
    assert base.endswith("-slim-trixie")


def test_the_image_runs_as_nobody_special(steps):
    users = [value for name, value in steps if name == "USER"]
    assert users[-1] == "1000:1000"  # a number, or Kubernetes can't tell that it is not root
    made = " ".join(value for _, value in steps)
    assert "useradd --uid 1000 --gid 1000" in made
    manifest = yaml.safe_load((ROOT / "deploy/kuberay/raycluster.yaml").read_text())
    head = manifest["spec"]["headGroupSpec"]["template"]["spec"]
    assert f"{head['securityContext']['runAsUser']}:{head['securityContext']['runAsGroup']}" == users[-1]
    exposed = {int(port) for name, value in steps if name == "EXPOSE" for port in value.split()}
    assert exposed == {port["containerPort"] for port in head["containers"][0]["ports"]}


def test_the_commit_must_be_given(steps):
    names = [value for name, value in steps if name == "ARG"]
    assert "COMMIT" in names  # without a default
    assert ("RUN", 'test -n "$COMMIT"') in steps
    assert ("ENV", "XLT_RAY_COMMIT=$COMMIT") in steps
    assert json.loads(steps[-1][1])[1] == "jobs/retrieval.py"


def test_weights_are_the_files_that_a_job_reads(steps):
    value = steps[index(steps, "RUN", "--mount=type=secret")][1]
    assert set(re.findall(r'--include "([^"]+)"', value)) == set(whisper._HUB_FILES[:4])
    assert 'if [ -n "$MODEL" ]' in value


def test_no_secret_stays(steps):
    text = DOCKERFILE.read_text()
    assert not re.findall(r"(?i)^(?:ARG|ENV)\s.*(?:token|password|secret|key)", text, re.MULTILINE)
    assert "type=secret,id=hf_token,env=HF_TOKEN" in text


@pytest.fixture
def checkout(tmp_path):
    """A checkout with a .venv whose pip notes how it is called, and programs of the system that do the same."""
    for name in ("constraints.txt", "pyproject.toml", "deploy/node.sh"):
        (tmp_path / "xlt_ray" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / "xlt_ray" / name)
    for path in ("xlt_ray/.venv/bin/pip", "bin/sudo", "bin/cloud-init"):
        program = tmp_path / path
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(f'#!/bin/sh\necho "{program.name} $* $PIP_NO_INDEX $PIP_FIND_LINKS" >> {tmp_path}/calls\n')
        program.chmod(0o755)
    for path, code in (("bin/python3.12", 0), ("bin/nvidia-smi", 1)):
        (tmp_path / path).write_text(f"#!/bin/sh\nexit {code}\n")
        (tmp_path / path).chmod(0o755)
    return tmp_path


def set_up(checkout, *packages):
    """The calls of one run of node.sh."""
    calls = checkout / "calls"
    calls.write_text("")
    subprocess.run(
        ["bash", checkout / "xlt_ray/deploy/node.sh", *packages],
        env={"PATH": f"{checkout}/bin:/usr/bin:/bin"},
        check=True,
        timeout=60,
    )
    return [line.strip() for line in calls.read_text().splitlines()]


def test_a_node_is_set_up_once(checkout):
    install = "pip install --quiet --no-input -c constraints.txt -e .[gpu,demo]"
    assert set_up(checkout, "boto3") == [f"{install} boto3"]
    assert set_up(checkout, "boto3") == []
    assert set_up(checkout) == [install]
    with (checkout / "xlt_ray/constraints.txt").open("a") as file:
        file.write("# an upgrade\n")
    assert set_up(checkout) == [install]


def test_a_node_that_could_not_be_set_up_is_not_taken_for_one_that_is(checkout):
    pip = checkout / "xlt_ray/.venv/bin/pip"
    working = pip.read_text()
    pip.write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(subprocess.CalledProcessError):
        set_up(checkout)
    pip.write_text(working)
    assert len(set_up(checkout)) == 1


def test_a_node_with_a_wheelhouse_asks_no_index(checkout):
    (checkout / "xlt_ray/wheelhouse").mkdir()
    (call,) = set_up(checkout)
    assert call.endswith(f"1 {checkout}/xlt_ray/wheelhouse")


def test_the_extras_of_a_node_exist(project):
    (extras,) = re.findall(r'-e "\.\[([\w,]+)\]"', (ROOT / "deploy/node.sh").read_text())
    assert set(extras.split(",")) <= set(project["optional-dependencies"])


@pytest.mark.parametrize(("has_gpu", "has_cuda", "is_refused"), [(1, 0, True), (1, 1, False), (0, 0, False)])
def test_a_gpu_node_without_cuda_is_refused(checkout, has_gpu, has_cuda, is_refused):
    (checkout / "bin/nvidia-smi").write_text(f"#!/bin/sh\nexit {1 - has_gpu}\n")
    torch = checkout / "torch.py"
    torch.write_text(f"class cuda:\n    is_available = lambda: {bool(has_cuda)}\n__version__ = '2.13.0+cpu'\n")
    python = checkout / "xlt_ray/.venv/bin/python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={checkout} exec "{sys.executable}" -S "$@"\n')
    python.chmod(0o755)
    if is_refused:
        with pytest.raises(subprocess.CalledProcessError):
            set_up(checkout)
    else:
        set_up(checkout)
