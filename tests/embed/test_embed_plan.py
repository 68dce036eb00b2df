"""What a job reads of the encoder: found, compared with what is there, encoded where it is missing. Without Ray."""

import dataclasses
import os
import re
from pathlib import Path

import embedded
import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
from embedded import Killed, encode
from ray_speech import RATE, row, tone, write_rows
from safetensors.torch import load_file, save_file
from tiny import tiny_whisper
from trees import fleurs_row, write_fleurs_parquet

from xlt_ray.embed import committed, plan
from xlt_ray.embed.config import EmbedConfig, EmbedJob
from xlt_ray.embed.opened import open_embeddings
from xlt_ray.errors import Damaged, TooManyRejected, UserError
from xlt_ray.job import resume
from xlt_ray.store import artifact, shards, storage
from xlt_ray.store.schema import Utterance

NUM = 6
SPLITS = ("train", "train", "train", "dev", "test", "test")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_whisper(tmp_path_factory.mktemp("model"))


class Corpus:
    """A manifest of tones that a test can change."""

    def __init__(self, folder, languages=("en", "fr"), num=NUM):
        self.folder = folder
        folder.mkdir()
        self.rows = {}
        for number, code in enumerate(languages):
            for sentence in range(num):
                self.rows[f"{code}-{sentence:03d}"] = row(code, sentence, f"{code}-{sentence:03d}.wav") | {
                    "split": SPLITS[sentence % len(SPLITS)]
                }
                self.record(f"{code}-{sentence:03d}", tone(sentence, number, 0.3 + 0.05 * sentence))
        self.write()

    def path(self, utterance_id):
        return self.folder / f"{utterance_id}.wav"

    def record(self, utterance_id, sound):
        soundfile.write(self.path(utterance_id), sound, RATE)

    def spoil(self, *ids):
        for utterance_id in ids:
            self.path(utterance_id).write_bytes(b"no sound")

    def edit(self, utterance_id, **fields):
        self.rows[utterance_id] |= fields
        self.write()

    def write(self):
        write_rows(self.folder, list(self.rows.values()))

    @property
    def spec(self):
        return f"manifest:{self.folder}/manifest.jsonl"


@pytest.fixture
def corpus(tmp_path):
    return Corpus(tmp_path / "corpus")


@pytest.fixture
def prepare(corpus, model, tmp_path):
    """A function from splits and settings to what a job of the corpus would read."""

    def prepared(*splits, name="mine", languages=("en", "fr"), embeddings=None, divide=False, spec=None, **config):
        config = EmbedConfig(**{"rows_per_shard": 2} | config)
        job = EmbedJob(
            root=str(tmp_path / "runs"),
            name=name,
            corpus=spec or corpus.spec,
            languages=languages,
            model=str(model),
            embed=config,
        )
        return plan.prepare(job, config, splits, name=embeddings, divide=divide)

    return prepared


def missing(embeddings):
    return embeddings.work.missing["utterance_id"].to_pylist() if embeddings.work else []


def ids(table):
    return table["utterance_id"].to_pylist()


def frames(embeddings, split):
    """The frames of each recording of a split."""
    table = embeddings.recordings(split)
    places = [
        (embeddings.artifact.path(f"data/{unit}.parquet"), at)
        for unit, at in zip(table["unit"].to_pylist(), table["row"].to_pylist(), strict=True)
    ]
    return dict(zip(ids(table), shards.read_frames(places), strict=True))


def test_planning_writes_nothing(prepare, tmp_path):
    found = prepare("test")
    assert missing(found) == ["en-004", "en-005", "fr-004", "fr-005"]
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_an_artifact_grows_by_what_a_job_needs_and_no_recording_is_encoded_twice(prepare):
    first = prepare("test")
    artifact = encode(first)
    shard = {file: os.stat(file).st_mtime_ns for file in artifact.files()}
    assert [file.rsplit("/", 1)[1] for file in shard] == ["en-test-00000.parquet", "fr-test-00000.parquet"]
    assert prepare("test").work is None
    second = prepare("all")
    assert missing(second) == [f"{code}-{k:03d}" for code in ("en", "fr") for k in range(4)]
    encode(second)
    assert {file: os.stat(file).st_mtime_ns for file in shard} == shard
    manifest = artifact.read_json("manifest.json")
    assert (manifest["rows_in"], manifest["rows_out"], manifest["rows_rejected"]) == (12, 12, 0)
    assert [file["path"] for file in manifest["files"]] == [
        f"data/{code}-{split}-0000{number}.parquet"
        for code in ("en", "fr")
        for split, number in (("dev", 0), ("test", 0), ("train", 0), ("train", 1))
    ]
    assert not artifact.has("parts")
    assert not artifact.has("begun.parquet")
    assert prepare("all").work is prepare("train", "dev").work is None


def test_what_another_job_adds_behind_the_plan_is_not_encoded_again(prepare, monkeypatch):
    """It commits between the plan of this job and its work: some of it, more, and all of it."""
    monkeypatch.setattr(artifact, "_written", {})  # what another process has written, this one has not
    late, later = prepare("all"), prepare("train")
    encode(prepare("test"))
    artifact._written.clear()
    late_too = prepare("all")
    encode(prepare("dev"))
    artifact._written.clear()
    for planned in (late, late_too):
        assert missing(planned) != missing(plan.again(planned)) == missing(prepare("all"))
    made = encode(late)
    artifact._written.clear()
    assert made.read_json("manifest.json")["rows_out"] == 12
    shards_there = {file: os.stat(file).st_mtime_ns for file in made.files()}
    for planned in (late_too, later):
        encode(planned)
        assert planned.identity == prepare(*planned.splits).identity
    assert {file: os.stat(file).st_mtime_ns for file in made.files()} == shards_there
    assert sorted(frames(late_too, "all")) == sorted(ids(late_too.all_rows))


def test_a_name_that_another_job_takes_behind_the_plan_is_refused(prepare, monkeypatch):
    monkeypatch.setattr(artifact, "_written", {})
    planned = prepare("test")
    encode(prepare("test", encoding="trimmed"))
    artifact._written.clear()
    with pytest.raises(UserError, match=r"was made with other settings \(encoding\.encoding"):
        encode(planned)


def test_rows_of_the_index_are_where_the_frames_are(prepare, corpus):
    """Against the shards themselves, and the sound that was written."""
    encode(prepare("all"))
    found = prepare("train", "all")
    for recording in found.recordings("all").to_pylist():
        shard = pq.read_table(found.artifact.path(f"data/{recording['unit']}.parquet")).to_pylist()[recording["row"]]
        assert shard["utterance_id"] == recording["utterance_id"]
        for name in ("num_samples", "num_valid", "num_frames", "text", "split", "sentence_id"):
            assert shard[name] == recording[name]
        sound, _ = soundfile.read(corpus.path(recording["utterance_id"]))
        assert recording["num_samples"] == len(sound)
        assert recording["num_valid"] == -(-len(sound) // 320)
        assert recording["bytes"] == corpus.path(recording["utterance_id"]).stat().st_size


def test_recordings_come_in_the_order_of_the_job_with_the_texts_of_today(prepare, corpus):
    encode(prepare("all"))
    corpus.edit("fr-001", text="corrected", translations={"zh": "改"}, split="test")
    found = prepare("test", "train", languages=("fr", "en"))
    assert found.work is None
    table = found.recordings("test")
    assert ids(table) == ids(found.rows("test")) == ["fr-001", "fr-004", "fr-005", "en-004", "en-005"]
    assert table["text"].to_pylist()[:2] == ["corrected", "sentence 4"]
    assert table["translations"].to_pylist()[0] == [{"language": "zh", "text": "改"}]
    assert table["unit"].to_pylist()[0] == "fr-train-00000"  # where it lies is as it was
    assert ids(found.recordings("train")) == ["fr-000", "fr-002", "en-000", "en-001", "en-002"]
    assert found.splits == ("test", "train")
    assert sorted(ids(found.all_rows)) == sorted(ids(found.rows("test")) + ids(found.rows("train")))
    part = found.only("train", "train")
    assert (part.splits, ids(part.rows("train"))) == (("train",), ids(found.rows("train")))
    assert part.identity["rows"] == {"train": found.identity["rows"]["train"]}


def test_rejected_recordings_are_rows_but_no_recordings(prepare, corpus):
    corpus.spoil("en-005")
    encode(prepare("test", max_rejected=0.5))
    found = prepare("test", max_rejected=0.5)
    assert found.work is None
    assert "en-005" in ids(found.rows("test"))
    assert ids(found.recordings("test")) == ["en-004", "fr-004", "fr-005"]
    assert found.identity["rows"]["test"]["num_rows"] == 4
    (rejected,) = pq.read_table(found.artifact.path("rejected.parquet")).to_pylist()
    assert (rejected["utterance_id"], rejected["language"]) == ("en-005", "en")


def test_the_identity_is_the_same_before_and_after_the_work_and_by_name(prepare, corpus):
    corpus.spoil("fr-004")
    planned = prepare("test", max_rejected=0.5)
    encode(planned)
    assert prepare("test", max_rejected=0.5).identity == planned.identity
    assert prepare("test", embeddings="mine").identity == planned.identity


def test_the_identity_does_not_depend_on_names_and_places(prepare, corpus, model, tmp_path):
    """The corpus was copied, and encoded again under another name: it is the same speech."""
    first = prepare("test")
    other = tmp_path / "elsewhere"
    os.rename(corpus.folder, other)
    moved = prepare("test", name="other", spec=f"manifest:{other}/manifest.jsonl")
    assert moved.artifact.uri != first.artifact.uri
    assert moved.identity == first.identity
    assert moved.rows("test")["audio"].to_pylist() != first.rows("test")["audio"].to_pylist()


def test_the_identity_depends_on_what_a_result_is_made_from(prepare, corpus):
    first = prepare("test").identity
    for config in ({"encoding": "trimmed"}, {"keep_margin": 7}, {"split_long": True}):
        assert prepare("test", **config).identity["encoding"] != first["encoding"]
        assert prepare("test", **config).identity["rows"] == first["rows"]
    assert prepare("test", layers=(1,)).identity == first  # hidden layers beside it change no frame of the output
    assert prepare("dev").identity["rows"] != first["rows"]
    assert prepare("test", languages=("fr", "en")).identity == first
    corpus.edit("en-004", text="other")
    changed = prepare("test").identity
    assert changed["rows"] != first["rows"]
    corpus.edit("en-004", text="sentence 4")
    assert prepare("test").identity == first
    corpus.record("en-004", tone(4, 0, 0.9))
    assert prepare("test").identity["rows"] != first["rows"]


def touched(path):
    """Another date, the same bytes."""
    os.utime(path, ns=(10**18, 10**18))


def test_a_recording_that_changed_is_named_and_its_old_frames_are_read(prepare, corpus, capsys):
    encode(prepare("all"))
    before, identity = frames(prepare("all"), "all"), prepare("all").identity
    corpus.record("en-002", tone(5, 1, 0.8))
    touched(corpus.path("fr-001"))
    capsys.readouterr()
    found = prepare("all")
    assert found.work is None
    assert capsys.readouterr().out == (
        "warning: 2 recordings have changed since 'mine' encoded them (en-002, fr-001...); their old frames are read; "
        "--embed.refresh encodes them again\n"
    )
    assert found.identity == identity  # of the frames that are read
    assert all(np.array_equal(part, before[name]) for name, part in frames(found, "all").items())


def test_a_recording_that_changed_is_encoded_again_where_it_is_asked_for(prepare, corpus, capsys):
    encode(prepare("all"))
    before, identity = frames(prepare("all"), "all"), prepare("all").identity
    corpus.record("en-002", tone(5, 1, 0.8))
    touched(corpus.path("fr-001"))
    capsys.readouterr()
    found = prepare("all", refresh=True)
    assert "warning" not in capsys.readouterr().out
    assert missing(found) == ["en-002", "fr-001"]
    assert found.work.missing["generation"].to_pylist() == [1, 1]
    encode(found)
    again = prepare("all", refresh=True)
    assert again.work is None
    assert again.identity == found.identity != identity
    index = committed.read_index(again.artifact).to_pylist()
    assert {entry["utterance_id"] for entry in index if entry["generation"] == 1} == {"en-002", "fr-001"}
    assert len(index) == 12
    after = frames(again, "all")
    assert after["en-002"].shape != before["en-002"].shape
    assert all(np.array_equal(after[name], part) for name, part in before.items() if name != "en-002")
    corpus.record("en-002", tone(2, 0, 0.4))
    third = prepare("all", refresh=True)
    assert dict(zip(missing(third), third.work.missing["generation"].to_pylist(), strict=True)) == {"en-002": 2}


@pytest.mark.slow
def test_a_segment_that_was_corrected_is_a_recording_that_changed(prepare, corpus, capsys):
    """Its file is the same; the part of it is another."""
    encode(prepare("all"))
    identity = prepare("all").identity
    corpus.edit("en-002", start=0.1, duration=0.2)
    capsys.readouterr()
    found = prepare("all")
    assert found.work is None
    assert "1 recordings have changed since 'mine' encoded them (en-002...)" in capsys.readouterr().out
    assert found.identity == identity  # of the frames that are read
    refreshed = prepare("all", refresh=True)
    assert missing(refreshed) == ["en-002"]
    encode(refreshed)
    assert prepare("all").work is None
    assert prepare("all").identity == refreshed.identity != identity
    recordings = prepare("all").recordings("all")
    assert dict(zip(ids(recordings), recordings["num_samples"].to_pylist(), strict=True))["en-002"] == 0.2 * RATE


def test_a_rejected_segment_is_tried_again_once_it_is_corrected(prepare, corpus):
    corpus.edit("en-005", start=9.0)
    corpus.edit("fr-005", start=9.0)
    encode(prepare("test", max_rejected=0.5))
    corpus.edit("en-005", start=0.1)
    found = prepare("test")
    assert missing(found) == ["en-005"]
    encode(found)
    assert ids(prepare("test").recordings("test")) == ["en-004", "en-005", "fr-004"]


def test_a_segment_that_is_corrected_after_too_many_were_rejected_is_encoded(prepare, corpus):
    corpus.edit("en-005", start=9.0)
    with pytest.raises(TooManyRejected, match="1 of 4 recordings are rejected"):
        encode(prepare("test"))
    corpus.edit("en-005", start=0.1)
    encode(prepare("test"))
    assert ids(prepare("test").recordings("test")) == ["en-004", "en-005", "fr-004", "fr-005"]


def test_a_result_of_a_refreshed_recording_is_another_one_even_if_it_is_as_long(prepare, corpus):
    """Bytes and text are the same, the sound is not: only the generation tells."""
    encode(prepare("all"))
    identity = prepare("all").identity
    size = corpus.path("en-002").stat().st_size
    corpus.record("en-002", tone(5, 1, 0.4))
    touched(corpus.path("en-002"))
    assert corpus.path("en-002").stat().st_size == size
    assert prepare("all", refresh=True).identity["rows"] != identity["rows"]


def test_a_rejected_recording_is_tried_again_once_its_file_is_another(prepare, corpus):
    corpus.spoil("en-005", "fr-005")
    encode(prepare("test", max_rejected=0.5))
    assert prepare("test").work is None
    corpus.record("en-005", tone(5, 0, 0.5))
    found = prepare("test")
    assert missing(found) == ["en-005"]
    assert found.work.missing["generation"].to_pylist() == [1]
    encode(found)
    assert ids(prepare("test").recordings("test")) == ["en-004", "en-005", "fr-004"]
    assert [bad["utterance_id"] for bad in pq.read_table(found.artifact.path("rejected.parquet")).to_pylist()] == [
        "fr-005"
    ]


def test_a_rejected_recording_that_is_still_bad_stops_no_job(prepare, corpus):
    """One of the 12 was allowed; tried again alone, it is all that the run has."""
    corpus.spoil("en-005")
    encode(prepare("all", max_rejected=0.1))
    corpus.path("en-005").write_bytes(b"still no sound")
    found = prepare("test", max_rejected=0.1)
    assert missing(found) == ["en-005"]
    encode(found)
    assert prepare("test", max_rejected=0.1).work is None
    assert ids(prepare("test").recordings("test")) == ["en-004", "fr-004", "fr-005"]


def test_a_small_split_with_one_bad_recording_is_added(prepare, corpus):
    corpus.spoil("en-003")
    encode(prepare("train", "test", max_rejected=0.1))
    encode(prepare("dev", max_rejected=0.1))
    assert ids(prepare("dev").recordings("dev")) == ["fr-003"]


def test_a_recording_that_was_missing_is_encoded_once_it_is_there(prepare, corpus):
    sound = corpus.path("fr-005").read_bytes()
    corpus.path("fr-005").unlink()
    found = prepare("test", max_rejected=0.5)
    assert found.work.missing["bytes"].null_count == 1
    encode(found)
    (rejected,) = pq.read_table(found.artifact.path("rejected.parquet")).to_pylist()
    assert rejected["reason"] == f"missing: no file {corpus.path('fr-005')}"
    assert prepare("test").work is None
    corpus.path("fr-005").write_bytes(sound)
    assert missing(prepare("test")) == ["fr-005"]


def test_an_encoded_recording_needs_its_file_no_more(prepare, corpus, capsys):
    """Shards are all that is read: the audio may be deleted."""
    encode(prepare("all"))
    identity = prepare("all").identity
    for path in corpus.folder.glob("*.wav"):
        path.unlink()
    capsys.readouterr()
    for refresh in (False, True):
        found = prepare("all", refresh=refresh)
        assert (found.work, found.identity) == (None, identity)
    assert "warning" not in capsys.readouterr().out


def test_more_missing_files_than_may_be_rejected_stop_the_job_before_work(prepare, corpus, tmp_path):
    corpus.path("en-004").unlink()
    message = (
        f"1 of 4 recordings are missing, such as {corpus.path('en-004')}; mount or copy the audio, or correct the "
        "corpus; the maximum fraction is --embed.max-rejected 0.2"
    )
    with pytest.raises(TooManyRejected, match=re.escape(message)):
        prepare("test", max_rejected=0.2)
    assert not (tmp_path / "runs").exists()
    assert missing(prepare("test", max_rejected=0.25)) == ["en-004", "en-005", "fr-004", "fr-005"]


def test_what_is_mended_after_too_many_were_rejected_is_encoded(prepare, corpus):
    """The units of the refused run are done, but nothing of what they rejected may stay."""
    corpus.spoil("en-005", "fr-004")
    with pytest.raises(TooManyRejected, match="2 of 4 recordings are rejected"):
        encode(prepare("test"))
    found = prepare("test")
    assert not found.artifact.is_complete
    kept = {unit: os.stat(found.artifact.path(f"data/{unit}.parquet")).st_mtime_ns for unit in found.artifact.done()}
    with pytest.raises(TooManyRejected, match="2 of 4 recordings are rejected"):
        encode(prepare("test"))
    for unit, date in kept.items():
        assert os.stat(found.artifact.path(f"data/{unit}.parquet")).st_mtime_ns == date
    corpus.record("en-005", tone(5, 0, 0.5))
    corpus.record("fr-004", tone(4, 1, 0.5))
    mended = prepare("test")
    encode(mended)
    assert ids(prepare("test").recordings("test")) == ["en-004", "en-005", "fr-004", "fr-005"]
    assert prepare("test").identity == mended.identity
    assert pq.read_table(found.artifact.path("rejected.parquet")).num_rows == 0


def test_a_share_that_is_allowed_later_needs_no_encoding(prepare, corpus):
    corpus.spoil("en-005")
    with pytest.raises(TooManyRejected):
        encode(prepare("test"))
    artifact = prepare("test").artifact
    before = {unit: os.stat(artifact.path(f"data/{unit}.parquet")).st_mtime_ns for unit in artifact.done()}
    encode(prepare("test", max_rejected=0.25))
    assert {unit: os.stat(artifact.path(f"data/{unit}.parquet")).st_mtime_ns for unit in artifact.done()} == before
    assert artifact.is_complete


@pytest.mark.slow
@pytest.mark.parametrize("kills", [(1,), (0, 2, 1), (3, 3)])
def test_a_run_that_is_killed_and_resumed_leaves_what_a_calm_one_leaves(prepare, kills):
    calm = encode(prepare("all", name="calm"))
    names = {file.rsplit("/", 1)[1]: pq.read_table(file) for file in calm.files()}
    index = committed.read_index(calm)
    for file in (*calm.files(), calm.path("manifest.json"), calm.path("config.json"), calm.path("index.parquet")):
        os.unlink(file)
    for num in kills:
        with pytest.raises(Killed):
            encode(prepare("all", name="calm"), most_units=num)
    resumed = encode(prepare("all", name="calm"))
    assert {file.rsplit("/", 1)[1]: pq.read_table(file) for file in resumed.files()} == names
    assert committed.read_index(resumed).equals(index)


def zeroed(artifact, relative):
    """As a crash leaves a file whose name was written and whose bytes were not."""
    path = Path(artifact.path(relative))
    path.write_bytes(bytes(path.stat().st_size))


def crashed(embeddings, *, most_units):
    """A run that was killed after so many units; its artifact, and the names of these units."""
    with pytest.raises(Killed):
        encode(embeddings, most_units=most_units)
    return embeddings.artifact, sorted(embeddings.artifact.done())


def rows_of(artifact):
    """The rows of all shards that are there, whatever their names."""
    rows = [row for file in Path(artifact.path("data")).iterdir() for row in pq.read_table(file).to_pylist()]
    return sorted(rows, key=lambda row: row["utterance_id"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damaged", "sums", "added"),
    [("begun", "whole", False), ("part", "whole", False), ("part", "zeroed", True), ("both", "zeroed", True)],
)
def test_what_a_crash_damaged_is_made_again_and_nothing_else(prepare, damaged, sums, added):
    """Also its checksums may be lost; and what was committed before the run stays as it is."""
    calm = encode(prepare("train", "dev", name="calm"))
    expected = rows_of(calm)
    for file in (*calm.files(), calm.path("manifest.json"), calm.path("config.json"), calm.path("index.parquet")):
        os.unlink(file)
    earlier = {}
    if added:
        artifact = encode(prepare("dev", name="calm"))
        earlier = {file: os.stat(file).st_mtime_ns for file in artifact.files()}
    artifact, done = crashed(prepare("train", "dev", name="calm"), most_units=3)
    fresh = [unit for unit in done if artifact.path(f"data/{unit}.parquet") not in earlier]
    lost, *kept = fresh
    files = {"begun": ["begun.parquet"], "part": [f"parts/{lost}.parquet"]}
    for file in files.get(damaged, [*files["begun"], *files["part"]]):
        zeroed(artifact, file)
        if sums == "zeroed":
            zeroed(artifact, f"sums/{file}.json")
    before = {unit: os.stat(artifact.path(f"data/{unit}.parquet")).st_mtime_ns for unit in kept}
    found = prepare("train", "dev", name="calm")
    found.artifact.begin()
    resume.drop_damaged(found.artifact)
    resumed = encode(found)
    assert rows_of(resumed) == expected
    assert {file.stem for file in Path(resumed.path("data")).iterdir()} == committed.units(resumed)
    assert {unit: os.stat(resumed.path(f"data/{unit}.parquet")).st_mtime_ns for unit in kept} == before
    assert {file: os.stat(file).st_mtime_ns for file in earlier} == earlier
    assert prepare("train", "dev", name="calm").work is None
    assert prepare("train", "dev", name="calm").recordings("train").num_rows == 6
    assert not resumed.damage(verify=True)


class Cut(BaseException):
    """Stands for the end of a process."""


@pytest.mark.slow
@pytest.mark.parametrize("last", ["index.parquet", "rejected.parquet", "metrics.json"])
def test_a_run_that_is_killed_while_it_commits_costs_nothing(prepare, corpus, monkeypatch, last):
    """What was committed before it can be read all the time, its rejected recordings too."""
    corpus.spoil("en-005")
    encode(prepare("test", max_rejected=0.5))
    before = committed.read_index(prepare("test").artifact)
    write = storage.write_bytes

    def cut(uri, data):
        write(uri, data)
        if uri.endswith(f"mine/{last}"):
            raise Cut

    with monkeypatch.context() as patched:
        patched.setattr(storage, "write_bytes", cut)
        with pytest.raises(Cut):
            encode(prepare("all"))
    for _ in range(2):
        found = prepare("all")
        assert committed.read_index(found.artifact).equals(before)
        assert missing(found) == [f"{code}-{k:03d}" for code in ("en", "fr") for k in range(4)]
        assert ids(found.only("all").recordings("all")) == ["en-004", "fr-004", "fr-005"]
        found.artifact.begin()  # deletes what is not as it was committed; killed again
        resume.drop_damaged(found.artifact)
    stamps = {file: file.stat().st_mtime_ns for file in Path(found.artifact.path("data")).iterdir()}
    encode(found)
    assert {file: file.stat().st_mtime_ns for file in Path(found.artifact.path("data")).iterdir()} == stamps
    assert prepare("all").work is None
    assert prepare("all").recordings("all").num_rows == 11
    assert not found.artifact.has("committed")
    (rejected,) = pq.read_table(found.artifact.path("rejected.parquet")).to_pylist()
    assert rejected["utterance_id"] == "en-005"


def test_an_index_that_is_lost_leaves_no_shards_that_nobody_knows(prepare, monkeypatch):
    """Sizes and dates of the files that were encoded stand in the index alone."""
    artifact = encode(prepare("all"))
    zeroed(artifact, "index.parquet")
    monkeypatch.setattr("xlt_ray.store.manifest._CHECKED_BYTES", 0)  # as of a large index: only its size is checked
    with pytest.raises(Damaged, match=r"index\.parquet"):
        prepare("all", embeddings="mine")
    with pytest.raises(Damaged, match=r"index\.parquet"):
        open_embeddings(artifact.uri)
    encode(prepare("all"))
    assert prepare("all").recordings("all").num_rows == 12
    assert {file.stem for file in Path(artifact.path("data")).iterdir()} == committed.units(artifact)


def test_a_run_that_is_resumed_for_another_split_keeps_what_is_done(prepare):
    with pytest.raises(Killed):
        encode(prepare("all"), most_units=3)
    done = {
        unit: os.stat(prepare("all").artifact.path(f"data/{unit}.parquet")).st_mtime_ns
        for unit in (prepare("all").artifact.done())
    }
    assert len(done) == 3
    artifact = encode(prepare("test"))
    files = {file.rsplit("/", 1)[1].removesuffix(".parquet"): file for file in artifact.files()}
    assert {unit: os.stat(files[unit]).st_mtime_ns for unit in done} == done
    assert set(ids(prepare("test").recordings("test"))) == {"en-004", "en-005", "fr-004", "fr-005"}
    encode(prepare("all"))
    assert prepare("all").recordings("all").num_rows == 12


def test_embeddings_are_found_under_another_name(prepare, capsys):
    artifact = encode(prepare("all", name="first"))
    capsys.readouterr()
    found = prepare("test", name="second")
    assert (found.name, found.work) == ("first", None)
    assert capsys.readouterr().out == "embeddings: first (same corpus, model and encoding)\n"
    assert prepare("test", name="second", embeddings="first").artifact.uri == artifact.uri
    # Of fewer languages, or of more: a corpus is the same one.
    assert prepare("test", name="second", languages=("fr",)).name == "first"


def test_what_is_missing_is_added_to_the_artifact_that_is_found(prepare, tmp_path):
    encode(prepare("test", name="first"))
    found = prepare("train", name="second")
    assert (found.name, len(missing(found))) == ("first", 6)
    encode(found)
    assert not (tmp_path / "runs/embed/second").exists()
    assert prepare("train", name="second").work is None


def test_rows_that_are_added_keep_the_layers_of_the_others(prepare):
    """Also where the job that adds them needs none: every shard of an artifact has the same columns."""
    encode(prepare("test", name="deep", layers=(0, 1)))
    artifact = encode(prepare("train"))
    assert artifact.name == "deep"
    columns = {tuple(pq.read_schema(file).names) for file in artifact.files()}
    assert len(columns) == 1
    assert {"frames", "frames_layer_0", "frames_layer_1"} <= set(*columns)


def test_more_layers_than_are_asked_for_do_no_harm_and_fewer_do(prepare):
    encode(prepare("test", name="deep", layers=(0, 1)))
    assert prepare("test", layers=(1,)).name == "deep"
    assert prepare("test").name == "deep"
    encode(prepare("test", name="flat", keep_margin=100))
    assert prepare("test", keep_margin=100, layers=(0,)).name == "mine"
    with pytest.raises(UserError, match=r"--embed.layers \[2\]: .* has blocks 0 to 1"):
        prepare("test", layers=(2,))


def test_the_jobs_own_name_comes_first_then_the_one_with_most_of_the_rows(prepare, tmp_path):
    encode(prepare("all", name="large"))
    os.rename(tmp_path / "runs/embed/large", tmp_path / "aside")
    encode(prepare("test", name="small"))
    os.rename(tmp_path / "aside", tmp_path / "runs/embed/large")
    assert prepare("all", name="third").name == "large"
    assert prepare("test", name="small").name == "small"
    own = prepare("all", name="small")
    assert (own.name, len(missing(own))) == ("small", 8)


@pytest.mark.parametrize(
    "other", [{"keep_margin": 7}, {"encoding": "trimmed"}, {"split_long": True}, {"languages": ("en",)}]
)
def test_embeddings_of_another_kind_are_not_taken(prepare, other, tmp_path):
    """Another encoding is other frames; another language is the same corpus, of which more is missing."""
    encode(prepare("test", name="first", **other))
    found = prepare("test", name="second")
    if "languages" in other:
        assert (found.name, missing(found)) == ("first", ["fr-004", "fr-005"])
    else:
        assert (found.name, len(missing(found))) == ("second", 4)


def test_another_corpus_is_not_taken(prepare, tmp_path):
    encode(prepare("test", name="first"))
    copy = Corpus(tmp_path / "copy")
    assert prepare("test", name="second", spec=copy.spec).name == "second"


def test_what_is_not_finished_under_another_name_is_not_taken(prepare):
    """Its run may still be going on."""
    with pytest.raises(Killed):
        encode(prepare("all", name="first"), most_units=2)
    assert prepare("all", name="second").name == "second"
    own = prepare("all", name="first")
    assert own.name == "first"
    encode(own)
    assert prepare("all", name="second").name == "first"


def test_a_name_that_is_taken_by_another_encoding_is_refused(prepare):
    prepare("test").artifact.begin()
    with pytest.raises(
        UserError, match=r"embed/mine was made with other settings \(encoding\.keep_margin: 200 stored,"
    ):
        prepare("test", keep_margin=7)
    with pytest.raises(
        UserError, match=r"embed/mine was made with other settings \(layers: \[\] stored, \[1\] given\)"
    ):
        prepare("test", layers=(1,))
    # Unless there is one that serves.
    encode(prepare("test", name="wide", keep_margin=7))
    assert prepare("test", keep_margin=7).name == "wide"


def other_model(model, folder):
    tiny_whisper(folder)
    state = load_file(folder / "model.safetensors")
    state["model.encoder.layer_norm.bias"] += 1
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    return folder


def test_a_name_that_is_taken_by_another_model_is_refused(prepare, corpus, model, tmp_path):
    encode(prepare("test"))
    config = EmbedConfig(rows_per_shard=2)
    job = EmbedJob(
        root=str(tmp_path / "runs"),
        name="mine",
        corpus=corpus.spec,
        languages=("en", "fr"),
        model=str(other_model(model, tmp_path / "other")),
        embed=config,
    )
    taken = (
        r"embed/mine was made with other settings \(model\.sha256: \"\w+.* stored, \"\w+.* given\); choose another --na"
    )
    with pytest.raises(UserError, match=taken) as error:
        plan.prepare(job, config, ["test"])
    assert "\n" not in str(error.value)
    assert plan.prepare(dataclasses.replace(job, name="new"), config, ["test"]).name == "new"
    with pytest.raises(UserError, match="embed artifact 'mine' was made with another model than --model"):
        plan.prepare(job, config, ["test"], name="mine")


def test_a_named_artifact_is_read_as_it_is(prepare, corpus):
    """Its corpus may be gone."""
    encode(prepare("test", "dev"))
    corpus.edit("en-004", text="later")
    found = prepare("test", embeddings="mine", languages=("fr", "en"), spec="manifest:/gone.tsv")
    assert found.work is None
    assert ids(found.recordings("test")) == ["fr-004", "fr-005", "en-004", "en-005"]
    assert found.rows("test")["text"].to_pylist()[2] == "sentence 4"
    with pytest.raises(UserError, match="no recording is of split 'train'; the corpus has dev, test"):
        prepare("train", embeddings="mine")
    with pytest.raises(UserError, match="embed artifact 'mine' has no it; --languages can be en,fr"):
        prepare("test", embeddings="mine", languages=("en", "it"))
    with pytest.raises(UserError, match="no finished embed artifact 'none'"):
        prepare("test", embeddings="none")


def test_settings_of_the_first_run_are_those_of_the_artifact(prepare):
    """Shards stay as large as they were begun, whoever goes on with them."""
    with pytest.raises(Killed):
        encode(prepare("all"), most_units=1)
    artifact = encode(prepare("all", rows_per_shard=5))
    assert artifact.settings["embed"]["rows_per_shard"] == 2
    assert {pq.read_metadata(file).num_rows for file in artifact.files()} <= {1, 2}


def test_a_job_records_what_it_was_asked_and_not_what_began_the_embeddings(prepare, corpus, monkeypatch):
    """Else `--config` would give it other sentences than it had, or a corpus that is named from another directory."""
    encode(prepare("all", num_sentences=3, max_rejected=0.5))
    monkeypatch.chdir(corpus.folder)
    found = prepare("test", spec="manifest:manifest.jsonl", num_sentences=2)
    assert found.artifact.is_complete
    assert found.settings["corpus"] == "manifest:manifest.jsonl"
    assert found.settings["embed"] == dataclasses.asdict(EmbedConfig(rows_per_shard=2, num_sentences=2))
    named = prepare("all", embeddings="mine", spec="manifest:elsewhere.jsonl", encoding="trimmed").settings
    assert named["corpus"] == corpus.spec
    assert named["embed"] == dataclasses.asdict(EmbedConfig(rows_per_shard=2)) | {"layers": []}


def test_recordings_that_no_split_can_reach_are_counted(prepare, corpus, capsys):
    prepare("test")
    assert "warning" not in capsys.readouterr().out
    for name in ("en-000", "fr-000", "fr-001"):
        del corpus.rows[name]["split"]
    corpus.write()
    assert len(ids(prepare("test", "train").all_rows)) == 7
    assert "warning: 3 of 12 recordings name no split (en-000...) and are not read, because" in capsys.readouterr().out
    assert len(ids(prepare("all").all_rows)) == 12
    for each in corpus.rows.values():
        each.pop("split", None)
    corpus.write()
    prepare("test")
    assert "warning" not in capsys.readouterr().out


def test_a_split_that_is_needed_twice_is_read_once(prepare, tmp_path):
    """Of a corpus with a file for each split: as a search reads that is tested on its dev split."""
    for split, recordings in (("train", (1, 2)), ("test", (3,)), ("dev", (4,))):
        rows = [fleurs_row(number, number, f"Sentence {number}.") for number in recordings]
        write_fleurs_parquet(tmp_path / "fleurs", "en_us", split.replace("dev", "validation"), rows)
    found = prepare("train", "test", "test", languages=("en",), spec=f"fleurs:{tmp_path}/fleurs")
    assert {split: part["num_rows"] for split, part in found.identity["rows"].items()} == {"train": 2, "test": 1}
    assert len(missing(found)) == 3
    every = prepare("all", "test", languages=("en",), spec=f"fleurs:{tmp_path}/fleurs")
    assert {split: part["num_rows"] for split, part in every.identity["rows"].items()} == {"all": 4, "test": 1}


def test_another_model_is_named(tmp_path):
    rows = [Utterance(utterance_id="a", sentence_id="s", language="en", audio="/a")]
    artifact = embedded.write(tmp_path, "speech", rows, sha256="abc", model="base")
    plan.require_model(artifact, "abc", "mine")
    with pytest.raises(UserError, match=r"embed artifact 'speech' was made with another model .*'mine'.*'base'"):
        plan.require_model(artifact, "xyz", "mine")


@pytest.mark.parametrize(
    ("encoding", "keep", "context", "warns"),
    [
        ("exact", 149, 100, True),
        ("exact", 150, 100, False),
        ("exact", "all", 100, False),
        ("trimmed", "all", 299, True),
        ("trimmed", 299, 500, True),
        ("trimmed", 300, 300, False),
    ],
)
def test_too_little_silence_is_said(prepare, capsys, encoding, keep, context, warns):
    plan.warn_of_loops(prepare("test", encoding=encoding, keep_margin=keep, context_margin=context))
    assert ("the decoder may repeat itself" in capsys.readouterr().out) == warns
