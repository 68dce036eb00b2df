"""Manifests of NeMo and Lhotse: the fields that they may have, and lines that are refused."""

import gzip
import json

import pytest
from trees import write_lhotse

from xlt_ray import corpora
from xlt_ray.errors import UserError


def lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def refused(spec, message, languages=("en",)):
    with pytest.raises(UserError, match=message) as error:
        list(corpora.read(spec, languages, None))
    assert "\n" not in str(error.value)


NEMO = {"audio_filepath": "a/1.wav", "offset": 1.5, "duration": 2.0, "source_lang": "en"}


def nemo(tmp_path, rows, languages=("en",), name="m.json"):
    return list(corpora.read(f"nemo:{lines(tmp_path / name, rows)}", languages, None))


@pytest.mark.parametrize(
    ("fields", "text", "translations"),
    [
        ({"text": "so"}, "so", {}),
        ({"text": "so", "target_lang": "en"}, "so", {}),
        ({"text": "also", "target_lang": "de"}, None, {"de": "also"}),
        ({"answer": "also", "target_lang": "de"}, None, {"de": "also"}),
        ({"text": "so", "answer": "also", "target_lang": "de-DE"}, "so", {"de": "also"}),
        ({"answer": "so"}, "so", {}),
        ({"text": "so", "translation": {"de": "also", "fr": None}}, "so", {"de": "also"}),
        ({"text": "so", "target_lang": "en", "translations": {"zho": "所以"}}, "so", {"zh": "所以"}),
        ({}, None, {}),
    ],
)
def test_what_is_written_is_transcript_or_translation(tmp_path, fields, text, translations):
    [row] = nemo(tmp_path, [NEMO | fields])
    assert (row.text, row.translations) == (text, translations)
    assert (row.audio, row.start, row.duration) == (f"{tmp_path}/a/1.wav", 1.5, 2.0)


def test_lines_of_one_recording_are_one_row(tmp_path):
    more = [
        NEMO | {"text": "so", "target_lang": "en", "id": "x"},
        NEMO | {"text": "also", "target_lang": "de"},
        NEMO | {"offset": 9, "text": "no"},
        NEMO | {"source_lang": "de", "text": "nein", "offset": 9},
    ]
    rows = nemo(tmp_path, more, ["en", "de"], "a_train_b.jsonl")
    assert [(row.language, row.text) for row in rows] == [("en", "so"), ("en", "no"), ("de", "nein")]
    assert rows[0].translations == {"de": "also"}
    assert rows[0].utterance_id == "x"
    assert len({row.utterance_id for row in rows}) == 3
    assert {row.split for row in rows} == {"train"}


def test_recordings_of_the_same_name_are_told_apart_by_their_folders(tmp_path):
    files = ["s1/wav/1.wav", "s2/wav/1.wav", "s2/wav/2.wav"]
    lines = [{"audio_filepath": file, "duration": 2.0, "source_lang": "en"} for file in files]
    ends = "00000000-00002000"
    assert [row.utterance_id for row in nemo(tmp_path, lines[1:])] == [f"en/wav/1/{ends}", f"en/wav/2/{ends}"]
    assert [row.utterance_id for row in nemo(tmp_path, lines)] == [f"en/{file[:-4]}/{ends}" for file in files]


def test_no_offset_is_an_offset_of_0(tmp_path):
    """A line for each target, of which one writer leaves out what is 0."""
    line = {"audio_filepath": "1.wav", "duration": 2.0, "source_lang": "en"}
    both = [line | {"text": "so"}, line | {"text": "also", "target_lang": "de", "offset": 0.0}]
    [row] = nemo(tmp_path, both)
    assert (row.text, row.translations) == ("so", {"de": "also"})


@pytest.mark.parametrize("name", ["val_manifest.json", "cuts.val.json", "dev-clean.json", "validation.json"])
def test_the_name_of_a_file_has_its_split(tmp_path, name):
    assert {row.split for row in nemo(tmp_path, [NEMO], name=name)} == {"dev"}


def test_lines_without_a_language_are_of_the_one_asked_for(tmp_path):
    [row] = nemo(tmp_path, [{"audio_filepath": "1.wav", "duration": 1.0, "text": "so"}], ["kea"])
    assert row.language == "kea"
    refused(f"nemo:{tmp_path}/m.json", "line 1: no source_lang", ["kea", "en"])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"audio_filepath": ""}, "audio_filepath must be"),
        ({"offset": -1}, "line 2: start must be"),
        ({"duration": 0}, "line 2: duration must be"),
        ({"text": ["so"]}, r"text must be text, not \['so'\]"),
        ({"translation": ["so"]}, "translation must be a text, or an object"),
    ],
)
def test_a_broken_line_of_nemo_is_named(tmp_path, fields, message):
    refused(f"nemo:{lines(tmp_path / 'm.json', [NEMO, NEMO | fields])}", message)


def test_places_without_manifests_are_named(tmp_path):
    refused(f"nemo:{tmp_path}", "no manifest of NeMo in")
    refused(f"nemo:{tmp_path}/nowhere.json", "there is no manifest")
    refused(f"lhotse:{tmp_path}", "no manifests of Lhotse in")
    refused(f"lhotse:{tmp_path}/nowhere.jsonl.gz", "there is no manifest")


RECORDING = {"id": "r", "sources": [{"type": "file", "channels": [0], "source": "talk.flac"}], "sampling_rate": 16_000}
SUPERVISION = {"id": "s", "recording_id": "r", "start": 0.25, "duration": 2.0, "channel": 0, "text": "so"}
CUT = {"id": "c", "start": 10.0, "duration": 5.0, "channel": 0, "recording": RECORDING, "type": "MonoCut"}


def cut(**changes):
    return CUT | {"supervisions": [SUPERVISION | {"language": "English"}]} | changes


def test_a_supervision_lies_in_its_cut(tmp_path):
    second = SUPERVISION | {"id": "t", "start": 2.5, "duration": 1.5, "language": "en", "custom": {"sentence_id": "7"}}
    path = lines(
        tmp_path / "x_cuts_dev.jsonl.gz", [cut(supervisions=[cut()["supervisions"][0], second]), cut(supervisions=[])]
    )
    first, second = corpora.read(f"lhotse:{path}", ["en"], "dev")
    assert (first.audio, first.start, first.duration, first.text) == (f"{tmp_path}/talk.flac", 10.25, 2.0, "so")
    assert (second.utterance_id, second.sentence_id, second.start, second.duration) == ("t", "7", 12.5, 1.5)


def test_a_supervision_in_two_windows_of_a_recording_is_one_row(tmp_path):
    """`cut_into_windows` keeps it in both, and 30 - 2.388 is 27.612000000000002."""
    cuts = [
        CUT | {"start": start, "duration": 30.0, "supervisions": [SUPERVISION | {"language": "en", "start": own}]}
        for start, own in ((0.0, 27.612), (30.0, -2.388))
    ]
    [row] = corpora.read(f"lhotse:{lines(tmp_path / 'c.jsonl', cuts)}", ["en"], None)
    assert (row.utterance_id, row.start) == ("s", 27.612)


def test_a_transform_that_moves_no_word_does_no_harm(tmp_path):
    resampled = RECORDING | {"transforms": [{"name": "Resample", "kwargs": {"target_sampling_rate": 16_000}}]}
    [row] = corpora.read(f"lhotse:{lines(tmp_path / 'c.jsonl', [cut(recording=resampled)])}", ["en"], None)
    assert row.start == 10.25


@pytest.mark.parametrize(
    "custom",
    [
        {"translations": {"German": "also"}},
        {"translated_text": {"de": "also"}},
        {"translation": "also", "tgt_lang": "deu"},
    ],
)
def test_translations_are_custom_fields(tmp_path, custom):
    supervision = SUPERVISION | {"language": "en", "custom": custom}
    [row] = corpora.read(f"lhotse:{lines(tmp_path / 'c.jsonl', [cut(supervisions=[supervision])])}", ["en"], None)
    assert row.translations == {"de": "also"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"type": "MixedCut"}, "line 1: a cut of type 'MixedCut' is not part of one recording"),
        ({"recording": RECORDING | {"sources": [{"type": "command", "source": "x"}]}}, "recording 'r' is command"),
        ({"recording": RECORDING | {"sources": []}}, "recording 'r' is nothing"),
        (
            {"recording": RECORDING | {"sources": [{"type": "file", "channels": [0, 1], "source": "x"}]}},
            "channel 0 of 2 in one file cannot be read",
        ),
        (
            {"recording": RECORDING | {"transforms": [{"name": "Speed", "kwargs": {"factor": 0.9}}]}},
            "recording 'r' is changed by Speed, and its file is not",
        ),
        ({"start": -10}, "line 1: start must be"),
        ({"supervisions": [SUPERVISION]}, "line 1: no language"),
    ],
)
def test_a_broken_cut_is_named(tmp_path, changes, message):
    refused(f"lhotse:{lines(tmp_path / 'c.jsonl', [cut(**changes)])}", message, ["en", "fr"])


def test_a_supervision_needs_its_recording(tmp_path):
    spec = write_lhotse(tmp_path, cuts=False)
    lines(tmp_path / "mini_recordings_test.jsonl.gz", [])
    refused(spec, "mini_supervisions_test.jsonl.gz, line 1: recording_id 'rec-en-9' is in no file")


PLAIN_CUT = {"id": "c", "start": 0.0, "type": "MonoCut", "supervisions": [], "recording": {}}
TOLD = {"id": "s", "start": 0.0, "duration": 1.0, "text": "one", "language": "en"}
FILED = {"id": "r", "sources": [{"type": "file", "channels": [0], "source": "a.wav"}]}


@pytest.mark.parametrize(
    ("cut", "said", "sound"),
    [
        *(({"supervisions": value}, {}, {}) for value in ("x", 1, ["x"], [None])),
        *(({"recording": value}, {}, {}) for value in ("x", 1, [1], None)),
        *(({"start": value}, {}, {}) for value in ("x", -1, 10**400, [1], True)),
        *(({}, {"start": value}, {}) for value in ("x", [1], {"a": 1}, 10**400, 1e308)),
        *(({}, {"text": value}, {}) for value in (["x"], {"a": 1}, 1.5)),
        *(({}, {"language": value}, {}) for value in (["x"], {"a": 1}, 5)),
        *(({}, {"custom": value}, {}) for value in ("x", [1], {"translations": {"de": 1}}, {"target_lang": [1]})),
        *(({}, {"speaker": value}, {}) for value in ([1], {})),
        *(({}, {}, {"sources": value}) for value in ("x", ["x"], [{}], [{"type": "file"}])),
        *(({}, {}, {"sources": [{"type": "file", "source": s, "channels": c}]}) for s, c in (("a", 5), (1.5, [0]))),
    ],
)
def test_a_cut_of_other_types_is_refused(tmp_path, cut, said, sound):
    row = PLAIN_CUT | {"supervisions": [TOLD | said], "recording": FILED | sound} | cut
    refused(f"lhotse:{lines(tmp_path / 'cuts.jsonl', [row])}", "line 1: ")


def test_the_same_cut_without_mistakes_is_read(tmp_path):
    row = PLAIN_CUT | {"supervisions": [TOLD], "recording": FILED}
    [read] = corpora.read(f"lhotse:{lines(tmp_path / 'cuts.jsonl', [row])}", ["en"], None)
    assert (read.text, read.audio) == ("one", f"{tmp_path}/a.wav")


@pytest.mark.parametrize("time", [10**400, 1e308, 1e9])
def test_a_time_that_no_recording_has_is_refused(tmp_path, time):
    for name in ("offset", "duration"):
        refused(
            f"nemo:{lines(tmp_path / 'm.json', [NEMO | {'text': 'so', name: time}])}", "line 1: (start|duration) must"
        )
