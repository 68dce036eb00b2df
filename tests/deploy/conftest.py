import re
import tomllib

import filled
import pytest


@pytest.fixture(params=[filled.AWS, filled.GCP], ids=lambda file: file.path)
def file(request):
    return request.param


@pytest.fixture
def config(file):
    return file.config()


@pytest.fixture
def pools(config):
    return {name: kind for name, kind in config["available_node_types"].items() if name != config["head_node_type"]}


@pytest.fixture(scope="session")
def pins():
    lines = (filled.ROOT / "constraints.txt").read_text().splitlines()
    return {
        re.sub(r"[-_.]+", "-", name).lower(): version
        for name, _, version in (line.partition("==") for line in lines)
        if version
    }


@pytest.fixture(scope="session")
def project():
    return tomllib.loads((filled.ROOT / "pyproject.toml").read_text())["project"]
