"""What a run adds to the index and the rejected rows of an artifact, against naive loops over rows."""

from collections import Counter

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlt_ray.embed import results
from xlt_ray.embed.unit import PART
from xlt_ray.errors import TooManyRejected
from xlt_ray.store.schema import INDEX, REJECTED


def row(utterance_id, unit, place, reason=None, **fields):
    """A row of PART: encoded at a place, or rejected."""
    counts = dict.fromkeys(("row", "num_samples", "num_valid", "num_frames"))
    if reason is None:
        counts = {"row": place, "num_samples": 16_000 * (place + 1), "num_valid": 50, "num_frames": 250}
    ids = {"utterance_id": utterance_id, "sentence_id": "s", "language": utterance_id[:2], "audio": "/x", "member": ""}
    ids |= {"start": None, "duration": None}
    rest = {"text": None, "translations": [], "speaker": None, "split": None, "bytes": 7, "modified": "1"}
    return ids | rest | counts | {"unit": unit, "generation": 0, "reason": reason} | fields


def parts_of(rows):
    return pa.Table.from_pylist(rows, schema=PART)


IDS = [f"{code}-{number}" for code in ("en", "fr") for number in range(5)]
REASONS = (None, None, "silent: all of it", "missing: no file /x", "too long: 31.0 s")


@st.composite
def histories(draw):
    """The rows of up to four runs; each encodes some recordings, those of earlier runs among them, in its own units."""
    runs = []
    for number in range(draw(st.integers(1, 4))):
        chosen = draw(st.lists(st.sampled_from(IDS), unique=True, min_size=1))
        runs.append(
            [
                row(
                    utterance_id,
                    f"u{number}-{place // 3}",
                    place % 3,
                    draw(st.sampled_from(REASONS)),
                    generation=number,
                )
                for place, utterance_id in enumerate(chosen)
            ]
        )
    return runs


def joined(runs):
    index, rejected = INDEX.empty_table(), REJECTED.empty_table()
    for rows in runs:
        index, rejected = results.joined(index, rejected, parts_of(rows))
    return index, rejected


@given(histories())
def test_of_each_recording_the_last_run_counts(runs):
    last = {found["utterance_id"]: found for rows in runs for found in rows}
    index, rejected = joined(runs)
    assert index.schema == INDEX
    expected = sorted(last.values(), key=lambda found: (found["unit"], found["utterance_id"]))
    assert index.to_pylist() == [{name: found[name] for name in INDEX.names} for found in expected]
    bad = sorted((found for found in last.values() if found["reason"]), key=lambda found: found["utterance_id"])
    assert rejected.to_pylist() == [{name: found[name] for name in REJECTED.names} for found in bad]


@given(histories())
def test_a_row_is_in_a_shard_or_rejected_and_never_both(runs):
    index, rejected = joined(runs)
    without = [found["utterance_id"] for found in index.to_pylist() if found["row"] is None]
    assert sorted(without) == rejected["utterance_id"].to_pylist()


@given(histories())
def test_metrics_are_those_of_naive_sums(runs):
    index, rejected = joined(runs)
    metrics = results.summarise(index, rejected)
    kept = [found for found in index.to_pylist() if found["row"] is not None]
    for code in {found["language"] for found in index.to_pylist()}:
        mine = [found for found in kept if found["language"] == code]
        assert metrics["languages"][code] == {
            "num_utterances": len(mine),
            "seconds": sum(found["num_samples"] for found in mine) / 16_000,
            "num_rejected": sum(bad["language"] == code for bad in rejected.to_pylist()),
            "splits": {"none": len(mine)} if mine else {},
        }
    assert metrics["reasons"] == Counter(bad["reason"].split(":")[0] for bad in rejected.to_pylist())


def test_recordings_are_counted_by_split():
    rows = [row(f"en-{n}", "u", n, split=split) for n, split in enumerate(["test", None, "dev", "test"])]
    index, rejected = joined([rows])
    assert results.summarise(index, rejected)["languages"]["en"]["splits"] == {"dev": 1, "none": 1, "test": 2}


NONE = INDEX.empty_table()


def run_of(num_good, *reasons):
    good = [row(f"en-{number}", "u", number) for number in range(num_good)]
    return parts_of(good + [row(f"fr-{number}", "u", 0, reason) for number, reason in enumerate(reasons)])


@given(st.integers(0, 30), st.integers(0, 6), st.sampled_from([0.0, 0.05, 0.1, 0.5, 1.0]))
def test_a_run_is_refused_above_the_share(num_good, num_bad, most):
    parts = run_of(num_good, *["silent: x"] * num_bad)
    if num_bad and num_bad / (num_good + num_bad) > most:
        with pytest.raises(TooManyRejected):
            results.require_few_rejected(parts, NONE, most)
    else:
        results.require_few_rejected(parts, NONE, most)


def test_the_reasons_are_named_and_what_would_allow_them():
    parts = run_of(16, "silent: x", "missing: no file /a", "silent: y", "silent: z")
    with pytest.raises(TooManyRejected) as error:
        results.require_few_rejected(parts, NONE, 0.05)
    assert str(error.value) == (
        "4 of 20 recordings are rejected (silent 3, missing 1), such as fr-0: silent: x; nothing is committed; mend "
        "the corpus (embed.py --check lists all), or allow more: --embed.max-rejected 0.20"
    )
    assert error.value.exit_code == 3


@given(histories(), st.sampled_from([0.0, 0.1, 0.3, 0.5]))
def test_a_run_is_measured_with_all_that_is_committed(runs, most):
    *before, last = runs
    index, _ = joined(before)
    after, rejected = joined(runs)
    share = rejected.num_rows / after.num_rows
    share_before = index["row"].null_count / max(1, index.num_rows)
    if share > most and share > share_before:
        with pytest.raises(TooManyRejected) as error:
            results.require_few_rejected(parts_of(last), index, most)
        assert str(error.value).startswith(f"{rejected.num_rows} of {after.num_rows} recordings are rejected")
        results.require_few_rejected(parts_of(last), index, float(str(error.value).rsplit(" ", 1)[1]))
    else:
        results.require_few_rejected(parts_of(last), index, most)


def test_how_many_this_run_rejects_is_named():
    index, _ = joined([[row("en-0", "u", 0), row("en-1", "u", 0, "silent: x")]])
    with pytest.raises(TooManyRejected, match=r"^3 of 4 recordings are rejected, 2 of them in this run \(silent 2\)"):
        results.require_few_rejected(run_of(0, "silent: y", "silent: z"), index, 0.05)


@given(st.integers(1, 400), st.integers(1, 60))
def test_the_share_that_is_named_allows_the_run(num_good, num_bad):
    """Else a user would follow the advice in vain."""
    parts = run_of(num_good, *["silent: x"] * num_bad)
    with pytest.raises(TooManyRejected) as error:
        results.require_few_rejected(parts, NONE, 0.0)
    results.require_few_rejected(parts, NONE, float(str(error.value).rsplit(" ", 1)[1]))
