"""Two faults of ncnn on ARM that no run on x86 shows: caught on models made to have them.

The first is in the file: an integer where PriorBox reads a float. The second is in ncnn's float16
kernel for 3x3 depthwise convolutions of stride 2, and our files carry a mask against it
(`ncnn_graph/precision.py`).
"""

import dataclasses

import numpy as np
import pytest
from emulated_arm import relative_error

from mbv3ssd_deploy.bundle.bundle import read_bundle
from mbv3ssd_deploy.core.boxes import corners_from_centre
from mbv3ssd_deploy.core.preprocess import input_from_image
from mbv3ssd_deploy.core.priors import build_priors
from mbv3ssd_deploy.data.images import read_image
from mbv3ssd_deploy.ncnn_graph.build import NcnnRequest
from mbv3ssd_deploy.ncnn_graph.param_text import parse_param
from mbv3ssd_deploy.ncnn_graph.precision import PrecisionMasks, fp16_unsafe_layers
from mbv3ssd_deploy.ncnn_graph.priors import PriorMode
from mbv3ssd_deploy.pipeline import lower_to_ncnn

pytestmark = pytest.mark.slow

DEPTHWISE = """7767517
2 2
Input input 0 1 input 0={width} 1={height} 2={channels}
ConvolutionDepthWise conv 1 1 input out 0={channels} 1={kernel} 3={stride} 4={pad} 6={count} \
7={channels} 31={mask}
"""


HEIGHT = 11
ROUNDING = 2e-3
"""Above the relative error of ten products in float16, far below that of a wrong neighbour."""


class Depthwise:
    """A depthwise convolution by itself, with weights and an input at random."""

    def __init__(self, folder, width, *, channels=8, mask=0, kernel=3, stride=2):  # noqa: PLR0913
        random = np.random.default_rng([channels, width, kernel])
        weights = random.normal(size=(channels, kernel, kernel)).astype(np.float32)
        self.text = DEPTHWISE.format(
            channels=channels,
            width=width,
            height=HEIGHT,
            kernel=kernel,
            stride=stride,
            pad=kernel // 2,
            count=weights.size,
            mask=mask,
        )
        self.files = folder / "conv.param", folder / "conv.bin"
        self.files[0].write_text(self.text)
        self.files[1].write_bytes(b"\0\0\0\0" + weights.tobytes())
        self.tensor = random.normal(size=(channels, HEIGHT, width)).astype(np.float32)

    def wrong_columns(self, arm):
        """The columns that float16 arithmetic gets wrong, from the right: -1 is the last."""
        exact, rounded = (
            arm.blobs(*self.files, self.tensor, ["out"], name)["out"] for name in ("fp32", "fp16")
        )
        assert not np.array_equal(exact, rounded)
        error = np.sqrt(np.mean((rounded - exact) ** 2, axis=(0, 1)) / np.mean(exact**2))
        return [int(column) - len(error) for column in np.flatnonzero(error > ROUNDING)]


# input width: output width 5, 6, 6, 7, 7, 8; where the wrong neighbour is padding it is not wrong
WRONG = {10: [], 11: [], 12: [-1], 13: [-2], 14: [-2], 15: [], 16: []}


@pytest.mark.parametrize("width", WRONG)
def test_the_kernel_reads_a_wrong_column_where_2_or_3_are_left_over_4(arm, tmp_path, width):
    layer = Depthwise(tmp_path, width)

    assert layer.wrong_columns(arm) == WRONG[width]
    if WRONG[width]:
        assert fp16_unsafe_layers(parse_param(layer.text)) == {"conv"}


@pytest.mark.parametrize("width", [12, 13])
def test_the_mask_keeps_the_layer_out_of_that_kernel(arm, tmp_path, width):
    layer = Depthwise(tmp_path, width, mask=1)
    exact, masked = (
        arm.blobs(*layer.files, layer.tensor, ["out"], name)["out"] for name in ("fp32", "fp16")
    )
    assert relative_error(masked, exact) < ROUNDING


OTHERS = {
    "stride 1": {"stride": 1},
    "5x5": {"kernel": 5},
    "channels that do not fill packs of eight": {"channels": 12},
}


@pytest.mark.parametrize("case", OTHERS)
@pytest.mark.parametrize("width", [12, 13, 14])
def test_other_kernels_are_right(arm, tmp_path, case, width):
    assert Depthwise(tmp_path, width, **OTHERS[case]).wrong_columns(arm) == []


def heads_error(arm, bench, bundle, arithmetic):
    """The relative errors of loc and conf against float32 on the same CPU."""
    tensor = input_from_image(read_image(bench.images[0]), bundle.spec.input)
    files = bundle.param_path, bundle.bin_path
    names = ["mbox_loc", "mbox_conf"]
    exact, found = (arm.blobs(*files, tensor, names, name) for name in ("fp32", arithmetic))
    return np.array([relative_error(found[name], exact[name]) for name in names])


@pytest.fixture(scope="module")
def unguarded(bench):
    """What everybody's converter writes: no mask against the kernel."""
    directory = bench.copy("unguarded").directory
    lower_to_ncnn(directory, NcnnRequest(guards=PrecisionMasks(fp16=False)))
    return read_bundle(directory)


def test_our_networks_are_right_and_unguarded_ones_are_wrong(arm, bench, unguarded):
    ours = heads_error(arm, bench, bench.good(), "fp16")
    theirs = heads_error(arm, bench, unguarded, "fp16")

    assert (ours < 0.02).all()
    assert (theirs > 3 * ours).all()


@pytest.mark.parametrize(("cpu", "is_rounded"), [("cortex-a53", False), ("cortex-a76", True)])
def test_only_a_cpu_with_float16_arithmetic_rounds_to_it(arm, bench, cpu, is_rounded):
    error = heads_error(dataclasses.replace(arm, cpu=cpu), bench, bench.good(), "fp16")
    assert ((error > 1e-4) == is_rounded).all()
    assert ((error < 1e-5) != is_rounded).all()


def test_float16_storage_alone_does_not_meet_the_kernel(arm, bench, unguarded):
    assert (heads_error(arm, bench, unguarded, "fp16s") < 0.02).all()


@pytest.fixture(scope="module")
def with_prior_boxes(bench):
    directory = bench.copy("prior_boxes").directory
    lower_to_ncnn(directory, NcnnRequest(priors=PriorMode.LAYER))
    return read_bundle(directory)


# One level of the published model, but for the steps; two boxes that are found wherever they are.
PRIOR_BOX = (
    "-23300=1,60.0 -23301=1,105.0 -23302=1,2.0 3=0.1 4=0.1 5=0.2 6=0.2 7=1 8=0 9=300 10=300 "
    "13=0.5 14=1 15=1"
)
LEVEL = """7767517
5 5
Input input 0 1 input 0={cols} 1={rows} 2=8
{prior_box}
MemoryData loc 0 1 loc 0={numbers}
MemoryData conf 0 1 conf 0=2 1={count}
DetectionOutput out 3 1 loc conf priors detection_out 0=2 1=0.45 2=9 3=9 4=0.5
"""


def priors_and_rows(arm, folder, prior_box, cells, count):
    """What a level gives by itself: its priors, and boxes where every prior's score is 0.9."""
    numbers, (rows, cols) = 4 * count, cells
    text = LEVEL.format(rows=rows, cols=cols, prior_box=prior_box, numbers=numbers, count=count)
    param, weights = folder / "level.param", folder / "level.bin"
    param.write_text(text)
    scores = np.tile(np.array([0.1, 0.9], np.float32), count)
    weights.write_bytes(np.zeros(numbers, np.float32).tobytes() + scores.tobytes())
    names = ["priors", "detection_out"]
    found = arm.blobs(param, weights, np.zeros((8, rows, cols), np.float32), names, "fp32")
    return found["priors"][0].reshape(-1, 4), found["detection_out"]


def published_level(arm, folder, steps):
    line = f"PriorBox level 1 1 input priors {PRIOR_BOX} {steps}"
    return priors_and_rows(arm, folder, line, (4, 5), count=4 * 5 * 4)


def test_integers_in_float_slots_of_a_prior_box_give_nan(older_arm, tmp_path):
    """`11=-233 12=-233` where floats belong, as the published model has them."""
    priors, rows = published_level(older_arm, tmp_path, "11=-233 12=-233")

    assert np.isnan(priors).all()
    assert np.isnan(rows[:, 2:]).all()


def test_the_same_spelt_as_floats_is_right(older_arm, arm, tmp_path):
    priors, rows = published_level(older_arm, tmp_path, "11=-233.0 12=-233.0")
    of_newer, _ = published_level(arm, tmp_path, "11=-233 12=-233")

    assert np.isfinite(priors).all()
    assert np.isfinite(rows).all()
    np.testing.assert_array_equal(priors, of_newer)


def test_our_prior_boxes_are_right_in_both(older_arm, arm, tmp_path, with_prior_boxes):
    spec, text = with_prior_boxes.spec, with_prior_boxes.param_path.read_text()
    expected = corners_from_centre(build_priors(spec.priors))
    lines = [line.split() for line in text.splitlines() if line.startswith("PriorBox")]
    start = 0
    for level, (_, _, _, _, _, _, *params) in zip(spec.priors.levels, lines, strict=True):
        line = " ".join(["PriorBox level 1 1 input priors", *params])
        cells = level.rows, level.cols
        for one in (older_arm, arm):
            found, rows = priors_and_rows(one, tmp_path, line, cells, level.count)
            np.testing.assert_allclose(found, expected[start : start + level.count], atol=1e-6)
            assert np.isfinite(rows).all()
        start += level.count
