import json
import os
import subprocess
import sys
import threading
import time
import venv
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest

from xlt_ray.translate import comet, pipeline
from xlt_ray.translate.config import TranslateConfig

TEXTS = (["Guten Tag", "Eins", "Auf Wiedersehen"], ["Hello", "", "Goodbye, see you"], ["Hello", "One", "Goodbye"])

FAKE = {
    "comet.py": """
        import json, os, sys
        from types import SimpleNamespace

        class Metric:
            def predict(self, samples, **options):
                print("noise")
                if any(row["mt"] == "kill me" for row in samples):
                    os.kill(os.getpid(), 9)
                # What it was given, in place of numbers, so that a test sees all of it.
                seen = [row["src"] + "|" + row["mt"] + "|" + row["ref"] for row in samples]
                names = ("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "HF_HUB_OFFLINE")
                context = {"options": options, "env": {name: os.environ.get(name) for name in names}}
                return SimpleNamespace(system_score=context | {"argv": sys.argv[1:2], "loaded": self.path}, scores=seen)

        def load_from_checkpoint(path):
            if "broken" in str(path):
                raise RuntimeError("no such\\n  key:\\n\\n'state_dict'")
            metric = Metric()
            metric.path = str(path)
            return metric
    """,
    "torch.py": "class cuda:\n    is_available = staticmethod(lambda: True)\n",
    "huggingface_hub.py": """
        def snapshot_download(model):
            if model == "no/model":
                raise OSError("401 Client Error.\\n\\nRepository Not Found\\nfor no/model")
            return "/hub/" + model
    """,
}


def write_modules(folder: Path) -> None:
    for name, source in FAKE.items():
        lines = source.splitlines() if name == "torch.py" else [line[8:] for line in source.splitlines()]
        (folder / name).write_text("\n".join(lines))


def checkpoint_at(folder: Path, name: str = "model") -> str:
    """An empty file where COMET looks for a checkpoint."""
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "hparams.yaml").touch()
    (folder / f"checkpoints/{name}.ckpt").touch()
    return str(folder / f"checkpoints/{name}.ckpt")


@pytest.fixture
def offline(tmp_path, monkeypatch) -> Path:
    """A cache of its own, and a pip that finds nothing; returns the folder of the environments."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    return tmp_path / "cache/xlt_ray/comet"


@pytest.fixture(scope="module")
def fake_cache(tmp_path_factory) -> Path:
    """A cache with an environment that has nothing but modules that stand for COMET's."""
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        patch.setattr(comet, "_make_environment", lambda folder: venv.create(folder, symlinks=True))
        python = comet._environment()
    (packages,) = (python.parent.parent / "lib").glob("python3*/site-packages")
    write_modules(packages)
    return cache


@pytest.fixture
def fake(fake_cache, monkeypatch) -> None:
    """The environment of `fake_cache` is the one that `comet` uses."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(fake_cache))


def why_not(*arguments) -> str:
    """The reason why there are no scores, on one line."""
    scores = comet.score(*arguments)
    assert (scores.system, scores.segments) == (None, None)
    assert scores.reason
    assert "\n" not in scores.reason
    return scores.reason


@pytest.mark.usefixtures("fake")
def test_rows_and_scores_keep_their_order(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    model = checkpoint_at(tmp_path)
    scores = comet.score(model, *TEXTS, batch_size=5, num_gpus=1)
    assert scores.segments == ("Guten Tag|Hello|Hello", "Eins||One", "Auf Wiedersehen|Goodbye, see you|Goodbye")
    assert scores.system == {
        "options": {"batch_size": 5, "gpus": 1, "progress_bar": False},
        "env": {
            "TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1",
            "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": None,
            "HF_HUB_OFFLINE": "1",
        },
        "argv": [model],
        "loaded": model,
    }
    assert (scores.model, scores.version, scores.reason) == (model, "2.2.7", None)


@pytest.mark.usefixtures("fake")
def test_a_hub_id_is_a_checkpoint_in_a_snapshot():
    scores = comet.score("Unbabel/wmt22-comet-da", *TEXTS)
    assert scores.system["loaded"] == "/hub/Unbabel/wmt22-comet-da/checkpoints/model.ckpt"
    assert scores.system["options"]["batch_size"] == 16


@pytest.mark.usefixtures("fake")
def test_no_gpu_is_used_that_was_not_booked():
    """The torch of this environment sees one."""
    assert comet.score("Unbabel/wmt22-comet-da", *TEXTS).system["options"]["gpus"] == 0


@pytest.mark.usefixtures("fake")
def test_text_of_any_script_arrives():
    scores = comet.score("a/b", ["日本\n語"], ['"\t\u2028'], ["😀"])
    assert scores.segments == ('日本\n語|"\t\u2028|😀',)


@pytest.mark.usefixtures("fake")
def test_a_path_of_a_ray_worker_is_not_in_the_way(tmp_path, monkeypatch):
    """Beside the script lies a `comet.py`, and PYTHONPATH may have any other."""
    (tmp_path / "comet.py").write_text("raise RuntimeError('the wrong comet')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert comet.score("a/b", *TEXTS).reason is None


@pytest.mark.usefixtures("fake")
def test_the_reason_is_what_the_script_says_last(tmp_path):
    model = checkpoint_at(tmp_path, "broken")
    assert why_not(model, *TEXTS) == f"COMET cannot score with {model}: RuntimeError: no such key: 'state_dict'"
    reason = "OSError: 401 Client Error. Repository Not Found for no/model"
    assert why_not("no/model", *TEXTS) == f"COMET cannot score with no/model: {reason}"


@pytest.mark.usefixtures("fake")
def test_a_killed_process_is_a_reason():
    reason = why_not("a/b", ["x"], ["kill me"], ["y"])
    assert reason == "COMET cannot score with a/b: killed by signal 9; signal 9 usually means out of memory"


@pytest.mark.parametrize("model", ["wmt22-comet-da", "/models/comet", "a/b/c", "", "~a\0b.ckpt"])
def test_what_is_no_model_needs_no_environment(offline, model):
    assert "neither a .ckpt file nor a Hub id such as Unbabel/wmt22-comet-da" in why_not(model, *TEXTS)
    assert not offline.exists()


def test_a_checkpoint_that_is_not_there_needs_no_environment(offline, tmp_path):
    model = checkpoint_at(tmp_path / "a")
    (tmp_path / "a/hparams.yaml").unlink()
    missing = str(tmp_path / "missing/checkpoints/model.ckpt")
    assert why_not(missing, *TEXTS) == f"no COMET checkpoint {missing!r}: there is no file {missing!r}"
    assert why_not(model, *TEXTS).endswith(f"there is no file '{tmp_path}/a/hparams.yaml'")
    assert not offline.exists()


@pytest.mark.usefixtures("fake")
def test_a_checkpoint_may_be_named_from_here(tmp_path, monkeypatch):
    checkpoint_at(tmp_path)
    monkeypatch.chdir(tmp_path)
    scores = comet.score("checkpoints/model.ckpt", *TEXTS)
    assert scores.model == "checkpoints/model.ckpt"
    assert scores.system["loaded"] == str(tmp_path / "checkpoints/model.ckpt")


@pytest.mark.slow
def test_without_a_registry_the_reason_is_what_pip_says(offline, capfd):
    reason = why_not("a/b", *TEXTS)
    assert reason.startswith("cannot make the environment of COMET 2.2.7: ERROR: Could not find a version that")
    assert reason.endswith("ERROR: No matching distribution found for unbabel-comet==2.2.7")
    assert "pip" not in capfd.readouterr().err
    assert [path.suffix for path in offline.iterdir()] == [".lock"]


def test_without_venv_the_reason_is_what_python_says(offline, monkeypatch):
    """Where a system ships venv as a package of its own, it says so on stdout."""
    fake_python = offline.parent / "python"
    fake_python.parent.mkdir(parents=True)
    fake_python.write_text("#!/bin/sh\necho 'ensurepip is not available'\nexit 1\n")
    fake_python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(fake_python))
    assert why_not("a/b", *TEXTS) == "cannot make the environment of COMET 2.2.7: ensurepip is not available"


def test_half_an_environment_is_never_used(offline, monkeypatch):
    made = []

    def stop_half_way(folder: Path) -> None:
        assert not list(folder.iterdir())  # nothing of the one before
        (folder / "bin").mkdir()
        made.append(folder)
        if len(made) == 1:
            raise comet._CometError("stopped")
        (folder / "bin/python").touch()

    monkeypatch.setattr(comet, "_make_environment", stop_half_way)
    assert why_not("a/b", *TEXTS) == "stopped"
    assert [path.suffix for path in offline.iterdir()] == [".lock"]
    made[0].mkdir()
    (made[0] / "left by a process that was killed").touch()
    python = comet._environment()
    assert python.is_file()
    assert comet._environment() == python
    assert len(made) == 2
    assert sorted(path.suffix for path in offline.iterdir()) == ["", ".lock"]


def test_of_two_actors_one_makes_the_environment(offline, monkeypatch):
    made = []

    def make(folder: Path) -> None:
        made.append(folder)
        time.sleep(0.3)

    monkeypatch.setattr(comet, "_make_environment", make)
    threads = [threading.Thread(target=comet._environment) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1


def test_other_requirements_are_another_environment(offline, monkeypatch):
    monkeypatch.setattr(comet, "_make_environment", Path.iterdir)
    first = comet._environment()
    monkeypatch.setattr(comet, "_REQUIREMENTS", (*comet._REQUIREMENTS, "another"))
    assert comet._environment() != first


@pytest.mark.parametrize("texts", [([], [], []), (["a"], ["a", "b"], ["a", "b"]), (["a"], ["a"], ["a", "b"])])
def test_rows_that_are_no_rows_are_errors(texts):
    with pytest.raises(ValueError, match="COMET needs one of each"):
        comet.score("a/b", *texts)


@pytest.mark.parametrize("texts", [([None, "b"], ["a", "b"], ["a", "b"]), (["a", "b"], ["a", "b"], ["a", None])])
def test_a_missing_text_is_not_scored_as_a_word(texts):
    with pytest.raises(ValueError, match="1 of 2 rows lack a text"):
        comet.score("a/b", *texts)


MAKE_CHECKPOINT = """
import sys, yaml, torch, pytorch_lightning as ptl
from pathlib import Path
from comet.models import RegressionMetric
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import XLMRobertaConfig, XLMRobertaTokenizerFast

folder = Path(sys.argv[1])
letters = sorted(pre_tokenizers.ByteLevel.alphabet())
vocabulary = {token: i for i, token in enumerate(["<s>", "<pad>", "</s>", "<unk>", "<mask>", *letters])}
tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>"))
tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
tokenizer.save(str(folder / "raw.json"))
XLMRobertaTokenizerFast(tokenizer_file=str(folder / "raw.json")).save_pretrained(folder / "encoder")
sizes = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
XLMRobertaConfig(vocab_size=len(vocabulary), max_position_embeddings=80, pad_token_id=1, **sizes).save_pretrained(
    folder / "encoder"
)
torch.manual_seed(0)
metric = RegressionMetric(
    pretrained_model=str(folder / "encoder"), hidden_sizes=[8], layer_transformation="sparsemax",
    load_pretrained_weights=False, train_data=["train.csv"], validation_data=["dev.csv"],
)
with torch.no_grad():
    for parameter in metric.parameters():
        parameter.copy_(torch.randn(parameter.shape) * 1.0)
trainer = ptl.Trainer(logger=False, accelerator="cpu", enable_progress_bar=False)
trainer.strategy.connect(metric)
trainer.save_checkpoint(folder / "checkpoints/model.ckpt")
(folder / "hparams.yaml").write_text(yaml.dump(dict(metric.hparams)))

class Code:
    def __reduce__(self):
        return Path.touch, (folder / "code was run",)

saved = torch.load(folder / "checkpoints/model.ckpt", weights_only=True)
torch.save(saved | {"callbacks": Code()}, folder / "checkpoints/code.ckpt")
"""

ONE_BY_ONE = """
import json, sys
from importlib.metadata import version
from comet import load_from_checkpoint
metric = load_from_checkpoint(sys.argv[1])
rows = json.loads(sys.argv[2])
scores = [metric.predict([row], batch_size=1, gpus=0, progress_bar=False).scores[0] for row in rows]
whole = metric.predict(rows, batch_size=2, gpus=0, progress_bar=False)
print(json.dumps([scores, whole.scores, whole.system_score, version("unbabel-comet")]))
"""


def inside(code: str, *arguments: str) -> str:
    """What `code` prints when COMET's own Python runs it."""
    command = [str(comet._environment()), "-I", "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.real
@pytest.mark.timeout(900)  # the first time, some minutes of pip
def test_the_scores_are_those_of_comet_itself(tmp_path):
    """A checkpoint made with COMET's own classes; COMET is called on all rows, and on each row alone."""
    inside(MAKE_CHECKPOINT, str(tmp_path))
    model = str(tmp_path / "checkpoints/model.ckpt")
    sources, hypotheses, references = (list(texts) * 3 for texts in TEXTS)
    sources[4], hypotheses[7] = "今天天气很好", "Good bye"
    scores = comet.score(model, sources, hypotheses, references, batch_size=2)
    assert scores.reason is None

    rows = [{"src": s, "mt": h, "ref": r} for s, h, r in zip(sources, hypotheses, references, strict=True)]
    alone, together, system, version = json.loads(inside(ONE_BY_ONE, model, json.dumps(rows)).splitlines()[-1])
    assert scores.segments == tuple(together)
    assert scores.segments == pytest.approx(alone, abs=1e-5)
    assert scores.system == system == pytest.approx(sum(alone) / len(alone), abs=1e-5)
    assert scores.version == version
    assert max(alone) - min(alone) > 0.1  # or the order would not show
    assert len({round(score, 4) for score in alone}) == 5


@pytest.mark.real
@pytest.mark.timeout(900)
def test_a_checkpoint_does_not_run_code(tmp_path, monkeypatch):
    inside(MAKE_CHECKPOINT, str(tmp_path))
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    assert "UnpicklingError: Weights only load failed" in why_not(str(tmp_path / "checkpoints/code.ckpt"), *TEXTS)
    assert not (tmp_path / "code was run").exists()
    assert comet.score(str(tmp_path / "checkpoints/model.ckpt"), *TEXTS).reason is None


@pytest.mark.real
@pytest.mark.timeout(900)
def test_offline_and_without_the_model_there_is_a_reason(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    reason = why_not("Unbabel/wmt22-comet-da", *TEXTS)
    assert reason.startswith("COMET cannot score with Unbabel/wmt22-comet-da: LocalEntryNotFoundError: Cannot find")


def test_a_job_says_that_it_scores(monkeypatch, capsys):
    """What the task prints stays with its worker, and the first one makes an environment."""
    found = comet.CometScores(model="a/b", version="2.2.7", system=0.5, segments=(0.5,), reason=None)
    task = SimpleNamespace(remote=lambda *_, **__: found)
    monkeypatch.setattr(pipeline.pools, "pool", lambda *_: SimpleNamespace(num_gpus=0.0, task=lambda _: task))
    monkeypatch.setattr(pipeline.ray, "get", lambda scored: scored)
    rows = pa.table({"text": ["a"], "hypothesis": ["b"], "reference": ["c"]})
    assert pipeline._comet_scores(TranslateConfig(comet="a/b"), "a/b", rows) == found
    assert "comet: scoring 1 translations with a/b" in capsys.readouterr().out
