"""Classes are matched by name, in whatever order; what does not match is said."""

import numpy as np
import pytest

from mbv3ssd_deploy.core.detections import Detections
from mbv3ssd_deploy.errors import DatasetError
from mbv3ssd_deploy.evaluate.evaluate import match_classes

MODEL = ("background", "cat", "dog", "dining table")


def test_order_does_not_matter():
    match = match_classes(MODEL, ("background", "dining table", "cat", "dog"))

    assert match.labels.tolist() == [0, 2, 3, 1]
    assert match.notices() == ()


def test_detections_take_the_datas_labels_and_lose_what_it_does_not_have():
    match = match_classes(MODEL, ("background", "dog"))
    found = Detections(np.zeros((3, 4)), np.array([0.9, 0.8, 0.7]), np.array([1, 2, 3]))

    kept = match.of_data(found)

    assert kept.labels.tolist() == [1]
    assert kept.scores.tolist() == pytest.approx([0.8])
    assert match.unused == ("cat", "dining table")
    assert "'cat', 'dining table'" in match.notices()[0]


def test_spelling_is_forgiven_and_said():
    match = match_classes(MODEL, ("background", "Dining_Table", "cat", "dog"))

    assert match.labels.tolist() == [0, 2, 3, 1]
    assert match.notices() == ("different spellings: 'dining table' is 'Dining_Table'",)


def test_an_exact_name_is_never_taken_by_a_similar_one():
    match = match_classes(("background", "Cat", "cat"), ("background", "cat", "cow"))

    assert match.labels.tolist() == [0, 0, 1]


def test_what_the_model_does_not_know_counts_as_missed_and_is_said():
    match = match_classes(MODEL, ("background", "cat", "dog", "dining table", "zebra"))

    assert match.unknown == ("zebra",)
    assert match.notices() == ("the model does not know 'zebra': such objects count as missed",)


def test_names_that_do_not_fit_at_all_are_refused():
    with pytest.raises(DatasetError) as caught:
        match_classes(("background", "class_1", "class_2"), ("background", "cat", "dog"))

    assert "the data has 'cat', 'dog'; the model has 'class_1', 'class_2'" in str(caught.value)
    assert "--labels" in caught.value.hint


def test_long_lists_are_cut():
    many = ("background", *(f"c{i}" for i in range(20)))

    (notice,) = match_classes(("background", "c0"), many).notices()

    assert "and 11 more" in notice
