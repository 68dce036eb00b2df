"""How fast sound becomes frames on one core: log-mel and encoder, against named peers measured in the same rounds.

    python benchmarks/front_end.py
    python benchmarks/front_end.py --model openai/whisper-small --rounds 5

Every round runs every contestant once, one after the other; times are CPU seconds of the process, and every figure is
the median over rounds (ratios: of the ratios within a round). Needs `pip install "xlt_ray[bench]"`; about a minute.
"""

from __future__ import annotations

import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import ctranslate2
import numpy as np
import torch
import tyro
from ctranslate2.converters import TransformersConverter
from rich.console import Console
from rich.table import Table
from transformers import WhisperConfig, WhisperFeatureExtractor

from xlt_ray.embed.encoder import SpeechEncoder
from xlt_ray.models import whisper
from xlt_ray.models.encoder import load_encoder, log_mel, mel_filters

Contestants = dict[str, tuple[Callable[[], object], int, float]]
"""By name: what to run, how many clips it does in one go, GFLOP of one clip (0: not counted)."""

MM, MEL, PEER_MEL = "torch.mm", "log-mel", "log-mel, transformers"
EXACT, HF, CT2, TRIMMED = "exact", "exact, transformers", "exact, CTranslate2 float32", "trimmed"
TRIMMED_BATCH = 4


def main(model: str = "wheels:whisper-base", seconds: float = 5.0, rounds: int = 7) -> None:
    torch.set_num_threads(1)
    model_dir = whisper.resolve_model(model)
    clip = np.random.default_rng(0).normal(0, 0.1, int(seconds * whisper.SAMPLE_RATE)).astype(np.float32)
    with torch.inference_mode(), tempfile.TemporaryDirectory() as folder:
        contestants = mel_contestants(model_dir, clip) | encoder_contestants(model_dir, clip, Path(folder))
        times = measure(contestants, rounds)
    console = Console(width=120)
    console.print(f"{model}, clips of {seconds:g} s, {rounds} rounds, 1 thread, load {os.getloadavg()[0]:.1f}")
    console.print(f"{platform.machine()}, torch {torch.__version__}, ctranslate2 {ctranslate2.__version__}\n")
    console.print(figures(contestants, times, seconds))
    console.print(goals(contestants, times, mel_difference(model_dir, clip)))


def mel_contestants(model_dir: Path, clip: np.ndarray) -> Contestants:
    extractor = WhisperFeatureExtractor.from_pretrained(model_dir)
    filters = mel_filters(model_dir)
    waveform = torch.from_numpy(clip)
    return {
        MEL: (lambda: [log_mel(waveform, whisper.MAX_FRAMES, filters) for _ in range(20)], 20, 0.0),
        PEER_MEL: (lambda: [extractor(clip, sampling_rate=16_000, return_tensors="pt") for _ in range(4)], 4, 0.0),
    }


def encoder_contestants(model_dir: Path, clip: np.ndarray, folder: Path) -> Contestants:
    """All take the clip itself but transformers and CTranslate2, which are given the mel and so spared a little."""
    config = WhisperConfig.from_pretrained(model_dir)
    exact = SpeechEncoder(model_dir, encoding="exact", keep_margin=None)
    trimmed = SpeechEncoder(model_dir, encoding="trimmed", context_margin=0, keep_margin=None)
    num_frames = len(trimmed.encode([clip])[0].final)
    mel = log_mel(torch.from_numpy(clip), whisper.MAX_FRAMES, mel_filters(model_dir))[None]
    encoder = load_encoder(model_dir, "cpu", torch.float32)
    peer = ctranslate2_model(model_dir, folder / "ct2")
    features = ctranslate2.StorageView.from_array(mel.numpy())
    states, weight = (
        torch.randn(whisper.MAX_FRAMES, config.d_model),
        torch.randn(config.d_model, config.encoder_ffn_dim),
    )
    product = 2e-9 * whisper.MAX_FRAMES * weight.numel()
    return {
        MM: (lambda: [torch.mm(states, weight) for _ in range(20)], 20, product),
        EXACT: (lambda: exact.encode([clip]), 1, encoder_gflop(config, whisper.MAX_FRAMES)),
        HF: (lambda: encoder(mel), 1, encoder_gflop(config, whisper.MAX_FRAMES)),
        CT2: (lambda: peer.encode(features), 1, encoder_gflop(config, whisper.MAX_FRAMES)),
        TRIMMED: (lambda: trimmed.encode([clip] * TRIMMED_BATCH), TRIMMED_BATCH, encoder_gflop(config, num_frames)),
    }


def ctranslate2_model(model_dir: Path, target: Path) -> ctranslate2.models.Whisper:
    TransformersConverter(str(model_dir)).convert(str(target), quantization="float32")
    return ctranslate2.models.Whisper(str(target), device="cpu", compute_type="float32", intra_threads=1)


def encoder_gflop(config: WhisperConfig, num_frames: int) -> float:
    """Multiplications and additions: projections 24 d^2 a frame, attention 4 T d a frame, and both convolutions."""
    d, t = config.d_model, num_frames
    convolutions = 2 * 3 * d * (config.num_mel_bins * 2 * t + d * t)
    return 1e-9 * (config.encoder_layers * (24 * d**2 * t + 4 * t**2 * d) + convolutions)


def measure(contestants: Contestants, rounds: int) -> dict[str, list[float]]:
    """CPU seconds a clip, by contestant and round; the first round of all warms up and is not counted."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds + 1):
        for name, (run, num_clips, _) in contestants.items():
            start = time.process_time()
            run()
            times[name].append((time.process_time() - start) / num_clips)
    return {name: seconds[1:] for name, seconds in times.items()}


def rates(contestants: Contestants, times: dict[str, list[float]], name: str) -> list[float]:
    return [contestants[name][2] / seconds for seconds in times[name]]


def ratio(numerator: list[float], denominator: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(numerator, denominator, strict=True))


def of_mm(contestants: Contestants, times: dict[str, list[float]], name: str) -> float:
    return ratio(rates(contestants, times, name), rates(contestants, times, MM))


def figures(contestants: Contestants, times: dict[str, list[float]], seconds: float) -> Table:
    table = Table("", *("CPU-ms/clip", "clips/s", "audio-s/s", "GFLOP/clip", "GFLOP/s", "of torch.mm"))
    for name, (_, _, gflop) in contestants.items():
        middle = statistics.median(times[name])
        of_clips = (
            ["", "", ""] if name == MM else [f"{1e3 * middle:.2f}", f"{1 / middle:.1f}", f"{seconds / middle:.0f}"]
        )
        of_work = [f"{gflop:.2f}", f"{gflop / middle:.1f}", f"{of_mm(contestants, times, name):.2f}"] if gflop else []
        table.add_row(name, *of_clips, *of_work)
    return table


def goals(contestants: Contestants, times: dict[str, list[float]], difference: float) -> Table:
    table = Table("goal", "measured", "wanted")
    table.add_row("log-mel: CPU of transformers / ours", f"{ratio(times[PEER_MEL], times[MEL]):.1f}", ">= 8")
    table.add_row("log-mel: largest difference", f"{difference:.1e}", "<= 1e-6")
    table.add_row("exact: of the rate of torch.mm", f"{of_mm(contestants, times, EXACT):.2f}", ">= 0.90")
    table.add_row("exact: CPU of CTranslate2 / ours", f"{ratio(times[CT2], times[EXACT]):.2f}", ">= 1")
    table.add_row("trimmed: clips/s against exact", f"{ratio(times[EXACT], times[TRIMMED]):.1f}", ">= 7")
    return table


def mel_difference(model_dir: Path, clip: np.ndarray) -> float:
    extractor = WhisperFeatureExtractor.from_pretrained(model_dir)
    theirs = extractor(clip, sampling_rate=16_000, return_tensors="pt").input_features[0]
    ours = log_mel(torch.from_numpy(clip), whisper.MAX_FRAMES, mel_filters(model_dir))
    return float((ours - theirs).abs().max())


if __name__ == "__main__":
    tyro.cli(main)
