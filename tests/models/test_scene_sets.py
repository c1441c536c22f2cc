import hashlib

import numpy as np
import pytest
from renderer.scene_sets import SceneSetSpec, write_voc_scenes
from renderer.scenes import SCENE_CLASSES, render_scene
from renderer.styles import CROWDED

from mbv3ssd_deploy.data.dataset import Split
from mbv3ssd_deploy.data.images import read_image
from mbv3ssd_deploy.data.sources import read_dataset
from mbv3ssd_deploy.errors import OutputError


def spec(count=12, **more):
    return SceneSetSpec(count, **{"width": 160, "height": 120, **more})


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes") / "set"
    return folder, write_voc_scenes(folder, spec(), workers=1)


def test_the_set_reads_back_as_it_was_rendered(written):
    folder, report = written

    parts = {split: read_dataset(f"voc:{folder}", split) for split in Split}

    samples = sorted(
        (*parts[Split.TRAINVAL].samples, *parts[Split.TEST].samples), key=lambda s: s.image_id
    )
    assert [sample.image_id for sample in samples] == [f"scene_{k:06d}" for k in range(12)]
    for index, sample in enumerate(samples):
        scene = render_scene(index, width=160, height=120, style=CROWDED)
        assert np.array_equal(sample.truth.boxes, scene.boxes)
        assert np.array_equal(sample.truth.labels, scene.labels)
        error = np.abs(read_image(sample.image_path).astype(int) - scene.image)
        assert error.mean() < 6  # JPEG
    assert all(part.problems == () for part in parts.values())
    assert parts[Split.TEST].class_names == CROWDED.class_names
    assert report.images == {"train": 8, "val": 2, "test": 2, "trainval": 10}
    assert sum(report.objects.values()) == sum(len(sample.truth) for sample in samples)
    assert report.size_bytes == sum(path.stat().st_size for path in folder.glob("JPEGImages/*"))


def test_worker_processes_write_the_same_files(written, tmp_path):
    folder, report = written

    again = write_voc_scenes(tmp_path / "set", spec(), workers=2)

    assert contents(tmp_path / "set") == contents(folder)
    assert again.objects == report.objects


def test_a_larger_set_begins_with_the_smaller_one(written, tmp_path):
    folder, _ = written
    target = tmp_path / "set"

    write_voc_scenes(target, spec(3), workers=1)
    small = contents(target)
    tests = (target / "ImageSets" / "Main" / "test.txt").read_text()
    write_voc_scenes(target, spec(), workers=1)

    assert contents(target) == contents(folder)
    pictures = {name for name in small if name.endswith((".jpg", ".xml"))}
    assert all(small[name] == contents(folder)[name] for name in pictures)
    assert (folder / "ImageSets" / "Main" / "test.txt").read_text().startswith(tests)


@pytest.mark.parametrize("count", [3, 4, 9, 10, 25])
def test_no_part_is_ever_empty(count, tmp_path):
    report = write_voc_scenes(tmp_path, spec(count, width=64, height=64), workers=1)

    assert min(report.images.values()) >= 1
    assert report.images["train"] + report.images["val"] + report.images["test"] == count


def test_a_folder_with_other_things_in_it_is_left_alone(written, tmp_path):
    folder, _ = written
    before = contents(folder)
    (tmp_path / "note.txt").write_text("mine")
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "scenes.json").write_text("{")

    with pytest.raises(OutputError, match="other files"):
        write_voc_scenes(tmp_path, spec())
    with pytest.raises(OutputError, match="another set of scenes"):
        write_voc_scenes(folder, spec(seed=1))
    with pytest.raises(OutputError, match="cannot be read"):
        write_voc_scenes(tmp_path / "odd", spec())

    assert contents(folder) == before


def test_an_error_in_a_worker_process_says_what_it_was(tmp_path):
    write_voc_scenes(tmp_path, spec(3, width=64, height=64), workers=1)
    (tmp_path / "JPEGImages" / "scene_000005.jpg").mkdir()  # a folder where a picture should go

    with pytest.raises(OutputError, match="Is a directory"):
        write_voc_scenes(tmp_path, spec(8, width=64, height=64), workers=2)


def test_progress_counts_the_scenes(tmp_path):
    told = []

    write_voc_scenes(
        tmp_path,
        spec(3, width=64, height=64),
        workers=1,
        progress=lambda *step: told.append(step),
    )

    assert told == [("rendering scenes", done, 3) for done in range(4)]


@pytest.mark.parametrize(
    "wrong", [{"count": 2}, {"width": 63}, {"seed": -1}, {"style": "misty"}], ids=str
)
def test_a_set_that_cannot_be_is_refused(wrong):
    with pytest.raises(ValueError, match=r"a set needs|no style"):
        spec(**{"count": 10, **wrong})


def test_crowded_scenes_have_every_class_small_things_and_hidden_ones():
    scenes = [render_scene(k, width=240, height=180, style=CROWDED) for k in range(24)]
    labels = np.concatenate([scene.labels for scene in scenes])
    boxes = np.concatenate([scene.boxes for scene in scenes])
    brightness = np.array([scene.image.mean() for scene in scenes])

    assert set(labels.tolist()) == set(range(1, len(CROWDED.class_names)))
    assert set(SCENE_CLASSES) < set(CROWDED.class_names)
    assert np.all(boxes[:, 2:] > boxes[:, :2])
    sides = (boxes[:, 2:] - boxes[:, :2]).max(axis=1)
    assert sides.min() < 16
    assert sides.max() > 60
    assert len({len(scene.labels) for scene in scenes}) > 6
    assert brightness.min() < 0.5 * np.median(brightness)


def test_the_scenes_of_the_demo_never_change():
    """The demo checkpoint was fitted to them: a new style must not move what chance gives them."""
    scene = render_scene(1, width=160, height=120)

    assert SCENE_CLASSES == ("background", "disc", "square", "triangle", "star", "ring")
    assert scene.labels.tolist() == [4, 3, 1, 3, 2, 4, 4, 2, 3]
    assert scene.boxes[:2].tolist() == [[99, 0, 133, 26], [38, 112, 50, 120]]
    assert abs(float(scene.image.mean()) - 117.644) < 0.05  # OpenCV's rounding may differ
