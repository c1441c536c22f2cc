import numpy as np
import pytest

from mbv3ssd_deploy.core.preprocess import input_from_image
from mbv3ssd_deploy.core.spec import ChannelOrder, InputSpec, ResizeRule

MEAN, STD = (10.0, 20.0, 30.0), (2.0, 4.0, 5.0)
ONE_PIXEL = np.array([[[110, 60, 55]]], dtype=np.uint8)


def spec(order=ChannelOrder.RGB, rule=ResizeRule.CV2_U8, size=(2, 3)):
    return InputSpec(*size, order, MEAN, STD, rule)


@pytest.mark.parametrize("rule", ResizeRule)
def test_planes_are_normalised_and_laid_out_for_the_network(rule):
    tensor = input_from_image(ONE_PIXEL, spec(rule=rule))

    assert tensor.dtype == np.float32
    assert tensor.shape == (3, 2, 3)
    assert tensor.flags.c_contiguous
    expected = np.array([50, 10, 5])[:, None, None]
    assert np.array_equal(tensor, np.broadcast_to(expected, tensor.shape))


def test_bgr_turns_the_planes_and_mean_and_std_are_in_that_order():
    tensor = input_from_image(ONE_PIXEL, spec(ChannelOrder.BGR))

    assert tensor[:, 0, 0].tolist() == [22.5, 10.0, 16.0]


def test_the_image_is_stretched_without_keeping_its_aspect():
    image = np.zeros((4, 8, 3), dtype=np.uint8)
    image[:2] = 255

    tensor = input_from_image(image, spec(size=(2, 2)))

    assert (tensor[:, 0] > tensor[:, 1]).all()
    assert np.array_equal(tensor[:, :, 0], tensor[:, :, 1])


@pytest.mark.parametrize("rule", ResizeRule)
def test_the_image_itself_is_left_as_it_was(rule):
    image = ONE_PIXEL.copy()
    image.setflags(write=False)

    input_from_image(image, spec(rule=rule, size=(1, 1)))[:] = 0

    assert np.array_equal(image, ONE_PIXEL)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_what_is_no_image_is_refused(image):
    with pytest.raises(ValueError, match="image"):
        input_from_image(image, spec())
