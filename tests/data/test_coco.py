import json

import numpy as np
import pytest
from dataset_files import plain_image

from mbv3ssd_deploy.data.dataset import Split, summary_of_problems
from mbv3ssd_deploy.data.sources import read_dataset
from mbv3ssd_deploy.errors import DatasetError

CATEGORIES = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]


def annotation(number, image_id, category_id, bbox, **more):
    facts = {"id": number, "image_id": image_id, "category_id": category_id, "bbox": bbox}
    return {**facts, **more}


def image_record(number, **more):
    return {"id": number, "file_name": f"{number}.jpg", "width": 64, "height": 48, **more}


@pytest.fixture
def write(tmp_path):
    """Writes a file of instances and the images it lists; returns the source to read."""

    def written(annotations, images=(7,), categories=CATEGORIES, name="a.json", folder="images"):
        records = [image if isinstance(image, dict) else image_record(image) for image in images]
        for record in records:
            if "file_name" in record:
                plain_image(tmp_path / folder / record["file_name"])
        (tmp_path / folder).mkdir(exist_ok=True)
        content = {"images": records, "annotations": annotations, "categories": categories}
        (tmp_path / name).write_text(json.dumps(content))
        return f"coco:{tmp_path / name},{tmp_path / folder}"

    return written


def kinds(dataset):
    return [problem.kind for problem in dataset.problems]


def test_boxes_areas_and_crowds(write):
    source = write(
        [
            annotation(1, 7, 2, [1.5, 2, 10, 20], area=150.5, iscrowd=0),
            annotation(2, 7, 1, [0, 0, 64, 48], iscrowd=1),
        ]
    )

    dataset = read_dataset(source, Split.TEST)

    (sample,) = dataset.samples
    assert dataset.class_names == ("background", "cat", "dog")
    assert sample.truth.boxes.tolist() == [[1.5, 2, 11.5, 22], [0, 0, 64, 48]]
    assert sample.truth.labels.tolist() == [2, 1]
    assert sample.truth.areas.tolist() == [150.5, 64 * 48]
    assert sample.truth.crowd.tolist() == [False, True]
    assert (sample.image_id, sample.width, sample.height) == ("7", 64, 48)
    assert dataset.problems == ()


def test_holes_in_the_ids_are_closed_in_order_and_counted(write):
    categories = [{"id": 90, "name": "ant"}, {"id": 3, "name": "dog"}, {"id": 13, "name": "cat"}]
    source = write([annotation(1, 7, 13, [1, 1, 9, 9])], categories=categories)

    dataset = read_dataset(source, Split.TEST)

    assert dataset.class_names == ("background", "dog", "cat", "ant")
    assert dataset.samples[0].truth.labels.tolist() == [2]
    assert kinds(dataset) == ["category-holes"]
    assert "ids from 3 to 90" in dataset.problems[0].reason


def test_given_classes_decide_the_labels(write):
    source = write([annotation(1, 7, 1, [1, 1, 9, 9]), annotation(2, 7, 2, [1, 1, 9, 9])])

    dataset = read_dataset(source, Split.TEST, class_names=("background", "dog"))

    assert dataset.samples[0].truth.labels.tolist() == [1]
    assert kinds(dataset) == ["unknown-class"]


def test_every_slip_is_named_by_its_annotation(write, tmp_path):
    source = write(
        [
            annotation(1, 7, 1, [1, 1, 9, 9]),
            annotation(2, 7, 5, [1, 1, 9, 9]),
            annotation(3, 99, 1, [1, 1, 9, 9]),
            annotation(4, 7, 1, [1, 1, -9, 9]),
            annotation(5, 7, 1, [1, 1, 0, 9]),
            annotation(6, 7, 1, [80, 1, 9, 9]),
            annotation(7, 7, 1, [60, 1, 9, 9]),
            annotation(8, 7, 1, [1, 1, 9]),
            annotation(9, 7, 1, [1, 1, "9", 9]),
            annotation(10, 7, 1, [1, 1, float("nan"), 9]),
            {"id": 11, "image_id": 7},
        ]
    )

    dataset = read_dataset(source, Split.TEST)

    assert {problem.place.rsplit(" ", 1)[1]: problem.kind for problem in dataset.problems} == {
        "2": "unknown-class",
        "3": "missing-image",
        "4": "inverted-box",
        "5": "empty-box",
        "6": "box-outside",
        "7": "box-cut",
        "8": "broken-object",
        "9": "broken-object",
        "10": "not-a-number",
        "11": "unknown-class",
    }
    assert len(dataset.samples[0].truth) == 2
    assert dataset.problems[0].place.startswith(str(tmp_path / "a.json"))


def test_images_that_are_missing_broken_twice_or_of_another_size(write, tmp_path):
    good = annotation(1, 7, 1, [1, 1, 9, 9])
    images = [7, 7, 8, 9, image_record(10, width=99), {"id": 11}, image_record(12)]
    source = write([good], images=images)
    (tmp_path / "images" / "8.jpg").unlink()
    (tmp_path / "images" / "9.jpg").write_bytes(b"\xff\xd8 nothing")

    dataset = read_dataset(source, Split.TEST)

    assert [sample.image_id for sample in dataset.samples] == ["7", "12"]
    assert sorted(kinds(dataset)) == [
        "broken-image",
        "duplicate-image",
        "missing-image",
        "missing-image",
        "size-mismatch",
    ]


def test_one_file_for_everything_is_split_by_image_id(write):
    numbers = range(100, 160)
    source = write(
        [annotation(n, n, 1, [1, 1, 9, 9]) for n in numbers],
        images=list(numbers),
    )

    parts = {split: read_dataset(source, split) for split in Split}
    names = {split: {s.image_id for s in part.samples} for split, part in parts.items()}

    assert names[Split.TRAINVAL] == names[Split.TEST] == set(map(str, numbers))
    assert names[Split.TRAIN] | names[Split.VAL] == names[Split.TEST]
    assert not names[Split.TRAIN] & names[Split.VAL]
    assert len(names[Split.TRAIN]) > len(names[Split.VAL]) > 0
    assert kinds(parts[Split.TRAIN]) == ["split-made"]
    assert kinds(parts[Split.TEST]) == []


def test_a_file_for_each_split(write, tmp_path):
    write([annotation(1, 1, 1, [1, 1, 9, 9])], images=[1], name="train.json", folder="train")
    write([annotation(2, 2, 2, [1, 1, 9, 9])], images=[2], name="val.json", folder="val")
    source = f"coco:{tmp_path}/{{split}}.json,{tmp_path}/{{split}}"

    def ids(split):
        return [sample.image_id for sample in read_dataset(source, split).samples]

    assert ids(Split.TRAIN) == ["1"]
    assert ids(Split.VAL) == ["2"]
    assert ids(Split.TRAINVAL) == ["train/1", "val/2"]
    with pytest.raises(DatasetError, match="no such folder"):
        ids(Split.TEST)


def test_train_and_val_with_different_categories_are_refused(write, tmp_path):
    write([annotation(1, 1, 1, [1, 1, 9, 9])], images=[1], name="train.json")
    write([], images=[2], name="val.json", categories=CATEGORIES[:1])

    with pytest.raises(DatasetError, match="different categories"):
        read_dataset(f"coco:{tmp_path}/{{split}}.json,{tmp_path}/images", Split.TRAINVAL)


@pytest.mark.parametrize(
    "categories",
    [
        [{"id": 1, "name": "cat"}, {"id": 2, "name": "Cat"}],
        [{"id": 1, "name": "cat"}, {"id": 2, "name": "cat"}],
        [{"id": 1, "name": "cat"}, {"id": 1, "name": "dog"}],
        [{"id": 0, "name": "background"}, {"id": 1, "name": "dog"}],
        [{"id": 0}],
        [],
    ],
)
def test_categories_that_cannot_be_told_apart_are_refused(write, categories):
    source = write([annotation(1, 7, 1, [1, 1, 9, 9])], categories=categories)

    with pytest.raises(DatasetError, match=r"duplicate class names|has the names|without id|empty"):
        read_dataset(source, Split.TEST)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"images": [],\n "annotations": }', ":2: not valid JSON"),
        ("[]", "no list of 'images'"),
        ('{"images": [], "annotations": [], "categories": {}}', "no list of 'categories'"),
        ('{"images": [1], "annotations": [], "categories": []}', "no list of 'images'"),
        ("[" * 100_000, "not valid JSON"),
    ],
)
def test_a_file_that_is_no_coco_file_is_refused(tmp_path, text, words):
    (tmp_path / "a.json").write_text(text)

    with pytest.raises(DatasetError) as caught:
        read_dataset(f"coco:{tmp_path}/a.json,{tmp_path}", Split.TEST)

    assert words in str(caught.value)


@pytest.mark.parametrize("place", ["a.json", "a.json,", ",images", "a.json,b,c"])
def test_a_file_and_a_folder_are_needed(place):
    with pytest.raises(DatasetError) as caught:
        read_dataset(f"coco:{place}", Split.TEST)

    assert "coco:ANNOTATIONS.json,IMAGES" in caught.value.hint


def test_an_empty_file_is_refused(write):
    source = write([], images=[])

    with pytest.raises(DatasetError, match="no image"):
        read_dataset(source, Split.TEST)


def test_a_summary_counts_each_kind_and_shows_the_first(write):
    boxes = [[1, 1, 0, 9], [1, 1, 9, 9], [2, 2, 9, 0], [90, 1, 2, 2]]
    source = write([annotation(n, 7, 1, box) for n, box in enumerate(boxes)])

    first, second = summary_of_problems(read_dataset(source, Split.TEST).problems)

    assert first.startswith("2 x boxes of zero area, left out; first: ")
    assert "annotation 0: cat 1, 1, 1, 10" in first
    assert second.startswith("1 x boxes outside their image, left out; ")
    assert np.char.count(second, "first") == 0
