import shutil

import pytest
from mlflow import MlflowClient


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory):
    """A database of MLflow without experiments of ours; to make one takes MLflow 5 to 20 s."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def root(tmp_path, empty_store):
    """A root with a store that is ready."""
    folder = tmp_path / "runs"
    folder.mkdir()
    shutil.copyfile(empty_store, folder / "mlflow.db")
    return folder
