import dataclasses

import numpy as np
import pytest
from reference_specs import ZOO_SPECS

from mbv3ssd_deploy.core.boxes import corners_from_centre
from mbv3ssd_deploy.core.priors import build_level_priors, build_priors, level_slices
from mbv3ssd_deploy.core.spec import ClipRule, PriorLevel, PriorRounding, PriorSpec

# 2 rows, 3 columns in a frame that is 60 wide and 20 high
WIDE = PriorSpec(60, 20, (PriorLevel(2, 3, 20.0, 10.0, 4.0, 9.0, (4.0, 0.25)),), ClipRule.NONE)


def with_clip(rule):
    # boxes much larger than the image, whose last centres lie outside it
    level = PriorLevel(2, 2, 40.0, 40.0, 50.0, None, (4.0,))
    return PriorSpec(60, 60, (level,), rule)


def test_the_boxes_of_a_cell_stand_in_the_told_order():
    first_cell = build_priors(WIDE)[:4] * (60, 20, 60, 20)

    assert np.allclose(first_cell[:, :2], [10, 5])
    assert np.allclose(first_cell[:, 2:], [(4, 4), (6, 6), (8, 2), (2, 8)])


def test_cells_go_row_by_row_then_column_by_column():
    centres = build_priors(WIDE)[::4, :2] * (60, 20)

    expected = [(10, 5), (30, 5), (50, 5), (10, 15), (30, 15), (50, 15)]
    assert np.allclose(centres, expected)


def test_a_level_without_a_max_size_has_no_second_square():
    level = dataclasses.replace(WIDE.levels[0], max_size=None)
    priors = build_priors(dataclasses.replace(WIDE, levels=(level,)))

    assert np.allclose(priors[:3, 2] * 60, [4, 8, 2])


def test_no_clip_leaves_priors_outside_the_image():
    priors = build_priors(with_clip(ClipRule.NONE))

    assert np.allclose(priors[-1], [1.0, 1.0, 100 / 60, 25 / 60])


def test_the_centre_form_rule_clamps_all_four_numbers():
    level = PriorLevel(1, 2, 100.0, 20.0, 150.0, None, ())
    priors = build_priors(PriorSpec(100, 100, (level,), ClipRule.CENTRE_FORM))

    assert np.allclose(priors, [[0.5, 0.1, 1, 1], [1, 0.1, 1, 1]])


def test_the_sizes_rule_leaves_the_centres_alone():
    level = PriorLevel(1, 2, 100.0, 20.0, 150.0, None, ())
    priors = build_priors(PriorSpec(100, 100, (level,), ClipRule.SIZES))

    assert np.allclose(priors, [[0.5, 0.1, 1, 1], [1.5, 0.1, 1, 1]])


def test_the_corners_rule_cuts_boxes_at_the_edge_of_the_image():
    priors = build_priors(with_clip(ClipRule.CORNERS))
    free = corners_from_centre(build_priors(with_clip(ClipRule.NONE)))

    assert np.allclose(corners_from_centre(priors), free.clip(0, 1))
    assert not np.allclose(free, free.clip(0, 1))


def on_pixels(level):
    priors = build_priors(PriorSpec(100, 100, (level,), ClipRule.NONE, PriorRounding.PIXEL_CORNERS))
    return corners_from_centre(priors) * 100


def test_rounded_priors_lie_on_whole_pixels_half_to_even():
    # the square of 25 has its first pixel at 0.5, its last one at 24.5; both go to even numbers
    corners = on_pixels(PriorLevel(1, 1, 26.0, 26.0, 25.0, 20.0**2 / 25, ()))

    assert np.allclose(corners, [[0, 0, 25, 25], [3, 3, 23, 23]])


def test_rounded_priors_are_the_same_in_every_cell():
    # rounded where they stand, the boxes of the second cell would reach from 2 to 7
    corners = on_pixels(PriorLevel(1, 2, 3.0, 3.0, 4.0, None, ()))

    assert np.allclose(corners[:, [0, 2]], [[0, 3], [3, 6]])


@pytest.mark.parametrize("spec", [spec.priors for spec in ZOO_SPECS.values()] + [WIDE])
def test_levels_and_slices_make_up_the_whole(spec):
    priors, slices = build_priors(spec), level_slices(spec)

    assert priors.dtype == np.float64
    assert priors.shape == (spec.count, 4)
    assert [s.stop for s in slices[:-1]] == [s.start for s in slices[1:]]
    assert (slices[0].start, slices[-1].stop) == (0, spec.count)
    for index, rows in enumerate(slices):
        assert np.array_equal(priors[rows], build_level_priors(spec, index))


def test_the_published_counts_come_out():
    counts = {folder: spec.priors.count for folder, spec in ZOO_SPECS.items()}

    assert counts["qfgaohao_large"] == counts["tongyu_small"] == counts["jungin500_small"] == 3000
    assert counts["torchvision_coco"] == counts["lufficc_large"] == 3234
    assert counts["compact_large"] == counts["ujsyehao_config"] == 2278
    assert counts["ujsyehao_released"] == 2268
