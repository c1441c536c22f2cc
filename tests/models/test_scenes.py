import hashlib

import numpy as np
import pytest
from renderer.scenes import SCENE_CLASSES, render_scene, write_scenes

from mbv3ssd_deploy.data.images import read_image


def test_a_scene_is_a_function_of_seed_and_index():
    first, again = render_scene(3, seed=7), render_scene(3, seed=7)

    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.boxes, again.boxes)
    assert np.array_equal(first.labels, again.labels)
    assert not np.array_equal(first.image, render_scene(4, seed=7).image)
    assert not np.array_equal(first.image, render_scene(3, seed=8).image)


@pytest.mark.parametrize("index", range(6))
def test_boxes_are_tight_around_what_is_visible(index):
    scene = render_scene(index, width=320, height=240)

    assert scene.instances.max() == len(scene.boxes) == len(scene.labels) > 0
    for number, (x1, y1, x2, y2) in enumerate(scene.boxes.astype(int), start=1):
        mask = scene.instances == number
        assert mask.sum() == mask[y1:y2, x1:x2].sum() > 0  # all of it is inside
        inside = mask[y1:y2, x1:x2]  # and it touches all four sides
        assert inside[0].any()
        assert inside[-1].any()
        assert inside[:, 0].any()
        assert inside[:, -1].any()


def test_the_object_is_where_its_box_says():
    """The mask must belong to what was painted: its rim is a rim in the picture as well."""
    steps_at_rims, steps_elsewhere = [], []
    for index in range(4):
        scene = render_scene(index, width=240, height=180)
        step = np.abs(np.diff(scene.image.astype(float), axis=1)).mean(axis=2)
        rim = np.diff(scene.instances.astype(int), axis=1) != 0
        steps_at_rims.append(step[rim].mean())
        steps_elsewhere.append(step[~rim].mean())

    assert np.mean(steps_at_rims) > 3 * np.mean(steps_elsewhere)


def test_objects_hide_each_other_but_never_wholly():
    scenes = [render_scene(index, width=240, height=180) for index in range(12)]

    overlaps = 0
    for scene in scenes:
        assert np.all(np.bincount(scene.instances.ravel())[1:] >= 20)
        for k, (x1, y1, x2, y2) in enumerate(scene.boxes.astype(int), start=1):
            overlaps += np.any(scene.instances[y1:y2, x1:x2] > k)
    assert overlaps > 10


def test_every_class_appears_and_the_sizes_vary():
    scenes = [render_scene(index, width=240, height=180) for index in range(20)]
    labels = np.concatenate([scene.labels for scene in scenes])
    boxes = np.concatenate([scene.boxes for scene in scenes])
    widths = boxes[:, 2] - boxes[:, 0]

    assert set(labels.tolist()) == set(range(1, len(SCENE_CLASSES)))
    assert SCENE_CLASSES[0] == "background"
    assert widths.max() > 3 * np.median(widths) / 2 > 4 * widths.min() / 2
    assert boxes.min() >= 0
    assert boxes[:, [0, 2]].max() <= 240
    assert boxes[:, [1, 3]].max() <= 180


def test_size_and_types():
    scene = render_scene(0, width=100, height=70)

    assert scene.image.shape == (70, 100, 3)
    assert scene.image.dtype == np.uint8
    assert scene.boxes.dtype == np.float32
    assert scene.labels.dtype == np.int64
    assert not scene.image.flags.writeable


@pytest.mark.parametrize("size", [(63, 64), (64, 63)])
def test_a_picture_too_small_for_objects_is_refused(size):
    with pytest.raises(ValueError, match="64 x 64"):
        render_scene(0, width=size[0], height=size[1])


def test_written_scenes_are_the_same_bytes_twice(tmp_path):
    first = write_scenes(tmp_path / "one", 2, seed=5)
    second = write_scenes(tmp_path / "two", 2, seed=5)

    assert [path.name for path in first] == ["scene_000.png", "scene_001.png"]
    for a, b in zip(first, second, strict=True):
        assert hashlib.sha256(a.read_bytes()).digest() == hashlib.sha256(b.read_bytes()).digest()
    assert np.array_equal(read_image(first[1]), render_scene(1, seed=5).image)
