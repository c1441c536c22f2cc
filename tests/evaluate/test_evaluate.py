"""Every runtime sees every image once; the report says what came of it."""

import json
from dataclasses import replace

import numpy as np
import pytest
from perfect_detectors import PerfectDetector, scene_dataset, scene_spec

from mbv3ssd_deploy.core.average_precision import Protocol, average_precision
from mbv3ssd_deploy.core.spec import BoxEdges
from mbv3ssd_deploy.core.truth import truth_from_boxes
from mbv3ssd_deploy.data.dataset import Dataset
from mbv3ssd_deploy.errors import DatasetError, FormatError
from mbv3ssd_deploy.evaluate import evaluate as evaluate_module
from mbv3ssd_deploy.evaluate.evaluate import evaluate
from mbv3ssd_deploy.evaluate.report import json_from_report, render_report_curves
from mbv3ssd_deploy.runtimes.open_model import OpenedModel


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return scene_dataset(tmp_path_factory.mktemp("scenes"))


def judged(dataset, *subjects, spec=None, protocol=Protocol.VOC_AREA, **options):
    return evaluate(dataset, spec or scene_spec(), subjects, protocol=protocol, **options)


def half_blind(loc, conf):
    """Finds only what stands at an even prior."""
    conf = conf.copy()
    conf[1::2, 0], conf[1::2, 1:] = 12.0, 0.0
    return loc, conf


@pytest.mark.parametrize("protocol", list(Protocol))
def test_a_detector_that_knows_the_answers_is_perfect(scenes, protocol):
    report = judged(scenes, PerfectDetector(scenes, scene_spec()).opened(), protocol=protocol)

    assert report.reference.ap.mean == pytest.approx(1.0, abs=1e-12)
    assert report.images == len(scenes)
    assert report.reference.ap.truths == sum(len(sample.truth) for sample in scenes.samples)
    assert report.notices == ()
    assert report.reference.ms_per_image == pytest.approx(2.0)


def test_drops_are_points_below_pytorch_wherever_it_stands(scenes):
    spec = scene_spec()
    worse = PerfectDetector(scenes, spec, change=half_blind).opened("onnx")

    report = judged(scenes, worse, PerfectDetector(scenes, spec).opened("torch"))

    assert report.reference.name == "torch"
    assert report.drop(report.reference) == 0.0
    drop, row = report.worst_drop()
    assert row.name == "onnx"
    assert drop == pytest.approx(100 * (1.0 - row.ap.mean))
    assert 10 < drop < 90


def test_the_first_runtime_is_the_reference_where_pytorch_is_not(scenes):
    report = judged(scenes, PerfectDetector(scenes, scene_spec()).opened("onnx"))

    assert report.reference.name == "onnx"


def test_images_pass_a_few_at_a_time_and_once(scenes, monkeypatch):
    monkeypatch.setattr(evaluate_module, "CHUNK", 4)
    detector, steps = PerfectDetector(scenes, scene_spec()), []

    judged(scenes, detector.opened(), progress=lambda *step: steps.append(step))

    assert detector.calls == [4, 2]
    assert steps[0] == ("evaluate", 0, 6)
    assert steps[-1] == ("evaluate", 6, 6)
    assert ("evaluate", 4, 6) in steps


def test_boxes_are_judged_in_pixels_of_the_annotation(scenes):
    # the same objects, annotated on a picture twice as large
    def doubled(sample):
        truth = truth_from_boxes(sample.truth.boxes * 2, sample.truth.labels)
        return replace(sample, width=320, height=240, truth=truth)

    large = replace(scenes, samples=tuple(map(doubled, scenes.samples)))

    report = judged(large, PerfectDetector(scenes, scene_spec()).opened(), protocol=Protocol.COCO)

    assert report.reference.ap.mean == pytest.approx(1.0, abs=1e-12)
    assert report.reference.ap.by_size.keys() == {"small", "medium", "large"}


def test_the_last_pixel_inside_is_not_where_a_box_ends(scenes):
    # an inclusive family names x2 a pixel early; at IoU 0.95 that pixel of 96 would show
    spec = scene_spec()
    inclusive = replace(spec, decode=replace(spec.decode, box_edges=BoxEdges.INCLUSIVE))

    report = judged(
        scenes, PerfectDetector(scenes, spec).opened(), spec=inclusive, protocol=Protocol.COCO
    )

    assert report.reference.ap.by_iou[0.95] == pytest.approx(1.0, abs=1e-12)


def test_unsure_boxes_belong_to_the_curve_whatever_the_family_shows(scenes):
    spec = scene_spec()
    shy = replace(spec, decode=replace(spec.decode, score_threshold=0.9))
    unsure = PerfectDetector(scenes, spec, change=lambda loc, conf: (loc, conf / 12.0 * 2.0))

    report = judged(scenes, unsure.opened(), spec=shy)

    assert report.score_threshold == 0.01
    assert report.reference.ap.mean > 0.9


def test_a_family_with_a_lower_threshold_keeps_it(scenes):
    spec = scene_spec()
    low = replace(spec, decode=replace(spec.decode, score_threshold=0.001))

    assert judged(scenes, PerfectDetector(scenes, spec).opened(), spec=low).score_threshold == 0.001


def test_deployed_boxes_are_judged_beside_the_heads(scenes):
    detector = PerfectDetector(scenes, scene_spec())
    reading = evaluate_module.reading_of(scene_spec(), scenes)

    class OneBox:
        def run(self, inputs):
            return one_box(detector.run(inputs))

    def one_box(seen):
        found = [
            evaluate_module.detections_from_heads(loc, conf, reading.spec)
            for loc, conf in zip(seen.loc, seen.conf, strict=True)
        ]
        first_only = tuple(
            type(one)(one.boxes[:1], one.scores[:1], one.labels[:1]) for one in found
        )
        return replace(seen, detections=first_only)

    report = judged(scenes, OpenedModel("ncnn", "one box an image", OneBox(), 10))

    assert report.rows[0].ap.mean == pytest.approx(1.0)
    assert 0 < report.rows[0].deployed.mean < 0.8


def test_a_broken_image_is_left_out_with_its_objects(scenes, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    bad = replace(scenes.samples[0], image_path=broken)
    report = judged(
        replace(scenes, samples=(bad, *scenes.samples[1:])),
        PerfectDetector(scenes, scene_spec()).opened(),
    )

    assert report.images == len(scenes) - 1
    assert report.left_out[0].image == str(broken)
    assert report.reference.ap.mean == pytest.approx(1.0)


def test_nothing_to_judge_is_refused(scenes, tmp_path):
    detector = PerfectDetector(scenes, scene_spec()).opened()
    gone = replace(scenes.samples[0], image_path=tmp_path / "gone.png")
    empty = replace(scenes.samples[0], truth=truth_from_boxes([], []))

    with pytest.raises(DatasetError, match="none of the images could be read"):
        judged(replace(scenes, samples=(gone,)), detector)
    with pytest.raises(DatasetError, match="1 images hold no object that counts"):
        judged(replace(scenes, samples=(empty,)), detector)
    with pytest.raises(ValueError, match="no runtime"):
        judged(scenes)


def test_heads_of_another_model_are_refused(scenes):
    other = PerfectDetector(scenes, scene_spec()).opened()
    fewer = scene_spec((*scene_spec().class_names, "one more"))

    with pytest.raises(FormatError, match="heads are not those of its record"):
        judged(scenes, other, spec=fewer)


def test_a_permutation_of_the_classes_changes_nothing(scenes):
    names = scenes.class_names
    order = [0, *reversed(range(1, len(names)))]
    spec = scene_spec([names[i] for i in order])
    detector = PerfectDetector(scenes, scene_spec(), change=lambda loc, conf: (loc, conf[:, order]))

    report = judged(scenes, detector.opened(), spec=spec)

    assert report.reference.ap.mean == pytest.approx(1.0)
    assert report.notices == ()


def test_json_has_null_for_what_is_not_defined(scenes):
    absent = (*scenes.class_names, "unicorn")
    data = Dataset(scenes.name, absent, scenes.samples)

    report = judged(data, PerfectDetector(scenes, scene_spec()).opened())
    plain = json.loads(json.dumps(json_from_report(report), allow_nan=False))

    assert plain["metric"] == "voc"
    assert plain["runtimes"][0]["map"] == pytest.approx(1.0)
    last = plain["runtimes"][0]["per_class"][-1]
    assert (last["name"], last["ap"], last["truths"]) == ("unicorn", None, 0)
    assert "unicorn" in plain["notices"][0]
    assert plain["runtimes"][0]["detection_out"] is None


def test_curves_are_a_picture(scenes):
    report = judged(scenes, PerfectDetector(scenes, scene_spec()).opened())

    assert render_report_curves(report).startswith(b"\x89PNG")


def test_it_is_the_metric_of_core(scenes):
    detector = PerfectDetector(scenes, scene_spec(), change=half_blind)
    report = judged(scenes, detector.opened())
    reading = evaluate_module.reading_of(scene_spec(), scenes)
    inputs = np.stack([np.frombuffer(key, np.float32).reshape(3, 96, 96) for key in detector.known])
    output = detector.run(inputs)
    found = [
        reading.detections(loc, conf, sample)
        for loc, conf, sample in zip(output.loc, output.conf, scenes.samples, strict=True)
    ]
    truths = [sample.truth for sample in scenes.samples]

    again = average_precision(found, truths, len(scenes.class_names), Protocol.VOC_AREA)

    assert again.mean == report.reference.ap.mean
