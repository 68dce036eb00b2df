"""What every test needs: one thread, no network, no usage statistics, no cluster or server of somebody else."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.update(
    {
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        "TOKENIZERS_PARALLELISM": "false",
        "TRITON_INTERPRET": "1",  # read where a kernel is defined; there is no GPU
    }
)
# How long an example takes says nothing on a machine that is shared.
settings.register_profile("shared", deadline=None)
settings.load_profile("shared")
# As many tests run at a time as there are CPUs, so each Ray has one: of two actors, the second would only wait for the
# first.
RESOURCES = "RAY_OVERRIDE_RESOURCES"
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ[RESOURCES] = '{"CPU": 1}'
os.environ.pop("RAY_ADDRESS", None)
os.environ.pop("MLFLOW_TRACKING_URI", None)
os.environ.pop("MLFLOW_EXPERIMENT_NAME", None)


def pytest_collection_modifyitems(items):
    """Files that may take longest go first, so that no process is left with one of them at the end."""
    limits = {item: marker.args[0] for item in items if (marker := item.get_closest_marker("timeout"))}
    items.sort(key=lambda item: -limits.get(item, 0))


@pytest.fixture(scope="module")
def several_cpus():
    """Each Ray has the CPUs that it is given, or those of the machine, from here to the end of the module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(RESOURCES, raising=False)
        yield


@pytest.fixture(autouse=True)
def _own_plans():
    """What a test plans to make is not waited for by the next, whose store may be another."""
    yield
    from xlt_ray.store import artifact

    artifact.to_be_made.clear()


@pytest.fixture(scope="session", autouse=True)
def _own_cache(request, tmp_path_factory):
    """A cache of the tests' own: models that they convert do not belong in the user's. Its speech is shared."""
    if any(item.get_closest_marker("real") for item in request.session.items):
        yield  # these read the real model, which takes a minute to convert
        return
    users = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    own = tmp_path_factory.mktemp("cache")
    (own / "xlt_ray").mkdir()
    for path in (users / "xlt_ray").glob("asterisk*"):
        (own / "xlt_ray" / path.name).symlink_to(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(own))
        yield
