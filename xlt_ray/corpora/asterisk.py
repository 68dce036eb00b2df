"""The demo corpus: the prompts of the Asterisk telephone exchange, spoken in studios in five languages.

The same 190 sentences in English, Spanish, French, Italian and Russian, one voice per language, 16 kHz, with
transcripts and a Chinese translation that was written for this project (`asterisk_zh.tsv`).

NOTICE. The recordings and transcripts are the Asterisk core sounds, published by Digium/Sangoma, unchanged:
English and Spanish by Allison Smith, French by June Wallack (CC-BY-SA-3.0); Italian by Carlo Flora, translated by
Silvia Petrin, and Russian provided by Maxim Topal, ivrvoice.ru (CC-BY-3.0). French was translated by Clod Patry,
Kristopher Lalletti and June Wallack. The Chinese text is CC-BY-SA-3.0. They are fetched, not part of the package.

**Splits.** Some sentences occur under several names. Names that share a text in any language, Chinese included, are
in the same split, chosen by a hash of the first of these names: about 70 % `train`, 10 % `dev`, 20 % `test`.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import importlib.resources
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import urllib.request
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path

import filelock

from xlt_ray.errors import UserError
from xlt_ray.store import cache, storage
from xlt_ray.store.schema import Utterance

VOICES = {
    "en": ("en_US_f_Allison", "Allison Smith"),
    "es": ("es_MX_f_Allison", "Allison Smith"),
    "fr": ("fr_CA_f_June", "June Wallack"),
    "it": ("it_IT_m_Carlo", "Carlo Flora"),
    "ru": ("ru_RU_f_IvrvoiceRU", "ivrvoice.ru"),
}
"""Folder and name of the voice of each language; for Russian, only the publisher is known."""

ATTRIBUTION = (
    "Speech: Asterisk core sounds. Voices: Allison Smith (en, es), June Wallack (fr), CC-BY-SA-3.0; "
    "Carlo Flora (it), ivrvoice.ru (ru), CC-BY-3.0. Chinese text: xlt_ray, CC-BY-SA-3.0."
)
"""Attribution to print wherever these recordings, or results that quote them, are shown."""

_MIN_WORDS = 4
_MAX_BYTES = 15 * 8000
"""G.722 is 64 kbit/s: 15 s."""

_TARBALL = "https://downloads.asterisk.org/pub/telephony/sounds/asterisk-core-sounds-{}-g722-current.tar.gz"

_Texts = dict[str, str]


def asterisk(source: str, languages: Sequence[str], split: str | None) -> Iterator[Utterance]:
    """Rows of the demo corpus, language by language, each sorted by the name of the prompt.

    A prompt belongs to the corpus if it exists in all five languages, has at least four English words, no `[` in a
    transcript (which marks sounds that are not speech), and no recording of 15 s or longer.

    Args:
        source: a folder laid out like the extracted Debian packages; "": the user's cache, filled if needed.
        languages: of en, es, fr, it, ru.
        split: `train`, `dev` or `test`; None for all.

    Raises:
        UserError: if a language or the split does not exist, `source` is empty, or the recordings cannot be fetched.
    """
    for language in languages:
        _check_value("language", language, VOICES)
    if split is not None:
        _check_value("split", split, ("train", "dev", "test"))
    root = storage.local(source) if source else fetch()
    texts = {language: _transcripts(root, language) for language in VOICES}
    chosen = _sentences(root, texts)
    if not chosen:
        raise UserError(f"no Asterisk prompts in {str(root)!r}: transcripts, but no recordings in all five languages")
    by_language = texts | {"zh": _chinese()}
    splits = _splits(chosen, by_language)
    for language in languages:
        yield from (
            _utterance(root, language, stem, by_language, splits[stem])
            for stem in chosen
            if split in (None, splits[stem])
        )


def _check_value(name: str, value: str, valid: Collection[str]) -> None:
    if value not in valid:
        raise UserError(f"asterisk has no {name} {value!r}; valid are {', '.join(valid)}")


def _utterance(root: Path, language: str, stem: str, texts: Mapping[str, _Texts], split: str) -> Utterance:
    return Utterance(
        utterance_id=f"{language}/{stem}",
        sentence_id=stem,
        language=language,
        audio=str(_sound(root, language, stem)),
        text=texts[language][stem],
        translations={other: texts[other][stem] for other in texts if other != language and stem in texts[other]},
        speaker=VOICES[language][1],
        split=split,
    )


def _sounds(root: Path, language: str) -> Path:
    return root / "usr/share/asterisk/sounds" / VOICES[language][0]


def _sound(root: Path, language: str, stem: str) -> Path:
    return _sounds(root, language) / f"{stem}.g722"


def _transcript(root: Path, language: str) -> Path:
    return root / f"usr/share/doc/asterisk-core-sounds-{language}/core-sounds-{language}.txt.gz"


def _transcripts(root: Path, language: str) -> _Texts:
    """Text by stem; the first text if a stem occurs twice."""
    texts: _Texts = {}
    try:
        with gzip.open(_transcript(root, language), "rt", encoding="utf-8-sig") as lines:
            for line in lines:
                stem, colon, text = line.partition(":")
                if colon and not line.startswith(";"):
                    texts.setdefault(stem.strip(), text.strip())
    except FileNotFoundError as error:
        raise UserError(f"no Asterisk prompts in {str(root)!r}: {error.filename} is missing; omit the path") from error
    return texts


def _sentences(root: Path, texts: Mapping[str, _Texts]) -> list[str]:
    """Stems of the corpus, sorted. The rule is in the docstring of `asterisk`."""
    candidates = set.intersection(*(set(stems) for stems in texts.values()))
    return sorted(
        stem
        for stem in candidates
        if len(texts["en"][stem].split()) >= _MIN_WORDS
        and not any("[" in texts[language][stem] for language in VOICES)
        and all(_num_bytes(_sound(root, language, stem)) < _MAX_BYTES for language in VOICES)
    )


def _num_bytes(path: Path) -> float:
    return path.stat().st_size if path.is_file() else float("inf")


@functools.cache
def _chinese() -> _Texts:
    table = importlib.resources.files("xlt_ray.corpora").joinpath("asterisk_zh.tsv").read_text(encoding="utf-8")
    rows = (line.split("\t") for line in table.splitlines() if line and not line.startswith("#"))
    return dict(rows)


def _splits(stems: Sequence[str], texts: Mapping[str, _Texts]) -> dict[str, str]:
    """Split of each stem. Stems are grouped so that no two splits share a text in any language."""
    group = {stem: stem for stem in stems}
    for language in texts.values():
        first: dict[str, str] = {}
        for stem in stems:
            if stem in language:
                keep, merge = sorted((group[stem], group[first.setdefault(_normalised(language[stem]), stem)]))
                group.update({member: keep for member in stems if group[member] == merge})
    return {stem: _split(group[stem]) for stem in stems}


def _normalised(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


def _split(group: str) -> str:
    tenth = int.from_bytes(hashlib.sha256(group.encode()).digest()[:8], "big") % 10
    return "train" if tenth < 7 else "dev" if tenth == 7 else "test"


def fetch() -> Path:
    """The folder of the recordings in the user's cache; fetched if missing (60 MB, without root).

    They come from Debian's packages through `apt-get` or, without apt-get, from the publisher. The folder appears only
    when it is complete, and several processes can fetch at the same time.

    Raises:
        UserError: if they cannot be fetched; the message has a fix.
    """
    folder = cache.folder("") / "asterisk"
    with filelock.FileLock(folder.with_suffix(".lock")):
        if not folder.exists():
            with tempfile.TemporaryDirectory(dir=folder.parent, prefix="asterisk-") as temporary:
                _fetch_into(Path(temporary) / "root")
                os.rename(Path(temporary) / "root", folder)
            print(f"asterisk: in {folder}. {ATTRIBUTION}")
    return folder


def _fetch_into(root: Path) -> None:
    if shutil.which("apt-get") and shutil.which("dpkg-deb"):
        packages = [f"asterisk-core-sounds-{language}{suffix}" for language in VOICES for suffix in ("", "-g722")]
        _each(packages, functools.partial(_install_package, root))
    else:
        _each(list(VOICES), functools.partial(_install_tarball, root))


def _each(names: Sequence[str], install: Callable[[str], None]) -> None:
    for number, name in enumerate(names, start=1):
        print(f"asterisk: fetching {name} ({number} of {len(names)})", flush=True)
        install(name)


def _install_package(root: Path, package: str) -> None:
    with tempfile.TemporaryDirectory(dir=root.parent) as folder:
        failed = _apt_get("download", package, folder=folder)
        if failed and os.geteuid() == 0:
            failed = _apt_get("update", folder=folder) or _apt_get("download", package, folder=folder)
        if failed:
            raise UserError(f"cannot download {package} ({failed}); run `sudo apt-get update` once, then try again")
        for archive in Path(folder).glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", str(archive), str(root)], check=True)


def _apt_get(*arguments: str, folder: str) -> str:
    """Run apt-get. Returns None on success, else the last line of its output."""
    done = subprocess.run(["apt-get", "-qq", *arguments], cwd=folder, check=False, capture_output=True, text=True)
    return (done.stderr.strip().splitlines() or ["apt-get failed"])[-1] if done.returncode else ""


def _install_tarball(root: Path, language: str) -> None:
    """Unpack the publisher's archive in the layout of Debian's packages: a folder per voice, compressed text."""
    url, sounds, transcript = _TARBALL.format(language), _sounds(root, language), _transcript(root, language)
    try:
        with urllib.request.urlopen(url, timeout=60) as stream, tarfile.open(fileobj=stream, mode="r|gz") as archive:
            archive.extractall(sounds, filter="data")
        text = (sounds / f"core-sounds-{language}.txt").read_bytes()
    except (OSError, EOFError, tarfile.TarError) as error:
        advice = "use a machine with apt-get, or `--corpus asterisk:PATH` with the extracted Debian packages"
        raise UserError(f"cannot fetch {url} ({error}); {advice}") from error
    transcript.parent.mkdir(parents=True)
    transcript.write_bytes(gzip.compress(text))
