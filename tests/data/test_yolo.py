import numpy as np
import pytest
from dataset_files import plain_image

from mbv3ssd_deploy.data.dataset import Split
from mbv3ssd_deploy.data.sources import read_dataset
from mbv3ssd_deploy.errors import DatasetError

YAML = "path: .\ntrain: images/train\nval: images/val\nnames:\n  0: cat\n  1: dog\n"


@pytest.fixture
def add(tmp_path):
    def added(name, labels, part="train"):
        plain_image(tmp_path / "images" / part / f"{name}.jpg")
        if labels is not None:
            path = tmp_path / "labels" / part / f"{name}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(labels)

    return added


def read(tmp_path, text=YAML, split=Split.TRAIN, **options):
    (tmp_path / "data.yaml").write_text(text)
    return read_dataset(f"yolo:{tmp_path / 'data.yaml'}", split, **options)


def kinds(dataset):
    return [problem.kind for problem in dataset.problems]


def test_shares_become_pixels(tmp_path, add):
    add("a", "1 0.5 0.5 0.25 0.5\n0 0.5 0.5 1 1\n")

    dataset = read(tmp_path)

    (sample,) = dataset.samples
    assert dataset.class_names == ("background", "cat", "dog")
    assert sample.truth.boxes.tolist() == [[24, 12, 40, 36], [0, 0, 64, 48]]
    assert sample.truth.labels.tolist() == [2, 1]
    assert dataset.problems == ()


def test_a_polygon_gives_the_box_around_it(tmp_path, add):
    add("a", "0 0.25 0.5 0.5 0.25 0.75 0.5 0.5 1.0\n")

    (sample,) = read(tmp_path).samples

    assert sample.truth.boxes.tolist() == [[16, 12, 48, 48]]


def test_names_may_be_a_list_and_classes_may_be_given(tmp_path, add):
    add("a", "0 0.5 0.5 1 1\n1 0.5 0.5 1 1\n")
    text = "train: images/train\nnames: [cat, dog]\n"

    listed = read(tmp_path, text)
    given = read(tmp_path, text, class_names=("background", "dog"))

    assert listed.samples[0].truth.labels.tolist() == [1, 2]
    assert given.samples[0].truth.labels.tolist() == [1]
    assert kinds(given) == ["unknown-class"]


def test_numbers_of_classes_may_have_holes(tmp_path, add):
    add("a", "7 0.5 0.5 1 1\n")

    dataset = read(tmp_path, "train: images/train\nnames: {9: ant, 3: bee, 7: cat}\n")

    assert dataset.class_names == ("background", "bee", "cat", "ant")
    assert dataset.samples[0].truth.labels.tolist() == [2]


def test_folders_lists_and_files_beside_each_other(tmp_path):
    for part in ("one", "two"):
        plain_image(tmp_path / part / "deep" / f"{part}.png")
        (tmp_path / part / "deep" / f"{part}.txt").write_text("0 0.5 0.5 1 1\n")
    (tmp_path / "list.txt").write_text("two/deep/two.png\n\n")

    both = read(tmp_path, "train: [one, list.txt]\nnames: [cat]\n")

    assert [sample.image_path.stem for sample in both.samples] == ["one", "two"]
    assert np.concatenate([sample.truth.labels for sample in both.samples]).tolist() == [1, 1]


def test_images_of_the_same_name_keep_apart(tmp_path, add):
    for part in ("train", "val"):
        add("a", "0 0.5 0.5 1 1\n", part)
    add("b", "0 0.5 0.5 1 1\n")

    names = [sample.image_id for sample in read(tmp_path, split=Split.TRAINVAL).samples]

    folder = tmp_path / "images"
    assert names == [str(folder / "train" / "a.jpg"), "b", str(folder / "val" / "a.jpg")]


def test_a_step_up_that_leads_nowhere_is_left_out(tmp_path, add):
    add("a", "0 0.5 0.5 1 1\n")

    assert len(read(tmp_path, "train: ../images/train\nnames: [cat]\n")) == 1


def test_trainval_joins_and_a_missing_split_is_named(tmp_path, add):
    add("a", "0 0.5 0.5 1 1\n")
    add("b", "0 0.5 0.5 1 1\n", "val")

    assert len(read(tmp_path, split=Split.TRAINVAL)) == 2
    with pytest.raises(DatasetError, match="the file names train, val") as caught:
        read(tmp_path, split=Split.TEST)
    assert "test: FOLDER" in caught.value.hint


def test_every_slip_is_named_with_its_line(tmp_path, add):
    lines = [
        "0 0.5 0.5 1 1",
        "0 0.5 0.5 0 1",
        "0 0.5 0.5 -0.5 1",
        "0 1.5 0.5 0.2 0.2",
        "0 0.9 0.5 0.4 0.2",
        "5 0.5 0.5 1 1",
        "0.5 0.5 0.5 1 1",
        "0 0.5 0.5 1",
        "cat 0.5 0.5 1 1",
        "0 nan 0.5 1 1",
        "",
    ]
    add("a", "\n".join(lines))

    dataset = read(tmp_path)

    labels = tmp_path / "labels" / "train" / "a.txt"
    assert {int(problem.place.rsplit(":", 1)[1]): problem.kind for problem in dataset.problems} == {
        2: "empty-box",
        3: "inverted-box",
        4: "box-outside",
        5: "box-cut",
        6: "unknown-class",
        7: "unknown-class",
        8: "broken-object",
        9: "broken-object",
        10: "not-a-number",
    }
    assert dataset.problems[0].place.startswith(str(labels))
    assert len(dataset.samples[0].truth) == 2


def test_an_image_without_labels_is_background_and_counted(tmp_path, add):
    add("a", "0 0.5 0.5 1 1\n")
    add("b", None)
    add("c", "")

    dataset = read(tmp_path)

    assert [len(sample.truth) for sample in dataset.samples] == [1, 0, 0]
    assert kinds(dataset) == ["no-label-file"]


def test_a_label_file_without_an_image_is_named(tmp_path, add):
    add("a", "0 0.5 0.5 1 1\n")
    labels = tmp_path / "labels" / "train"
    (labels / "b.txt").write_text("0 0.5 0.5 1 1\n")
    (labels / "c.txt").write_text("")
    (labels / "classes.txt").write_text("cat\ndog\n")

    problems = read(tmp_path).problems

    assert {problem.kind for problem in problems} == {"missing-image"}
    assert [problem.place for problem in problems] == [str(labels / f"{n}.txt") for n in "bc"]


def test_an_image_whose_labels_cannot_be_read_is_no_background(tmp_path, add):
    add("a", "0 0.5 0.5 1 1\n")
    add("b", "")
    (tmp_path / "labels" / "train" / "b.txt").write_bytes(b"\xff\xfe\x00")

    dataset = read(tmp_path)

    assert [sample.image_id for sample in dataset.samples] == ["a"]
    assert kinds(dataset) == ["broken-annotation"]


def test_images_that_are_missing_or_broken_are_left_out(tmp_path, add):
    add("a", "0 0.5 0.5 1 1\n")
    add("b", "0 0.5 0.5 1 1\n")
    (tmp_path / "images" / "train" / "b.jpg").write_text("no picture")
    (tmp_path / "list.txt").write_text("images/train/a.jpg\nimages/train/a.jpg\nnone.jpg\n")

    folder = read(tmp_path)
    listed = read(tmp_path, "train: list.txt\nnames: [cat]\n")

    assert kinds(folder) == ["broken-image"]
    assert kinds(listed) == ["duplicate-image", "no-label-file", "missing-image"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("names: [cat]\ntrain: nowhere\n", "no such folder or list"),
        ("names: [cat]\ntrain: empty\n", "the split is empty"),
        ("names: [cat]\n", "names none"),
        ("train: images\n", "no 'names'"),
        ("- 1\n", "no 'names'"),
        ("names: cat\ntrain: images\n", "neither a list"),
        ("names: {a: cat}\ntrain: images\n", "neither a list"),
        ("names: [cat, CAT]\ntrain: images\n", "case or blank"),
        ("names: [cat\ntrain: images\n", "not valid YAML"),
        ("names: !!python/object:os.system []\n", "not valid YAML"),
    ],
)
def test_a_description_that_cannot_be_used_is_refused(tmp_path, text, words):
    (tmp_path / "empty").mkdir()

    with pytest.raises(DatasetError) as caught:
        read(tmp_path, text)

    assert words in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_a_description_that_is_not_there(tmp_path):
    with pytest.raises(DatasetError, match="no such file"):
        read_dataset(f"yolo:{tmp_path / 'none.yaml'}", Split.TRAIN)
