"""The C++ preprocessing gives the tensor of core/preprocess.py, from pixels of any format."""

import dataclasses

import cv2
import numpy as np
import pytest
from cpp_library import BYTES, Image, LibraryError, Pixels, Status, image_of
from reference_specs import ZOO_SPECS, qfgaohao_spec
from zoo import reduced
from zoo_recipe import synthetic_image

from mbv3ssd_deploy.core.preprocess import input_from_image
from mbv3ssd_deploy.core.spec import ChannelOrder, InputSpec, ResizeRule
from mbv3ssd_deploy.device.contract import render_contract

# OpenCV and its versions may round otherwise by one grey level; the other two rules are our own
MOST = {ResizeRule.CV2_U8: 1, ResizeRule.PIL_U8_ANTIALIAS: 0, ResizeRule.FLOAT_AFTER_NORMALISE: 0}
IMAGES = {"pre0_sample": (517, 701), "pre1_sample": (97, 131)}


def spec_for(height, width, rule=ResizeRule.CV2_U8, order=ChannelOrder.RGB):
    """Mean 0 and deviation 1: the tensor holds grey levels."""
    own = InputSpec(int(height), int(width), order, (0, 0, 0), (1, 1, 1), rule)
    return dataclasses.replace(qfgaohao_spec(2), input=own)


def noise(height, width, channels=3, seed=0):
    random = np.random.default_rng([seed, height, width])
    shape = (height, width, channels) if channels > 1 else (height, width)
    return random.integers(0, 256, shape, dtype=np.uint8)


def some_sizes(random):
    """Old and new sizes: any, equal, and exact multiples, for which OpenCV has its own ways."""
    new = random.integers(1, 70, 2)
    factors = [None, None, None, (1, 1), (2, 2), (2, 1), (4, 2), (3, 3)]
    factor = factors[random.integers(len(factors))]
    return (random.integers(1, 90, 2) if factor is None else new * factor), new


@pytest.mark.parametrize("order", ChannelOrder)
@pytest.mark.parametrize("rule", ResizeRule)
def test_every_rule_gives_pythons_tensor_for_any_size(library, rule, order):
    random = np.random.default_rng(5)
    for _ in range(60):
        old, new = some_sizes(random)
        spec = spec_for(*new, rule, order)
        image = noise(*old)

        tensor = library.open(render_contract(spec)).preprocess(image_of(image))

        difference = np.abs(tensor - input_from_image(image, spec.input)).max()
        assert difference <= MOST[rule], f"{old} to {new}"


@pytest.mark.parametrize("rule", ResizeRule)
def test_one_detector_takes_images_of_changing_sizes(library, rule):
    spec = spec_for(20, 30, rule)
    detector = library.open(render_contract(spec))
    for size in ((40, 60), (41, 60), (20, 30), (7, 100), (40, 60)):
        image = noise(*size)

        tensor = detector.preprocess(image_of(image))

        assert np.abs(tensor - input_from_image(image, spec.input)).max() <= MOST[rule]


@pytest.mark.parametrize("sample", IMAGES)
@pytest.mark.parametrize("folder", ZOO_SPECS)
def test_golden_tensors_of_every_family(library, folder, sample):
    spec = ZOO_SPECS[folder]
    image = synthetic_image(*IMAGES[sample])

    tensor = library.open(render_contract(spec)).preprocess(image_of(image))

    golden = reduced(folder)[1][sample]
    levels = np.abs(tensor[:, 3::28, 2::20] - golden) * np.float32(spec.input.std)[:, None, None]
    assert levels.max() <= MOST[spec.input.resize] + 1e-3


FROM_RGB = {
    Pixels.RGB: lambda rgb: rgb,
    Pixels.BGR: lambda rgb: rgb[..., ::-1],
    Pixels.RGBA: lambda rgb: np.dstack((rgb, noise(*rgb.shape[:2], 1, seed=9))),
    Pixels.BGRA: lambda rgb: np.dstack((rgb[..., ::-1], noise(*rgb.shape[:2], 1, seed=9))),
}


@pytest.mark.parametrize("rule", ResizeRule)
@pytest.mark.parametrize("gap", [0, 5])
@pytest.mark.parametrize("kind", FROM_RGB)
def test_orders_of_bytes_and_strides_do_not_matter(library, kind, gap, rule):
    detector = library.open(render_contract(spec_for(11, 17, rule)))
    rgb = noise(31, 23)
    expected = detector.preprocess(image_of(np.ascontiguousarray(rgb)))
    pixels = FROM_RGB[kind](rgb)
    apart = noise(31, 23 + gap, pixels.shape[2], seed=4)
    apart[:, :23] = pixels

    tensor = detector.preprocess(image_of(apart[:, :23], kind))

    assert np.array_equal(tensor, expected)


def test_grey_is_three_equal_planes(library):
    detector = library.open(render_contract(spec_for(11, 17)))
    grey = noise(31, 23, 1)

    tensor = detector.preprocess(image_of(grey, Pixels.GREY))

    assert np.array_equal(tensor, detector.preprocess(image_of(np.dstack((grey,) * 3))))


@pytest.mark.parametrize("gap", [0, 6])
@pytest.mark.parametrize("size", [(40, 30), (41, 31), (2, 2), (1, 1)])
def test_nv21_is_what_opencv_makes_of_it(library, size, gap):
    height, width = size
    rows, cols = (height + 1) // 2 * 2, (width + 1) // 2 * 2
    camera = noise(rows + rows // 2, cols + gap, 1)
    rgb = cv2.cvtColor(np.ascontiguousarray(camera[:, :cols]), cv2.COLOR_YUV2RGB_NV21)
    image = image_of(camera[:height, :width], Pixels.NV21, camera[rows:])

    tensor = library.open(render_contract(spec_for(height, width))).preprocess(image)

    assert np.abs(tensor - rgb[:height, :width].transpose(2, 0, 1)).max() <= 1


def broken_images():
    pixels = noise(5, 4)
    data = pixels.ctypes.data_as(BYTES)
    yield "no pixels", Image(None, 4, 5, Pixels.RGB, 12), "null pointer"
    yield "0 wide", Image(data, 0, 5, Pixels.RGB, 12), "has no pixels"
    yield "0 high", Image(data, 4, 0, Pixels.RGB, 12), "has no pixels"
    yield "short stride", Image(data, 4, 5, Pixels.RGB, 11), "stride is shorter than its rows"
    yield "unknown format", Image(data, 4, 5, 6, 12), "format is unknown"
    yield "too large", Image(data, 1 << 20, 5, Pixels.RGB, 0), "larger than 32768"
    yield "no chroma", Image(data, 4, 5, Pixels.NV21, 4), "chroma plane is a null pointer"
    chroma = Image(data, 3, 2, Pixels.NV21, 4, data, 3)
    yield "short chroma stride", chroma, "chroma stride is shorter"


@pytest.mark.parametrize(
    ("image", "message"), [pytest.param(*case[1:], id=case[0]) for case in broken_images()]
)
def test_impossible_images_are_refused(library, image, message):
    with pytest.raises(LibraryError, match=message) as caught:
        library.open(render_contract(spec_for(3, 3))).preprocess(image)

    assert caught.value.status is Status.BAD_ARGUMENT
