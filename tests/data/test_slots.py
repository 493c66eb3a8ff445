import gc
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from ssl_scale.data.buffers import ALIGNMENT, BlockBuffers
from ssl_scale.data.image_field import ImageField
from ssl_scale.data.loader import TrainingStream, dataloader
from ssl_scale.data.mixture import OneSource
from ssl_scale.data.slots import Parcel, Slots
from ssl_scale.data.source import Source
from tests.data.shards import digit_samples, write_folder

pytestmark = pytest.mark.skipif(
    not hasattr(os, "memfd_create"), reason="without memfd torch's own way is taken"
)


def send(slots: Slots, content: object, worker: int = 0) -> Parcel:
    slot = slots.take(worker)
    assert slot is not None
    return pickle.loads(pickle.dumps(slot.send(content)))  # noqa: S301 - our own bytes


def test_tensors_arrive_as_they_were_whatever_holds_them() -> None:
    slots = Slots(workers=1, per_worker=1)
    slot = slots.take(0)
    assert slot is not None
    made = torch.from_numpy(slot.empty((4, 6, 6, 3), np.uint8)).random_(0, 255)
    content = {
        "turned": made.permute(0, 3, 1, 2),
        "every second": torch.arange(10)[::2],
        "empty": torch.empty(0, 3),
        "one": torch.tensor(2.5, dtype=torch.bfloat16),
        "flags": torch.tensor([True, False, True]),
        "name": "x",
    }
    expected = {
        name: value.clone() if isinstance(value, torch.Tensor) else value
        for name, value in content.items()
    }
    parcel = slot.send(content)
    assert not parcel.others
    found = parcel.open()
    assert found.pop("name") == "x"
    for name, value in found.items():
        assert value.dtype == expected[name].dtype
        assert torch.equal(value, expected[name]), name
    assert found["turned"].data_ptr() == made.data_ptr()
    assert found["turned"].is_contiguous(memory_format=torch.channels_last)
    assert found["turned"].untyped_storage().nbytes() == 4 * 6 * 6 * 3


def test_a_slot_is_free_again_when_its_last_tensor_is_gone() -> None:
    slots = Slots(workers=2, per_worker=1)
    batch = send(slots, [torch.ones(3), torch.zeros(3)]).open()
    assert slots.take(0) is None
    assert slots.take(1) is not None
    kept = batch[0][1:].view(1, 2)
    del batch
    gc.collect()
    assert slots.take(0) is None
    del kept
    assert slots.take(0) is not None


def test_a_fork_does_not_free_what_its_parent_holds() -> None:
    slots = Slots(workers=1, per_worker=1)
    batch = send(slots, torch.ones(3)).open()
    child = os.fork()
    if not child:
        del batch
        os._exit(0)
    os.waitpid(child, 0)
    assert slots.take(0) is None
    assert batch.sum() == 3


def test_what_nobody_opened_is_freed_when_the_worker_starts_anew() -> None:
    slots = Slots(workers=1, per_worker=2)
    opened = send(slots, torch.ones(2)).open()
    send(slots, torch.ones(2))
    assert slots.take(0) is None
    slots.forget(0)
    assert slots.take(0) is not None
    assert opened.sum() == 2
    send(slots, torch.zeros(2))
    assert slots.take(0) is None
    assert opened.sum() == 2


def test_what_does_not_fit_travels_beside() -> None:
    slots = Slots(workers=1, per_worker=1, slot_bytes=1 << 12)
    parcel = send(slots, (torch.ones(1 << 12), torch.ones(8)))
    assert [len(tensor) for tensor in parcel.others] == [1 << 12]
    assert [int(tensor.sum()) for tensor in parcel.open()] == [1 << 12, 8]


def test_arrays_of_a_block_lie_apart_and_aligned_until_it_is_full() -> None:
    block = np.zeros(4 * ALIGNMENT, np.uint8)
    buffers = BlockBuffers(block)
    first, second = buffers.empty((3,), np.uint8), buffers.empty((2, 8), np.float32)
    assert [array.ctypes.data - block.ctypes.data for array in (first, second)] == [0, ALIGNMENT]
    assert not np.shares_memory(buffers.empty((1000,), np.uint8), block)
    assert np.shares_memory(buffers.empty((2 * ALIGNMENT,), np.uint8), block)
    assert buffers.room == 0


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digits")
    write_folder(folder, [digit_samples(48)])
    return folder


def stream(folder: Path) -> TrainingStream:
    source = Source("digits", folder, {"image": ImageField("png", size_px=8)}, streams=4)
    return TrainingStream({"digits": source}, OneSource({"digits": 1}, 4), end_step=24)


@pytest.mark.parametrize("start_method", ["fork", "forkserver"])
def test_workers_send_batches_in_slots_and_one_may_keep_them_all(
    digits: Path, start_method: str
) -> None:
    expected = [step[0][0] for step in stream(digits)]
    kept = [
        step[0][0] for step in dataloader(stream(digits), 2, start_method=start_method)
    ]  # many more than there are slots
    for one, other in zip(expected, kept, strict=True):
        assert one.keys == other.keys
        assert torch.equal(one.fields["image"], other.fields["image"])
        assert torch.equal(one.seeds, other.seeds)


def test_a_pass_broken_off_leaves_the_slots_to_the_next(digits: Path) -> None:
    loader = dataloader(stream(digits), 1)
    for _ in range(6):
        next(iter(loader))
    slots = loader.dataset.slots
    assert slots is not None
    steps = iter(loader)
    first = next(steps)
    expected = stream(digits).make(0)[0][0]
    assert torch.equal(first[0][0].fields["image"], expected.fields["image"])
    assert not first[0][0].fields["image"].is_shared()  # a slot's, not torch's own way


def test_without_slots_batches_come_all_the_same(
    digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "memfd_create")
    loader = dataloader(stream(digits), 1)
    assert loader.dataset.slots is None
    assert [step.step for step in loader] == list(range(24))
