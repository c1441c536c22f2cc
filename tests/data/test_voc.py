import numpy as np
import pytest
import zoo
from dataset_files import VocFolder, plain_image, voc_object

from mbv3ssd_deploy.data.dataset import Split
from mbv3ssd_deploy.data.hash_split import made_split
from mbv3ssd_deploy.data.sources import read_dataset
from mbv3ssd_deploy.errors import DatasetError

CAT = voc_object("cat", (1, 1, 64, 48))


@pytest.fixture
def folder(tmp_path):
    return VocFolder(tmp_path / "set")


def kinds(dataset):
    return [problem.kind for problem in dataset.problems]


def test_inclusive_coordinates_from_one_become_continuous_edges(folder):
    folder.add("a", CAT, voc_object("dog", (11, 21, 30, 40))).list("train", "a")

    (sample,) = read_dataset(folder.source, Split.TRAIN).samples

    assert sample.truth.boxes.tolist() == [[0, 0, 64, 48], [10, 20, 30, 40]]
    assert sample.truth.areas.tolist() == [64 * 48, 400]
    assert (sample.image_id, sample.width, sample.height) == ("a", 64, 48)
    assert sample.image_path == folder.images / "a.jpg"


def test_labels_follow_the_sorted_names_of_all_splits(folder):
    folder.add("a", CAT).add("b", voc_object("ant", (1, 1, 9, 9)))
    folder.list("train", "a").list("val", "b")

    dataset = read_dataset(folder.source, Split.TRAIN)

    assert dataset.class_names == ("background", "ant", "cat")
    assert dataset.samples[0].truth.labels.tolist() == [2]


def test_a_list_of_classes_decides_their_order(folder):
    (folder.root / "labels.txt").write_text("BACKGROUND\ncat\nant\n")
    folder.add("a", CAT, voc_object("bee", (1, 1, 9, 9))).list("train", "a")

    dataset = read_dataset(folder.source, Split.TRAIN)

    assert dataset.class_names == ("background", "cat", "ant")
    assert kinds(dataset) == ["unknown-class"]


def test_given_classes_outrank_the_list_and_a_near_miss_is_named(folder):
    (folder.root / "labels.txt").write_text("cat\n")
    folder.add("a", voc_object("Cat", (1, 1, 9, 9)), voc_object("dog", (1, 1, 9, 9)))
    folder.list("train", "a")

    dataset = read_dataset(folder.source, Split.TRAIN, class_names=("background", "cat", "dog"))

    assert dataset.samples[0].truth.labels.tolist() == [2]
    (problem,) = dataset.problems
    assert problem.reason == "class 'Cat' is not among the classes, but 'cat' is"
    assert problem.place == f"{folder.annotations / 'a.xml'}:5"


def test_trainval_is_made_of_train_and_val(folder):
    folder.add("a", CAT).add("b", CAT).list("train", "b").list("val", "a")

    dataset = read_dataset(folder.source, Split.TRAINVAL)

    assert [sample.image_id for sample in dataset.samples] == ["b", "a"]


def test_several_years_are_joined_and_one_may_lack_the_split(tmp_path):
    first, second = VocFolder(tmp_path / "VOC2007"), VocFolder(tmp_path / "VOC2012")
    first.add("1", CAT).list("train", "1").list("test", "1")
    second.add("1", voc_object("dog", (1, 1, 9, 9))).list("train", "1")
    source = f"voc:{first.root},{second.root}"

    train, test = read_dataset(source, Split.TRAIN), read_dataset(source, Split.TEST)

    assert [sample.image_id for sample in train.samples] == ["VOC2007/1", "VOC2012/1"]
    assert [sample.image_id for sample in test.samples] == ["VOC2007/1"]
    assert train.class_names == test.class_names == ("background", "cat", "dog")
    assert kinds(test) == ["missing-split"]


def test_difficult_is_kept_as_a_flag(folder):
    hard = voc_object("cat", (1, 1, 9, 9), "<difficult>1</difficult>")
    folder.add("a", hard, CAT).list("train", "a")

    (sample,) = read_dataset(folder.source, Split.TRAIN).samples

    assert sample.truth.difficult.tolist() == [True, False]


@pytest.mark.parametrize(
    ("box", "kind"),
    [
        ((30, 5, 20, 9), "inverted-box"),
        ((30, 5, 29, 9), "inverted-box"),
        ((30, 5, 30, 9), "empty-box"),
        ((70, 5, 90, 9), "box-outside"),
        (("nan", 5, 90, 9), "not-a-number"),
        (("one", 5, 90, 9), "broken-object"),
        (("", 5, 90, 9), "broken-object"),
    ],
)
def test_boxes_that_are_none_are_left_out_and_named(folder, box, kind):
    folder.add("a", CAT, voc_object("dog", box)).list("train", "a")

    dataset = read_dataset(folder.source, Split.TRAIN)

    assert dataset.samples[0].truth.boxes.tolist() == [[0, 0, 64, 48]]
    (problem,) = dataset.problems
    assert problem.kind == kind
    assert problem.place == f"{folder.annotations / 'a.xml'}:9"
    assert "dog" in problem.reason


def test_boxes_are_cut_at_the_edge_of_the_image(folder):
    near, far = voc_object("cat", (0, 0, 65, 49)), voc_object("cat", (-9, 5, 30, 99))
    folder.add("a", near, far).list("train", "a")

    dataset = read_dataset(folder.source, Split.TRAIN)

    assert dataset.samples[0].truth.boxes.tolist() == [[0, 0, 64, 48], [0, 4, 30, 48]]
    assert kinds(dataset) == ["box-cut"]  # one pixel is a convention, nine are a slip


def test_an_image_without_objects_is_a_sample(folder):
    folder.add("a", CAT).add("empty").list("train", "a", "empty")

    dataset = read_dataset(folder.source, Split.TRAIN)

    assert [len(sample.truth) for sample in dataset.samples] == [1, 0]
    assert dataset.problems == ()


def test_images_and_annotations_without_each_other_are_counted(folder):
    folder.add("a", CAT).add("b", CAT, image=False)
    plain_image(folder.images / "c.png")
    folder.list("train", "a", "b", "c", "d", "a")

    dataset = read_dataset(folder.source, Split.TRAIN)

    assert [sample.image_id for sample in dataset.samples] == ["a"]
    assert kinds(dataset) == [
        "duplicate-image",
        "missing-image",
        "missing-annotation",
        "missing-annotation",
    ]
    assert dataset.problems[0].place == f"{folder.lists / 'train.txt'}:5"


def test_of_two_images_of_one_name_the_first_is_taken_and_the_other_named(folder):
    folder.add("a", CAT).list("train", "a")
    plain_image(folder.images / "a.png")

    dataset = read_dataset(folder.source, Split.TRAIN)

    assert [sample.image_path.name for sample in dataset.samples] == ["a.jpg"]
    (problem,) = dataset.problems
    assert problem.kind == "duplicate-image"
    assert problem.place == str(folder.images / "a.png")


@pytest.mark.parametrize(
    ("xml", "line", "words"),
    [
        ("<annotation>\n<object>", 2, "not valid XML"),
        ("", 1, "not valid XML"),
        ("<html>\n</html>", 1, "<html>"),
        ('<!DOCTYPE a [<!ENTITY b "c">]>\n<annotation>&b;</annotation>', 1, "DOCTYPE"),
    ],
)
def test_an_annotation_that_cannot_be_read_is_named_with_its_line(folder, xml, line, words):
    folder.add("a", CAT).add("b", xml=xml).list("train", "a", "b")

    dataset = read_dataset(folder.source, Split.TRAIN)

    (problem,) = dataset.problems
    assert problem.kind == "broken-annotation"
    assert problem.place == f"{folder.annotations / 'b.xml'}:{line}"
    assert words in problem.reason
    assert len(dataset) == 1


def test_broken_and_truncated_images_are_left_out(folder):
    folder.add("a", CAT).add("short", CAT).add("text", CAT).list("train", "a", "short", "text")
    whole = (folder.images / "short.jpg").read_bytes()
    (folder.images / "short.jpg").write_bytes(whole[:-40])
    (folder.images / "text.jpg").write_text("not a picture")

    dataset = read_dataset(folder.source, Split.TRAIN)

    assert kinds(dataset) == ["broken-image", "broken-image"]
    assert "ends early" in dataset.problems[0].reason


def test_an_annotation_of_an_image_of_another_size_is_left_out(folder):
    folder.add("a", CAT, size=None).add("b", CAT, size=(640, 480)).add("c", CAT, size=(0, 0))
    folder.list("train", "a", "b", "c")

    dataset = read_dataset(folder.source, Split.TRAIN)

    assert [sample.image_id for sample in dataset.samples] == ["a", "c"]
    assert dataset.problems[0].kind == "size-mismatch"
    assert "640 x 480" in dataset.problems[0].reason
    assert "64 x 48" in dataset.problems[0].reason


@pytest.mark.parametrize("other", ["CAT", "c at", "ca_t"])
def test_classes_that_a_person_takes_for_one_are_refused(folder, other):
    folder.add("a", CAT, voc_object(other, (1, 1, 9, 9))).list("train", "a")

    with pytest.raises(DatasetError, match="case or blank") as caught:
        read_dataset(folder.source, Split.TRAIN)

    assert f"{folder.annotations / 'a.xml'}:5" in caught.value.message
    assert f"{folder.annotations / 'a.xml'}:9" in caught.value.message


def test_blanks_around_a_class_name_are_taken_off_and_counted(folder):
    indented = voc_object("\n  cat\n", (1, 1, 9, 9))
    folder.add("a", CAT, voc_object("cat ", (1, 1, 9, 9)), indented).list("train", "a")

    dataset = read_dataset(folder.source, Split.TRAIN)

    assert dataset.class_names == ("background", "cat")
    assert kinds(dataset) == ["blank-in-class"]


def test_a_class_called_background_is_refused(folder):
    folder.add("a", voc_object("Background", (1, 1, 9, 9))).list("train", "a")

    with pytest.raises(DatasetError, match="never annotated"):
        read_dataset(folder.source, Split.TRAIN)


def test_a_labelimg_folder_is_split_by_the_names_of_its_files(tmp_path):
    folder = VocFolder(tmp_path, labelimg=True)
    for index in range(60):
        folder.add(f"image {index}", CAT)

    parts = {split: read_dataset(folder.source, split) for split in Split}
    names = {split: {s.image_id for s in part.samples} for split, part in parts.items()}

    assert names[Split.TRAIN] | names[Split.VAL] == names[Split.TRAINVAL]
    assert not names[Split.TRAIN] & names[Split.VAL]
    assert not names[Split.TRAINVAL] & names[Split.TEST]
    assert len(names[Split.TRAINVAL]) + len(names[Split.TEST]) == 60
    assert len(names[Split.TRAIN]) > 30
    assert kinds(parts[Split.TRAIN]) == ["split-made"]


def test_a_made_split_stays_when_images_are_added(tmp_path):
    folder = VocFolder(tmp_path, labelimg=True)
    for index in range(20):
        folder.add(f"{index}", CAT)
    before = {sample.image_id for sample in read_dataset(folder.source, Split.TRAIN).samples}
    for index in range(20, 40):
        folder.add(f"{index}", CAT)

    after = {sample.image_id for sample in read_dataset(folder.source, Split.TRAIN).samples}
    other_seed = read_dataset(folder.source, Split.TRAIN, seed=1).samples

    assert before == {name for name in after if int(name) < 20}
    assert after != {sample.image_id for sample in other_seed}


def test_too_few_images_for_a_made_split_are_told_apart_from_bad_ones(tmp_path):
    folder = VocFolder(tmp_path, labelimg=True).add("a", CAT)
    made = made_split("a", 0)

    assert len(read_dataset(folder.source, made)) == 1
    for split in {Split.TRAIN, Split.VAL, Split.TEST} - {made}:
        with pytest.raises(DatasetError, match="too few images") as caught:
            read_dataset(folder.source, split)
        assert "ImageSets/Main" in caught.value.hint


def test_folders_for_train_valid_and_test(tmp_path):
    """As Roboflow exports VOC."""
    for part, name in (("train", "cat"), ("valid", "dog"), ("test", "ant")):
        thing = voc_object(name, (1, 1, 9, 9))
        VocFolder(tmp_path / part, labelimg=True).add("a", thing).add("b", thing)

    parts = {split: read_dataset(f"voc:{tmp_path}", split) for split in Split}

    assert {split: len(part) for split, part in parts.items()} == {
        Split.TRAIN: 2,
        Split.VAL: 2,
        Split.TRAINVAL: 4,
        Split.TEST: 2,
    }
    assert {part.class_names for part in parts.values()} == {("background", "ant", "cat", "dog")}
    assert [sample.image_id for sample in parts[Split.VAL].samples] == ["valid/a", "valid/b"]
    assert all(part.problems == () for part in parts.values())


def test_a_folder_for_train_alone_has_no_test(tmp_path):
    VocFolder(tmp_path / "train", labelimg=True).add("a", CAT)

    with pytest.raises(DatasetError, match="no split 'test', only train"):
        read_dataset(f"voc:{tmp_path}", Split.TEST)


def test_flags_folders_and_extensions_in_a_list_are_ignored(folder):
    folder.add("a", CAT).add("b 1", CAT).add("c.v1", CAT).add("d", CAT)
    folder.list("train", "a  -1", "b 1", "", "c.v1", "JPEGImages/d.jpg")

    samples = read_dataset(folder.source, Split.TRAIN).samples

    assert [sample.image_id for sample in samples] == ["a", "b 1", "c.v1", "d"]


def test_roots_of_the_same_name_keep_their_images_apart(tmp_path):
    folders = [VocFolder(tmp_path / part / "VOC").add("1", CAT).list("train", "1") for part in "ab"]

    samples = read_dataset(f"voc:{folders[0].root},{folders[1].root}", Split.TRAIN).samples

    assert [s.image_id for s in samples] == [f"{folder.root}/1" for folder in folders]


def test_unknown_and_empty_splits_are_refused(folder):
    folder.add("a", CAT).list("train", "a").list("val")

    with pytest.raises(DatasetError, match="only train, val") as missing:
        read_dataset(folder.source, Split.TEST)
    with pytest.raises(DatasetError, match="has no image"):
        read_dataset(folder.source, Split.VAL)

    assert "test.txt" in missing.value.hint


def test_nothing_usable_says_why(folder):
    folder.add("a", CAT, size=(9, 9)).add("b", CAT, size=(9, 9)).list("train", "a", "b")
    folder.add("c").list("val", "c")

    with pytest.raises(DatasetError, match="2 x annotations drawn for an image of another size"):
        read_dataset(folder.source, Split.TRAIN)
    with pytest.raises(DatasetError, match="no object"):
        read_dataset(folder.source, Split.VAL)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("voc:{}/nowhere", "no such folder"),
        ("voc:{}", "no image"),
        ("{}", "voc:"),
        ("voc:", "the format of the data set is missing"),
        ("data.yaml", "yolo:data.yaml"),
        ("a/b.json", "coco:a/b.json,IMAGES"),
        ("zip:thing", "voc:ROOT"),
    ],
)
def test_a_source_that_cannot_be_read_says_what_to_type(tmp_path, source, words):
    with pytest.raises(DatasetError) as caught:
        read_dataset(source.format(tmp_path), Split.TRAIN)

    assert words in str(caught.value)


def test_the_steps_are_told(folder):
    told = []
    folder.add("a", CAT).add("b", CAT).list("train", "a")

    read_dataset(folder.source, Split.TRAIN, progress=lambda *step: told.append(step))

    assert ("reading annotations of set", 1, 1) in told
    assert ("looking for classes", 1, 1) in told
    assert ("reading image sizes", 1, 1) in told


def test_the_size_of_a_photograph_that_lies_on_its_side(folder):
    """A viewer, LabelImg and `read_image` turn it; the sizes must agree."""
    folder.add("a", CAT, size=(48, 64)).list("train", "a")
    path = folder.images / "a.jpg"
    tiff = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    exif = b"Exif\0\0" + tiff
    jpeg = path.read_bytes()
    path.write_bytes(jpeg[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + jpeg[2:])

    (sample,) = read_dataset(folder.source, Split.TRAIN).samples

    assert (sample.width, sample.height) == (48, 64)


@zoo.needs_bccd
def test_bccd_reads_whole_but_for_its_known_slips():
    dataset = read_dataset(f"voc:{zoo.BCCD}", Split.TRAINVAL)

    assert len(dataset) == 292
    assert dataset.class_names == ("background", "Platelets", "RBC", "WBC")
    assert kinds(dataset) == ["empty-box", "empty-box"]
    counts = np.bincount(np.concatenate([s.truth.labels for s in dataset.samples]))
    assert counts.sum() == 3941
