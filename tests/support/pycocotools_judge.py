"""What pycocotools says of the same boxes, and that ours is the same."""

import contextlib
import io

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mbv3ssd_deploy.core.average_precision import Protocol, average_precision

STATS = ("mean", 0.5, 0.75, "small", "medium", "large")
RECALLS = ("1", "10", "100", "small", "medium", "large")


def xywh(box):
    x1, y1, x2, y2 = map(float, box)
    return [x1, y1, x2 - x1, y2 - y1]


def coco_eval(detections, truths, class_count):
    """What pycocotools says of the same boxes; ignored objects go by its own `iscrowd` only."""
    annotations = [
        {"id": 0, "image_id": index, "category_id": int(label), "bbox": xywh(box)}
        | {"area": float(area), "iscrowd": int(crowd)}
        for index, one in enumerate(truths)
        for box, label, area, crowd in zip(one.boxes, one.labels, one.areas, one.crowd, strict=True)
    ]
    results = [
        {"image_id": index, "category_id": int(label), "bbox": xywh(box), "score": float(score)}
        for index, one in enumerate(detections)
        for box, score, label in zip(one.boxes, one.scores, one.labels, strict=True)
    ]
    for number, annotation in enumerate(annotations, 1):
        annotation["id"] = number
    truth = COCO()
    truth.dataset = {
        "info": {},
        "images": [{"id": index} for index in range(len(truths))],
        "categories": [{"id": label} for label in range(1, class_count)],
        "annotations": annotations,
    }
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        judge = COCOeval(truth, truth.loadRes(results), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return judge


def assert_as_pycocotools(detections, truths, class_count):
    report = average_precision(detections, truths, class_count, Protocol.COCO)
    judge = coco_eval(detections, truths, class_count)
    table = {"mean": report.mean} | dict(report.by_iou) | dict(report.by_size)
    ours = [table[key] for key in STATS] + [report.average_recall[key] for key in RECALLS]
    np.testing.assert_allclose(np.nan_to_num(ours, nan=-1.0), judge.stats, rtol=0, atol=1e-9)
    of_class = judge.eval["precision"][:, :, :, 0, 2].mean(axis=(0, 1))
    per_class = [one.ap for one in report.per_class]
    np.testing.assert_allclose(np.nan_to_num(per_class, nan=-1.0), of_class, rtol=0, atol=1e-9)
    return report
