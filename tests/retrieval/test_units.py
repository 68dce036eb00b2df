"""How the score matrix is cut, and how strips are read."""

import embedded
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlt_ray.embed import committed
from xlt_ray.embed.config import EmbedConfig
from xlt_ray.retrieval import units
from xlt_ray.store.schema import Utterance


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 70), st.integers(1, 70))
def test_units_hold_every_pair_once(num_rows, num_columns, block, other):
    seen = np.zeros((num_rows, num_columns), int)
    found = units.cut(("en", "fr"), (num_rows, num_columns), (block, other))
    for unit in found:
        seen[slice(*unit.rows), slice(*unit.columns)] += 1
    assert (seen == 1).all()
    assert sum(unit.num_pairs for unit in found) == seen.size
    assert len({unit.name for unit in found}) == len(found)


def test_a_unit_travels_as_a_row_of_a_table():
    unit = units.Unit(("en", "fr"), (0, 8), (16, 20))
    row = {"pair": ["en", "fr"], "rows": [0, 8], "columns": [16, 20]}
    assert units.Unit.from_row(pa.Table.from_pylist([row]).to_pylist()[0]) == unit


@pytest.mark.parametrize(
    ("num", "strip", "bytes_each", "block"),
    [
        (16_000, 256, 100_000, 2048),  # 63 strips: 8 blocks of 8
        (8_130, 256, 100_000, 1536),  # 32 strips: 6 blocks of 6
        (763, 256, 100_000, 512),
        (200, 256, 100_000, 256),
        (16_000, 256, 2_500_000, 768),  # 3 strips are 1.9 GB
        (16_000, 256, 50_000_000, 256),  # one is 12.8 GB; a unit has at least that
    ],
)
def test_a_block_is_the_square_root_of_the_strips_if_it_can_be_held(num, strip, bytes_each, block):
    found = units.extent(num, strip, bytes_each)
    assert found.block == block
    num_blocks = -(-num // block)
    assert block * (num_blocks - 1) < num


@given(st.integers(1, 10**6), st.integers(1, 5000), st.floats(1, 1e7))
def test_a_block_is_whole_strips_and_bounded(num, strip, bytes_each):
    block = units.extent(num, strip, bytes_each).block
    assert block % strip == 0
    assert block == strip or block * bytes_each <= units.HELD_BYTES * (1 + 1e-9)
    assert block - strip < (num * strip) ** 0.5 + strip


def test_only_the_rows_that_are_asked_for_are_read_and_only_their_speech(tmp_path):
    """Of two recordings a shard, in an order of its own."""
    generator = np.random.default_rng(0)
    frames = {f"it{n}": generator.normal(size=(2, n + 4, 8)).astype(np.float16) for n in range(6)}
    rows = [Utterance(utterance_id=name, sentence_id=name, language="it", audio="/x.wav") for name in frames]

    def layers_of(row):
        return dict(zip((None, 1), frames[row.utterance_id], strict=True))

    artifact = embedded.write(
        tmp_path, "x", rows, layers_of, config=EmbedConfig(layers=(1,)), num_silent=3, rows_per_unit=2
    )
    index = committed.read_index(artifact)
    for layer, place in ((None, 0), (1, 1)):
        read = units.read_strip(artifact.uri, index.take([5, 1, 3]), layer)
        assert read.lengths == (6, 2, 4)
        expected = np.concatenate([frames[f"it{n}"][place][:-3] for n in (5, 1, 3)])
        np.testing.assert_array_equal(read.data.numpy(), expected)
        np.testing.assert_allclose(np.linalg.norm(read.frames.data.numpy(), axis=1), 1, rtol=1e-5)
    assert units.bytes_each(artifact.uri, index) == 2 * 8 * np.mean([n + 1 for n in range(6)])
