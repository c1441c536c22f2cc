"""Preprocessing against recorded input tensors of the families' own code."""

import numpy as np
import pytest
from reference_specs import qfgaohao_spec, torchvision_spec
from zoo import needs_zoo, oracle, weights

from mbv3ssd_deploy.core.preprocess import input_from_image
from mbv3ssd_deploy.core.spec import ChannelOrder, InputSpec, ResizeRule

ONE = (1.0, 1.0, 1.0)
IMAGENET = (0.485 * 255, 0.456 * 255, 0.406 * 255), (0.229 * 255, 0.224 * 255, 0.225 * 255)


def rgb(size, mean, std, rule):
    return InputSpec(size, size, ChannelOrder.RGB, mean, std, rule)


# with the largest gap allowed: what is resized as 8-bit pixels and divided by powers of 2 is exact
INPUTS = {
    "qfgaohao_large": (qfgaohao_spec().input, 0.0),
    "torchvision_coco": (torchvision_spec().input, 1e-6),
    "ujsyehao_released": (rgb(300, (123.675, 116.28, 103.53), ONE, ResizeRule.CV2_U8), 0.0),
    "tongyu_small": (rgb(300, (127.0, 127.0, 127.0), ONE, ResizeRule.CV2_U8), 0.0),
    "lufficc_large": (rgb(320, (123.0, 117.0, 104.0), ONE, ResizeRule.CV2_U8), 0.0),
    "compact_large": (rgb(300, *IMAGENET, ResizeRule.PIL_U8_ANTIALIAS), 1e-6),
}
IMAGES = {"pre0_sample": (517, 701), "pre1_sample": (97, 131)}


@needs_zoo
@pytest.mark.parametrize("sample", IMAGES)
@pytest.mark.parametrize("folder", INPUTS)
def test_inputs_are_the_originals(folder, sample):
    spec, allowed = INPUTS[folder]
    image = weights().synthetic_image(*IMAGES[sample])

    tensor = input_from_image(image, spec)[:, 3::7, 2::5]

    assert tensor.shape == oracle(folder)[sample].shape
    assert np.abs(tensor - oracle(folder)[sample]).max() <= allowed
