import struct

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_scale.data import index_block
from ssl_scale.data.index_block import DamagedError, decode_block, encode_block
from ssl_scale.data.samples import ShardIndex
from ssl_scale.errors import DataError

KEYS = st.one_of(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8),
    st.integers(0, 10**9).map(str),
    st.integers(0, 99).map(lambda n: f"a/{n:05d}_x"),
    st.integers(0, 10**25).map(str),
)
LENGTHS = st.one_of(st.just(-1), st.integers(0, 2000), st.integers(0, 2**31 - 1))


@st.composite
def shards(draw: st.DrawFn) -> tuple[ShardIndex, int]:
    """Samples as they may lie in an archive: members missing, gaps of any size, in any order."""
    keys = draw(st.lists(KEYS, min_size=1, max_size=12, unique=True))
    names = draw(st.lists(st.sampled_from(["jpg", "cls", "seg.png", "ä"]), min_size=1, unique=True))
    offsets = {name: np.zeros(len(keys), np.int64) for name in names}
    lengths = {name: np.full(len(keys), -1, np.int32) for name in names}
    end = 0
    for row in range(len(keys)):
        for name in draw(st.permutations(names)):
            length = draw(LENGTHS)
            if length >= 0 or (name == names[0] and (row == 0 or lengths[name][:row].max() < 0)):
                start = end + 512 * draw(st.sampled_from([1, 1, 1, 3, 2**31]))
                offsets[name][row], lengths[name][row] = start, max(length, 0)
                end = start + -(-max(length, 0) // 512) * 512
    used = [name for name in names if lengths[name].max() >= 0]
    checks = {name: draw_checks(lengths[name], end) for name in used}
    return ShardIndex(
        keys, {n: offsets[n] for n in used}, {n: lengths[n] for n in used}, checks
    ), end


def draw_checks(lengths: np.ndarray, seed: int) -> np.ndarray:
    """Any 16 bits for each member, 0 where there is none."""
    checks = np.random.default_rng(seed).integers(0, 1 << 16, len(lengths), dtype=np.uint16)
    return np.where(lengths < 0, np.uint16(0), checks)


@settings(deadline=None, max_examples=150)
@given(shards())
def test_a_block_gives_back_what_it_was_made_of(made: tuple[ShardIndex, int]) -> None:
    index, end = made
    found = decode_block(encode_block(index), [*index.lengths, "none"], len(index), end)
    assert list(found.keys) == list(index.keys)
    assert found.keys[-1] == index.keys[-1] and found.keys[1:] == list(index.keys)[1:]
    assert set(found.lengths) == set(index.lengths)
    for name in index.lengths:
        assert found.lengths[name].tolist() == index.lengths[name].tolist()
        assert found.offsets[name].tolist() == index.offsets[name].tolist()
        assert found.checks[name].tolist() == index.checks[name].tolist()


def usual(samples: int, keys: list[str] | None = None) -> tuple[ShardIndex, int]:
    """An archive as tools write it: members in order, one header each."""
    sizes = np.array([[1, 12_000 + n % 50_000, 80 + n % 150] for n in range(samples)])
    steps = 512 + -(-sizes // 512) * 512
    offsets = steps.cumsum().reshape(sizes.shape) - steps + 512
    names = ("cls", "jpg", "txt")
    return (
        ShardIndex(
            keys or [f"{n:09d}" for n in range(samples)],
            {name: offsets[:, place] for place, name in enumerate(names)},
            {name: sizes[:, place].astype(np.int32) for place, name in enumerate(names)},
            {name: draw_checks(sizes[:, place], place) for place, name in enumerate(names)},
        ),
        int(steps.sum()),
    )


@pytest.mark.parametrize(
    ("key", "most"),
    [
        ("n{:06d}", 9.2),  # counting up: nothing
        ("{}", 9.2),
        ("img-{:05d}.large", 9.2),
    ],
)
def test_usual_samples_cost_what_their_lengths_and_checksums_do(key: str, most: float) -> None:
    index, _ = usual(1000, [key.format(n) for n in range(1000)])
    assert len(encode_block(index)) / 1000 < most


def test_numbers_in_no_order_cost_their_digits() -> None:
    numbers = np.random.default_rng(0).permutation(10**7)[:1000]
    index, _ = usual(1000, [f"coco/{n:012d}" for n in numbers])
    assert len(encode_block(index)) / 1000 < 12.2


def test_a_sample_without_a_field_makes_the_others_no_longer() -> None:
    index, end = usual(1000)
    lengths = {name: values.copy() for name, values in index.lengths.items()}
    lengths["cls"][::3] = -1
    thin = ShardIndex(index.keys, index.offsets, lengths, index.checks)
    block = encode_block(thin)
    assert len(block) / 1000 < 12.5
    found = decode_block(block, ["cls", "txt"], 1000, end)
    assert found.offsets["txt"].tolist() == index.offsets["txt"].tolist()
    assert found.offsets["cls"][1:3].tolist() == index.offsets["cls"][1:3].tolist()


def sealed(body: bytes) -> bytes:
    return struct.pack("<Q", xxhash.xxh3_64_intdigest(body)) + body


@settings(deadline=None, max_examples=400)
@given(st.integers(0, 10**6), st.integers(0, 255), st.booleans())
def test_a_hostile_block_is_refused_or_stays_within_the_shard(
    place: int, value: int, cut: bool
) -> None:
    index, end = usual(20, [f"{n}-{n * n}" for n in range(20)])
    body = bytearray(encode_block(index)[8:])
    place %= len(body)
    body[place] = value
    try:
        found = decode_block(sealed(bytes(body[:place] if cut else body)), ["jpg"], 20, end)
    except DamagedError:
        return
    assert len([str(key) for key in found.keys]) == 20
    for name in found.lengths:
        has = found.lengths[name] >= 0
        assert (found.offsets[name][has] >= 0).all()
        assert (found.offsets[name][has] + found.lengths[name][has] <= end).all()


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (b"", "it ends too early"),
        (bytes(40), "its checksum is wrong"),
        (sealed(struct.pack("<IH", 3, 1)), "it describes 3 samples x 1 extensions"),
        (sealed(struct.pack("<IH", 20, 0)), "it describes 20 samples x 0 extensions"),
        (sealed(struct.pack("<IHBBBB", 20, 1, 0, 0, 7, 0)), "of an unknown form, 7"),
        (sealed(struct.pack("<IHBBBBqB", 20, 1, 0, 0, 1, 0, 0, 9)), "a column is 9 bytes wide"),
        (sealed(struct.pack("<IHBBBqB", 20, 1, 0, 0, 0, -1, 0)), "keys have impossible lengths"),
        (sealed(struct.pack("<IHBBBqB", 20, 1, 0, 0, 0, 1 << 40, 0)), "impossible lengths"),
        (sealed(struct.pack("<IHB2s", 20, 1, 2, b"\xff\xff")), "a name is not UTF-8"),
    ],
)
def test_what_is_wrong_with_a_block_is_said(block: bytes, message: str) -> None:
    with pytest.raises(DamagedError, match=message):
        decode_block(block, [], 20, 1 << 20)


def test_a_member_beyond_the_shard_is_refused() -> None:
    index, end = usual(20)
    with pytest.raises(DamagedError, match="lies outside the shard's"):
        decode_block(encode_block(index), [], 20, end - 512)


def test_a_flipped_bit_is_noticed() -> None:
    index, end = usual(20)
    block = bytearray(encode_block(index))
    block[-1] ^= 1
    with pytest.raises(DamagedError, match="checksum"):
        decode_block(bytes(block), [], 20, end)


def test_a_shard_of_too_many_members_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_block, "MOST_MEMBERS", 59)
    with pytest.raises(DataError, match="at most 59 members, but has 20 samples x 3 extensions"):
        encode_block(usual(20)[0])


def test_keys_answer_like_a_list() -> None:
    for keys in (["a1", "a2", "a3"], ["x", "yy", ""]):
        index, end = usual(3, keys)
        found = decode_block(encode_block(index), [], 3, end).keys
        assert len(found) == 3 and found[-2] == keys[-2] and found[::2] == keys[::2]
        with pytest.raises(IndexError, match="row must be below 3, but is 3"):
            found[3]
