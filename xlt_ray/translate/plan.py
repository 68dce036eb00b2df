"""A translate run before it starts: its inputs, and the checks of user input."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pyarrow.compute as pc

from xlt_ray.embed import plan as embed
from xlt_ray.embed.embeddings import Embeddings
from xlt_ray.errors import UserError
from xlt_ray.job.settings import identity
from xlt_ray.languages import Direction
from xlt_ray.models import whisper
from xlt_ray.models.prompts import Prompter, Scheme
from xlt_ray.store import artifacts, shards
from xlt_ray.store.artifact import Artifact
from xlt_ray.translate import comet, unseen
from xlt_ray.translate.config import TranslateConfig, TranslateJob


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TranslatePlan:
    """A translate run that has been checked and can start."""

    artifact: Artifact
    embeddings: Embeddings
    checkpoint: Artifact | None
    baseline: Artifact | None
    directions: tuple[Direction, ...]
    scheme: Scheme
    hidden: tuple[int, ...]
    model_dir: Path
    job: TranslateJob


def runs(job: TranslateJob) -> list[TranslateJob]:
    """The runs that a job asks for: itself, or one for each of its source prompts."""
    if not job.source_prompts:
        return [job]
    found = []
    for prompt in job.source_prompts:
        # Nothing is detected where a language is named, so nothing can be hidden there.
        hide = job.translate.hide if prompt in TranslateConfig.DETECTED else ()
        config = dataclasses.replace(job.translate, source_prompt=prompt, hide=hide)
        found.append(dataclasses.replace(job, name=f"{job.name}-{prompt}", source_prompts=(), translate=config))
    return found


def prepare(job: TranslateJob) -> list[TranslatePlan]:
    """Check all user input before any work, for each run of the job. Nothing is written.

    Raises:
        UserError: names the mistake and what to do.
    """
    config = job.translate
    divide = config.checkpoint is not None
    embeddings = embed.prepare(job, job.embed, [config.split], name=config.embeddings, divide=divide)
    embed.warn_of_loops(embeddings)
    return [planned(run, embeddings) for run in runs(job)]


def planned(job: TranslateJob, embeddings: Embeddings) -> TranslatePlan:
    """Plan a run on planned embeddings, which may have more splits than it reads.

    Raises:
        UserError: names the mistake and what to do.
    """
    config, model_dir = job.translate, whisper.resolve_model(job.model)
    if config.comet is not None and (problem := comet.misnamed(config.comet)):
        raise UserError(f"--translate.comet: {problem}")
    embeddings = embeddings.only(config.split)
    checkpoint = artifacts.find(job.root, "finetune", config.checkpoint) if config.checkpoint else None
    if checkpoint:
        embed.require_model(checkpoint, embeddings.identity["model"]["sha256"], job.model)
    tuning = checkpoint.settings["finetune"] if checkpoint else {}
    asked = directions_of(job, tuning.get("directions", []))
    scheme: Scheme = config.prompt or tuning.get("prompt", "tgt_transcribe")
    prompter = Prompter(model_dir)
    hidden = _hidden(prompter, config.hide)
    _require_tokens(prompter, asked, scheme, config.source_prompt)
    directions = _known(asked, embeddings, config.split)
    return TranslatePlan(
        artifact=_artifact(job, embeddings, checkpoint),
        embeddings=embeddings,
        checkpoint=checkpoint,
        baseline=_find_baseline(job, embeddings, directions) if config.baseline else None,
        directions=tuple(directions),
        scheme=scheme,
        hidden=hidden,
        model_dir=model_dir,
        job=job,
    )


def _known(directions: Sequence[Direction], embeddings: Embeddings, split: str) -> list[Direction]:
    """The directions with references. If a corpus has only some pairs of languages, the others are left out.

    Raises:
        UserError: if no direction has references, or none into a target.
    """
    rows = embeddings.rows(split)
    known = shards.with_references(rows, directions)
    targets = {direction.target for direction in known}
    if without := [direction for direction in directions if direction.target not in targets]:
        shards.require_references(rows, without[:1], split)
    if left_out := [str(direction) for direction in directions if direction not in known]:
        print(f"translate: no references for {', '.join(left_out)}, left out")
    return known


def _artifact(job: TranslateJob, embeddings: Embeddings, checkpoint: Artifact | None) -> Artifact:
    what = {
        "languages": sorted(job.languages),
        "embeddings": embeddings.identity,
        "model": embeddings.identity["model"],
        "checkpoint": checkpoint.fingerprint if checkpoint else None,
        # The same settings can end in other weights: on other hardware, or after a change of the code.
        "weights": checkpoint.read_json("metrics.json")["weights_sha256"] if checkpoint else None,
        "translate": identity(job.translate),
    }
    # What is recorded of the embeddings is how they were made, not what flags of this job would make.
    settings = dataclasses.asdict(job) | embeddings.settings
    return artifacts.plan(job.root, "translate", job.name, what, settings)


def _hidden(prompter: Prompter, codes: Sequence[str]) -> tuple[int, ...]:
    """The tokens of the languages that must not be detected."""
    tokens = {code: prompter.language_id(code) for code in codes}
    if unknown := [code for code, token in tokens.items() if token is None]:
        known = " ".join(prompter.languages)
        raise UserError(f"--translate.hide {unknown[0]}: the model has no such token to hide; it knows {known}")
    hidden = tuple(sorted({token for token in tokens.values() if token is not None}))
    if len(hidden) == len(prompter.languages):
        raise UserError("--translate.hide names every language of the model, so none can be detected; hide fewer")
    return hidden


def _require_tokens(
    prompter: Prompter, directions: Sequence[Direction], scheme: Scheme, source_prompt: str | None
) -> None:
    """Refuse prompts without a token in the model, and a source prompt that no direction uses."""
    named = source_prompt not in (None, "related", *TranslateConfig.DETECTED)
    if named and prompter.language_id(str(source_prompt)) is None:
        raise UserError(
            f"source prompt {source_prompt!r} is neither auto, soft, related nor a language of the model; "
            f"it knows {' '.join(prompter.languages)}"
        )
    if source_prompt and not any(direction.is_native for direction in directions):
        raise UserError(
            f"--translate.source-prompt {source_prompt} has no effect on {', '.join(map(str, directions))}; only "
            "translation into en and transcription name the source; drop it, or add --translate.targets en"
        )
    for direction in directions:
        _require_token(prompter, direction, scheme, source_prompt)


def _require_token(prompter: Prompter, direction: Direction, scheme: Scheme, source_prompt: str | None) -> None:
    if source_prompt in TranslateConfig.DETECTED and direction.is_native:
        return  # whatever is detected has a token
    try:
        prompter.prompt(direction, scheme, unseen.spoken(direction.source, source_prompt))
    except UserError as error:
        if not direction.is_native or source_prompt:
            raise
        hint = "give --translate.source-prompt auto, soft, en or a related language"
        raise UserError(f"{error}; {hint}") from None


def directions_of(job: TranslateJob, learned: Sequence[str]) -> list[Direction]:
    """Every language of the job into each target, then each language into itself if the job transcribes.

    Args:
        job: the job; its languages are sorted, so the order on the command line does not matter.
        learned: directions of the checkpoint; their targets are added to `en` if the job names none.
    """
    new = [direction.target for direction in map(Direction.parse, learned) if direction.source != direction.target]
    targets = dict.fromkeys(job.translate.targets or ["en", *new])
    sources = sorted(job.languages)
    translations = [Direction(source, target) for target in targets for source in sources if source != target]
    directions = translations + [Direction(code, code) for code in sources if job.translate.transcribe]
    if not directions:
        raise UserError(
            f"nothing to translate: --languages {','.join(sources)} has no language other than --translate.targets "
            f"{','.join(targets)}; name another, or leave out --translate.no-transcribe"
        )
    return directions


def _find_baseline(job: TranslateJob, embeddings: Embeddings, directions: Sequence[Direction]) -> Artifact:
    name = str(job.translate.baseline)
    baseline = artifacts.find(job.root, "translate", name)
    made = baseline.identity["embeddings"]
    if any(made[key] != embeddings.identity[key] for key in ("model", "encoding")):
        raise UserError(
            f"translate artifact {name!r} was made from other embeddings than {embeddings.name!r}, so the two can't be "
            "compared; choose another --translate.baseline"
        )
    how = {key: baseline.identity["translate"][key] for key in ("num_beams", "max_tokens")}
    if how != {key: getattr(job.translate, key) for key in how}:
        beams, tokens = how.values()
        raise UserError(
            f"translate artifact {name!r} was written with --translate.num-beams {beams} and --translate.max-tokens "
            f"{tokens}; give this run the same values, or choose another --translate.baseline"
        )
    there = baseline.read_json("metrics.json")["directions"]
    if not there.keys() & {str(direction) for direction in directions}:
        raise UserError(
            f"translate artifact {name!r} has none of the directions of this run, only {', '.join(there)}; choose "
            "another --translate.baseline"
        )
    ids = embeddings.rows(job.translate.split)["utterance_id"].combine_chunks()
    if not any(pc.any(pc.is_in(table["utterance_id"], ids)).as_py() for table in baseline.tables()):
        raise UserError(
            f"translate artifact {name!r} (split {baseline.identity['translate']['split']!r}) has none of the "
            f"recordings of this run (split {job.translate.split!r}); choose another --translate.baseline"
        )
    return baseline
