import numpy as np
import pytest
from renderer.scenes import render_scene

from mbv3ssd_deploy.core.boxes import iou_matrix
from mbv3ssd_deploy.data.augment import (
    NO_AUGMENTATION,
    AugmentOptions,
    ColourOptions,
    Window,
    augment,
    boxes_in_window,
    brightened,
    contrasted,
    cut_window,
    distort_colours,
    draw_crop,
    draw_zoom_out,
    mirrored,
    recoloured,
)

STILL = ColourOptions(chance=0.0)


def generator(seed):
    return np.random.Generator(np.random.PCG64(seed))


@pytest.fixture(scope="module")
def scene():
    return render_scene(3, width=200, height=150)


def masks_of(scene):
    """The scene's instances as a picture, so that whatever moves pixels moves them too."""
    return np.repeat(scene.instances[..., None], 3, axis=2)


def test_nothing_is_done_when_nothing_is_asked_for(scene):
    result = augment(generator(0), scene.image, scene.boxes, scene.labels, NO_AUGMENTATION)

    assert np.array_equal(result.image, scene.image)
    assert np.array_equal(result.boxes, scene.boxes)
    assert np.array_equal(result.labels, scene.labels)


def test_the_same_seed_gives_the_same_and_the_arguments_stay(scene):
    before = scene.image.copy()

    first = augment(generator(7), scene.image, scene.boxes, scene.labels)
    again = augment(generator(7), scene.image, scene.boxes, scene.labels)
    other = augment(generator(8), scene.image, scene.boxes, scene.labels)

    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert first.image.shape != other.image.shape or not np.array_equal(first.image, other.image)
    assert np.array_equal(scene.image, before)


@pytest.mark.parametrize("seed", range(40))
def test_boxes_follow_the_pixels_of_their_objects(scene, seed):
    """Every object that is kept has all its pixels in its box, and they touch its four sides."""
    options = AugmentOptions(colours=STILL, fill_rgb=(0, 0, 0))
    numbers = np.arange(1, len(scene.boxes) + 1)

    image, boxes, kept = augment(generator(seed), masks_of(scene), scene.boxes, numbers, options)

    height, width = image.shape[:2]
    assert len(boxes) == len(kept) > 0
    assert boxes.min() >= 0
    assert np.all(boxes[:, 2:] <= (width, height))
    whole = (scene.boxes[:, 2:] - scene.boxes[:, :2])[kept - 1]
    for number, box, size in zip(kept, boxes.astype(int), whole, strict=True):
        x1, y1, x2, y2 = box
        mask = image[..., 0] == number
        assert mask.sum() == mask[y1:y2, x1:x2].sum()
        if (x2 - x1, y2 - y1) == tuple(size):  # not cut: still tight
            inside = mask[y1:y2, x1:x2]
            assert inside[0].any()
            assert inside[-1].any()
            assert inside[:, 0].any()
            assert inside[:, -1].any()


def test_zoom_out_cuts_nothing_and_fills_with_the_colour(scene):
    options = AugmentOptions(zoom_out_chance=1.0, fill_rgb=(1, 2, 3))
    frame = Window(0, 0, 200, 150)
    sides = []
    for seed in range(30):
        plane = draw_zoom_out(generator(seed), frame, options)
        image = cut_window(scene.image, plane, options.fill_rgb)
        boxes, kept = boxes_in_window(scene.boxes, plane)

        assert image.shape == (plane.height, plane.width, 3)
        assert kept.all()
        assert np.allclose(boxes[:, 2:] - boxes[:, :2], scene.boxes[:, 2:] - scene.boxes[:, :2])
        outside = np.ones(image.shape[:2], bool)
        outside[-plane.top : 150 - plane.top, -plane.left : 200 - plane.left] = False
        assert np.all(image[outside] == (1, 2, 3))
        assert np.array_equal(image[~outside].reshape(150, 200, 3), scene.image)
        sides.append(plane.width / 200)

    assert min(sides) < 1.6
    assert 3.4 < max(sides) <= 4.0


@pytest.mark.parametrize("overlap", [0.1, 0.5, 0.9])
def test_a_crop_overlaps_some_object_as_much_as_was_drawn(overlap):
    options = AugmentOptions(crop_overlaps=(overlap,))
    frame = Window(0, 0, 200, 150)
    box = np.array([[10, 5, 190, 145]], np.float32)

    crops = [draw_crop(generator(seed), frame, box, options) for seed in range(20)]

    for crop in crops:
        assert frame.left <= crop.left < crop.right <= frame.right
        assert frame.top <= crop.top < crop.bottom <= frame.bottom
        assert 0.5 <= crop.width / crop.height <= 2.0
        assert iou_matrix(box, np.array([crop], np.float32))[0, 0] >= overlap
    assert len(set(crops)) > 10


def test_a_crop_that_cannot_be_found_is_not_made():
    options = AugmentOptions(crop_overlaps=(0.9,))
    tiny = np.array([[0, 0, 4, 4]], np.float32)

    assert draw_crop(generator(0), Window(0, 0, 200, 150), tiny, options) == (0, 0, 200, 150)


def test_the_centre_decides_who_stays():
    boxes = np.array([[0, 0, 40, 40], [20, 20, 60, 60], [100, 100, 120, 120]], np.float32)

    inside, kept = boxes_in_window(boxes, Window(30, 30, 90, 90))

    assert kept.tolist() == [False, True, False]
    assert inside.tolist() == [[0, 0, 30, 30]]


def test_mirrored_twice_is_the_identity(scene):
    once = mirrored(scene.image, scene.boxes)
    twice = mirrored(*once)

    assert not np.array_equal(once[0], scene.image)
    assert np.array_equal(twice[0], scene.image)
    assert np.array_equal(twice[1], scene.boxes)


def test_an_image_without_objects_may_be_cropped_freely(scene):
    empty, none = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
    sizes = set()
    for seed in range(20):
        result = augment(generator(seed), scene.image, empty, none)
        assert result.boxes.shape == (0, 4)
        assert result.labels.shape == (0,)
        sizes.add(result.image.shape)
    assert len(sizes) > 5


def test_an_image_of_one_pixel_survives():
    image, box = np.zeros((1, 1, 3), np.uint8), np.array([[0, 0, 1, 1]], np.float32)

    for seed in range(20):
        result = augment(generator(seed), image, box, np.array([1]))
        assert min(result.image.shape) >= 1
        assert len(result.boxes) == 1


def test_brightness_and_contrast_in_numbers():
    image = np.array([[[0, 100, 250]]], np.uint8)

    assert brightened(image, 20).tolist() == [[[20, 120, 255]]]
    assert brightened(image, -20).tolist() == [[[0, 80, 230]]]
    assert contrasted(image, 1.5).tolist() == [[[0, 150, 255]]]
    assert contrasted(image, 0.5).tolist() == [[[0, 50, 125]]]


def test_hue_and_saturation_in_colours():
    red, grey = np.array([[[200, 20, 20]]], np.uint8), np.array([[[90, 90, 90]]], np.uint8)

    green = recoloured(red, 1.0, 120)[0, 0].astype(int)
    pale = recoloured(red, 0.5, 0)[0, 0].astype(int)

    assert np.abs(green - (20, 200, 20)).max() <= 4
    assert np.abs(pale - (200, 110, 110)).max() <= 4
    assert np.array_equal(recoloured(grey, 1.5, 90), grey)


def test_colours_keep_shape_and_type_and_vary(scene):
    options = ColourOptions(swap_chance=0.5)
    results = [distort_colours(generator(seed), scene.image, options) for seed in range(30)]
    means = np.array([result.mean(axis=(0, 1)) for result in results])

    assert all(result.shape == scene.image.shape for result in results)
    assert all(result.dtype == np.uint8 for result in results)
    assert np.ptp(means, axis=0).min() > 40
    assert abs(means.mean() - scene.image.mean()) < 25


def test_no_chance_means_no_change(scene):
    assert np.array_equal(distort_colours(generator(0), scene.image, STILL), scene.image)
