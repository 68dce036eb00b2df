"""The memory that actors ask for, against that of a process in which one works."""

import importlib
import json
import multiprocessing
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save, save_file
from tiny import tiny_whisper

from xlt_ray.embed.config import EmbedConfig
from xlt_ray.embed.cost import encoding_memory
from xlt_ray.finetune.config import FinetuneConfig
from xlt_ray.finetune.cost import (
    averaging_memory,
    converting_memory,
    fisher_memory,
    saving_memory,
    training_memory,
)
from xlt_ray.finetune.parameters import count_parameters
from xlt_ray.finetune.work import Work
from xlt_ray.job.cost import PROCESS_BYTES
from xlt_ray.models.size import ModelSize
from xlt_ray.store import artifacts
from xlt_ray.store.schema import EXAMPLE, embedding_schema, to_ipc
from xlt_ray.store.shards import TASK
from xlt_ray.study.cost import distance_memory
from xlt_ray.translate.config import TranslateConfig
from xlt_ray.translate.cost import writing_memory

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]  # processes of their own, on a machine that may be busy

SIZES = {"d_model": 512, "encoder_ffn_dim": 2048, "decoder_ffn_dim": 2048}
SIZES |= {"encoder_layers": 2, "decoder_layers": 4, "encoder_attention_heads": 8, "decoder_attention_heads": 8}
EMBED = EmbedConfig(rows_per_shard=6, layers=(0, 1))
TRANSLATE = TranslateConfig(num_beams=3, max_tokens=6, batch_size=4)
FRAMES = 900


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_whisper(tmp_path_factory.mktemp("model"), **SIZES)


ACTORS = ("xlt_ray.embed.encoder", "xlt_ray.translate.decode", "xlt_ray.finetune.learner")


def taken_by(work, *arguments):
    """Bytes that the work takes of a process of its own, over those of the libraries that it needs."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measured, (work, *arguments))


def _measured(work, *arguments):
    for actor in ACTORS:
        importlib.import_module(actor)
    before = peak()
    work(*arguments)
    return peak() - before


def peak():
    """Not ru_maxrss: a child begins with that of its parent."""
    return 1024 * int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])


def rows_of(schema, num_rows, **columns):
    """A table with these columns; what else the schema wants is empty."""

    def column(field):
        if field.name in columns:
            return pa.array(columns[field.name], field.type)
        if field.nullable:
            return pa.nulls(num_rows, field.type)
        empty = "" if pa.types.is_string(field.type) else [] if pa.types.is_list(field.type) else 0
        return pa.array([empty] * num_rows, field.type)

    return pa.table([column(field) for field in schema], schema=schema)


def begun(root, stage):
    artifact = artifacts.plan(str(root), stage, "mine", {}, {})
    artifact.begin()
    return artifact


def encode(root, model):
    from xlt_ray.embed.unit import DECODED, EncodeUnit

    num = EMBED.rows_per_shard
    sound = np.random.default_rng(0).standard_normal(30 * 16_000).astype(np.float32).tobytes()
    ids = [str(row) for row in range(num)]
    unit = rows_of(DECODED, num, utterance_id=ids, pcm=[sound] * num)
    encoder = EncodeUnit(begun(root, "embed"), str(model), EMBED, "cpu")
    list(encoder(pa.table({"unit": ["en-rows-00000"], "table": [to_ipc(unit)]})))


def stored(root, num):
    """A shard of as many recordings."""
    frames = np.random.default_rng(0).standard_normal((FRAMES, 512)).astype(np.float16).tobytes()
    ends = {"num_frames": [FRAMES] * num, "num_valid": [FRAMES] * num, "dim": [512] * num}
    shard = str(root / "en.parquet")
    pq.write_table(rows_of(embedding_schema(()), num, frames=[frames] * num, **ends), shard, row_group_size=1)
    return shard


def estimate(root, model):
    from xlt_ray.finetune.fisher import EstimateUnit

    artifact = begun(root, "fisher")
    columns = {"shard": [stored(root, 2)] * 2, "row": [0, 1], "prompt": [[258, 259]] * 2, "target": [[70] * 60] * 2}
    artifact.write_table("data/examples.parquet", pa.table(columns))
    unit = EstimateUnit(artifact, str(model), FinetuneConfig(), "cpu")
    unit(pa.table({"unit": ["00000000"], "first": [0], "count": [2]}))


def weights_of(model):
    """A Fisher of the decoder, as a file has it."""
    from xlt_ray.models.decoder import empty_decoder

    return save({name: torch.rand(weight.shape) for name, weight in empty_decoder(model).named_parameters()})


def average(artifact, num):
    from xlt_ray.finetune.fisher import _reduce

    _reduce(artifact, num)


def compare(fishers, names):
    from xlt_ray.study.pipeline import _distance

    _distance(*fishers, names)


def train(root, model, config, num_frames):
    from xlt_ray.finetune.batch import collate
    from xlt_ray.finetune.context import LocalContext
    from xlt_ray.finetune.ewc import Consolidation
    from xlt_ray.finetune.learner import Learner
    from xlt_ray.finetune.loop import Step, Training
    from xlt_ray.models.decoder import load_decoder

    learner = Learner(load_decoder(model), config)
    consolidation = None
    if config.ewc_lambda:
        anchor = {name: weight.detach().clone() for name, weight in learner.trained.items()}
        fisher = {name: weight.clone() for name, weight in anchor.items()}
        consolidation = Consolidation(learner.trained, anchor, fisher, config.ewc_lambda)
    training = Training(learner, config, 10, LocalContext(root / "checkpoints"), consolidation)
    num, num_tokens = config.batch_size, 4 * num_frames // 50
    frames = [np.zeros((num_frames, 512), np.float16) + 1] * num
    batch = collate([[258, 259, 260, 261]] * num, [[70] * num_tokens] * num, frames)
    for _ in range(2):
        training.take(Step([batch], 1.0, num * num_tokens, num))
    training.save()


def trained(root, model):
    """What a finished training leaves."""
    from xlt_ray.finetune.learner import Learner
    from xlt_ray.models.decoder import load_decoder

    artifact = artifacts.plan(str(root), "finetune", "mine", {}, {"corpus": "manifest:rows.jsonl"})
    artifact.begin()
    artifact.write_table("data/examples.parquet", rows_of(EXAMPLE, 1, role=["learn"]))
    weights = Learner(load_decoder(model), FinetuneConfig()).trained
    names = ("weights", "exp_avg", "exp_avg_sq")
    (root / "last").mkdir()
    state = {f"{name}/{weight}": value.detach().clone() for name in names for weight, value in weights.items()}
    save_file(state, root / "last" / "state.safetensors")
    (root / "last" / "progress.json").write_text(json.dumps({"step": 1, "log": [{"step": 1, "loss": 1.0}]}))
    return Work(artifact, str(model), FinetuneConfig(), None, 0, 1)


def finish(work, folder):
    import ray.train

    from xlt_ray.finetune.pipeline import _save

    _save(ray.train.Checkpoint.from_directory(folder), work)


def convert(model, folder):
    from xlt_ray.models.export import to_ctranslate2

    to_ctranslate2(model, folder)


def write(root, model):
    from xlt_ray.translate.pipeline import Setup, TranslateUnit

    num = TRANSLATE.batch_size
    shard = stored(root, num)
    tasks = rows_of(
        TASK,
        num,
        shard=[shard] * num,
        row=range(num),
        num_frames=[FRAMES] * num,
        direction=["en-fr"] * num,
        reference=["a"] * num,
    )
    setup = Setup(
        artifact=begun(root, "translate"),
        checkpoint=None,
        model=str(model),
        scheme="tgt_transcribe",
        hidden=(),
        config=TRANSLATE,
    )
    list(TranslateUnit(setup, "cpu")(pa.table({"unit": ["en-fr-00000"], "rows": [to_ipc(tasks)]})))


def test_an_encoder_takes_what_it_asks_for(tmp_path, model):
    declared = encoding_memory(ModelSize.read(model), EMBED, "cpu")
    assert taken_by(encode, tmp_path, model) == pytest.approx(declared - PROCESS_BYTES, rel=0.3)


def test_a_translator_takes_what_it_asks_for(tmp_path, model):
    declared = writing_memory(ModelSize.read(model), FRAMES, TRANSLATE, "cpu")
    assert taken_by(write, tmp_path, model) == pytest.approx(declared - PROCESS_BYTES, rel=0.3)


def test_an_estimator_of_the_fisher_takes_what_it_asks_for(tmp_path, model):
    declared = fisher_memory(ModelSize.read(model))
    assert taken_by(estimate, tmp_path, model) == pytest.approx(declared - PROCESS_BYTES, rel=0.3)


def test_the_mean_of_a_fisher_takes_what_it_asks_for(tmp_path, model):
    artifact = begun(tmp_path, "fisher")
    for unit in range(3):
        artifact.write_bytes(f"partial/{unit:08d}.safetensors", weights_of(model))
    declared = averaging_memory(ModelSize.read(model))
    assert taken_by(average, artifact, 3) == pytest.approx(declared - PROCESS_BYTES, rel=0.3)


@pytest.mark.parametrize(("vocab_size", "train_embeddings"), [(1900, False), (40_000, False), (40_000, True)])
def test_a_distance_of_two_fishers_takes_what_it_asks_for(tmp_path, model, vocab_size, train_embeddings):
    from xlt_ray.finetune.learner import Learner
    from xlt_ray.models.decoder import empty_decoder

    shutil.copytree(model, tmp_path / "model")
    settings = json.loads((model / "config.json").read_text()) | {"vocab_size": vocab_size}
    (tmp_path / "model" / "config.json").write_text(json.dumps(settings))
    fishers = []
    for task in ("one", "two"):
        fishers.append(begun(tmp_path / task, "fisher"))
        fishers[-1].write_bytes("fisher.safetensors", weights_of(tmp_path / "model"))
        fishers[-1].merge_rejected()
        fishers[-1].commit(units={}, num_rows_in=0, inputs={}, seconds=0, others=["fisher.safetensors"])
    config = FinetuneConfig(train_embeddings=train_embeddings)
    declared = distance_memory(ModelSize.read(tmp_path / "model"), config)
    names = list(Learner(empty_decoder(tmp_path / "model"), config).trained)
    taken = taken_by(compare, fishers, names)
    assert taken == pytest.approx(declared - PROCESS_BYTES, rel=0.3)


@pytest.mark.parametrize(("batch_size", "ewc_lambda", "num_frames"), [(8, 0.0, 900), (2, 1.0, 300), (1, 0.0, 100)])
def test_a_training_worker_takes_what_it_asks_for(tmp_path, model, batch_size, ewc_lambda, num_frames):
    keep = {"ewc_lambda": ewc_lambda, "keep": ("es-en",)} if ewc_lambda else {}
    config = FinetuneConfig(batch_size=batch_size, **keep)
    num_trained, _ = count_parameters(model, config)
    declared = training_memory(ModelSize.read(model), config, num_trained, num_frames, "cpu")
    assert taken_by(train, tmp_path, model, config, num_frames) == pytest.approx(declared - PROCESS_BYTES, rel=0.3)


def test_the_task_that_writes_a_tuned_model_takes_what_it_asks_for(tmp_path, model):
    declared = saving_memory(ModelSize.read(model))
    taken = taken_by(finish, trained(tmp_path, model), str(tmp_path / "last"))
    assert taken == pytest.approx(declared - PROCESS_BYTES, rel=0.3)


def test_a_conversion_takes_what_it_asks_for(tmp_path, model):
    declared = converting_memory(ModelSize.read(model))
    assert taken_by(convert, model, tmp_path / "converted") == pytest.approx(declared - PROCESS_BYTES, rel=0.3)
