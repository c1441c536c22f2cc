"""Detectors whose output is the ground truth of scenes, or a broken copy of it."""

from dataclasses import replace

import numpy as np
from builders import tiny_spec
from renderer.scenes import SCENE_CLASSES, render_scene

from mbv3ssd_deploy.core.boxes import centre_from_corners, corners_from_centre, iou_matrix
from mbv3ssd_deploy.core.preprocess import input_from_image
from mbv3ssd_deploy.core.priors import build_priors
from mbv3ssd_deploy.core.truth import truth_from_boxes
from mbv3ssd_deploy.data.dataset import Dataset, Sample
from mbv3ssd_deploy.data.images import read_image, write_image
from mbv3ssd_deploy.evaluate.evaluate import reading_of
from mbv3ssd_deploy.evaluate.run import opened
from mbv3ssd_deploy.runtimes.model import Output
from mbv3ssd_deploy.runtimes.open_model import OpenedModel

SURE = 12.0


def scene_dataset(folder, count=6, *, first=0):
    """Rendered scenes on disk, as a data set."""
    samples = []
    for index in range(first, first + count):
        scene = render_scene(index, width=160, height=120)
        path = folder / f"scene{index}.png"
        write_image(path, scene.image)
        truth = truth_from_boxes(scene.boxes, scene.labels)
        samples.append(Sample(path.stem, path, 160, 120, truth))
    return Dataset("scenes", SCENE_CLASSES, tuple(samples))


def scene_spec(class_names=SCENE_CLASSES):
    """A tiny detector's spec for the scenes' classes."""
    spec = tiny_spec(num_classes=len(class_names))
    return replace(spec, class_names=tuple(class_names))


def heads_from_truth(sample, spec, labels=None):
    """Raw heads (P, 4), (P, C) that encode exactly the given truth."""
    priors = build_priors(spec.priors)
    loc = np.zeros((len(priors), 4), np.float32)
    conf = np.zeros((len(priors), spec.num_classes), np.float32)
    conf[:, 0] = SURE
    size = np.array([sample.width, sample.height] * 2)
    boxes = sample.truth.boxes / size
    overlaps = iou_matrix(boxes.astype(np.float64), corners_from_centre(priors))
    for index, label in enumerate(sample.truth.labels if labels is None else labels):
        prior = int(overlaps[index].argmax())
        overlaps[:, prior] = -1
        (goal,) = centre_from_corners(boxes[index : index + 1])
        mine, coder = priors[prior], spec.coder
        loc[prior, :2] = (goal[:2] - mine[:2]) / mine[2:] / coder.centre_variance
        loc[prior, 2:] = np.log(goal[2:] / mine[2:]) / coder.size_variance
        conf[prior] = 0
        conf[prior, label] = SURE
    return loc, conf


class PerfectDetector:
    """Returns the truth for the images it was made from, and no box for any other image."""

    def __init__(self, dataset, spec, *, change=lambda loc, conf: (loc, conf), colours=1):
        self.spec = spec
        self.known = {}
        for sample in dataset.samples:
            image = read_image(sample.image_path)[..., ::colours]
            heads = change(*heads_from_truth(sample, spec))
            self.known[input_from_image(image, spec.input).tobytes()] = heads
        self.blind = heads_from_truth(
            replace(dataset.samples[0], truth=truth_from_boxes([], [])), spec
        )
        self.calls = []

    def run(self, inputs):
        self.calls.append(len(inputs))
        found = [self.known.get(image.tobytes(), self.blind) for image in inputs]
        loc, conf = (np.stack(heads) for heads in zip(*found, strict=True))
        return Output("perfect", "cpu", {"loc": loc, "conf": conf}, 0.002 * len(inputs))

    def opened(self, name="torch"):
        return OpenedModel(name, f"perfect {name}", self, 1000)


def found_dataset(bundle, folder, count=4):
    """Scenes whose truth is the output of the untrained network in PyTorch."""
    with opened(bundle, ("torch",)) as ready:
        scenes = replace(scene_dataset(folder, count), class_names=ready.spec.class_names)
        reading = reading_of(ready.spec, scenes)
        samples = []
        for sample in scenes.samples:
            image = read_image(sample.image_path)
            output = ready.models[0].model.run(input_from_image(image, ready.spec.input)[None])
            found = reading.detections(output.loc[0], output.conf[0], sample)
            inside = (found.boxes >= 0).all(axis=1) & (found.boxes <= (160, 120) * 2).all(axis=1)
            sound = inside & (found.boxes[:, 2:] > found.boxes[:, :2] + 1).all(axis=1)
            rows = np.flatnonzero(sound)[:40:3]
            truth = truth_from_boxes(found.boxes[rows], found.labels[rows])
            samples.append(replace(sample, truth=truth))
    return replace(scenes, samples=tuple(samples))


def write_yolo(folder, dataset):
    """Write the data set's truth as YOLO text files beside its images; return data.yaml."""
    for sample in dataset.samples:
        centred = centre_from_corners(sample.truth.boxes.astype(np.float64))
        centred /= (sample.width, sample.height) * 2
        rows = [
            " ".join(map(str, (label - 1, *box)))
            for label, box in zip(sample.truth.labels, centred.tolist(), strict=True)
        ]
        sample.image_path.with_suffix(".txt").write_text("\n".join(rows))
    names = "".join(f"  {i}: {name}\n" for i, name in enumerate(dataset.class_names[1:]))
    page = folder / "data.yaml"
    page.write_text(f"path: {dataset.samples[0].image_path.parent.name}\ntest: .\nnames:\n{names}")
    return page
