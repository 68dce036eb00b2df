"""Exports a tuned model: to this machine, to faster-whisper's format, or to the Hugging Face Hub."""

from __future__ import annotations

import importlib.util
import json
import shutil
import tempfile
from pathlib import Path

import huggingface_hub
from huggingface_hub.errors import HFValidationError

from xlt_ray.errors import UserError
from xlt_ray.models import export
from xlt_ray.store import cache, manifest, storage
from xlt_ray.store.artifact import Artifact

CTRANSLATE2, HUB = "ctranslate2", "hub:"  # values of --finetune.export, beside none


def require_possible(place: str) -> None:
    """Refuse an export that can't succeed, before any work.

    Raises:
        UserError: naming what is missing.
    """
    if place == CTRANSLATE2 and importlib.util.find_spec("ctranslate2") is None:
        raise UserError('--finetune.export ctranslate2 needs the package; pip install "xlt_ray[ctranslate2]"')
    if not place.startswith(HUB):
        return
    try:
        huggingface_hub.utils.validate_repo_id(place.removeprefix(HUB))
    except HFValidationError as error:
        raise UserError(f"--finetune.export {place}: {str(error).splitlines()[0]}") from None
    if huggingface_hub.constants.HF_HUB_OFFLINE:
        raise UserError(f"--finetune.export {place} needs the Hub, and HF_HUB_OFFLINE is set; unset it")
    if huggingface_hub.get_token() is None:
        raise UserError(f"--finetune.export {place} needs a token that may write; run `hf auth login`, or set HF_TOKEN")


def is_converted(artifact: Artifact) -> bool:
    """Whether the manifest of a finished run lists a converted model; an interrupted copy is not listed."""
    return "ctranslate2/model.bin" in manifest.listed(artifact.read_json(manifest.NAME))


def add_ctranslate2(artifact: Artifact) -> None:
    """Convert the model of a finished run, and add the result to its artifact."""
    artifact.begin()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "ctranslate2")
        export.to_ctranslate2(local_model(artifact), folder)
        artifact.add({f"ctranslate2/{path.relative_to(folder)}": path for path in folder.rglob("*") if path.is_file()})


def upload(artifact: Artifact, repository: str) -> None:
    """Upload the model of a finished run with its card. The repository is created if it does not exist.

    Raises:
        UserError: if the Hub refuses it.
    """
    hub, folder = huggingface_hub.HfApi(), local_model(artifact)
    try:
        url = hub.create_repo(repository, exist_ok=True)
        hub.upload_folder(repo_id=repository, folder_path=folder, commit_message=f"finetune {artifact.name}")
    except Exception as error:  # a lost connection comes as an error of whatever library was sending
        said = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UserError(
            f"the Hub refuses {repository}: {said}; the model is complete in {artifact.path('model')}: run the "
            "same command again to upload it"
        ) from None
    print(f"finetune: the model is on the Hub: {url}")


def local_model(artifact: Artifact) -> Path:
    """The Hugging Face directory of a finetune artifact on this machine.

    Files of a remote root are copied once to the user's cache, under the hash of the manifest, so a checkpoint that is
    trained again under the same name is copied again.
    """
    if not storage.is_remote(artifact.uri):
        return Path(artifact.path("model"))
    content = storage.read_bytes(artifact.path(manifest.NAME))
    files = [entry["path"] for entry in json.loads(content)["others"] if entry["path"].startswith("model/")]

    def copy(folder: Path) -> None:
        for path in files:
            _copy(artifact.path(path), folder / path.removeprefix("model/"))

    return cache.made_once("checkpoints", content.decode(), copy)


def _copy(uri: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    filesystem, place = storage.locate(uri)
    with filesystem.open_input_stream(place, compression=None) as source, path.open("wb") as target:
        shutil.copyfileobj(source, target, 1 << 24)  # 16 MB at a time: weights need not fit in memory
