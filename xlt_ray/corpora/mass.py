"""MaSS: the New Testament read in eight languages, cut into verses (arXiv 1907.12895).

Reads the files of `getalp/mass-dataset` and of its slicer, below one root directory:

    dataset/english/txt/B27___22_Revelation__ENGESVN1DA_verse_9.txt     published text; `dataset/` is optional
    dataset/english/wav/B27___22_Revelation__ENGESVN1DA_verse_9.wav     cut by the user: recordings are not published

A recording has the name of its text with `.wav`, `.flac`, `.mp3` or the slicer's `_one_channel.wav`, and is in `wav/`
or beside the text.
"""

from __future__ import annotations

import dataclasses
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from xlt_ray.corpora.tables import at_line, check_languages
from xlt_ray.errors import UserError
from xlt_ray.store import storage
from xlt_ray.store.schema import Utterance

FOLDERS = {
    "eu": "basque",
    "en": "english",
    "fi": "finnish",
    "fr": "french",
    "hu": "hungarian",
    "ro": "romanian",
    "ru": "russian",
    "es": "spanish",
}
"""Directory of each language."""

# The books in the order of the English Bible: English names (also fi, hu, ro, ru), French, Spanish (also eu).
_BOOKS = """
Matthew Matthieu San_Mateo | Mark Marc San_Marcos | Luke Luc San_Lucas | John Jean San_Juan | Acts Actes Hechos
Romans Romains Romanos | 1Corinthians 1Corinthiens 1Corintios | 2Corinthians 2Corinthiens 2Corintios
Galatians Galates Galatas | Ephesians Ephesiens Efesios | Philippians Philippiens Filipenses
Colossians Colossiens Colosenses | 1Thess 1Tes | 2Thess 2Tes | 1Timothy 1Timothee 1Timoteo
2Timothy 2Timothee 2Timoteo | Titus Tite Tito | Philemon Filemon | Hebrews Hebreux Hebreos | James Jacques Santiago
1Peter 1Pierre 1San_Pedro | 2Peter 2Pierre 2San_Pedro | 1John 1Jean 1San_Juan | 2John 2Jean 2San_Juan
3John 3Jean 3San_Juan | Jude Judas | Revelation Apocalypse Apocalipsis
"""
BOOK_NUMBERS = {
    name: number
    for number, names in enumerate(re.split(r"\s*[|\n]\s*", _BOOKS.strip()), start=1)
    for name in names.split()
}
"""Number of a book, 1 to 27, by its name in any of the languages."""

# The number behind B is not used: it counts in the order of that edition (James is B06 in ru, B25 in fi, B20 in en).
_VERSE = re.compile(r"B\d\d___(?P<chapter>\d\d)_(?P<book>.+?)_*[A-Z0-9]{10}_verse_(?P<verse>\d+)")


def mass(source: str, languages: Sequence[str], split: str | None) -> Iterator[Utterance]:
    """The verses of some languages, without audio.

    Verses are aligned by book, chapter and verse: `sentence_id` is `B20.1.5` for James 1:5. The book is identified by
    its name, because Russian and Finnish editions order the books differently: by the numbers in the file names, 2889
    and 427 verses would be aligned with wrong ones; by names, 8160 verses are in all eight languages. Verse 0 is the
    chapter's title, which is spoken too. `translations` holds the verse in the other `languages`.

    A verse without a recording is a row with the path where the recording was expected.

    Args:
        source: root directory of the corpus, a local path or a URI.
        languages: any of eu en fi fr hu ro ru es.
        split: None, because MaSS has no splits.

    Raises:
        UserError: for a language that MaSS does not have or that is not below `source`, for a split, or for a file
            whose name has no book of the New Testament.
    """
    if split is not None:
        raise UserError(f"MaSS has no splits, so split {split!r} cannot be read; leave it out")
    source, codes = storage.absolute(source), dict.fromkeys(languages)
    check_languages("MaSS", codes, FOLDERS)
    verses = {code: _verses(*_find(source, FOLDERS[code])) for code in codes}
    return _utterances(verses)


@dataclasses.dataclass(frozen=True, slots=True)
class _Verse:
    stem: str
    text: str
    audio: str


def _utterances(languages: Mapping[str, Mapping[str, _Verse]]) -> Iterator[Utterance]:
    for code, verses in languages.items():
        others = [(other, those) for other, those in languages.items() if other != code]
        for sentence, verse in verses.items():
            yield Utterance(
                utterance_id=f"mass-{code}-{verse.stem}",
                sentence_id=sentence,
                language=code,
                audio=verse.audio,
                text=verse.text,
                translations={other: those[sentence].text for other, those in others if sentence in those},
            )


def _find(source: str, name: str) -> tuple[str, list[str]]:
    """The directory of a language, and its text files."""
    for folder in (storage.join(source, "dataset", name), storage.join(source, name)):
        for place in (storage.join(folder, "txt"), folder):
            if files := [uri for uri in storage.list_files(place) if uri.endswith(".txt") and "_verse_" in _stem(uri)]:
                return folder, files
    raise UserError(
        f"no MaSS {name} in {source!r}: looked for *_verse_*.txt in dataset/{name}/txt/, dataset/{name}/, {name}/txt/ "
        f"and {name}/; give the directory that holds dataset or {name}"
    )


def _verses(folder: str, files: Sequence[str]) -> dict[str, _Verse]:
    """The verses of one language, by sentence."""
    recordings = _recordings(folder, posixpath.dirname(files[0]))
    stems = [_stem(uri) for uri in files]
    sentences = [_sentence_id(stem) for stem in stems]
    texts = [_text(uri, content) for uri, content in zip(files, _contents(files), strict=True)]
    return {
        sentence: _Verse(stem, text, recordings.get(stem, storage.join(folder, "wav", f"{stem}.wav")))
        for sentence, stem, text in zip(sentences, stems, texts, strict=True)
    }


def _text(uri: str, content: bytes) -> str:
    with at_line(uri, 1):
        return content.decode("utf-8-sig").strip()


def _contents(files: Sequence[str]) -> Iterable[bytes]:
    # 8200 small files: one by one, an object store takes minutes; on a local disk threads cost 6 times what they save.
    if not storage.is_remote(files[0]):
        return map(storage.read_bytes, files)
    with ThreadPoolExecutor(max_workers=16) as pool:
        return list(pool.map(storage.read_bytes, files))


def _sentence_id(stem: str) -> str:
    match = _VERSE.fullmatch(stem)
    if not match or match["book"] not in BOOK_NUMBERS:
        raise UserError(
            f"{stem}.txt is no verse of MaSS; those are named like B03___15_Luke________ENGESVN1DA_verse_9.txt"
        )
    return f"B{BOOK_NUMBERS[match['book']]:02d}.{int(match['chapter'])}.{int(match['verse'])}"


def _recordings(folder: str, text_folder: str) -> dict[str, str]:
    """Sound files by the stem of their text; if a verse has several, WAV is preferred to MP3, and MP3 to FLAC."""
    places = (text_folder, storage.join(folder, "wav"))
    files = [uri for place in places for uri in storage.list_files(place)]
    found: dict[str, str] = {}
    for extension in (".flac", ".mp3", ".wav"):
        found |= {_stem(uri).removesuffix("_one_channel"): uri for uri in files if uri.endswith(extension)}
    return found


def _stem(uri: str) -> str:
    return posixpath.splitext(posixpath.basename(uri))[0]
