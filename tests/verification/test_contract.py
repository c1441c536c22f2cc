"""Specs compared field by field, with a sentence for each difference."""

from dataclasses import replace

import pytest
from reference_specs import qfgaohao_spec

from mbv3ssd_deploy.core.spec import ChannelOrder, ClipRule, ResizeRule
from mbv3ssd_deploy.verification.contract import compare_detection_output, compare_specs
from mbv3ssd_deploy.verification.rules import Code

SPEC = qfgaohao_spec(num_classes=3)


def with_input(**changes):
    return replace(SPEC, input=replace(SPEC.input, **changes))


def with_decode(**changes):
    return replace(SPEC, decode=replace(SPEC.decode, **changes))


def with_level(index, **changes):
    levels = list(SPEC.priors.levels)
    levels[index] = replace(levels[index], **changes)
    return replace(SPEC, priors=replace(SPEC.priors, levels=tuple(levels)))


def test_equal_specs_have_no_reasons():
    assert compare_specs(SPEC, qfgaohao_spec(num_classes=3), where="detector.json") == ()


@pytest.mark.parametrize(
    ("changed", "code", "text"),
    [
        (
            with_input(channel_order=ChannelOrder.BGR),
            Code.CHANNEL_ORDER,
            "channel order is bgr in detector.json, rgb for this checkpoint",
        ),
        (
            with_input(mean=(0.0, 127.0, 127.0)),
            Code.NORMALISATION,
            "mean is (0, 127, 127) in detector.json, (127, 127, 127) for this checkpoint",
        ),
        (with_input(std=(1.0, 1.0, 1.0)), Code.NORMALISATION, "standard deviation is (1, 1, 1)"),
        (with_input(width=320), Code.INPUT_SIZE, "input width is 320"),
        (
            with_input(resize=ResizeRule.PIL_U8_ANTIALIAS),
            Code.RESIZE_RULE,
            "resize rule is pil_u8_antialias in detector.json, cv2_u8 for",
        ),
        (
            replace(SPEC, class_names=("background", "class_1", "cat")),
            Code.CLASS_NAMES,
            "class name[2] is cat in detector.json, class_2 for this checkpoint",
        ),
        (
            replace(SPEC, priors=replace(SPEC.priors, clip=ClipRule.NONE)),
            Code.PRIOR_SPEC,
            "clip rule of the priors is none",
        ),
        (with_level(2, min_size=151.0), Code.PRIOR_SPEC, "priors.levels[2].min size is 151"),
        (with_level(2, ratios=(2.0,)), Code.PRIOR_SPEC, "priors.levels[2].ratios is (2)"),
        (
            replace(SPEC, coder=replace(SPEC.coder, size_variance=0.1)),
            Code.BOX_CODER,
            "coder.size variance is 0.1 in detector.json, 0.2 for this checkpoint",
        ),
        (with_decode(score_threshold=0.5), Code.DECODE_RULES, "decode.score threshold is 0.5"),
        (replace(SPEC, family="native"), Code.SPEC, "family is native in detector.json, qfgaohao"),
    ],
)
def test_each_field_that_differs_has_its_own_code_and_sentence(changed, code, text):
    (reason,) = compare_specs(SPEC, changed, where="detector.json")

    assert reason.code is code
    assert text in reason.text


def test_all_differences_are_reported_not_the_first_only():
    changed = replace(
        with_input(channel_order=ChannelOrder.BGR, height=200), class_names=("background", "cat")
    )

    codes = [reason.code for reason in compare_specs(SPEC, changed, where="body.onnx")]

    assert codes == [Code.INPUT_SIZE, Code.CHANNEL_ORDER, Code.CLASS_NAMES]


def test_a_changed_threshold_of_detection_output_is_named():
    recorded = {"confidence_threshold": 0.01, "nms_threshold": 0.45, "keep_top_k": 100}

    assert (
        compare_detection_output(recorded, recorded | {"confidence_threshold": 0.00999999978}) == ()
    )
    (reason,) = compare_detection_output(recorded, recorded | {"confidence_threshold": 0.5})
    assert reason.code is Code.THRESHOLDS
    assert reason.text == ("confidence threshold is 0.5 in the .param file, 0.01 in detector.json")
    (reason,) = compare_detection_output(
        recorded, {"confidence_threshold": 0.01, "keep_top_k": 100}
    )
    assert "nms threshold is absent" in reason.text
