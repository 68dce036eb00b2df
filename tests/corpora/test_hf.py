"""Data sets of the Hugging Face library: columns, layouts, and what is refused. Written by pyarrow or the library."""

import json

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest
from trees import AUDIO, sound_bytes, write_hf_parquet, write_hf_saved

from xlt_ray import corpora
from xlt_ray.corpora import audio
from xlt_ray.errors import Unreachable, UserError
from xlt_ray.store import storage

SOUNDS = [sound_bytes(0.2, frequency=300 + 50 * i) for i in range(4)]


def table(**columns):
    cells = pa.array([{"bytes": sound, "path": "x.wav"} for sound in SOUNDS], AUDIO)
    return pa.table({"audio": cells, "text": ["a", "b", "c", "d"]} | columns)


def read(spec, languages=("en",), split=None, columns=""):
    return list(corpora.read(spec, languages, split, corpora.parse_columns(columns)))


def sounds(rows):
    return list(audio.read_recordings([audio.Place(row.audio, row.member, row.start, row.duration) for row in rows]))


def refused(message, *args, **kwargs):
    with pytest.raises(UserError, match=message) as error:
        read(*args, **kwargs)
    assert "\n" not in str(error.value)


def test_files_and_globs(tmp_path):
    for name in ("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001"):
        pq.write_table(table(), tmp_path / f"{name}.parquet")
    rows = read(f"hf:{tmp_path}/train-*.parquet")
    assert len(rows) == 8
    assert {row.split for row in rows} == {"train"}
    assert len({row.utterance_id for row in rows}) == 8
    assert sounds(rows) == SOUNDS * 2
    [one] = {row.split for row in read(f"hf:{tmp_path}/test-00000-of-00001.parquet")}
    assert one == "test"
    assert len(read(f"hf:{tmp_path}")) == 12
    refused("no file matches", f"hf:{tmp_path}/dev-*.parquet")
    refused("there is no folder", f"hf:{tmp_path}/nowhere")
    refused("NUL", "hf:~a\0b")


def test_a_folder_may_be_in_a_store(tmp_path, monkeypatch):
    for name in ("set/train-00000-of-00001", "set/more/dev/0000", "other/test/0000"):
        (tmp_path / "bucket" / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table(), tmp_path / "bucket" / f"{name}.parquet")
    (tmp_path / "bucket/set/README.md").write_text("a card")
    (tmp_path / "bucket/empty").mkdir()
    store = pafs.SubTreeFileSystem(str(tmp_path), pafs.LocalFileSystem())
    monkeypatch.setattr(storage, "_remote_filesystem", lambda scheme, authority: store)
    rows = read("hf:s3://bucket/set/")
    assert sorted({(row.audio, row.split) for row in rows}) == [
        ("s3://bucket/set/more/dev/0000.parquet", "dev"),
        ("s3://bucket/set/train-00000-of-00001.parquet", "train"),
    ]
    assert len({row.utterance_id for row in rows}) == 8
    assert sounds(rows) == SOUNDS * 2
    refused("no Parquet or Arrow file is in", "hf:s3://bucket/empty")


def test_a_name_of_a_column_may_be_given(tmp_path):
    other = table(
        zh=["一", "二", "三", None], normalised=["A", "B", "C", ""], lang=["English"] * 4, number=[7, 8, 9, 10]
    )
    other = other.rename_columns(["voice", *other.column_names[1:]])
    pq.write_table(other, tmp_path / "m.parquet", row_group_size=3)
    spec = f"hf:{tmp_path}/m.parquet"
    rows = read(spec, columns="audio=voice,text=normalised,translation_zh=zh,utterance_id=number")
    assert [row.text for row in rows] == ["A", "B", "C", None]
    assert [row.translations for row in rows] == [{"zh": "一"}, {"zh": "二"}, {"zh": "三"}, {}]
    assert [row.utterance_id for row in rows] == ["7", "8", "9", "10"]
    assert sounds(rows[::-1]) == SOUNDS[::-1]
    refused("no column audio; it has voice, text.*--columns audio=NAME", spec)
    refused("no column 'nothing'; it has voice", spec, columns="audio=nothing")


def test_translations_in_every_form(tmp_path):
    forms = {
        "struct": [{"en": f"e{i}", "de": None if i else "d"} for i in range(4)],
        "json": [json.dumps({"en": f"e{i}", "de": None if i else "d"}) for i in range(4)],
        "map": pa.array([[("en", f"e{i}"), ("de", None if i else "d")] for i in range(4)], pa.map_("string", "string")),
    }
    for name, column in forms.items():
        pq.write_table(table(translation=column), tmp_path / f"{name}.parquet")
        rows = read(f"hf:{tmp_path}/{name}.parquet", ["fr"])
        assert [row.translations for row in rows] == [{"en": "e0", "de": "d"}, *({"en": f"e{i}"} for i in (1, 2, 3))]
    pq.write_table(table(translation=["x"] * 4), tmp_path / "text.parquet")
    refused(
        r"line 1: translation is a text; say .* --columns translation_XX=translation", f"hf:{tmp_path}/text.parquet"
    )
    [first, *_] = read(f"hf:{tmp_path}/text.parquet", columns="translation_de=translation")
    assert first.translations == {"de": "x"}


def test_a_number_of_a_translation_is_no_translation(tmp_path):
    pq.write_table(table(translation_id=[17, 18, 19, 20], translation_de=["d"] * 4), tmp_path / "a.parquet")
    assert [row.translations for row in read(f"hf:{tmp_path}/a.parquet", ["fr"])] == [{"de": "d"}] * 4


def test_languages_may_be_labels_codes_or_names(tmp_path):
    features = datasets.Features({"language": datasets.ClassLabel(names=["en-US", "zh-CN"])})
    labels = datasets.Dataset.from_dict({"language": [0, 1, 0, 1]}, features=features)
    pq.write_table(table(), tmp_path / "plain.parquet")
    joined = labels.data.table.append_column("audio", table()["audio"]).append_column("text", table()["text"])
    pq.write_table(joined.replace_schema_metadata(labels.data.table.schema.metadata), tmp_path / "m.parquet")
    rows = read(f"hf:{tmp_path}/m.parquet", ["zh", "en"])
    assert [(row.language, row.text) for row in rows] == [("zh", "b"), ("zh", "d"), ("en", "a"), ("en", "c")]
    assert [row.language for row in read(f"hf:{tmp_path}/plain.parquet", ["kea"])] == ["kea"] * 4
    refused("line 1: no language; name its column", f"hf:{tmp_path}/plain.parquet", ["kea", "en"])


def test_sound_may_lie_beside_the_table(tmp_path):
    (tmp_path / "clips").mkdir()
    for i, sound in enumerate(SOUNDS):
        (tmp_path / f"clips/{i}.wav").write_bytes(sound)
    paths = [f"clips/{i}.wav" if i % 2 else str(tmp_path / f"clips/{i}.wav") for i in range(4)]
    pq.write_table(pa.table({"audio": paths}), tmp_path / "text.parquet")
    structs = pa.array([{"bytes": None, "path": path} for path in paths], AUDIO)
    pq.write_table(pa.table({"audio": structs}), tmp_path / "struct.parquet")
    for name in ("text", "struct"):
        assert sounds(read(f"hf:{tmp_path}/{name}.parquet")) == SOUNDS
    (tmp_path / "clips/3.wav").unlink()
    for name in ("text", "struct"):
        with pytest.raises(Unreachable, match=r"clips/3\.wav"):
            sounds(read(f"hf:{tmp_path}/{name}.parquet"))


DECODED = pa.array([{"array": [0.1] * 9, "path": "x.wav", "sampling_rate": 16_000}] * 4)


@pytest.mark.parametrize(
    ("column", "kind"),
    [(DECODED, "struct<array: list"), (DECODED.field("array"), "list<"), (pa.array([1, 2, 3, 4]), "int64")],
    ids=["struct", "list", "number"],
)
def test_a_column_without_sound_files_is_refused(tmp_path, column, kind):
    ids = [str(number) for number in range(4)]
    ours = {"utterance_id": ids, "sentence_id": ids, "language": ["en"] * 4, "audio": column}
    pq.write_table(pa.table(ours), tmp_path / "m.parquet")
    for reader in ("hf", "manifest"):
        refused(rf"line 1: audio must be sound files .* or paths, not {kind}", f"{reader}:{tmp_path}/m.parquet")


def test_paths_may_be_categories(tmp_path):
    for i, sound in enumerate(SOUNDS[:2]):
        (tmp_path / f"{i}.wav").write_bytes(sound)
    ids = [str(number) for number in range(3)]
    paths = pa.array(["1.wav", "0.wav", "1.wav"]).dictionary_encode()
    ours = {"utterance_id": ids, "sentence_id": ids, "language": ["en"] * 3, "audio": paths}
    pq.write_table(pa.table(ours), tmp_path / "m.parquet")
    for reader in ("hf", "manifest"):
        assert sounds(read(f"{reader}:{tmp_path}/m.parquet")) == [SOUNDS[1], SOUNDS[0], SOUNDS[1]]


def test_a_duration_alone_is_no_segment(tmp_path):
    pq.write_table(table(duration=[9.0] * 4), tmp_path / "a.parquet")
    pq.write_table(table(duration=[0.1] * 4, start=[0.05] * 4), tmp_path / "b.parquet")
    pq.write_table(table(duration=[0.1] * 4, start=[-1.0] * 4), tmp_path / "c.parquet")
    assert {(row.start, row.duration) for row in read(f"hf:{tmp_path}/a.parquet")} == {(None, None)}
    assert [len(found.samples) for found in sounds(read(f"hf:{tmp_path}/b.parquet"))] == [1600] * 4
    refused("line 1: start must be a number of seconds, at least 0", f"hf:{tmp_path}/c.parquet")


def test_a_start_alone_is_no_segment(tmp_path):
    """Many tables have the end instead of the duration, of segments or of clips that are cut already."""
    times = {"start": [0.05] * 4, "end": [0.15] * 4}
    pq.write_table(table(**times), tmp_path / "a.parquet")
    assert sounds(read(f"hf:{tmp_path}/a.parquet")) == SOUNDS
    [first, *_] = sounds(read(f"hf:{tmp_path}/a.parquet", columns="start=start"))
    assert len(first.samples) == 2400
    for i, sound in enumerate(SOUNDS):
        (tmp_path / f"{i}.wav").write_bytes(sound)
    files = pa.table({"audio": [f"{i}.wav" for i in range(4)], "length": [0.1] * 4} | times)
    pq.write_table(files, tmp_path / "b.parquet")
    refused(r"line 1: start without a duration; name its column with --columns duration=", f"hf:{tmp_path}/b.parquet")
    for columns, num_samples in (("duration=length", 1600), ("start=start", 2400)):
        read_again = sounds(read(f"hf:{tmp_path}/b.parquet", columns=columns))
        assert [len(found.samples) for found in read_again] == [num_samples] * 4


def test_a_saved_data_set_and_one_of_its_splits(tmp_path):
    spec = write_hf_saved(tmp_path / "saved")
    assert len(read(spec, ["en"])) == 12
    assert {row.split for row in read(f"{spec}/validation", ["en"])} == {"dev"}
    picked = datasets.load_from_disk(str(tmp_path / "saved"))["train"].select([4, 2, 0])
    picked.save_to_disk(tmp_path / "picked")
    rows = read(f"hf:{tmp_path}/picked", ["en"])
    witness = datasets.load_from_disk(str(tmp_path / "picked"))
    assert [row.utterance_id for row in rows] == witness["id"]
    assert sounds(rows) == [
        cell["bytes"] for cell in witness.cast_column("audio", datasets.Audio(decode=False))["audio"]
    ]


def test_rows_of_files_of_the_same_name_have_names_of_their_own(tmp_path):
    """As the Hub's Parquet branch and `save_to_disk` name the files of every split."""
    for split in ("train", "test"):
        (tmp_path / "hub/default" / split).mkdir(parents=True)
        pq.write_table(table(), tmp_path / "hub/default" / split / "0000.parquet")
    plain = datasets.Dataset(table())
    datasets.DatasetDict(train=plain, test=plain).save_to_disk(str(tmp_path / "saved"))
    for place, file in (("hub", "0000"), ("hub/default", "0000"), ("saved", "data-00000-of-00001")):
        rows = read(f"hf:{tmp_path}/{place}")
        assert {row.utterance_id: row.split for row in rows} == {
            f"{split}/{file}/{number}": split for split in ("train", "test") for number in range(4)
        }
    assert read(f"hf:{tmp_path}/saved/test")[3].utterance_id == "data-00000-of-00001/3"


def test_arrow_rows_are_read_without_the_rest_of_their_file(tmp_path):
    """Rows of any order, and one that is not there."""
    cells = pa.array([{"bytes": bytes([i]) * 10, "path": None} for i in range(100)], AUDIO)
    with (
        pa.OSFile(str(tmp_path / "a.arrow"), "wb") as sink,
        pa.ipc.new_stream(sink, pa.schema([("audio", AUDIO)])) as out,
    ):
        out.write_table(pa.table({"audio": cells}), max_chunksize=7)
    order = [int(i) for i in np.random.default_rng(0).permutation(100)]
    places = [audio.Place(str(tmp_path / "a.arrow"), str(i)) for i in [*order, 100]]
    *found, missing = audio.read_recordings(places)
    assert found == [bytes([i]) * 10 for i in order]
    assert str(missing).startswith("missing: ")
    (tmp_path / "b.arrow").write_bytes((tmp_path / "a.arrow").read_bytes()[:600])
    [damaged] = audio.read_recordings([audio.Place(str(tmp_path / "b.arrow"), "99")])
    assert str(damaged).startswith("missing: ")


def test_data_sets_that_are_not_of_parquet_are_refused(tmp_path):
    (tmp_path / "train.csv").write_text("text\na\n")
    refused(r"is not of Parquet files but of 'train\.csv'", f"hf:{tmp_path}")
    (tmp_path / "empty").mkdir()
    refused("cannot read data set", f"hf:{tmp_path}/empty")


def test_a_hub_out_of_reach_is_one_line(monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    refused(r"cannot read data set 'org/nowhere' \(\w+: ", "hf:org/nowhere:xh@main")


def test_the_library_finds_the_files_of_a_configuration(tmp_path):
    """With the rules of the Hub: a README that says which files are which."""
    write_hf_parquet(tmp_path)
    text = "---\nconfigs:\n- config_name: small\n  data_files:\n  - split: test\n    path: data/train-*\n---\n"
    (tmp_path / "README.md").write_text(text)
    rows = read(f"hf:{tmp_path}", ["en"])
    assert (len(rows), {row.split for row in rows}) == (6, {"test"})


@pytest.mark.parametrize("column", ["audio", "text"])
def test_an_arrow_file_that_points_beyond_its_end_is_refused(tmp_path, column):
    """Arrow itself believes it, and reads whatever lies in memory there."""
    cells = pa.array([b"one"] * 4, pa.binary())
    written = pa.table({"audio": cells, "text": ["abcde"] * 4})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, written.schema) as out:
        out.write_table(written)
    ends = np.arange(5, dtype=np.int32) * (3 if column == "audio" else 5)
    data = sink.getvalue().to_pybytes()
    assert data.count(ends.tobytes()) == 1
    beyond = np.append(ends[:4], np.int32(2**30))
    (tmp_path / "a.arrow").write_bytes(data.replace(ends.tobytes(), beyond.tobytes()))
    if column == "text":
        refused("is damaged", f"hf:{tmp_path}/a.arrow")
    [found] = audio.read_recordings([audio.Place(f"{tmp_path}/a.arrow", f"3:{column}")])
    assert str(found).startswith("missing: its file cannot be read")


def test_numbers_where_texts_must_be_are_refused(tmp_path):
    pq.write_table(table(translations=[{"de": 1}] * 4), tmp_path / "a.parquet")
    refused("instead of text", f"hf:{tmp_path}/a.parquet")


def test_a_saved_data_set_that_was_copied_in_part_is_refused(tmp_path):
    datasets.Dataset(table()).save_to_disk(str(tmp_path / "saved"), num_shards=2)
    (tmp_path / "saved/data-00001-of-00002.arrow").unlink()
    refused("saved' is not whole: data-00001-of-00002.arrow is missing", f"hf:{tmp_path}/saved")


@pytest.mark.parametrize("files", ["x", [1], [{"a": 1}], [{"filename": [1]}]])
def test_a_saved_data_set_with_other_names(tmp_path, files):
    (tmp_path / "state.json").write_text(json.dumps({"_data_files": files, "_split": 5}))
    refused("is not what save_to_disk writes", f"hf:{tmp_path}")
