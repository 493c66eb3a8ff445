import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from ssl_scale.data.array_field import ArrayField
from ssl_scale.data.decoding import UndecodableError, pad
from ssl_scale.types import Packed, Ragged


def npy(array: np.ndarray, allow_pickle: bool = False) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=allow_pickle)
    return file.getvalue()


def npz(compressed: bool = False, **arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(file, **arrays)
    return file.getvalue()


def test_arrays_are_stacked_or_padded() -> None:
    rng = np.random.default_rng(0)
    fixed = ArrayField("npy", [2, 3])
    arrays = [rng.normal(size=(2, 3)) for _ in range(2)]
    values = [fixed.decode(npy(array), "npy") for array in arrays]
    assert torch.equal(fixed.collate(values), torch.tensor(np.stack(arrays), dtype=torch.float32))
    varying = ArrayField("npy", [-1, 3], dtype="int64")
    values = [varying.decode(npy(np.ones((n, 3), np.int32)), "npy") for n in (2, 0, 4)]
    ragged = varying.collate([*values, varying.missing()])
    assert isinstance(ragged, Ragged)
    assert ragged.values.shape == (4, 4, 3)
    assert ragged.lengths.tolist() == [2, 0, 4, 0]
    assert ragged.values.sum() == 18


def test_channels_and_steps_may_differ_together() -> None:
    field = ArrayField("npy", [-1, -1], most=[8, 100])
    arrays = [np.full(shape, 1 + n) for n, shape in enumerate([(2, 5), (3, 4), (1, 1)])]
    values = [field.decode(npy(array), "npy") for array in arrays]
    ragged = field.collate([*values, field.missing()])
    assert isinstance(ragged, Ragged)
    assert ragged.values.shape == (4, 3, 5)
    assert ragged.lengths.tolist() == [[2, 5], [3, 4], [1, 1], [0, 0]]
    for row, array in enumerate(arrays):
        inside = ragged.values[row][ragged.valid[row]]
        assert torch.equal(inside, torch.tensor(array.ravel(), dtype=torch.float32))
    assert ragged.values[~ragged.valid].abs().sum() == 0
    assert ragged.valid.sum((1, 2)).tolist() == [10, 12, 1, 0]
    with pytest.raises(ValueError, match="must differ in one length, but has 2"):
        Packed.of(ragged)


def test_a_length_behind_a_fixed_one_may_differ() -> None:
    field = ArrayField("npy", [2, -1, 3])
    values = [field.decode(npy(np.ones((2, n, 3))), "npy") for n in (1, 4)]
    ragged = field.collate([*values, field.missing()])
    assert isinstance(ragged, Ragged)
    assert ragged.values.shape == (3, 2, 4, 3)
    assert ragged.lengths.tolist() == [[2, 1], [2, 4], [0, 0]]
    assert ragged.valid.shape == (3, 2, 4)


def test_valid_places_of_three_axes_are_those_of_the_arrays() -> None:
    shapes = [(2, 1, 3), (1, 4, 2)]
    ragged = pad([np.ones(shape) for shape in shapes], axes=3)
    assert torch.equal(ragged.valid, ragged.values.bool())


@pytest.mark.parametrize("shape", [(3, 2), (2, 3, 1), (6,), ()])
def test_an_array_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    for wanted in ([2, 3], [-1, 3]):
        with pytest.raises(UndecodableError, match=r"must have shape \[.*3\], but has"):
            ArrayField("npy", wanted).decode(npy(np.zeros(shape)), "npy")


def test_a_length_beyond_the_most_is_refused() -> None:
    field = ArrayField("npy", [-1, -1], most=[2, 9])
    assert field.decode(npy(np.zeros((2, 9))), "npy").shape == (2, 9)
    with pytest.raises(UndecodableError, match="length of at most 9 in axis 1, but has 10"):
        field.decode(npy(np.zeros((2, 10))), "npy")


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("order", ["C", "F"])
def test_an_array_of_an_archive_is_read_by_its_name(compressed: bool, order: str) -> None:
    wanted = np.asarray(np.arange(12.0).reshape(3, 4), order=order)
    member = npz(compressed, other=np.zeros(5), points=wanted)
    field = ArrayField(["npy", "npz"], [-1, 4], entry="points")
    assert np.array_equal(field.decode(member, "npz"), wanted)
    assert np.array_equal(field.decode(npy(wanted), "npy"), wanted)
    assert field.count(member, "npz") == 3
    assert field.length_name == "npy+npz-npz-points"


def test_arrays_of_a_real_archive_are_read_as_numpy_reads_them(test_data: Path) -> None:
    member = (test_data / "hand_gestures" / "hands.npz").read_bytes()
    with np.load(io.BytesIO(member)) as archive:
        expected = archive["keypoints_x_test"]
    field = ArrayField("npz", [-1, 21, 2], entry="keypoints_x_test")
    assert np.array_equal(field.decode(member, "npz"), expected.astype(np.float32))


def claiming(array: np.ndarray, shape: str) -> bytes:
    """An array whose header claims another shape."""
    old, room = f"{array.shape}, }}".encode(), 30
    return npy(array).replace(old.ljust(room), f"{shape}, }}".encode().ljust(room))


OBJECTS = npy(np.array([{"a": 1}], dtype=object), allow_pickle=True)


def deceiving(size: int) -> bytes:
    """An archive with a few bytes whose header claims `size`."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", npy(np.zeros(size, np.uint8)))
    return file.getvalue()


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (b"", "must be an .npz of arrays"),
        (b"PK\x03\x04" + b"\0" * 99, "must be an .npz of arrays"),
        (npy(np.zeros(2)), "must be an .npz of arrays"),
        (npz(x=np.zeros(2))[:-30], "must be an .npz of arrays"),
        (npz(True, x=np.arange(999))[:200] + npz(True, x=np.arange(999))[300:], "must be an .npz"),
        (npz(y=np.zeros(2), z=np.zeros(2)), "must have the array 'x', but has y, z"),
        (npz(x=np.array(["no", "number"])), "does not fit .* bytes of numbers"),
        (npz(x=np.zeros(2, [("a", "f4"), ("b", "i8")])), "does not fit .* bytes of numbers"),
        (npz(x=np.array([1.0, np.nan])), "must be finite as float32, but has NaN"),
        (npz(x=np.array([1.0, 1e300])), "must be finite as float32, but has NaN or infinity"),
        (deceiving(10_000_000), "must have shape .2., but has .10000000."),
    ],
)
def test_an_archive_that_is_not_what_it_must_be(member: bytes, message: str) -> None:
    with pytest.raises(UndecodableError, match=message):
        ArrayField("npz", [2], entry="x").decode(member, "npz")


def test_an_archive_of_other_sizes_than_it_says_is_bad() -> None:
    member = npz(x=np.zeros(2))
    size = (128 + 16).to_bytes(4, "little")
    for claimed in (2**32 - 2, 16):
        changed = member.replace(size, claimed.to_bytes(4, "little"))
        assert changed != member
        with pytest.raises(UndecodableError, match="must be an?"):
            ArrayField("npz", [2], entry="x").decode(changed, "npz")


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (b"", "must be a .npy array of numbers"),
        (npy(np.zeros(2))[:-1], "does not fit"),
        (OBJECTS, "it holds Python objects, .* store numbers, or the rest as json"),
        (npy(np.array(["a", "b"])), "does not fit .* bytes of numbers"),
        (npy(np.array([0, 1], "datetime64[s]")), "does not fit .* bytes of numbers"),
        (npy(np.array([1, 1j])), "does not fit .* bytes of numbers"),
        (npy(np.array([1, np.inf])), "must be finite as float32, but has NaN or infinity"),
        (claiming(np.zeros(2, np.uint8), "(9999999999999,)"), "does not fit"),
        (claiming(np.zeros((9, 0)), "(9999999999999, 0)"), "does not fit"),
        (claiming(np.zeros(2), "(-1, -2)"), "must (be|have)"),
    ],
)
def test_a_file_that_is_no_array_of_numbers_is_bad(member: bytes, message: str) -> None:
    with pytest.raises(UndecodableError, match=message):
        ArrayField("npy", [2]).decode(member, "npy")
    if "finite" not in message:
        with pytest.raises(UndecodableError, match=message):
            ArrayField("npy", [2]).count(member, "npy")


def test_nan_stays_where_it_is_meant_and_never_becomes_a_whole_number() -> None:
    member = npy(np.array([1.0, np.nan]))
    kept = ArrayField("npy", [2], finite=False).decode(member, "npy")
    assert kept[0] == 1 and np.isnan(kept[1])
    with pytest.raises(UndecodableError, match="must be finite as int64"):
        ArrayField("npy", [2], dtype="int64").decode(member, "npy")


def test_arrays_of_other_byte_orders_are_read() -> None:
    member = npy(np.array([1.5, -2], ">f8"))
    assert ArrayField("npy", [2]).decode(member, "npy").tolist() == [1.5, -2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shape": [2, 0]}, "shape must have lengths of at least 1"),
        ({"shape": [-2]}, "shape must have lengths of at least 1"),
        ({"shape": [-1, -1]}, "most must have a number for each -1"),
        ({"shape": [-1], "most": [1, 2]}, "most must have a number for each -1"),
        ({"shape": [2], "most": [1]}, "most must have a number for each -1"),
        ({"shape": [2], "extension": "a.npz"}, "entry must name an array of the .npz"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ArrayField(**{"extension": "npy", **arguments})
