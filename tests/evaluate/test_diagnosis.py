"""A mAP near zero is explained where undoing a usual mistake really finds the objects."""

from dataclasses import replace

import numpy as np
import pytest
from perfect_detectors import PerfectDetector, scene_dataset, scene_spec

from mbv3ssd_deploy.core.average_precision import Protocol
from mbv3ssd_deploy.evaluate.diagnosis import with_diagnosis
from mbv3ssd_deploy.evaluate.evaluate import evaluate


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return scene_dataset(tmp_path_factory.mktemp("scenes"))


def diagnosis(dataset, *subjects):
    report = evaluate(dataset, scene_spec(), subjects, protocol=Protocol.VOC07)
    return with_diagnosis(report, dataset, scene_spec(), subjects).diagnosis


def rolled(first, step):
    """The columns from `first` on, moved by `step`."""

    def change(loc, conf):
        return loc, np.concatenate([conf[:, :first], np.roll(conf[:, first:], step, 1)], axis=1)

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (rolled(1, 1), "when every label is moved down by one"),
        (rolled(1, -1), "when every label is moved up by one"),
        (rolled(0, -1), "when the last class is read as the background"),
    ],
)
def test_labels_that_are_off_are_named(scenes, change, words):
    (said,) = diagnosis(scenes, PerfectDetector(scenes, scene_spec(), change=change).opened())

    assert words in said
    assert "rises from 0.0" in said
    assert "to 1.000" in said


def test_labels_that_are_off_are_named_where_some_objects_are_found_by_luck(scenes):
    detector = PerfectDetector(scenes, scene_spec(), change=rolled(1, 1))
    lucky = replace(scenes, samples=scenes.samples[2:3])
    detector.known |= PerfectDetector(lucky, scene_spec()).known

    (said,) = diagnosis(scenes, detector.opened())

    assert "mAP is low (0.0" in said or "mAP is low (0.1" in said
    assert "when every label is moved down by one" in said


def test_a_weak_detector_is_not_told_what_would_not_help(scenes):
    detector = PerfectDetector(replace(scenes, samples=scenes.samples[:1]), scene_spec())
    report = evaluate(scenes, scene_spec(), [detector.opened()], protocol=Protocol.VOC_AREA)

    assert 0.05 < report.reference.ap.mean < 0.15
    assert with_diagnosis(report, scenes, scene_spec(), [detector.opened()]).diagnosis == ()


def test_exchanged_colours_are_named(scenes):
    (said,) = diagnosis(scenes, PerfectDetector(scenes, scene_spec(), colours=-1).opened())

    assert "when red and blue are exchanged" in said
    assert "--bgr" in said


def test_cures_that_are_nearly_as_good_are_all_named(scenes):
    # knows half of the images by labels that are off, and the other half by exchanged colours
    halves = [replace(scenes, samples=scenes.samples[first::2]) for first in (0, 1)]
    detector = PerfectDetector(halves[0], scene_spec(), change=rolled(1, 1))
    detector.known |= PerfectDetector(halves[1], scene_spec(), colours=-1).known

    (said,) = diagnosis(scenes, detector.opened())

    assert "when every label is moved down by one" in said
    assert ", or to 0." in said
    assert "when red and blue are exchanged" in said


def test_where_nothing_helps_nothing_is_promised(scenes):
    blind = PerfectDetector(
        replace(scenes, samples=scenes.samples[:1]), scene_spec(), change=shuffled
    )

    (said,) = diagnosis(scenes, blind.opened())

    assert "mAP is near zero (0.0" in said
    assert "neither" in said


def shuffled(loc, conf):
    return loc[::-1], conf


def test_a_good_detector_is_left_alone(scenes):
    assert diagnosis(scenes, PerfectDetector(scenes, scene_spec()).opened()) == ()


def test_only_the_runtime_that_fails_is_explained(scenes):
    good = PerfectDetector(scenes, scene_spec()).opened("torch")
    bad = PerfectDetector(scenes, scene_spec(), change=rolled(1, 1)).opened("ncnn")

    (said,) = diagnosis(scenes, good, bad)

    assert said.startswith("ncnn: mAP is near zero")


def test_where_all_fail_the_reference_speaks_for_them(scenes):
    detectors = [
        PerfectDetector(scenes, scene_spec(), change=rolled(1, 1)).opened(n)
        for n in ("torch", "onnx")
    ]

    (said,) = diagnosis(scenes, *detectors)

    assert said.startswith("torch:")
