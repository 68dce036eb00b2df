"""The paths of a GPU, each checked against the CPU and then timed beside torch.mm on the same card.

    python benchmarks/gpu.py                 # on a GPU: about four minutes, G1 to G6
    python benchmarks/gpu.py --rehearse      # anywhere: the checks alone, on a tiny model and few frames

It needs torch, transformers, numpy and pyarrow, and no network: a Whisper of the size of large-v2 is drawn at random.
flash-maxsim and late-interaction-kernels join in where they are installed. Every time is the median of several runs by
the clock of the card, after warming up. A goal says what was hoped for before anything was measured.
"""

# ruff: noqa: E402 - the interpreter of kernels has to be chosen before they are defined

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

REHEARSED = "--rehearse" in sys.argv
if REHEARSED:
    os.environ["TRITON_INTERPRET"] = "1"

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import save_file
from torch.nn.functional import normalize
from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration

from xlt_ray.embed.encoder import Encoded, SpeechEncoder
from xlt_ray.finetune.batch import collate
from xlt_ray.finetune.ewc import Consolidation
from xlt_ray.finetune.learner import Learner
from xlt_ray.finetune.loop import Step, Training
from xlt_ray.models import decoder
from xlt_ray.models.encoder import load_encoder, log_mel, mel_filters
from xlt_ray.retrieval import fused
from xlt_ray.retrieval.seqsim import combine
from xlt_ray.store import shards

PARTS = ["seqsim", "encoder", "training"]
DEVICE = "cpu" if REHEARSED else "cuda"
SIZES = {"d_model": 1280, "layers": 32, "heads": 20, "ffn": 5120}  # large-v2
TINY = {"d_model": 64, "layers": 2, "heads": 2, "ffn": 128}
BATCH, TARGET = 32, 40  # of training: examples, target tokens of each
SECOND = 16_000

Spoken = list[np.ndarray]


def judge(name: str, value: float, goal: float, unit: str = "", *, most: bool = False) -> None:
    is_met = value <= goal if most else value >= goal
    bound = "at most" if most else "at least"
    print(f"{name}: {value:.3g}{unit}, goal {bound} {goal:g}{unit}: {'met' if is_met else 'MISSED'}", flush=True)


def require(name: str, error: float, most: float) -> None:
    """A wrong result ends the benchmark: its speed would mean nothing."""
    print(f"check: {name}: {error:.1e}, at most {most:.0e}", flush=True)
    if not error <= most:
        raise SystemExit(f"{name} is wrong by {error:.1e}")


def milliseconds(run: Callable[[], object], repeats: int = 11, warm: int = 3) -> float:
    """Median time of a run on the card."""
    for _ in range(warm):
        run()
    taken = []
    for _ in range(repeats):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        run()
        end.record()
        end.synchronize()
        taken.append(start.elapsed_time(end))
    return statistics.median(taken)


def products_per_second(height: int, dim: int, width: int, dtype: torch.dtype) -> float:
    """TFLOP/s of torch.mm on random numbers."""
    a, b = (torch.randn(size, dim, device=DEVICE, dtype=dtype) for size in (height, width))
    out = torch.empty(height, width, device=DEVICE, dtype=dtype)
    return 2e-9 * height * width * dim / milliseconds(lambda: torch.mm(a, b.T, out=out))


def draw_model(folder: Path) -> WhisperConfig:
    """Write a Whisper with random weights in half precision."""
    sizes = TINY if REHEARSED else SIZES
    both = {
        f"{stack}_{name}": sizes[key]
        for stack in ("encoder", "decoder")
        for name, key in (("layers", "layers"), ("attention_heads", "heads"), ("ffn_dim", "ffn"))
    }
    config = WhisperConfig(d_model=sizes["d_model"], vocab_size=51865, num_mel_bins=80, **both)
    config.save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=80).save_pretrained(folder)
    torch.manual_seed(0)
    with torch.device(DEVICE):
        model = WhisperForConditionalGeneration(config).half()
    state = {
        name: weight.cpu().contiguous() for name, weight in model.state_dict().items() if name != "proj_out.weight"
    }
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    return config


def sounds(num: int, seconds: float) -> Spoken:
    generator = np.random.default_rng(0)
    return [0.1 * generator.standard_normal(int(seconds * SECOND), dtype=np.float32) for _ in range(num)]


# G1 to G3: the encoder


def check_encoder(folder: Path) -> None:
    """The mel, and the encoder against transformers' own, both in float32 on a CPU."""
    (sound,) = sounds(1, 5.0)
    filters = mel_filters(folder)
    mel = log_mel(torch.from_numpy(sound)[None], 1500, filters)
    found = log_mel(torch.from_numpy(sound)[None].to(DEVICE), 1500, filters.to(DEVICE)).cpu()
    require("log-mel of the device against the CPU", (found - mel).abs().max().item(), 1e-3)
    with torch.inference_mode():
        theirs = load_encoder(folder, "cpu", torch.float32)(mel).last_hidden_state[0]
    for dtype, most in ((torch.float32, 2e-3), (torch.bfloat16, 5e-2)):  # what is kept is float16
        encoder = SpeechEncoder(folder, device=DEVICE, dtype=dtype, keep_margin=None)
        ours = torch.from_numpy(encoder.encode([sound])[0].final).float()
        error = ((ours - theirs).norm() / theirs.norm()).item()
        require(f"encoder in {dtype} against transformers in float32, relative", error, most)


def encoder_flop(config: WhisperConfig, frames: int) -> float:
    """Of one recording: projections, attention and the two convolutions."""
    dim, ffn = config.d_model, config.encoder_ffn_dim
    block = 2 * frames * (4 * dim * dim + 2 * dim * ffn) + 4 * frames * frames * dim
    return config.encoder_layers * block + 2 * 2 * frames * 80 * 3 * dim + 2 * frames * dim * 3 * dim


def time_encoder(folder: Path, config: WhisperConfig, ceiling: float) -> float:
    """G1, in windows a second of the states alone; then whole calls, from sounds to frames on the CPU."""
    encoder = SpeechEncoder(folder, device=DEVICE)
    mel = torch.randn(32, 80, 3000, device=DEVICE, dtype=torch.bfloat16)
    with torch.inference_mode():
        taken = milliseconds(lambda: list(encoder._hidden_states(mel)), 5)
    rate = 32e3 / taken
    print(f"encoder: {rate:.0f} windows of 30 s a second, {rate * 30:,.0f} times as fast as speech")
    judge("G1 encoder, of torch.mm", rate * encoder_flop(config, 1500) * 1e-12 / ceiling, 0.55)
    whole = clips_per_second(encoder, sounds(160, 30.0))
    judge("G1 from sound to frames on the CPU, of the encoder alone", whole / rate, 0.9)
    return rate


def clips_per_second(encoder: SpeechEncoder, spoken: Spoken) -> float:
    for _ in encoder.batches(spoken):  # attention is planned anew for every shape
        pass
    started = time.perf_counter()
    for _ in encoder.batches(spoken):
        pass
    return len(spoken) / (time.perf_counter() - started)


def time_trimmed(folder: Path) -> None:
    """G3: 5 s of speech, with all the silence of 30 s and without."""
    spoken = sounds(512, 5.0)
    exact = clips_per_second(SpeechEncoder(folder, device=DEVICE), spoken[:160])
    time_shapes(folder)
    for margin in (100, 0):
        trimmed = SpeechEncoder(folder, device=DEVICE, encoding="trimmed", context_margin=margin)
        rate = clips_per_second(trimmed, spoken)
        print(f"5 s of speech, margin {margin}: {rate:.0f} clips a second, padded {exact:.0f}")
        judge(f"G3 trimmed against padded, margin {margin}", rate / exact, 5.0, "x")
    wave = torch.randn(136, 5 * SECOND, device=DEVICE)
    mel = milliseconds(lambda: log_mel(wave, 352, trimmed._filters))
    judge("G3 mel, share of a batch of 136 clips", mel / (136e3 / rate), 0.03, most=True)


def time_shapes(folder: Path) -> None:
    """Recordings of all lengths, as a corpus has them: batches are smaller, and nearly all have another shape."""
    lengths = np.random.default_rng(0).uniform(1, 15, 256)
    spoken = [sounds(1, seconds)[0] for seconds in lengths]
    encoder = SpeechEncoder(folder, device=DEVICE, encoding="trimmed")
    for when in ("for the first time", "again"):
        started = time.perf_counter()
        for _ in encoder.batches(spoken):
            pass
        seconds = time.perf_counter() - started
        print(
            f"256 recordings of 1 to 15 s, {when}: {256 / seconds:.0f} a second, {lengths.sum() / seconds:.0f} x speech"
        )


def write_sounds(folder: Path, num_units: int, each: int) -> list[Path]:
    files = []
    for unit in range(num_units):
        table = pa.table({"pcm": pa.array([sound.tobytes() for sound in sounds(each, 30.0)], pa.large_binary())})
        files.append(folder / f"{unit}.arrow")
        with pa.OSFile(str(files[-1]), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)
    return files


def time_pipeline(folder: Path, rate: float) -> None:
    """G2: sound in files to Parquet shards, two units at a time in one process, as an actor of the pool works."""
    encoder, lock = SpeechEncoder(folder, device=DEVICE, keep_margin=None), threading.Lock()
    busy = 0.0

    def work(file: Path) -> int:
        nonlocal busy
        with pa.memory_map(str(file)) as source:
            pcm = pa.ipc.open_file(source).read_all()["pcm"]
        spoken = [np.frombuffer(each.as_buffer(), np.float32) for each in pcm]
        encoded: dict[int, Encoded] = {}
        with lock:
            started = time.perf_counter()
            for part in encoder.batches(spoken):
                encoded |= part
            busy += time.perf_counter() - started
        frames = shards.as_bytes([encoded[i].final for i in range(len(spoken))])
        options = {"compression": "none", "use_dictionary": False, "write_statistics": False, "row_group_size": 1}
        pq.write_table(pa.table({"frames": frames}), file.with_suffix(".parquet"), **options)
        return len(spoken)

    with tempfile.TemporaryDirectory() as place, ThreadPoolExecutor(2) as pool:
        files = write_sounds(Path(place), 5, 128)
        work(files[0])
        busy, started = 0.0, time.perf_counter()
        done = sum(pool.map(work, files[1:]))
        seconds = time.perf_counter() - started
    judge("G2 files to Parquet, of the encoder alone", done / seconds / rate, 0.85)
    judge("G2 share of the time in which the encoder runs", busy / seconds, 0.85)


# G4 and G5: SeqSim


def unit_frames(lengths: list[int], dim: int, seed: int, common: float = 1.0) -> torch.Tensor:
    """Rows of length 1 that share a direction, as the frames of a speech model do."""
    generator = torch.Generator().manual_seed(seed)
    shared = torch.randn(dim, generator=torch.Generator().manual_seed(99))
    drawn = torch.randn(sum(lengths), dim, generator=generator) + common * shared
    return normalize(drawn.to(DEVICE), dim=1)


def in_float64(
    x: torch.Tensor, x_lengths: list[int], y: torch.Tensor, y_lengths: list[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    recall, precision = (torch.empty(len(x_lengths), len(y_lengths), dtype=torch.float64) for _ in range(2))
    for i, rows in enumerate(x.double().split(x_lengths)):
        for j, columns in enumerate(y.double().split(y_lengths)):
            product = rows @ columns.T
            recall[i, j], precision[i, j] = product.amax(1).mean(), product.amax(0).mean()
    return recall, precision


def check_seqsim() -> None:
    """Ragged utterances against float64; a pair alone against the same pair among others."""
    generator = np.random.default_rng(0)
    least, most = (20, 70) if REHEARSED else (20, 500)
    for dim in (64,) if REHEARSED else (512, 768, 1280):
        x_lengths, y_lengths = (generator.integers(least, most, 9).tolist() for _ in range(2))
        x, y = unit_frames(x_lengths, dim, 0), unit_frames(y_lengths, dim, 1)
        truth = in_float64(x, x_lengths, y, y_lengths)
        found = fused.seqsim(x.half(), x_lengths, y.half(), y_lengths)
        error = max((mine.cpu() - true).abs().max().item() for mine, true in zip(found, truth, strict=True))
        require(f"SeqSim at {dim} dimensions against float64", error, 1e-4)
        i, j = 3, 5
        parts = x.half().split(x_lengths)[i].clone(), y.half().split(y_lengths)[j].clone()
        alone = fused.seqsim(parts[0], [x_lengths[i]], parts[1], [y_lengths[j]])
        moved = max((one[0, 0] - many[i, j]).abs().item() for one, many in zip(alone, found, strict=True))
        require("a pair alone against the same among others", moved, 1e-6)  # what counts as a tie


def time_seqsim(dim: int, lengths: list[int], title: str) -> None:
    """G4, with peers called once a direction; their scores are compared with ours before they are timed."""
    x, y = (unit_frames(lengths, dim, seed).half() for seed in (2, 3))
    tera = 2e-9 * len(x) * len(y) * dim
    out = torch.empty(len(x), len(y), device=DEVICE, dtype=torch.float16)
    runs: dict[str, Callable[[], object]] = {
        "torch.mm": lambda: torch.mm(x, y.T, out=out),
        "xlt_ray": lambda: fused.seqsim(x, lengths, y, lengths),
    }
    if len(set(lengths)) == 1 and dim != 768:
        runs |= right_peers(x, y, lengths)
    taken = {name: tera / milliseconds(run) for name, run in list(runs.items()) * 2}
    print(f"SeqSim, D={dim}, {title}, TFLOP/s: " + ", ".join(f"{name} {rate:.0f}" for name, rate in taken.items()))
    for name, rate in taken.items():
        if name != "xlt_ray":
            goal = 0.70 if name == "torch.mm" else 2.5
            judge(f"G4 D={dim}, {title}, against {name}", taken["xlt_ray"] / rate, goal, "x")


def right_peers(x: torch.Tensor, y: torch.Tensor, lengths: list[int]) -> dict[str, Callable[[], object]]:
    """The peers that score as we do, each called once a direction."""
    x_square, y_square = (side.view(len(lengths), lengths[0], -1) for side in (x, y))
    ours = fused.seqsim(x, lengths, y, lengths)
    found = {}
    for name, score in peers().items():
        theirs = score(x_square, y_square) / lengths[0], score(y_square, x_square).T / lengths[0]
        error = max((a.float() - b).abs().max().item() for a, b in zip(theirs, ours, strict=True))
        if error > 1e-3:
            print(f"{name}: not timed, wrong by {error:.0e}")
            continue
        found[name] = lambda score=score: (score(x_square, y_square), score(y_square, x_square))
    return found


def peers() -> dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]]:
    found: dict[str, Any] = {}
    if importlib.util.find_spec("flash_maxsim"):
        from flash_maxsim import flash_maxsim_batched

        found["flash-maxsim"] = flash_maxsim_batched
    if importlib.util.find_spec("late_interaction_kernels"):
        from late_interaction_kernels import maxsim

        found["late-interaction-kernels"] = maxsim
    return found


def time_eight_bits(dim: int, lengths: list[int]) -> None:
    """G5: the same kernel on frames of 8 bits. The product does not offer it."""
    x, y = (unit_frames(lengths, dim, seed) for seed in (2, 3))
    halves, eights = ([side.to(dtype) for side in (x, y)] for dtype in (torch.float16, torch.float8_e4m3fn))
    f1 = [combine(*fused.seqsim(a, lengths, b, lengths), "f1") for a, b in (halves, eights)]
    judge(f"G5 D={dim}, error of fp8", (f1[0] - f1[1]).abs().max().item(), 2e-3, most=True)
    top = [set(row.topk(10).indices.tolist()) for row in f1[0]], [set(row.topk(10).indices.tolist()) for row in f1[1]]
    judge(
        f"G5 D={dim}, overlap of the best 10",
        statistics.fmean(len(a & b) / 10 for a, b in zip(*top, strict=True)),
        0.99,
    )
    taken = [milliseconds(lambda a=a, b=b: fused.seqsim(a, lengths, b, lengths)) for a, b in (halves, eights)]
    judge(f"G5 D={dim}, speed of fp8 against fp16", taken[0] / taken[1], 1.4, "x")


# G6: training


class Alone:
    """One process that trains on the device, and keeps nothing."""

    rank, world_size, device = 0, 1, torch.device(DEVICE)

    def wrap(self, module: torch.nn.Module) -> torch.nn.Module:
        """The module itself."""
        return module

    def total(self, value: torch.Tensor) -> torch.Tensor:
        """The value itself."""
        return value


TRAINED = SimpleNamespace(
    lora_rank=None,
    train_embeddings=False,
    gradient_checkpointing=False,
    learning_rate=1e-6,
    warmup=0.1,
    clip=1.0,
    seed=0,
)


def learner_of(folder: Path, device: str) -> Learner:
    model = decoder.empty_decoder(folder)
    decoder.set_weights(model, decoder.read_weights(folder, device))
    return Learner(model.eval(), TRAINED)


def examples(config: WhisperConfig, frames: list[int]) -> tuple[list[list[int]], list[list[int]], list[np.ndarray]]:
    generator = np.random.default_rng(0)
    targets = [generator.integers(1000, 50_000, TARGET).tolist() for _ in frames]
    drawn = [generator.standard_normal((num, config.d_model), dtype=np.float32).astype(np.float16) for num in frames]
    return [[50258, 50260, 50359, 50363]] * len(frames), targets, drawn


def check_loss(folder: Path, config: WhisperConfig) -> None:
    """Of the device in float32 against the CPU; recordings of different lengths."""
    batch = examples(config, [300, 120])
    losses = [learner_of(folder, device)(collate(*batch, device)).item() for device in ("cpu", DEVICE)]
    require("loss of the device against the CPU, relative", abs(losses[1] - losses[0]) / losses[0], 1e-4)


def time_training(folder: Path, config: WhisperConfig) -> None:
    """G6: steps of whole batches, from frames or mels on the CPU to new weights."""
    theirs = time_recipe(folder)
    print(f"training: the usual recipe, frozen encoder in every step: {theirs:.1f} examples a second")
    learner = learner_of(folder, DEVICE)
    rates = {}
    for name, frames in (("all 1500 frames", 1500), ("350 frames of 5 s", 350)):
        training = Training(learner, TRAINED, 1000, Alone())
        rates[name] = steps_per_second(lambda step, training=training: training.take(step), config, frames)
        goal = 4.0 if frames == 1500 else 8.0
        judge(
            f"G6 training on {name}, against the recipe ({rates[name]:.1f} a second)", rates[name] / theirs, goal, "x"
        )
        del training
    anchor = {name: weight.detach().clone() for name, weight in learner.trained.items()}
    fisher = {name: torch.rand_like(weight) for name, weight in anchor.items()}
    held = Training(learner, TRAINED, 1000, Alone(), Consolidation(learner.trained, anchor, fisher, 1e-3))
    rate = steps_per_second(held.take, config, 350)
    judge("G6 what EWC adds to a step of 350 frames", rates["350 frames of 5 s"] / rate - 1, 0.05, most=True)


def steps_per_second(take: Callable[[Step], object], config: WhisperConfig, frames: int, repeats: int = 6) -> float:
    """Examples a second."""
    batch = examples(config, [frames] * BATCH)

    def steps() -> Iterator[Step]:
        for _ in range(repeats + 2):
            yield Step([collate(*batch, DEVICE)], 1.0, BATCH * TARGET, BATCH)

    taken = []
    for step in steps():
        torch.cuda.synchronize()
        started = time.perf_counter()
        take(step)
        torch.cuda.synchronize()
        taken.append(time.perf_counter() - started)
    return BATCH / statistics.median(taken[2:])


def time_recipe(folder: Path) -> float:
    """Examples a second of transformers' model with a frozen encoder, mels of 30 s, bf16 autocast."""
    model = WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).to(DEVICE).train()
    model.freeze_encoder()
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-6, fused=True)
    mels = torch.randn(BATCH, 80, 3000)
    labels = torch.randint(1000, 50_000, (BATCH, TARGET + 3))

    def take(_: object) -> None:
        optimizer.zero_grad()
        with torch.autocast("cuda", torch.bfloat16):
            loss = model(input_features=mels.to(DEVICE), labels=labels.to(DEVICE)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()

    taken = []
    for _ in range(6):
        started = time.perf_counter()
        take(None)
        torch.cuda.synchronize()
        taken.append(time.perf_counter() - started)
    return BATCH / statistics.median(taken[2:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rehearse", action="store_true", help="only the checks, tiny, on the CPU")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="what is timed; all if not given")
    parts = parser.parse_args().parts
    if not REHEARSED and not torch.cuda.is_available():
        raise SystemExit("there is no GPU here; --rehearse runs the checks without one")
    name = "a CPU, the kernel interpreted" if REHEARSED else torch.cuda.get_device_name()
    print(f"{name}; torch {torch.__version__}, {time.strftime('%Y-%m-%d')}", flush=True)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        config = draw_model(folder)
        check_seqsim()
        check_encoder(folder)
        check_loss(folder, config)
        if not REHEARSED:
            time_all(folder, config, parts)
    print(f"{time.monotonic() - started:.0f} s in all")


def time_all(folder: Path, config: WhisperConfig, parts: list[str]) -> None:
    ceiling = products_per_second(8192, 8192, 8192, torch.bfloat16)
    print(f"torch.mm, 8192 x 8192 x 8192, bf16: {ceiling:.0f} TFLOP/s", flush=True)
    if "seqsim" in parts:
        even = [250] * 128
        for dim in (512, 768, 1280):
            time_seqsim(dim, even, "250 frames")
        time_seqsim(1280, np.random.default_rng(1).integers(50, 501, 128).tolist(), "50 to 500 frames")
        for dim in (512, 1280):
            time_eight_bits(dim, even)
    if "encoder" in parts:
        rate = time_encoder(folder, config, ceiling)
        time_trimmed(folder)
        time_pipeline(folder, rate)
    if "training" in parts:
        time_training(folder, config)


if __name__ == "__main__":
    main()
