"""Whatever bytes an annotation file holds: a data set or a DatasetError, nothing else."""

import json

import pytest
from dataset_files import VocFolder, plain_image, voc_object, voc_xml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mbv3ssd_deploy.data.dataset import Split
from mbv3ssd_deploy.data.sources import read_dataset
from mbv3ssd_deploy.errors import DatasetError

XML = voc_xml(voc_object("cat", (1, 1, 20, 20)), voc_object("dog", (5, 5, 60, 40))).encode()
COCO = json.dumps(
    {
        "images": [{"id": 7, "file_name": "7.jpg", "width": 64, "height": 48}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 1, "bbox": [1, 2, 9, 9], "area": 70.5},
            {"id": 2, "image_id": 7, "category_id": 2, "bbox": [1, 2, 9, 9], "iscrowd": 1},
        ],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }
).encode()
YAML = b"path: .\ntrain: images\nval: [images]\nnames: {0: cat, 1: dog}\n"
LABELS = b"0 0.5 0.5 0.2 0.2\n1 0.1 0.1 0.2 0.1 0.2 0.3\n"

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.just(10**400)
    | st.floats()
    | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=4,
)
FEW = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@st.composite
def damaged(draw, data):
    """Some bytes changed, some text put in or taken out."""
    kind = draw(st.sampled_from(["change", "insert", "cut"]))
    at = draw(st.integers(0, len(data) - 1))
    piece = draw(
        st.binary(min_size=1, max_size=6) | st.sampled_from([b"-", b"1e999", b"nan", b"<"])
    )
    if kind == "cut":
        return data[:at] + data[at + draw(st.integers(1, 40)) :]
    return data[:at] + piece + data[at + (len(piece) if kind == "change" else 0) :]


def read(source, split=Split.TRAINVAL):
    """The data set, or None where it is refused; its problems all have a place and a reason."""
    try:
        dataset = read_dataset(source, split)
    except DatasetError:
        return None
    assert all(problem.place and problem.reason for problem in dataset.problems)
    return dataset


@pytest.fixture
def voc(tmp_path):
    folder = VocFolder(tmp_path).add("good", voc_object("cat", (1, 1, 9, 9))).add("bad")
    return folder.list("trainval", "good", "bad")


@FEW
@given(damaged(XML))
def test_voc(voc, data):
    (voc.annotations / "bad.xml").write_bytes(data)

    dataset = read(voc.source)

    assert dataset is None or dataset.samples[0].image_id == "good"


@FEW
@given(damaged(b"good\nbad\n"))
def test_lists(voc, data):
    (voc.lists / "trainval.txt").write_bytes(data)

    read(voc.source)


@FEW
@given(damaged(COCO))
def test_coco_bytes(tmp_path, data):
    if not (tmp_path / "7.jpg").exists():
        plain_image(tmp_path / "7.jpg")
    (tmp_path / "a.json").write_bytes(data)

    read(f"coco:{tmp_path}/a.json,{tmp_path}")


@FEW
@given(st.data())
def test_coco_values(tmp_path, data):
    """Any value in the place of any other."""
    if not (tmp_path / "7.jpg").exists():
        plain_image(tmp_path / "7.jpg")
    content = json.loads(COCO)
    record = data.draw(st.sampled_from([content, *content["images"], *content["annotations"]]))
    record[data.draw(st.sampled_from(sorted(record)))] = data.draw(JSON_VALUES)
    (tmp_path / "a.json").write_text(json.dumps(content))

    read(f"coco:{tmp_path}/a.json,{tmp_path}")


@pytest.fixture
def yolo(tmp_path):
    plain_image(tmp_path / "images" / "a.jpg")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_bytes(LABELS)
    (tmp_path / "data.yaml").write_bytes(YAML)
    return tmp_path


@FEW
@given(damaged(YAML))
def test_yolo_description(yolo, data):
    (yolo / "data.yaml").write_bytes(data)

    read(f"yolo:{yolo}/data.yaml", Split.TRAIN)


@FEW
@given(damaged(LABELS))
def test_yolo_labels(yolo, data):
    (yolo / "labels" / "a.txt").write_bytes(data)

    read(f"yolo:{yolo}/data.yaml", Split.TRAIN)
