"""What is known about languages, by what transformers knows of Whisper and NLLB; every spelling at the door."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray_speech import row, write_manifest, write_rows
from tiny import tiny_whisper
from transformers import WhisperTokenizer
from transformers.models.nllb.tokenization_nllb import FAIRSEQ_LANGUAGE_CODES
from transformers.models.whisper import tokenization_whisper

from xlt_ray import corpora, languages
from xlt_ray.corpora import covost2, fleurs, manifest, mass
from xlt_ray.errors import UserError
from xlt_ray.finetune.config import FinetuneConfig, FinetuneJob
from xlt_ray.job import cli
from xlt_ray.languages import LANGUAGES, Direction, by_distance, code_of, find, is_spaced, language_of
from xlt_ray.presets import PRESETS
from xlt_ray.study.config import StudyConfig
from xlt_ray.translate.config import TranslateConfig, TranslateJob

WHISPER = tokenization_whisper.LANGUAGES
TABLES = Path(languages.__file__).parent


@pytest.fixture(autouse=True)
def nothing_said_yet():
    """What is said once a process is said once a test."""
    languages.read_as.cache_clear()
    languages._direction_read_as.cache_clear()


def test_languages_with_a_token_are_those_of_whispers_tokenizer():
    assert {code for code, language in LANGUAGES.items() if language.has_token} == set(WHISPER)


def test_names_are_those_of_whisper_where_it_has_another_the_tokenizer_knows_ours_too():
    ours = {code: LANGUAGES[code].name.lower() for code in WHISPER}
    differing = {code for code in WHISPER if ours[code] != WHISPER[code]}
    assert differing == {"zh", "nn", "my"}
    assert tokenization_whisper.TO_LANGUAGE_CODE[ours["my"]] == "my"


def test_codes_and_scripts_are_those_of_flores():
    """NLLB spells the 200 languages of FLoRes as ISO 639-3 with the script."""
    flores = {tag for tag in FAIRSEQ_LANGUAGE_CODES if code_of(tag) in LANGUAGES}
    by_code = {}
    for tag in flores:
        by_code.setdefault(code_of(tag), set()).add(tuple(tag.split("_")))
    for code, tags in by_code.items():
        language = LANGUAGES[code]
        iso = "zho" if code == "zh" else language.iso639_3
        assert (iso, language.script) in tags, code
        assert {tag[0] for tag in tags} == {iso}
    assert set(LANGUAGES) - set(by_code) == {"aeb", "apc", "br", "haw", "la", "fy", "mdw", "qu"} - set(by_code)
    assert len(by_code) >= 120


def test_languages_without_spaces_are_those_that_whisper_cuts_by_character_and_three_more(tmp_path):
    """Words are cut at spaces, or at every character where Whisper expects no spaces."""
    tokenizer = WhisperTokenizer.from_pretrained(tiny_whisper(tmp_path / "model"))
    tokens = tokenizer.encode(" ab cd", add_special_tokens=False)

    def num_words(name):
        return len(tokenization_whisper._combine_tokens_into_words(tokenizer, tokens, name)[0])

    assert (num_words("english"), num_words("thai")) == (2, 4)
    by_character = {code for code, name in WHISPER.items() if num_words(name) == 4}
    assert by_character == {"zh", "ja", "th", "lo", "my", "yue"}
    # Khmer has no spaces between words; the Tibetan script marks syllables, not words.
    assert {code for code in LANGUAGES if not is_spaced(code)} == by_character | {"km", "bo", "dz"}
    assert not is_spaced("cmn_hans_cn")
    assert is_spaced("gsw")


def test_fleurs_covost_and_mass_have_languages_of_the_table_alone():
    assert set(fleurs.CODES.values()) <= set(LANGUAGES)
    assert {*covost2.TARGETS, *(target for targets in covost2.TARGETS.values() for target in targets)} <= set(LANGUAGES)
    assert set(mass.FOLDERS) <= set(LANGUAGES)


def test_no_spelling_is_of_two_languages():
    spellings = [{language.code, language.iso639_3, *language.spellings} for language in LANGUAGES.values()]
    assert sum(map(len, spellings)) == len(set().union(*spellings))


def test_the_table_is_sorted_and_every_relative_is_of_the_family():
    assert list(LANGUAGES) == sorted(LANGUAGES)
    lexifiers = {"Creole, Portuguese-based": "pt"}
    for language in LANGUAGES.values():
        if language.related:
            relative = LANGUAGES[language.related]
            same_family = relative.family.split(",")[0] == language.family.split(",")[0]
            assert relative.has_token
            assert same_family or lexifiers[language.family] == relative.code


@pytest.mark.parametrize(
    ("spelling", "code"),
    [
        *((spelling, "zh") for spelling in ("zh-CN", "zh_cn", "cmn_hans_cn", "cmn", "zho", "chi", "zh-Hans", "zh-cmn")),
        *((spelling, "zh") for spelling in ("zh-TW", "cmn_hant", "cmn_hant_tw", "zho_Hant")),
        *((spelling, "yue") for spelling in ("yue", "yue_hant_hk", "zh-HK", "zh-Hant-HK", "zh-yue")),
        *((spelling, "sv") for spelling in ("sv-SE", "swe", " SV ")),
        *((spelling, "pt") for spelling in ("pt-BR", "pt_pt", "por_Latn")),
        *((spelling, "no") for spelling in ("nb_no", "nb-NO", "nor", "nob", "no")),
        *(("nn-NO", "nn"), ("nno", "nn"), ("fil_ph", "tl"), ("fil", "tl"), ("jv_id", "jw"), ("iw", "he")),
        *(("eng", "en"), ("ger", "de"), ("es_419", "es"), ("de-DE-1996", "de"), ("ga-IE", "ga"), ("ckb_iq", "ckb")),
        *(("rm-sursilv", "rm_sursilv"), ("nan-tw", "nan_tw"), ("gsw", "gsw"), ("GSW", "gsw")),
    ],
)
def test_spellings(spelling, code):
    assert code_of(spelling) == code


@pytest.mark.parametrize("names", [fleurs.CODES, tokenization_whisper.LANGUAGES])
def test_every_code_of_fleurs_and_whisper_is_understood(names):
    """The tokenizer itself knows nb for no, and jv for jw, by their names alone."""
    assert all(code_of(name) == names.get(name, name) or name in WHISPER for name in names)
    assert all(code_of(code) == code for code in WHISPER)


@given(st.text(max_size=12) | st.from_regex(r"[a-zA-Z]{2,3}([-_][a-zA-Z0-9]{2,8}){0,2}", fullmatch=True))
def test_a_code_is_one_for_good_and_fits_into_a_direction(spelling):
    try:
        code = code_of(spelling)
    except UserError:
        return
    assert code_of(code) == code
    assert language_of(code) == language_of(spelling)
    assert Direction.parse(f"{code}-{code}") == Direction(code, code)


@pytest.mark.parametrize(
    ("spelling", "hint"),
    [
        ("english", r"; did you mean en \(English\)\?"),
        ("germn", r"; did you mean de \(German\)\?"),
        ("chinese", r"; did you mean zh \(Mandarin Chinese\)\?"),
        ("klingon", ""),
        ("en us", ""),
        ("en--us", ""),
        ("", ""),
        ("42", ""),
    ],
)
def test_what_is_no_code(spelling, hint):
    message = f"'{spelling}' is no language code{hint}; give one such as fr, zh-CN or kea"
    with pytest.raises(UserError, match=f"^{message}$"):
        code_of(spelling)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *(("en-zh", "en-zh"), ("en-zh_CN", "en-zh"), ("en-zh-CN", "en-zh"), ("zh-CN-en", "zh-en"), ("fr-fr", "fr-fr")),
        *(("sv-SE-en-US", "sv-en"), ("en-zh-Hant-TW", "en-zh"), ("en-cmn_hans_cn", "en-zh"), ("es-419-en", "es-en")),
        *(("pt-BR-ar", "pt-ar"), ("ar-pt-BR", "ar-pt"), ("rm_sursilv-en", "rm_sursilv-en"), ("zh-HK-zh-CN", "yue-zh")),
    ],
)
def test_directions(text, expected):
    assert str(Direction.parse(text)) == expected
    assert str(Direction.parse(expected)) == expected


NO_DIRECTION = "is not two language codes with a hyphen between, such as fr-zh"
WITHIN = "; within a code write _, as in en-zh_CN"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        *((text, f"direction {text!r} {NO_DIRECTION}") for text in ("en", "en zh", "en-", "-zh", "")),
        # br is Breton, de is German: two readings.
        *((text, f"direction {text!r} {NO_DIRECTION}{WITHIN}") for text in ("pt-br-ar", "en-fr-de", "a-b-c")),
        ("english-zh", "'english' is no language code; did you mean en (English)?; give one such as fr, zh-CN or kea"),
    ],
)
def test_what_is_no_direction(text, message):
    with pytest.raises(UserError) as error:
        Direction.parse(text)
    assert str(error.value) == message


def test_what_whisper_was_trained_on():
    native = [text for text in ("fr-en", "fr-en_US", "fr-fr", "zh-CN-zh", "fr-zh", "en-zh") if is_native(text)]
    assert native == ["fr-en", "fr-en_US", "fr-fr", "zh-CN-zh"]


def is_native(text):
    return Direction.parse(text).is_native


def test_what_is_read_otherwise_is_said_once(capsys):
    assert languages.codes(["zh-CN", "en", "sv-SE", "zh-CN", "zh-TW"]) == ("zh", "en", "sv", "zh", "zh")
    assert languages.directions(["en-zh-CN", "en-zh-CN", "en-zh", "en-zh-TW"]) == ("en-zh", "en-zh", "en-zh", "en-zh")
    lost = "the script Hant is not kept, as Whisper has one token for all that is written in zh"
    assert capsys.readouterr().out.splitlines() == [
        "zh-CN is read as zh",
        "sv-SE is read as sv",
        f"zh-TW is read as zh; {lost}",
        "en-zh-CN is read as en-zh",
        f"en-zh-TW is read as en-zh; {lost}",
    ]


def parsed(job, *words):
    return cli.parse(job, ["--preset", "plain", *words], PRESETS)


def test_a_region_is_understood_in_every_flag(capsys):
    flags = ["--translate.targets", "zh-CN", "--translate.hide", "pt-BR", "--translate.source-prompt", "auto"]
    job = parsed(TranslateJob, "--languages", "zh-CN,sv-SE", *flags)
    assert job.languages == ("zh", "sv")
    assert (job.translate.targets, job.translate.hide) == (("zh",), ("pt",))
    assert capsys.readouterr().out.splitlines().count("zh-CN is read as zh") == 1


def test_a_region_is_understood_in_every_setting():
    directions = FinetuneConfig(
        directions=("en-zh-CN",), keep=("sv-SE-en",), ewc_lambda=1, evaluate=("pt-BR-en",), evaluate_every=1
    )
    assert (directions.directions, directions.keep, directions.evaluate) == (("en-zh",), ("sv-en",), ("pt-en",))
    assert TranslateConfig(source_prompt="pt-BR").source_prompt == "pt"
    assert TranslateJob(source_prompts=("auto", "zh-CN", "related")).source_prompts == ("auto", "zh", "related")
    assert (StudyConfig(target="zh-CN").target, StudyConfig(sources=("sv-SE", "fr")).sources) == ("zh", ("sv", "fr"))
    assert FinetuneJob(languages=("en-US",), finetune=FinetuneConfig(directions=("en-US-zh-CN",))).languages == ("en",)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (lambda: TranslateJob(languages=("pt-BR", "pt-PT")), "--languages pt-BR,pt-PT names a language twice: pt,pt"),
        (lambda: StudyConfig(sources=("zh-CN", "zh")), "--study.sources zh-CN,zh names a language twice: zh,zh"),
        (lambda: StudyConfig(target="zh-CN", sources=("zh", "fr")), "--study.target zh is among --study.sources"),
        (
            lambda: FinetuneConfig(directions=("en-zh", "en-zh-CN")),
            "--finetune.directions en-zh,en-zh-CN names a direction twice: en-zh,en-zh",
        ),
        (lambda: FinetuneConfig(keep=("en-zh-CN",), ewc_lambda=1), "en-zh is in --finetune.directions and in"),
        (
            lambda: TranslateConfig(source_prompt="cousin"),
            "source prompt 'cousin' is neither auto, soft nor related: 'cousin' is no language code",
        ),
    ],
)
def test_what_is_the_same_in_our_codes_is_named_twice(settings, message):
    with pytest.raises(UserError) as error:
        settings()
    assert message in str(error.value)


def common_voice(folder, translations):
    """A manifest as Common Voice spells its locales, with one recording in zh-CN and one in en."""
    write_manifest(folder, ["en", "zh"], 1)
    chinese = row("zh", 0, "zh-000.wav") | {"language": "zh-CN", "translations": {"en": "hello"}}
    return write_rows(folder, [chinese, row("en", 0, "en-000.wav") | {"translations": translations}])


def test_codes_of_a_manifest_are_read_at_the_door(tmp_path, capsys):
    path = common_voice(tmp_path, {"zh-CN": "你好", "sv-SE": "hej"})
    for asked in (["zh-CN", "en"], ["zh", "en-US"]):
        rows = list(corpora.read(f"manifest:{path}", asked, None))
        assert [(row.language, row.translations) for row in rows] == [
            ("zh", {"en": "hello"}),
            ("en", {"zh": "你好", "sv": "hej"}),
        ]
    assert capsys.readouterr().out.splitlines().count("zh-CN is read as zh") == 1
    with pytest.raises(UserError, match=r"has no rows of language 'sv'; it has en, zh"):
        list(corpora.read(f"manifest:{path}", ["sv-SE"], None))


def test_two_translations_that_are_one_language_to_us_are_not_thrown_together(tmp_path):
    path = common_voice(tmp_path, {"zh-CN": "简体", "zh-TW": "繁體"})
    with pytest.raises(UserError, match=r"utterance '.*' has translations zh-CN and zh-TW, .* read as zh; keep one"):
        list(corpora.read(f"manifest:{path}", ["en"], None))


def test_a_language_column_that_holds_no_code_is_named_with_its_line(tmp_path):
    (tmp_path / "m.jsonl").write_text(
        json.dumps({"utterance_id": "a", "sentence_id": "1", "language": "English", "audio": "a.wav"}) + "\n"
    )
    with pytest.raises(UserError, match=r"m.jsonl, line 1: 'English' is no language code; did you mean en \(English\)"):
        list(manifest.manifest(str(tmp_path / "m.jsonl"), ["en"], None))


def test_fleurs_by_its_own_names_is_read(tmp_path):
    with pytest.raises(UserError, match="no FLEURS cmn_hans_cn test in"):
        corpora.read(f"fleurs:{tmp_path}", ["cmn_hans_cn"], None)
    with pytest.raises(UserError, match="each once"):
        corpora.read(f"fleurs:{tmp_path}", ["cmn_hans_cn", "zh"], None)


def test_distances_are_of_all_languages_without_token_and_to_one_with_a_token():
    assert {code for code, language in LANGUAGES.items() if language.typology} == set(LANGUAGES) - set(WHISPER)
    for language in LANGUAGES.values():
        if typology := language.typology:
            assert LANGUAGES[typology.nearest].has_token
            assert typology.distance == pytest.approx(
                (typology.syntax + typology.phonology + typology.inventory) / 3, abs=0.0011
            )
            assert 0 < typology.distance < 1
            assert 0 <= typology.observed <= 289


def test_distances_are_those_of_lang2vec():
    """All 100 languages with a token are tried, under every code that URIEL may have for them."""
    lang2vec = pytest.importorskip("lang2vec", reason="the typology is computed once; pip install lang2vec 1.1.2")
    data = Path(lang2vec.__file__).parent / "data"
    predicted, described = (np.load(data / f"feature_{kind}.npz") for kind in ("predictions", "averages"))
    place = {str(code): number for number, code in enumerate(predicted["langs"])}
    sets = [np.char.startswith(predicted["feats"], start) for start in ("S_", "P_", "INV_")]
    seen = described["data"][:, :, 0] >= 0

    def vectors(code):
        language = LANGUAGES[code]
        macros = {"kmr": ["kur"], "qu": ["que"]}
        entries = [name for name in (language.iso639_3, *language.spellings) if len(name) == 3 and name in place]
        best = max([*entries, *macros.get(code, [])], key=lambda name: seen[place[name]].sum())
        return [predicted["data"][place[best], chosen, 0] for chosen in sets], int(seen[place[best]].sum())

    table = {code: vectors(code) for code in LANGUAGES}

    def distance(one, other):
        pairs = zip(table[one][0], table[other][0], strict=True)
        return np.mean([1 - u @ v / np.sqrt((u @ u) * (v @ v)) for u, v in pairs])

    for code, language in LANGUAGES.items():
        if typology := language.typology:
            found = {other: distance(code, other) for other in WHISPER}
            assert min(found, key=found.get) == typology.nearest
            assert found[typology.nearest] == pytest.approx(typology.distance, abs=0.00051)
            assert table[code][1] == typology.observed


def test_directions_by_distance():
    found = by_distance(["wo-en", "fr-en", "kea-en", "kea-zh", "gsw-en", "ast-en"])
    assert list(found) == ["ast-en", "kea-en", "wo-en"]
    assert found["kea-en"] == find("kea_CV").typology


def test_the_tables_say_where_they_come_from():
    typology = (TABLES / "typology.tsv").read_text(encoding="utf-8")
    assert all(word in typology for word in ("lang2vec 1.1.2", "CC-BY-SA-4.0", "E17-2002"))
