"""The imitations of public corpora that the rehearsal reads: each is read as its kind, with the rows it should have."""

import soundfile
from ray_speech import write_manifest

from benchmarks.rehearsal import corpora as imitations
from xlt_ray import corpora


def test_every_imitation_is_read_as_the_corpus_it_imitates(tmp_path, monkeypatch):
    speech = list(corpora.read(f"manifest:{write_manifest(tmp_path, ['en', 'fr'], 2)}", ["en", "fr"], None))
    with monkeypatch.context() as patched:
        patched.setattr(imitations, "NUM_CLIPS", 3)
        patched.setattr(corpora, "read", lambda *_: speech)  # the demo's is not read by tests
        clips = imitations.cut_clips(tmp_path / "clips", "wav")
    lengths = [len(sound) / imitations.RATE for sound, _ in map(soundfile.read, clips)]
    assert len(clips) == 3
    assert all(0.3 <= length <= 1 for length in lengths)
    scale = 0.001
    for name in ("fleurs", "covost2", "mass"):
        getattr(imitations, f"write_{name}")(tmp_path / name, clips, scale)
    num_rows = {}
    for name, codes, split in (
        ("fleurs", ["en", "zh"], "train"),
        ("covost2", ["en"], "dev"),
        ("mass", ["en", "fr"], None),
    ):
        rows = list(corpora.read(f"{name}:{tmp_path / name}", codes, split))
        num_rows[name] = len(rows)
        assert {row.language for row in rows} == set(codes)
        assert all(row.text for row in rows)
    # 3 of 3,000 recordings in each of two languages; 16 of 15,500 clips; a verse in each of 30 chapters.
    assert num_rows == {"fleurs": 2 * 3, "covost2": 16, "mass": 2 * 30}
