import numpy as np
import pytest
from dataset_files import VocFolder, plain_image, voc_object
from renderer.scenes import render_scene

from mbv3ssd_deploy.core.preprocess import input_from_image
from mbv3ssd_deploy.core.spec import ChannelOrder, InputSpec, ResizeRule
from mbv3ssd_deploy.data.augment import Window
from mbv3ssd_deploy.data.dataset import Split
from mbv3ssd_deploy.data.folders import (
    NO_CLASS_AUGMENTATION,
    ClassAugmentOptions,
    ClassificationSet,
    ClassSamples,
    augment_for_class,
    crops_of_objects,
    draw_part,
    read_image_folder,
)
from mbv3ssd_deploy.data.images import read_image, write_image
from mbv3ssd_deploy.data.sources import read_dataset
from mbv3ssd_deploy.errors import DatasetError

INPUT = InputSpec(24, 32, ChannelOrder.RGB, (0.0,) * 3, (255.0,) * 3, ResizeRule.CV2_U8)


@pytest.fixture
def add(tmp_path):
    def added(*folders, count=1):
        for folder in folders:
            for index in range(count):
                plain_image(tmp_path / folder / f"{index}.jpg")

    return added


def names(images):
    return {image.image_path for image in images.images}


def test_a_folder_per_class_and_part(tmp_path, add):
    add("train/dog", "train/cat", "val/cat", "test/dog", count=2)

    train, test = (read_image_folder(tmp_path, split) for split in (Split.TRAIN, Split.TEST))

    assert train.class_names == test.class_names == ("cat", "dog")
    assert [image.label for image in train.images] == [0, 0, 1, 1]
    assert [image.label for image in test.images] == [1, 1]
    assert len(read_image_folder(tmp_path, Split.TRAINVAL)) == 6
    assert train.problems == ()


def test_a_folder_without_an_image_is_no_class(tmp_path, add):
    add("JPEGImages", count=30)
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "Annotations" / "0.xml").write_text("<annotation/>")
    (tmp_path / "ImageSets" / "Main").mkdir(parents=True)

    with pytest.raises(DatasetError, match="and there are 1"):
        read_image_folder(tmp_path, Split.TRAIN)
    add("other", count=30)
    found = read_image_folder(tmp_path, Split.TRAIN)

    assert found.class_names == ("JPEGImages", "other")
    kinds = [problem.kind for problem in found.problems]
    assert kinds.count("empty-class") == 2


def test_an_empty_part_is_named(tmp_path, add):
    add("train/cat", "train/dog")
    (tmp_path / "val" / "cat").mkdir(parents=True)

    with pytest.raises(DatasetError, match="no image of 'val' can be used"):
        read_image_folder(tmp_path, Split.VAL)


def test_val_is_taken_from_train_where_there_is_none(tmp_path, add):
    add("train/cat", "train/dog", "test/cat", count=30)

    train, val, both = (
        read_image_folder(tmp_path, split) for split in (Split.TRAIN, Split.VAL, Split.TRAINVAL)
    )

    assert names(train) | names(val) == names(both)
    assert not names(train) & names(val)
    assert len(train) > len(val) > 0
    assert [problem.kind for problem in train.problems] == ["split-made"]


def test_a_folder_without_parts_is_split_in_three(tmp_path, add):
    add("cat", "dog", count=40)

    parts = [read_image_folder(tmp_path, split) for split in (Split.TRAIN, Split.VAL, Split.TEST)]

    assert sum(map(len, parts)) == 80
    assert len(set.union(*map(names, parts))) == 80
    assert {part.class_names for part in parts} == {("cat", "dog")}
    assert len(read_image_folder(tmp_path, Split.TRAIN, seed=1)) > 0


def test_broken_images_are_left_out_and_named(tmp_path, add):
    add("train/cat", "train/dog", "val/dog")
    (tmp_path / "train" / "dog" / "9.jpg").write_text("no picture")

    train = read_image_folder(tmp_path, Split.TRAIN)

    assert len(train) == 2
    assert train.problems[0].place == str(tmp_path / "train" / "dog" / "9.jpg")


def test_folders_that_cannot_be_used_are_refused(tmp_path, add):
    add("one/train/cat", "alike/train/cat", "alike/train/Cat", "short/train/a", "short/train/b")
    (tmp_path / "empty" / "train" / "a").mkdir(parents=True)
    (tmp_path / "empty" / "train" / "b").mkdir()

    for folder, words in {
        "none": "no such folder",
        "one": "there are 1",
        "alike": "case or blank",
        "short": "no folder 'test'",
    }.items():
        with pytest.raises(DatasetError, match=words):
            read_image_folder(tmp_path / folder, Split.TEST)
    with pytest.raises(DatasetError, match="there are 0"):
        read_image_folder(tmp_path / "empty", Split.TRAIN)


def test_objects_become_pictures(tmp_path):
    folder = VocFolder(tmp_path)
    hard = voc_object("cat", (1, 1, 20, 20), "<difficult>1</difficult>")
    folder.add("a", voc_object("dog", (21, 11, 40, 30)), voc_object("cat", (1, 1, 4, 40)), hard)
    folder.add("b", voc_object("cat", (1, 1, 64, 48))).add("c").list("train", *"abc")

    crops = crops_of_objects(read_dataset(folder.source, Split.TRAIN))

    assert crops.class_names == ("cat", "dog")
    assert [(image.label, image.window) for image in crops.images] == [
        (1, Window(18, 8, 42, 32)),
        (0, Window(0, 0, 64, 48)),
    ]


def test_samples_are_the_windows_and_the_same_every_time(tmp_path):
    folder = VocFolder(tmp_path)
    folder.add("a", voc_object("dog", (21, 11, 40, 30))).list("train", "a")
    write_image(folder.images / "a.jpg", render_scene(0, width=64, height=64).image[:48])
    crops = crops_of_objects(read_dataset(folder.source, Split.TRAIN), margin=0.0)

    plain = ClassSamples(crops, INPUT, seed=1, options=NO_CLASS_AUGMENTATION)[0, 0]
    samples = ClassSamples(crops, INPUT, seed=1)

    whole = read_image(folder.images / "a.jpg")
    assert np.array_equal(plain.input, input_from_image(whole[10:30, 20:40], INPUT))
    assert plain.label == 0
    assert np.array_equal(samples[2, 0].input, samples[2, 0].input)
    assert not np.array_equal(samples[2, 0].input, samples[3, 0].input)


def test_a_vanished_image_is_an_error_that_names_it(tmp_path, add):
    add("train/cat", "train/dog", "val/cat")
    samples = ClassSamples(read_image_folder(tmp_path, Split.TRAIN), INPUT, seed=0)
    (tmp_path / "train" / "dog" / "0.jpg").unlink()

    error = samples.attempt((0, 1))

    assert isinstance(error, DatasetError)
    assert error.where == str(tmp_path / "train" / "dog" / "0.jpg")
    assert not isinstance(samples.attempt((0, 0)), DatasetError)
    with pytest.raises(IndexError):
        samples[0, 2]


def test_parts_keep_to_their_areas_and_ratios():
    rng = np.random.Generator(np.random.PCG64(0))
    options = ClassAugmentOptions()

    parts = [draw_part(rng, 200, 100, options) for _ in range(200)]

    shares = [part.width * part.height / 20000 for part in parts]
    assert all(0 <= p.left < p.right <= 200 and 0 <= p.top < p.bottom <= 100 for p in parts)
    assert 0.24 < min(shares) < 0.3
    assert max(shares) > 0.6
    assert np.mean([0.73 < p.width / p.height < 1.36 for p in parts]) > 0.9


def test_a_class_image_is_a_part_of_the_picture_mirrored_half_of_the_time():
    scene = render_scene(1, width=80, height=64).image
    options = ClassAugmentOptions(areas=(1.0, 1.0), colours=NO_CLASS_AUGMENTATION.colours)
    rng = np.random.Generator(np.random.PCG64(0))

    results = [augment_for_class(rng, scene, options) for _ in range(60)]

    same = sum(np.array_equal(result, scene) for result in results)
    flipped = sum(np.array_equal(result, scene[:, ::-1]) for result in results)
    assert same + flipped == 60
    assert 15 < same < 45


def test_an_empty_set_has_no_samples():
    assert len(ClassSamples(ClassificationSet("none", ("a", "b"), ()), INPUT, seed=0)) == 0
