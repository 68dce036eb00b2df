"""Where a finished model goes: another machine's cache, faster-whisper, the Hub."""

import hashlib
from types import SimpleNamespace

import ctranslate2
import huggingface_hub
import pytest
import ray
import s3_server
from huggingface_hub.utils import httpx
from tiny import tiny_whisper

from xlt_ray.errors import UserError
from xlt_ray.finetune import exported, pipeline
from xlt_ray.finetune.config import FinetuneConfig
from xlt_ray.finetune.cost import converting_memory
from xlt_ray.job import pools
from xlt_ray.models.size import ModelSize
from xlt_ray.store import artifacts, storage
from xlt_ray.store.artifact import Artifact


def finetuned(root, content, created="now"):
    """As much of a finetune artifact as a reader of its weights looks at."""
    artifact = Artifact.at(str(root), "finetune", "tuned")
    for name, data in content.items():
        artifact.write_bytes(name, data)
    others = [{"path": name, "bytes": len(data)} for name, data in content.items()]
    artifact.write_json("manifest.json", {"others": others, "created": created})
    return artifact


def test_a_local_checkpoint_is_read_where_it_lies(tmp_path):
    artifact = finetuned(tmp_path, {"model/config.json": b"{}"})
    assert exported.local_model(artifact) == tmp_path / "finetune" / "tuned" / "model"


def test_a_remote_checkpoint_is_copied_once(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with s3_server.bucket() as bucket:
        files = {"model/config.json": b"{}", "model/a/weights.bin": bytes(range(256)) * 9, "export/model.bin": b"x"}
        artifact = finetuned(bucket, files)
        folder = exported.local_model(artifact)
        found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        assert found == {"config.json": b"{}", "a/weights.bin": bytes(range(256)) * 9}
        artifact.write_bytes("model/config.json", b"changed")
        assert exported.local_model(artifact) == folder
        assert (folder / "config.json").read_bytes() == b"{}"
        again = exported.local_model(finetuned(bucket, {"model/config.json": b"later"}, created="later"))
        assert again != folder
        assert (again / "config.json").read_bytes() == b"later"
    storage._remote_filesystem.cache_clear()


def test_half_a_copy_is_never_used(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with s3_server.bucket() as bucket:
        artifact = finetuned(bucket, {"model/config.json": b"{}", "model/weights.bin": b"w"})
        filesystem, place = storage.locate(artifact.path("model/weights.bin"))
        filesystem.delete_file(place)
        with pytest.raises(FileNotFoundError):
            exported.local_model(artifact)
        artifact.write_bytes("model/weights.bin", b"w")
        assert {path.name for path in exported.local_model(artifact).iterdir()} == {"config.json", "weights.bin"}
    storage._remote_filesystem.cache_clear()


def test_a_finished_run_is_converted_for_faster_whisper_and_accounts_for_it(tmp_path):
    artifact = artifacts.plan(str(tmp_path / "runs"), "finetune", "tuned", {"what": "a test"}, {})
    artifact.begin()
    model = tiny_whisper(tmp_path / "model")
    files = {f"model/{path.name}": path for path in model.iterdir()}
    for name, path in files.items():
        artifact.copy_file(name, path)
    artifact.merge_rejected()
    artifact.write_json("metrics.json", {})
    artifact.commit(units={}, num_rows_in=0, inputs={}, seconds=1.0, others=files)
    before = {entry["path"]: entry for entry in artifact.read_json("manifest.json")["others"]}
    artifact.write_bytes("ctranslate2/model.bin", b"of a copy that was interrupted")
    assert not exported.is_converted(artifact)
    exported.add_ctranslate2(artifact)
    assert exported.is_converted(artifact)
    others = {entry["path"]: entry for entry in artifact.read_json("manifest.json")["others"]}
    assert {name: others[name] for name in before} == before
    added = others.keys() - before.keys()
    assert "ctranslate2/model.bin" in added
    assert added == {f"ctranslate2/{path.name}" for path in (tmp_path / "runs/finetune/tuned/ctranslate2").iterdir()}
    weights = tmp_path / "runs/finetune/tuned/ctranslate2/model.bin"
    assert others["ctranslate2/model.bin"]["bytes"] == weights.stat().st_size
    assert others["ctranslate2/model.bin"]["sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert ctranslate2.contains_model(str(weights.parent))
    assert artifact.is_complete


def test_a_conversion_asks_for_the_memory_that_it_takes(tmp_path, monkeypatch):
    model, asked = tiny_whisper(tmp_path / "model"), []
    artifact = finetuned(tmp_path, {"model/config.json": b"{}"})

    def pool(stage, num_gpus, max_actors, num_units, needed):
        return pools.Pool(0.9, num_gpus, 0.1, 1, num_units, memory=needed("cpu"))

    def remote(**options):
        asked.append(options)
        return lambda task: SimpleNamespace(remote=lambda found: None)

    monkeypatch.setattr(pools, "pool", pool)
    monkeypatch.setattr(ray, "remote", remote)
    monkeypatch.setattr(ray, "get", lambda value: value)
    monkeypatch.setattr(exported, "is_converted", lambda _: False)
    monkeypatch.setattr(pipeline.artifacts, "find", lambda *_: artifact)
    pipeline._export(artifact, "ctranslate2", str(model))
    assert asked == [{"num_cpus": 0.9, "num_gpus": 0, "memory": converting_memory(ModelSize.read(model))}]


class Hub:
    """Takes what is uploaded, and remembers it."""

    def __init__(self, refuses=None):
        self.refuses, self.made, self.uploaded = refuses, [], {}

    def create_repo(self, repository, exist_ok):
        if self.refuses:
            raise self.refuses
        self.made.append((repository, exist_ok))
        return f"https://hub/{repository}"

    def upload_folder(self, *, repo_id, folder_path, commit_message):
        self.uploaded[repo_id] = sorted(path.name for path in folder_path.iterdir()), commit_message


def test_a_model_is_uploaded_with_its_card(tmp_path, monkeypatch, capsys):
    artifact = finetuned(tmp_path, {"model/config.json": b"{}", "model/README.md": b"card", "log.json": b"[]"})
    hub = Hub()
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: hub)
    for _ in range(2):  # the same command again
        exported.upload(artifact, "me/whisper-zh")
    assert hub.made == [("me/whisper-zh", True)] * 2
    assert hub.uploaded == {"me/whisper-zh": (["README.md", "config.json"], "finetune tuned")}
    assert "https://hub/me/whisper-zh" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (huggingface_hub.errors.OfflineModeIsEnabled("no connection"), "no connection"),
        (httpx.ConnectError("[Errno 111] Connection refused"), r"\[Errno 111\] Connection refused"),
        (httpx.ReadTimeout(""), "ReadTimeout"),
        (RuntimeError("Error while uploading 'model.safetensors' to the Hub."), "Error while uploading 'model"),
    ],
    ids=["offline", "no network", "timeout", "broken off"],
)
def test_what_the_hub_refuses_is_one_line_and_the_model_stays(tmp_path, monkeypatch, error, said):
    artifact = finetuned(tmp_path, {"model/config.json": b"{}"})
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: Hub(error))
    with pytest.raises(UserError, match=rf"me/x: {said}.*; the model is complete in .*/finetune/tuned/model"):
        exported.upload(artifact, "me/x")


def test_what_can_not_be_uploaded_is_refused_before_the_work(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(UserError, match="needs a token"):
        exported.require_possible("hub:me/x")
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_x")
    exported.require_possible("hub:me/x")
    with pytest.raises(UserError, match="hub:me/a--b"):
        exported.require_possible("hub:me/a--b")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set"):
        exported.require_possible("hub:me/x")


@pytest.mark.parametrize("place", ["hub", "hub:", "hub:name", "ctranslate", "hub:a/b/c"])
def test_a_place_that_is_none_is_a_mistake(place):
    with pytest.raises(UserError, match="give none, ctranslate2 or hub:USER/NAME"):
        FinetuneConfig(export=place)
