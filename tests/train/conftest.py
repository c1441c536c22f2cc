"""Small rendered scenes as data sets, in memory and in VOC layout."""

import numpy as np
import pytest
from dataset_files import voc_object, voc_xml
from renderer.scenes import SCENE_CLASSES, render_scene

from mbv3ssd_deploy.core.truth import truth_from_boxes
from mbv3ssd_deploy.data.dataset import Dataset, Sample
from mbv3ssd_deploy.data.images import write_image


@pytest.fixture(scope="session")
def scenes(tmp_path_factory):
    """Twelve scenes of 160 x 120 with their truth."""
    folder = tmp_path_factory.mktemp("scenes")
    samples = []
    for index in range(12):
        scene = render_scene(index, width=160, height=120)
        path = folder / f"scene_{index}.png"
        write_image(path, scene.image)
        truth = truth_from_boxes(scene.boxes, scene.labels)
        samples.append(Sample(path.stem, path, 160, 120, truth))
    return Dataset("scenes", SCENE_CLASSES, tuple(samples))


@pytest.fixture
def voc(scenes, tmp_path):
    """The same in VOC layout: eight images for training, four for validation."""
    return write_voc(scenes, tmp_path / "voc")


@pytest.fixture(scope="session")
def shared_voc(scenes, tmp_path_factory):
    """As `voc`, for tests that do not change it."""
    return write_voc(scenes, tmp_path_factory.mktemp("shared") / "voc")


def write_voc(scenes, root):
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / name).mkdir(parents=True)
    for sample in scenes.samples:
        (root / "JPEGImages" / sample.image_path.name).symlink_to(sample.image_path)
        objects = [
            voc_object(SCENE_CLASSES[label], (box + np.array([1, 1, 0, 0])).astype(int))
            for box, label in zip(sample.truth.boxes, sample.truth.labels, strict=True)
        ]
        text = voc_xml(*objects, size=(160, 120)).replace(
            "<annotation>", f"<annotation><filename>{sample.image_path.name}</filename>"
        )
        (root / "Annotations" / f"{sample.image_id}.xml").write_text(text)
    stems = [sample.image_id for sample in scenes.samples]
    for split, names in (("train", stems[:8]), ("val", stems[8:])):
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(names))
    (root / "labels.txt").write_text("\n".join(SCENE_CLASSES[1:]))
    return root
