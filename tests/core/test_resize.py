import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mbv3ssd_deploy.core.preprocess import resized_antialias, resized_cv2, resized_float

RESIZERS = (resized_cv2, resized_antialias, resized_float)
sizes = st.tuples(st.integers(1, 40), st.integers(1, 40))


def noise(height, width, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3))
    return pixels.astype(np.uint8)


def planes(image):
    return torch.from_numpy(image).permute(2, 0, 1)[None]


def torch_resized(tensor, size, *, antialias):
    resized = torch.nn.functional.interpolate(
        tensor, size, mode="bilinear", align_corners=False, antialias=antialias
    )
    return resized[0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize("resized", RESIZERS)
def test_the_same_size_changes_nothing(resized):
    image = noise(7, 5)

    assert np.array_equal(resized(image, 7, 5), image)


@pytest.mark.parametrize("resized", RESIZERS)
@pytest.mark.parametrize("size", [(3, 4), (19, 30), (1, 1)])
def test_one_colour_stays_that_colour(resized, size):
    image = np.full((11, 13, 3), (200, 3, 255), dtype=np.uint8)

    out = resized(image, *size)

    assert out.shape == (*size, 3)
    assert np.allclose(out, (200, 3, 255), rtol=0, atol=1e-4)


@pytest.mark.parametrize("resized", RESIZERS)
def test_height_and_width_are_not_mixed_up(resized):
    image = np.zeros((4, 8, 3), dtype=np.uint8)
    image[:, 4:] = 255

    out = resized(image, 6, 2)

    assert (out[:, 0] < out[:, 1]).all()
    assert (out == out[:1]).all()


def test_only_the_antialiased_rule_looks_at_every_pixel():
    # between the two pixels that a rule without antialias blends, one bright column
    image = np.zeros((8, 8, 3), dtype=np.uint8)
    image[:, 2] = 255

    assert resized_cv2(image, 2, 2)[0, 0, 0] == 128
    assert resized_float(image, 2, 2)[0, 0, 0] == 127.5
    # a triangle 8 wide about column 1.5, cut at the edge: weights 5, 7, 7, 5, 3, 1 of 28
    assert resized_antialias(image, 2, 2)[0, 0, 0] == round(255 * 7 / 28)


@given(sizes, sizes)
@settings(deadline=None)
def test_the_float_rule_is_torchs(old, new):
    image = noise(*old)

    expected = torch_resized(planes(image).float().contiguous(), new, antialias=False)
    assert np.allclose(resized_float(image, *new), expected, rtol=0, atol=1e-4)


@given(sizes, sizes)
@settings(deadline=None)
def test_the_antialiased_rule_is_within_a_level_of_the_same_filter_in_torch(old, new):
    image = noise(*old)

    # torch's own 8-bit kernel keeps fewer bits of the weights than Pillow
    expected = torch_resized(planes(image), new, antialias=True)
    assert np.abs(resized_antialias(image, *new).astype(int) - expected).max() <= 1
