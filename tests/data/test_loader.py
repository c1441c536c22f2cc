import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
from dataset_files import VocFolder, voc_object

from mbv3ssd_deploy.core.preprocess import input_from_image
from mbv3ssd_deploy.core.spec import ChannelOrder, InputSpec, ResizeRule
from mbv3ssd_deploy.data.augment import NO_AUGMENTATION, AugmentOptions
from mbv3ssd_deploy.data.dataset import Split
from mbv3ssd_deploy.data.images import read_image
from mbv3ssd_deploy.data.loader import (
    ImageCache,
    TrainingSamples,
    epoch_order,
    generator_for,
    start_worker,
)
from mbv3ssd_deploy.data.sources import read_dataset
from mbv3ssd_deploy.errors import DatasetError

INPUT = InputSpec(
    32, 40, ChannelOrder.RGB, (127.5, 127.5, 127.5), (127.5, 127.5, 127.5), ResizeRule.CV2_U8
)


@pytest.fixture
def folder(tmp_path):
    hard = voc_object("dog", (1, 1, 20, 20), "<difficult>1</difficult>")
    folder = VocFolder(tmp_path)
    for stem in "abcd":
        folder.add(stem, voc_object("cat", (17, 13, 48, 36)), hard)
    return folder.list("train", *"abcd")


def samples_of(folder, **options):
    dataset = read_dataset(folder.source, Split.TRAIN)
    return TrainingSamples(dataset, INPUT, **{"seed": 5, **options})


def equal(first, second):
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_sample_is_what_the_network_wants(folder):
    samples = samples_of(folder, options=NO_AUGMENTATION)

    sample = samples[0, 0]

    image = read_image(folder.images / "a.jpg")
    assert len(samples) == 4
    assert np.array_equal(sample.input, input_from_image(image, INPUT))
    assert sample.input.shape == (3, 32, 40)
    assert sample.boxes.tolist() == [[0.25, 0.25, 0.75, 0.75]]
    assert sample.boxes.dtype == np.float32
    assert sample.labels.tolist() == [1]


def test_difficult_objects_are_trained_on_when_asked_for(folder):
    sample = samples_of(folder, options=AugmentOptions(keep_difficult=True, crop_overlaps=()))[0, 0]

    assert sample.labels.tolist() == [1, 2]


def test_a_sample_depends_on_seed_epoch_and_index_only(folder):
    samples = samples_of(folder)
    first = samples[3, 2]

    assert equal(samples[3, 2], first)
    assert equal(samples_of(folder)[3, 2], first)
    assert not equal(samples[4, 2], first)
    assert not equal(samples_of(folder, seed=6)[3, 2], first)


def test_boxes_are_shares_of_the_augmented_image(folder):
    samples = samples_of(folder)

    for epoch in range(30):
        sample = samples[epoch, epoch % 4]
        assert sample.boxes.min() >= 0
        assert sample.boxes.max() <= 1
        assert np.all(sample.boxes[:, 2:] > sample.boxes[:, :2])
        assert len(sample.boxes) == len(sample.labels) == 1


def test_worker_processes_make_the_same_samples(folder):
    samples = samples_of(folder)
    places = [(epoch, index) for epoch in range(3) for index in range(4)]

    for workers in (1, 2):
        with ProcessPoolExecutor(
            workers, get_context("spawn"), initializer=start_worker, initargs=(0,)
        ) as pool:
            made = list(pool.map(samples.attempt, places))
        assert all(equal(sample, samples[at]) for at, sample in zip(places, made, strict=True))


def test_an_image_that_vanishes_is_named_even_from_a_worker(folder):
    samples = samples_of(folder)
    (folder.images / "b.jpg").unlink()
    (folder.images / "c.jpg").write_bytes(b"\xff\xd8 no picture \xff\xda\xff\xd9")

    with pytest.raises(DatasetError) as caught:
        samples[0, 1]
    gone, broken = (pickle.loads(pickle.dumps(samples.attempt((0, at)))) for at in (1, 2))  # noqa: S301

    assert caught.value.where == str(folder.images / "b.jpg")
    assert (gone.where, gone.message) == (caught.value.where, "no such image")
    assert isinstance(broken, DatasetError)
    assert broken.where == str(folder.images / "c.jpg")


def test_an_index_beyond_the_end_is_a_bug_of_the_caller(folder):
    with pytest.raises(IndexError):
        samples_of(folder)[0, 4]
    with pytest.raises(IndexError):
        samples_of(folder)[0, -1]


def test_the_cache_changes_nothing_and_keeps_to_its_bound(folder):
    one_image = 64 * 48 * 3
    samples = samples_of(folder, cache_bytes=2 * one_image)

    for epoch in range(2):
        for index in range(4):
            assert equal(samples[epoch, index], samples_of(folder)[epoch, index])

    cache = ImageCache(2 * one_image)
    paths = [folder.images / f"{stem}.jpg" for stem in "abc"]
    first, second, third = map(cache.read, paths)
    assert cache.read(paths[0]) is first
    assert cache.read(paths[1]) is second
    assert cache.read(paths[2]) is not third


def test_every_epoch_has_an_order_of_its_own():
    orders = [epoch_order(50, seed=1, epoch=epoch).tolist() for epoch in range(3)]

    assert all(sorted(order) == list(range(50)) for order in orders)
    assert orders[0] != orders[1] != orders[2]
    assert orders[0] == epoch_order(50, seed=1, epoch=0).tolist()
    assert orders[0] != epoch_order(50, seed=2, epoch=0).tolist()


def test_the_order_and_the_samples_share_no_chance():
    draws = [generator_for(0, 0, number).random() for number in range(20)]

    assert len(set(draws)) == 20
