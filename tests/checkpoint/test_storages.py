"""Numbers that describe more than the file holds are refused before anything is read."""

import zipfile

import numpy as np
import pytest
import torch
from forged_files import SYSTEM, StorageId, TensorOf, float_storage, module_of, pickled, wrap_pickle

from mbv3ssd_deploy.checkpoint.reader import read_checkpoint
from mbv3ssd_deploy.checkpoint.state_dict import checked_weights
from mbv3ssd_deploy.errors import CheckpointError, UnsafeCheckpointError

SIX = np.arange(6, dtype=np.float32).tobytes()


def checkpoint(folder, *, legacy=False, storages=None, system=SYSTEM, **tensors):
    """Write a module whose class nobody has, with these tensors as its buffers."""
    storages = {"0": SIX} if storages is None else storages
    code = module_of(**tensors)
    return wrap_pickle(folder / "w.pth", code, legacy=legacy, storages=storages, system=system)


def refused(path, message):
    with pytest.raises(CheckpointError, match=message) as info:
        read_checkpoint(path)
    assert not isinstance(info.value, UnsafeCheckpointError)
    assert info.value.where == str(path)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ((0, (2, 3), (3, 1)), [[0, 1, 2], [3, 4, 5]]),
        ((0, (3, 2), (1, 3)), [[0, 3], [1, 4], [2, 5]]),
        ((1, (2, 2), (3, 1)), [[1, 2], [4, 5]]),
        ((5, (), ()), 5),
        ((5, (1, 1), (10**9, 0)), [[5]]),
        ((0, (0, 3), (3, 1)), np.zeros((0, 3))),
        ((6, (0,), (1,)), np.zeros(0)),
        ((1, (3,), (2,)), [1, 3, 5]),
    ],
)
def test_sound_numbers_of_any_kind_are_read(tmp_path, numbers, expected, legacy):
    path = checkpoint(tmp_path, legacy=legacy, a=TensorOf(float_storage(), *numbers))

    found = read_checkpoint(path).tensors["a"]

    np.testing.assert_array_equal(found.numpy(), np.asarray(expected, np.float32))


HOSTILE = {
    "beyond the end": ((0, (2, 4), (4, 1)), "needs 8 elements of a storage of 6"),
    "one beyond the end": ((1, (6,), (1,)), "needs 7 elements of a storage of 6"),
    "an offset beyond the end": ((10**12, (), ()), "needs 1000000000001 elements"),
    "an empty tensor beyond the end": ((7, (0,), (1,)), "needs 7 elements"),
    "a wide stride": ((0, (2,), (10**15,)), "needs 1000000000000001 elements"),
    "a huge size": ((0, (2**40, 2**20), (2**20, 1)), "needs 1152921504606846976 elements"),
    "a negative stride": ((5, (6,), (-1,)), "negative"),
    "a negative offset": ((-1, (2,), (1,)), "negative"),
    "a negative size": ((0, (-1, 3), (3, 1)), "negative"),
    "numbers that wrap around": ((0, (2**63, 2**63), (2**63, 1)), "impossible"),
    "an empty tensor of impossible size": ((0, (0, 2**70), (1, 1)), "impossible"),
    "too few strides": ((0, (2, 3), (1,)), "2 dimensions and 1 strides"),
    "too many dimensions": ((0, (1,) * 65, (1,) * 65), "unknown form"),
    "a fraction": ((0, (2.5,), (1,)), "unknown form"),
    "a text": ((0, "ab", (1,)), "unknown form"),
    "no offset": ((None, (2,), (1,)), "unknown form"),
    "a truth as size": ((0, (True,), (1,)), "unknown form"),
}


@pytest.mark.parametrize(("numbers", "message"), HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("legacy", [False, True])
def test_hostile_numbers_are_refused(tmp_path, numbers, message, legacy):
    tensor = TensorOf(float_storage(), *numbers)

    refused(checkpoint(tmp_path, legacy=legacy, fine_until_here=tensor), message)


UNUSABLE = {
    "an expanded tensor": ((0, (2**40, 6), (0, 1)), "more elements than the file holds"),
    "a small stride": ((0, (2, 3), (2, 1)), "more elements than the file holds"),
    "equal strides": ((0, (2, 2), (1, 1)), "more elements than the file holds"),
    "a negated view": ((0, (2,), (1,), {"neg": True}), "negated view"),
}


@pytest.mark.parametrize(("numbers", "why"), UNUSABLE.values(), ids=UNUSABLE)
@pytest.mark.parametrize("legacy", [False, True])
def test_a_tensor_that_no_network_can_use_keeps_its_shape_and_the_reason(
    tmp_path, numbers, why, legacy
):
    raw = read_checkpoint(
        checkpoint(tmp_path, legacy=legacy, a=TensorOf(float_storage(), *numbers))
    )

    assert raw.shapes["a"] == numbers[1]
    assert why in raw.unusable["a"]
    with pytest.raises(CheckpointError, match="1 tensor is unusable: a "):
        checked_weights(raw.tensors, raw.unusable)


def six(storage):
    return TensorOf(storage, 0, (2, 3), (3, 1))


@pytest.mark.parametrize(
    ("storage", "message"),
    [
        (float_storage("0", 5), "needs 6 elements of a|5 elements in the pickle and 6"),
        (float_storage("0", 7), "instead of 28|truncated or damaged|6 in front"),
        (float_storage("0", 2**60), "instead of|truncated or damaged|overlap"),
        (float_storage("0", -6), "impossible length"),
        (float_storage("0", None), "unknown length"),
        (float_storage("../0"), "no entry|names one that no tensor uses"),
        (float_storage(0), "unknown type"),
        (StorageId(torch.DoubleStorage, "0", "cpu", 6), "instead of 48|truncated|overlap"),
        (StorageId(torch.DoubleStorage, "0", "cpu", 3), "needs 6 elements of a|3 elements in"),
        (StorageId(torch.Size, "0", "cpu", 3), "unknown type"),
        (StorageId("torch.FloatStorage", "0", "cpu", 6), "unknown type"),
    ],
)
@pytest.mark.parametrize("legacy", [False, True])
def test_storages_that_are_not_in_the_file_as_told_are_refused(tmp_path, storage, message, legacy):
    refused(checkpoint(tmp_path, legacy=legacy, a=six(storage)), message)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_storage_has_one_description(tmp_path, legacy):
    doubles = StorageId(torch.IntStorage, "0", "cpu", 6)
    tensors = {"a": six(float_storage()), "b": six(doubles)}

    refused(checkpoint(tmp_path, legacy=legacy, **tensors), "0 has two descriptions")


def test_views_of_old_files_are_checked_against_their_storage(tmp_path):
    def viewed(first, length):
        view = float_storage("0", 6, ("view", first, length))
        return checkpoint(tmp_path, legacy=True, a=TensorOf(view, 1, (2,), (1,)))

    assert read_checkpoint(viewed(2, 3)).tensors["a"].tolist() == [3, 4]
    refused(viewed(2, 2), "needs 3 elements of a storage of 2")
    for first, length in [(4, 3), (-1, 3), (0, -1), (10**12, 10**12)]:
        refused(viewed(first, length), "impossible length")
    refused(viewed(None, 3), "unknown length")


@pytest.mark.parametrize("count", [-1, 0, 5, 2**62])
def test_a_count_in_front_of_the_data_that_is_another_is_refused(tmp_path, count):
    path = checkpoint(tmp_path, legacy=True, a=six(float_storage()))
    data = path.read_bytes()
    path.write_bytes(data[:-32] + count.to_bytes(8, "little", signed=True) + SIX)

    refused(path, "6 elements in the pickle and")


def test_a_compressed_storage_is_not_unpacked(tmp_path):
    count = 5_000_000
    path = checkpoint(tmp_path, storages={}, a=TensorOf(float_storage("0", count), 0, (1,), (1,)))
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/0", bytes(4 * count))

    refused(path, "overlap|is compressed")


def test_flipped_bytes_of_a_storage_are_found_by_the_archive(tmp_path):
    path = checkpoint(tmp_path, a=six(float_storage()))
    path.write_bytes(path.read_bytes().replace(SIX, SIX[::-1]))

    refused(path, "damaged")


def test_a_big_endian_file_is_refused(tmp_path):
    system = {**SYSTEM, "little_endian": False}
    refused(checkpoint(tmp_path, legacy=True, system=system, a=six(float_storage())), "big-endian")
    path = checkpoint(tmp_path, a=six(float_storage()))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/byteorder", "big")

    refused(path, "big-endian")


@pytest.mark.parametrize("legacy", [False, True])
def test_only_weights_are_read_and_judged(tmp_path, legacy):
    hostile = TensorOf(float_storage("0"), 10**12, (2**40,), (0,))
    entries = {
        "state_dict": {"a": six(float_storage("0"))},
        "optimizer": {"state": {0: {"momentum_buffer": hostile}}},
    }
    code = pickled(entries, protocol=4)
    path = wrap_pickle(tmp_path / "w.pth", code, legacy=legacy, storages={"0": SIX})

    assert read_checkpoint(path).tensors["a"].tolist() == [[0, 1, 2], [3, 4, 5]]
