import dataclasses
import re

import pytest
from reference_specs import qfgaohao_spec, torchvision_spec

from mbv3ssd_deploy.core.spec import (
    BoxCoder,
    ChannelOrder,
    ClipRule,
    InputSpec,
    PriorLevel,
    PriorSpec,
    ResizeRule,
)
from mbv3ssd_deploy.errors import SpecError

SPEC = qfgaohao_spec()
LEVEL = SPEC.priors.levels[0]
NAN, INF = float("nan"), float("inf")


def test_counts_follow_from_the_tables():
    assert LEVEL.boxes_per_cell == 6
    assert LEVEL.count == 19 * 19 * 6
    assert dataclasses.replace(LEVEL, max_size=None, ratios=(2.0,)).boxes_per_cell == 2
    assert SPEC.priors.count == 3000
    assert torchvision_spec().num_classes == 91
    assert BoxCoder(0.1, 0.2).variances == (0.1, 0.1, 0.2, 0.2)


@pytest.mark.parametrize(
    ("part", "changes", "says"),
    [
        (SPEC.input, {"height": 0}, "0 x 300 has no pixels"),
        (SPEC.input, {"std": (1.0, 0.0, 1.0)}, "std above 0"),
        (SPEC.input, {"mean": (NAN, 0.0, 0.0)}, "must be finite"),
        (SPEC.arch, {"width_mult": 0.0}, "width multiplier 0.0"),
        (SPEC.arch, {"width_mult": NAN}, "width multiplier nan"),
        (SPEC.arch, {"taps": ()}, "at least one tap"),
        (LEVEL, {"rows": 0}, "0 x 19 cells"),
        (LEVEL, {"min_size": 0.0}, "above 0"),
        (LEVEL, {"max_size": INF}, "finite"),
        (LEVEL, {"ratios": (2.0, -1.0)}, "above 0"),
        (LEVEL, {"step_x": NAN}, "finite"),
        (SPEC.priors, {"levels": ()}, "at least one prior level"),
        (SPEC.priors, {"frame_width": 0.0}, "larger than 0"),
        (SPEC.priors, {"frame_height": NAN}, "finite"),
        (SPEC.coder, {"centre_variance": 0.0}, "above 0"),
        (SPEC.coder, {"size_variance": NAN}, "finite"),
        (SPEC.coder, {"max_log_size": INF}, "none for no limit"),
        (SPEC.coder, {"min_log_size": -INF}, "smallest log size must be finite"),
        (SPEC.decode, {"score_threshold": 1.5}, "within 0..1"),
        (SPEC.decode, {"iou_threshold": NAN}, "within 0..1"),
        (SPEC.decode, {"keep_total": 0}, "at least 1, or none"),
        (SPEC.decode, {"iou_epsilon": -1.0}, "at least 0"),
        (SPEC.decode, {"iou_epsilon": NAN}, "finite"),
        (SPEC, {"class_names": ("background",)}, "at least one class"),
        (SPEC, {"class_names": ("a", "b", "a", "b", "c")}, "duplicate class names: a, b"),
    ],
)
def test_a_part_that_makes_no_sense_says_so(part, changes, says):
    with pytest.raises(SpecError, match=re.escape(says)):
        dataclasses.replace(part, **changes)


def test_specs_are_values():
    assert qfgaohao_spec() == SPEC
    assert hash(qfgaohao_spec()) == hash(SPEC)
    with pytest.raises(dataclasses.FrozenInstanceError):
        SPEC.name = "other"


def test_the_smallest_parts_are_allowed():
    assert PriorSpec(1, 1, (PriorLevel(1, 1, 1, 1, 1, None, ()),), ClipRule.NONE).count == 1
    InputSpec(1, 1, ChannelOrder.BGR, (0, 0, 0), (1, 1, 1), ResizeRule.CV2_U8)
