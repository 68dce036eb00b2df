"""The demo corpus on a miniature of the extracted packages, and once on the real ones."""

import collections
import gzip
import io
import itertools
import stat
import tarfile
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xlt_ray.corpora import asterisk as module
from xlt_ray.corpora.asterisk import ATTRIBUTION, asterisk, fetch
from xlt_ray.errors import UserError

FOLDERS = {
    "en": "en_US_f_Allison",
    "es": "es_MX_f_Allison",
    "fr": "fr_CA_f_June",
    "it": "it_IT_m_Carlo",
    "ru": "ru_RU_f_IvrvoiceRU",
}
LANGUAGES = list(FOLDERS)
WORDS = {"en": "one two three", "es": "uno dos", "fr": "un deux", "it": "uno due", "ru": "раз два"}
NO_ZH = "zz-not-in-the-table"
STEMS = ["followme/status", "agent-alreadyon", NO_ZH]  # not sorted


def transcript(language):
    lines = [
        f"first: {WORDS[language]} first",
        f"; Core Sounds: {language}",
        "",
        *(f"{stem}:  {WORDS[language]}: {stem} " for stem in STEMS),
    ]
    lines += [f"digits/0: {WORDS[language]} first", f"digits/0: {WORDS[language]} second"]
    lines += ["short: only three words" if language == "en" else "short: a b c d e"]
    lines += ["beep: four words and [tone]" if language == "fr" else "beep: four words and tone"]
    lines += [f"{stem}: {WORDS[language]} {stem}" for stem in ("long", "almost-long", "no-sound")]
    lines += [f"no-text: {WORDS[language]} no-text"] if language != "it" else []
    bom = "\ufeff" if language == "it" else ""
    return (bom + "\n".join(lines) + "\n").encode()


def sounds(language):
    sizes = dict.fromkeys([*STEMS, "digits/0", "short", "beep", "no-text"], 8000)
    sizes |= {"long": 120_000 if language == "ru" else 8000, "almost-long": 119_999}
    return {f"{stem}.g722": size for stem, size in sizes.items()} | (
        {"no-sound.g722": 8000} if language != "es" else {}
    )


def package_files(language):
    """Path in a package, and content, as the Debian packages have them."""
    folder = f"usr/share/asterisk/sounds/{FOLDERS[language]}"
    text = f"usr/share/doc/asterisk-core-sounds-{language}/core-sounds-{language}.txt.gz"
    yield "", {text: gzip.compress(transcript(language))}
    yield "-g722", {f"{folder}/{name}": bytes(size) for name, size in sounds(language).items()}


@pytest.fixture
def tree(tmp_path):
    for language in LANGUAGES:
        for _, files in package_files(language):
            for path, content in files.items():
                (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / path).write_bytes(content)
    return tmp_path


CHOSEN = sorted([*STEMS, "digits/0", "almost-long"])


def test_the_rule_of_the_corpus(tree):
    rows = list(asterisk(str(tree), ["fr", "en"], None))
    assert [row.sentence_id for row in rows] == CHOSEN * 2
    assert [row.language for row in rows] == ["fr"] * len(CHOSEN) + ["en"] * len(CHOSEN)


def test_transcripts_without_byte_order_mark_and_comments(tree):
    stems = {"first", *STEMS, "digits/0", "short", "beep", "long", "almost-long", "no-sound"}
    assert module._transcripts(tree, "it").keys() == stems
    assert module._transcripts(tree, "en").keys() == {*stems, "no-text"}


def test_the_sentences_do_not_depend_on_the_languages_asked_for(tree):
    for language in LANGUAGES:
        assert [row.sentence_id for row in asterisk(str(tree), [language], None)] == CHOSEN


def test_every_field_of_a_row(tree):
    rows = {row.sentence_id: row for row in asterisk(str(tree), ["ru"], None)}
    row = rows["followme/status"]
    assert row.utterance_id == "ru/followme/status"
    assert row.audio == str(tree / "usr/share/asterisk/sounds/ru_RU_f_IvrvoiceRU/followme/status.g722")
    assert row.member == ""
    assert row.text == "раз два: followme/status"
    assert row.translations.keys() == {"en", "es", "fr", "it", "zh"}
    assert row.translations["it"] == "uno due: followme/status"
    assert rows["agent-alreadyon"].translations["zh"] == "该座席已登录。请输入您的座席工号，然后按井号键。"
    assert rows[NO_ZH].translations.keys() == {"en", "es", "fr", "it"}
    assert rows["digits/0"].text == "раз два first"


def test_speakers_are_those_that_the_attribution_names(tree):
    speakers = {language: next(asterisk(str(tree), [language], None)).speaker for language in LANGUAGES}
    assert speakers["en"] == speakers["es"] == "Allison Smith"
    assert len(set(speakers.values())) == 4
    for speaker in speakers.values():
        assert speaker.lower() in ATTRIBUTION.lower()
    assert "CC-BY-SA-3.0" in ATTRIBUTION
    assert "CC-BY-3.0" in ATTRIBUTION


def test_splits_are_parts_of_the_whole(tree):
    parts = {split: list(asterisk(str(tree), ["en"], split)) for split in ("train", "dev", "test")}
    whole = list(asterisk(str(tree), ["en"], None))
    assert sorted(row.sentence_id for part in parts.values() for row in part) == [row.sentence_id for row in whole]
    assert all(row.split == split for split, part in parts.items() for row in part)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(*[st.integers(0, 12)] * 3), min_size=1, max_size=20))
def test_no_text_in_any_language_is_in_two_splits(table):
    stems = [f"stem{i}" for i in range(len(table))]
    spellings = ["Say {}!", "say, {}", "SAY {}..."]
    texts = {
        language: {stem: spellings[i % 3].format(table[i][column]) for i, stem in enumerate(stems)}
        for column, language in enumerate(["en", "fr", "zh"])
    }
    splits = module._splits(stems, texts)
    assert splits.keys() == set(stems)
    for (a, row_a), (b, row_b) in itertools.combinations(zip(stems, table, strict=True), 2):
        if any(x == y for x, y in zip(row_a, row_b, strict=True)):
            assert splits[a] == splits[b]


def test_splits_are_70_10_20_and_fixed():
    stems = [f"stem{i}" for i in range(2000)]
    splits = module._splits(stems, {"en": {stem: f"text of {stem}" for stem in stems}})
    counts = collections.Counter(splits.values())
    for split, share in (("train", 0.7), ("dev", 0.1), ("test", 0.2)):
        assert abs(counts[split] / 2000 - share) < 0.03  # three standard deviations
    # The first 8 bytes that `sha256sum` prints, modulo 10: 8, 3, 7.
    assert [splits[stem] for stem in ("stem0", "stem1", "stem5")] == ["test", "train", "dev"]


def test_mistakes_of_the_user_are_named(tree, tmp_path_factory):
    for languages, split, parts in [
        (["en", "de"], None, ["no language 'de'", "en, es, fr, it, ru"]),
        (["en"], "validation", ["no split 'validation'", "train, dev, test"]),
    ]:
        with pytest.raises(UserError) as error:
            list(asterisk(str(tree), languages, split))
        assert all(part in str(error.value) for part in parts)
    empty = tmp_path_factory.mktemp("empty")
    with pytest.raises(UserError, match=f"no Asterisk prompts in '{empty}'"):
        list(asterisk(str(empty), ["en"], None))
    for path in (tree / "usr/share/asterisk/sounds").glob("*/*.g722"):
        path.unlink()
    for path in (tree / "usr/share/asterisk/sounds").glob("*/*/*.g722"):
        path.unlink()
    with pytest.raises(UserError, match="no recordings in all five languages"):
        list(asterisk(str(tree), ["en"], None))


APT_GET = """#!/bin/sh
echo "$*" >> {log}
shift
case $1 in
update) touch {folder}/updated ;;
download) if [ -e {folder}/updated ]; then cp {folder}/$2.tar $2_1_all.deb; else
    echo "E: Unable to locate package $2" >&2; exit 100; fi ;;
esac
"""
DPKG_DEB = '#!/bin/sh\nmkdir -p "$3" && tar -xf "$2" -C "$3"\n'


def script(path, text):
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def write_tar(path, files, mode="w"):
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), 0o644
            archive.addfile(info, io.BytesIO(content))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/xlt_ray"


@pytest.fixture
def apt(tmp_path, cache, monkeypatch):
    """Stand-ins for apt-get and dpkg-deb, whose packages are tar archives; their folder."""
    folder = tmp_path / "bin"
    folder.mkdir()
    script(folder / "apt-get", APT_GET.format(log=folder / "log", folder=folder))
    script(folder / "dpkg-deb", DPKG_DEB)
    for language in LANGUAGES:
        for suffix, files in package_files(language):
            write_tar(folder / f"asterisk-core-sounds-{language}{suffix}.tar", files)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


def test_packages_are_fetched_once(apt, cache, capsys):
    (apt / "updated").touch()
    assert [row.sentence_id for row in asterisk("", ["it"], None)] == CHOSEN
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 11
    assert "asterisk-core-sounds-en (1 of 10)" in printed[0]
    assert "asterisk-core-sounds-ru-g722 (10 of 10)" in printed[9]
    assert ATTRIBUTION in printed[10]
    assert [row.sentence_id for row in asterisk("", ["it"], None)] == CHOSEN
    assert len((apt / "log").read_text().splitlines()) == 10
    assert sorted(path.name for path in cache.iterdir()) == ["asterisk", "asterisk.lock"]


def test_root_updates_the_package_lists_once(apt, cache, monkeypatch):
    monkeypatch.setattr(module.os, "geteuid", lambda: 0)
    assert len(list(asterisk("", ["it"], None))) == len(CHOSEN)
    commands = (apt / "log").read_text().splitlines()
    download = "-qq download asterisk-core-sounds-en"
    assert commands[:3] == [download, "-qq update", download]
    assert sum("update" in command for command in commands) == 1


def test_other_users_are_told_what_to_type_and_nothing_is_left_behind(apt, cache, monkeypatch):
    monkeypatch.setattr(module.os, "geteuid", lambda: 1000)
    with pytest.raises(UserError, match=r"Unable to locate package .*`sudo apt-get update`"):
        fetch()
    assert "update" not in (apt / "log").read_text()
    assert [path.name for path in cache.iterdir()] == ["asterisk.lock"]


def test_a_fetch_that_breaks_off_is_started_again(apt, cache):
    (apt / "updated").touch()
    last = apt / "asterisk-core-sounds-ru-g722.tar"
    content = last.read_bytes()
    last.write_bytes(b"no archive at all")
    with pytest.raises(module.subprocess.CalledProcessError):
        fetch()
    assert [path.name for path in cache.iterdir()] == ["asterisk.lock"]
    last.write_bytes(content)
    assert len(list(asterisk("", ["ru"], None))) == len(CHOSEN)


def test_two_fetches_at_once_fetch_once(apt):
    (apt / "updated").touch()
    found = []
    threads = [threading.Thread(target=lambda: found.append(fetch())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 2
    assert len((apt / "log").read_text().splitlines()) == 10


@pytest.fixture
def publisher(tmp_path, cache, monkeypatch):
    """No apt-get, and the publisher's archives in a folder: sounds at the top, the transcript beside them."""
    folder = tmp_path / "publisher"
    folder.mkdir()
    for language in LANGUAGES:
        files = {f"./{name}": bytes(size) for name, size in sounds(language).items()}
        files |= {f"./core-sounds-{language}.txt": transcript(language), "./LICENSE-asterisk": b"licence"}
        write_tar(folder / f"asterisk-core-sounds-{language}-g722-current.tar.gz", files, "w:gz")
    monkeypatch.setattr(module.shutil, "which", lambda _name: None)
    monkeypatch.setattr(module, "_TARBALL", f"{folder.as_uri()}/asterisk-core-sounds-{{}}-g722-current.tar.gz")
    return folder


def test_without_apt_get_the_publisher_is_asked(publisher, tree, capsys):
    fetched = list(asterisk("", LANGUAGES, None))
    assert len(capsys.readouterr().out.splitlines()) == 6
    from_packages = list(asterisk(str(tree), LANGUAGES, None))
    assert [row.utterance_id for row in fetched] == [row.utterance_id for row in from_packages]
    assert [row.text for row in fetched] == [row.text for row in from_packages]


@pytest.mark.parametrize("content", [None, b"no archive", "cut"])
def test_a_publisher_that_cannot_be_reached_is_named(publisher, cache, content):
    path = publisher / "asterisk-core-sounds-fr-g722-current.tar.gz"
    whole = path.read_bytes()
    path.unlink()
    if content:
        path.write_bytes(whole[: len(whole) // 2] if content == "cut" else content)
    with pytest.raises(UserError, match=r"cannot fetch file://.*fr-g722-current.*use a machine with apt-get"):
        fetch()
    assert [path.name for path in cache.iterdir()] == ["asterisk.lock"]


def normalised(text):
    return "".join(character for character in text.lower() if character.isalnum())


@pytest.mark.real
def test_the_real_recordings():
    root = fetch()
    texts, sizes = {}, {}
    for language, folder in FOLDERS.items():
        path = root / f"usr/share/doc/asterisk-core-sounds-{language}/core-sounds-{language}.txt.gz"
        lines = gzip.decompress(path.read_bytes()).decode("utf-8-sig").splitlines()
        pairs = [line.split(":", 1) for line in lines if line.strip() and not line.startswith(";")]
        texts[language] = {stem.strip(): text.strip() for stem, text in reversed(pairs)}
        sounds_of = root / "usr/share/asterisk/sounds" / folder
        sizes[language] = {
            str(p.relative_to(sounds_of).with_suffix("")): p.stat().st_size for p in sounds_of.rglob("*.g722")
        }
    shared = set.intersection(*(texts[language].keys() & sizes[language].keys() for language in LANGUAGES))
    sentences = {stem for stem in shared if len(texts["en"][stem].split()) >= 4}
    speech = {stem for stem in sentences if not any("[" in texts[language][stem] for language in LANGUAGES)}
    short = {stem for stem in speech if all(sizes[language][stem] / 8000 < 15 for language in LANGUAGES)}
    assert (len(shared), len(sentences), len(speech), len(short)) == (452, 215, 209, 190)

    rows = list(asterisk("", LANGUAGES, None))
    stems = [row.sentence_id for row in rows[:190]]
    assert len(rows) == 5 * 190
    assert set(stems) == short
    assert stems[:3] == ["agent-alreadyon", "agent-incorrect", "agent-newlocation"]
    assert stems[99] == "followme/status"
    assert all(len(row.translations) == 5 for row in rows)

    in_splits = collections.defaultdict(set)
    for row in rows:
        for language, text in {row.language: row.text, **row.translations}.items():
            in_splits[language, normalised(text)].add(row.split)
    assert all(len(splits) == 1 for splits in in_splits.values())
    counts = collections.Counter(row.split for row in rows[:190])
    assert counts == {"train": 138, "dev": 17, "test": 35}
